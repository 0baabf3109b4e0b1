/* What is seen on the film: map, suggestions, regions, and what is being drawn. */

import { apart, height, number, perPixel, view, viewer, width } from "/static/review-film.js";
import { boundsOf, cornersOf, paintShape, tint } from "/static/review-shapes.js";
import { $, chosenShape, counts, HIDDEN, numberOf, onRender, open, own, render, state } from "/static/review-state.js";

const OWN = "#8cc8ff";

/* Who suggests something: told apart by colour, also with a colour vision deficiency, and by dashes. */
const STROKES = { run: { colour: "#ff9628", dash: [8, 5] }, data: { colour: "#7ee0a0", dash: [8, 5] } };
const READERS = [
  { colour: "#d9a8ff", dash: [8, 5] },
  { colour: "#f0e442", dash: [2, 4] },
  { colour: "#ffffff", dash: [14, 4, 2, 4] },
  { colour: "#ff6f91", dash: [4, 8] },
];

export function strokeOf(group) {
  if (group.kind !== "reader") return STROKES[group.kind];
  return READERS[(Number(group.by.split("-")[1]) - 1) % READERS.length];
}

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

/* Names above the regions, or below; where they would lie over each other, the first stays: what
   is chosen or pointed at comes first. Returns what is shown. */
function paintTags(context, tags, line) {
  context.font = `600 ${13 * line}px system-ui, sans-serif`;
  const placed = [];
  for (const one of [...tags].sort((a, b) => b.rank - a.rank)) {
    const wide = context.measureText(one.text).width + 8 * line;
    const [left, top, , bottom] = boundsOf(one.shape);
    const x = Math.max(0, Math.min(left, width - wide));
    const isFree = (y) => !placed.some((other) => (
      x < other.x + other.wide && other.x < x + wide && Math.abs(y - other.y) < 18 * line
    ));
    const y = [Math.max(0, top - 19 * line), Math.min(bottom + line, height - 18 * line)].find(isFree);
    if (y === undefined) continue;
    placed.push({ x, y, wide, text: one.text });
    context.fillStyle = "rgb(0 0 0 / 75%)";
    context.fillRect(x, y, wide, 18 * line);
    context.fillStyle = one.colour;
    context.fillText(one.text, x + 4 * line, y + 13.5 * line);
  }
  return placed.map(({ text }) => text);
}

/* What is chosen before what is pointed at, then the reader's own. */
const rankOf = (isChosen, isPointed, rank) => (isChosen ? 4 : isPointed ? 3 : rank);

viewer.painters.push((context) => {
  const line = perPixel();
  const tags = [];
  const pointed = state.pointed;
  const over = state.draft?.kind === "reshape" || state.draft?.kind === "paint";
  if (!state.hidden) {
    for (const group of state.suggestions[state.current]) {
      const { colour, dash } = strokeOf(group);
      for (const piece of open(group)) {
        const isChosen = state.chosen?.by === piece.by && state.chosen.number === piece.number;
        if (isChosen && over) continue;
        const isPointed = pointed?.by === piece.by && pointed.number === piece.number;
        paintShape(context, piece.shape, { colour, line, dash, chosen: isChosen || isPointed });
        tags.push({ text: `${group.title}, region ${piece.number + 1}`, shape: piece.shape, colour, rank: rankOf(isChosen, isPointed, 1) });
      }
    }
  }
  own().forEach((region, index) => {
    if (!counts(region)) return;
    const isChosen = state.chosen?.region === index;
    if (isChosen && over) return;
    paintShape(context, region.shape, { colour: OWN, line, chosen: isChosen, fill: isChosen });
    tags.push({ text: `${numberOf(index)}`, shape: region.shape, colour: OWN, rank: rankOf(isChosen, pointed?.region === index, 2) });
  });
  $("film").dataset.named = paintTags(context, tags, line).join("; ");
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
