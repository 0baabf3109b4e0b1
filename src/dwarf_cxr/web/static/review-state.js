/* What the page knows of a film: the reader's words, what is suggested, what is chosen and drawn. */

import { viewer } from "/static/review-film.js";

export const HIDDEN = "dwarf-review-hide";
export const $ = (id) => document.getElementById(id);
export const findingButtons = [...document.querySelectorAll("#findings button")];
export const names = findingButtons.map((button) => button.querySelector(".name").textContent);

/* Readers differ on the finding, and this is who decides. */
export const isDisputed = (finding) => findingButtons[finding].dataset.disputed !== undefined;

export const state = {
  findings: names.map(() => ({ verdict: null, regions: [], comment: "" })),
  suggestions: names.map(() => []),
  current: 0, // the finding
  unmarked: {}, // by finding: the verdict without the regions that are marked since
  chosen: null, // { region } or { by, number }, and corner
  pointed: null, // { region } or { by, number } under a pointer that selects
  draft: null, // what is being drawn or dragged
  cross: null, // where the keyboard draws
  toolName: "select",
  started: false, // the state is known
  busy: true, // until then, and while an undo is under way
  hidden: localStorage.getItem(HIDDEN) === "yes", // the suggestions
};

const shows = [];

/* `show` is called whenever something of the state was changed. */
export function onRender(show) {
  shows.push(show);
}

export function render() {
  for (const show of shows) show();
  viewer.redraw();
}

export function stopDrawing() {
  state.draft = null;
  render();
}

let messageTimer;

export function say(words, isError = false) {
  const line = $("message");
  line.textContent = words;
  line.hidden = false;
  line.classList.toggle("error", isError);
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => (line.hidden = true), isError ? 15000 : 5000);
}

/* What was said of something else is taken away; what went wrong stays. */
export function hush() {
  if (!$("message").classList.contains("error")) $("message").hidden = true;
}

export const counts = (region) => region.origin !== "rejected";
export const own = () => state.findings[state.current].regions;

/* A region's number on film and list: rejected suggestions have none. */
export const numberOf = (index) => own().slice(0, index + 1).filter(counts).length;

function isAnswered(by, index) {
  return own().some((region) => region.suggested?.by === by && region.suggested.number === index);
}

/* What is suggested and neither accepted nor rejected yet. */
export function open(group) {
  return group.regions.map((shape, index) => ({ by: group.by, number: index, shape }))
    .filter((one) => !isAnswered(one.by, one.number));
}

export function chosenShape() {
  if (!state.chosen) return null;
  if (state.chosen.region !== undefined) return own()[state.chosen.region]?.shape ?? null;
  const group = state.suggestions[state.current].find((one) => one.by === state.chosen.by);
  return group?.regions[state.chosen.number] ?? null;
}
