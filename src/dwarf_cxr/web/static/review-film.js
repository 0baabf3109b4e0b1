/* The film under review on the page: its view, its viewer, and places on it. */

import { FilmViewer, View } from "/static/film.js";

const { dataset } = document.getElementById("main");
export const number = Number(dataset.number);
export const width = Number(dataset.width);
export const height = Number(dataset.height);
export const view = new View();
export const viewer = new FilmViewer(document.getElementById("film"), view);

export const clampToFilm = ({ x, y }) => [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
export const perPixel = () => 1 / viewer.frame().scale;
export const apart = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by);
