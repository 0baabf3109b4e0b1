/* What is seen on the film: map, suggestions, regions, and what is being drawn. */

import { apart, height, number, perPixel, view, viewer, width } from "/static/review-film.js";
import { boundsOf, cornersOf, paintShape, tint } from "/static/review-shapes.js";
import { $, chosenShape, counts, HIDDEN, numberOf, onRender, open, own, render, state } from "/static/review-state.js";

const OWN = "#8cc8ff";
export const COLOURS = { run: "#ff9628", data: "#7ee0a0", reader: "#d9a8ff" };

const maps = new Map();

export async function showMap() {
  const group = state.suggestions[state.current].find((one) => one.kind === "run");
  const wanted = state.current;
  if (!group) {
    viewer.layers = [];
    return viewer.redraw();
  }
  if (!maps.has(wanted)) {
    const image = new Image();
    image.src = `/films/${number}/maps/${wanted}.png`;
    maps.set(wanted, image);
  }
  const image = maps.get(wanted);
  viewer.layers = [];
  try {
    await image.decode();
    if (wanted === state.current) viewer.layers = [image];
  } catch {
    maps.delete(wanted);
  }
  viewer.redraw();
}

export function setHidden(hide) {
  state.hidden = hide;
  localStorage.setItem(HIDDEN, hide ? "yes" : "no");
  if (hide && state.chosen?.by) state.chosen = null;
  view.layersShown = !hide;
  view.changed();
  render();
}

// the viewer shows its layers again when it is reset or the opacity changes; hidden is hidden
view.addEventListener("change", () => { if (state.hidden) view.layersShown = false; });

function tag(context, text, [x, y], colour, line) {
  context.font = `600 ${13 * line}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 8 * line;
  context.fillStyle = "rgb(0 0 0 / 75%)";
  context.fillRect(x, y - 19 * line, wide, 18 * line);
  context.fillStyle = colour;
  context.fillText(text, x + 4 * line, y - 5.5 * line);
}

viewer.painters.push((context) => {
  const line = perPixel();
  const over = state.draft?.kind === "reshape" || state.draft?.kind === "paint";
  if (!state.hidden) {
    for (const group of state.suggestions[state.current]) {
      for (const piece of open(group)) {
        const isChosen = state.chosen?.by === piece.by && state.chosen.number === piece.number;
        if (isChosen && over) continue;
        paintShape(context, piece.shape, { colour: COLOURS[group.kind], line, dashed: true, chosen: isChosen });
        const [left, top] = boundsOf(piece.shape);
        tag(context, `${group.title} ${piece.number + 1}`, [left, top], COLOURS[group.kind], line);
      }
    }
  }
  own().forEach((region, index) => {
    if (!counts(region)) return;
    const isChosen = state.chosen?.region === index;
    if (isChosen && over) return;
    paintShape(context, region.shape, { colour: OWN, line, chosen: isChosen, fill: isChosen });
    const [left, top] = boundsOf(region.shape);
    tag(context, `${numberOf(index)}`, [left, top], OWN, line);
  });
  if (state.draft?.kind === "reshape") paintShape(context, state.draft.shape, { colour: OWN, line, chosen: true, fill: true });
  if (state.draft?.kind === "box") paintShape(context, state.draft, { colour: OWN, line, chosen: true });
  if (state.draft?.kind === "polygon") paintDraft(context, line);
  if (state.draft?.kind === "paint") paintStroke(context);
  if (state.draft?.kind === "ring" && state.draft.at) ring(context, state.draft.at, line);
  const shape = state.draft?.kind === "reshape" ? state.draft.shape : chosenShape();
  if (shape && state.draft?.kind !== "paint") paintCorners(context, shape, line);
  if (state.cross) paintCross(context, line);
});

function paintDraft(context, line) {
  const points = state.draft.hover ? [...state.draft.points, state.draft.hover] : state.draft.points;
  context.beginPath();
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.lineWidth = 4 * line;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.stroke();
  context.lineWidth = 2 * line;
  context.strokeStyle = OWN;
  context.stroke();
  state.draft.points.forEach((point, index) => dot(context, point, (index ? 4 : 7) * line, line, index === 0));
}

function paintStroke(context) {
  if (!state.draft.shown) {
    state.draft.shown = document.createElement("canvas");
    state.draft.shown.width = width;
    state.draft.shown.height = height;
    state.draft.shown.getContext("2d").drawImage(state.draft.canvas, 0, 0);
    tint(state.draft.shown, OWN);
  }
  context.globalAlpha = 0.5;
  context.drawImage(state.draft.shown, 0, 0);
  context.globalAlpha = 1;
}

function paintCorners(context, shape, line) {
  const corners = cornersOf(shape);
  corners.forEach((corner, index) => {
    if (shape.kind === "polygon") {
      const next = corners[(index + 1) % corners.length];
      const middle = [(corner[0] + next[0]) / 2, (corner[1] + next[1]) / 2];
      if (apart(corner, next) > 30 * line) dot(context, middle, 3 * line, line, false);
    }
    const isChosen = state.chosen?.corner === index;
    dot(context, corner, (isChosen ? 8 : 6) * line, line, isChosen);
  });
}

function dot(context, [x, y], radius, line, full) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = full ? OWN : "rgb(0 0 0 / 70%)";
  context.fill();
  context.lineWidth = 1.5 * line;
  context.strokeStyle = full ? "#fff" : OWN;
  context.stroke();
}

function ring(context, { x, y }, line) {
  context.beginPath();
  context.arc(x, y, (Number($("brush-size").value) / 2) * line, 0, 2 * Math.PI);
  context.lineWidth = 1.5 * line;
  context.strokeStyle = OWN;
  context.stroke();
}

function paintCross(context, line) {
  context.lineWidth = 1.5 * line;
  context.strokeStyle = "#fff";
  context.beginPath();
  context.moveTo(state.cross.x - 14 * line, state.cross.y);
  context.lineTo(state.cross.x + 14 * line, state.cross.y);
  context.moveTo(state.cross.x, state.cross.y - 14 * line);
  context.lineTo(state.cross.x, state.cross.y + 14 * line);
  context.stroke();
  if (state.toolName === "brush" || state.toolName === "eraser") ring(context, state.cross, line);
}

let shownMap = null;

onRender(() => {
  const its = state.suggestions[state.current];
  if (its === shownMap) return;
  shownMap = its;
  showMap();
});
