/* Drawing and correcting with the keyboard: a cross that sets points, corners that are moved. */

import { answer, removeRegion, reshape } from "/static/review-edits.js";
import { clampToFilm, perPixel, viewer } from "/static/review-film.js";
import { cornersOf, withCorner, withoutPoint } from "/static/review-shapes.js";
import { $, chosenShape, counts, open, own, render, say, state } from "/static/review-state.js";
import { boxTool, polygonTool, selectTool, TOOLS } from "/static/review-tools.js";

const STEP = 8; // CSS pixels of a key

export const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function moveCross(event) {
  const [dx, dy] = ARROWS[event.key];
  const step = event.shiftKey ? 1 : STEP * perPixel();
  if (!state.cross) {
    const canvas = $("film");
    const box = canvas.getBoundingClientRect();
    state.cross = viewer.toFilm(box.left + box.width / 2, box.top + box.height / 2);
  } else {
    state.cross = { x: state.cross.x + dx * step, y: state.cross.y + dy * step };
  }
  const [x, y] = clampToFilm(state.cross);
  state.cross = { x, y };
  if (state.draft?.kind === "box") [state.draft.x2, state.draft.y2] = [x, y];
  if (state.draft?.kind === "polygon") state.draft.hover = [x, y];
  viewer.redraw();
}

export function press() {
  if (state.busy) return;
  if (!state.cross) moveCross({ key: "ArrowRight" }); // into the middle
  const event = { pointerType: "mouse", clientX: 0, clientY: 0 };
  if (state.toolName === "box") {
    if (state.draft?.kind === "box") boxTool.up(state.cross);
    else boxTool.down(state.cross);
  } else if (state.toolName === "polygon") {
    polygonTool.down(state.cross, event);
  } else {
    const at = state.cross;
    TOOLS[state.toolName].down(at);
    TOOLS[state.toolName].up(at);
    state.cross = at;
  }
  viewer.redraw();
}

let nudge = null;

/* Move the chosen corner; what was moved is saved when the keys rest. */
export function moveCorner(event) {
  const [dx, dy] = ARROWS[event.key];
  const step = event.shiftKey ? 0.5 : 4 * perPixel();
  const shape = state.draft?.kind === "reshape" ? state.draft.shape : chosenShape();
  const [x, y] = cornersOf(shape)[state.chosen.corner];
  state.draft = { kind: "reshape", shape: withCorner(shape, state.chosen.corner, clampToFilm({ x: x + dx * step, y: y + dy * step })) };
  viewer.redraw();
  clearTimeout(nudge);
  nudge = setTimeout(settle, 400);
}

export function settle() {
  clearTimeout(nudge);
  if (state.draft?.kind !== "reshape" || selectTool.drag) return;
  const { shape } = state.draft;
  state.draft = null;
  reshape(shape);
}

export function chooseNext() {
  settle();
  const pieces = own().map((region, index) => ({ region: index, there: counts(region) })).filter((one) => one.there)
    .map(({ region }) => ({ region }));
  if (!state.hidden) for (const group of state.suggestions[state.current]) pieces.push(...open(group).map(({ by, number: n }) => ({ by, number: n })));
  if (!pieces.length) return say("There is no region to choose.");
  const at = pieces.findIndex((one) => one.region === state.chosen?.region && one.by === state.chosen?.by && one.number === state.chosen?.number);
  choosePiece(pieces[(at + 1) % pieces.length]);
}

export function chooseCorner() {
  settle();
  const corners = cornersOf(chosenShape() ?? {});
  if (!corners.length) return say("Choose a box or a polygon first, with Q.");
  state.chosen = { ...state.chosen, corner: ((state.chosen.corner ?? -1) + 1) % corners.length };
  viewer.redraw();
}

export function remove() {
  if (state.draft?.kind === "polygon") {
    state.draft.points.pop();
    if (!state.draft.points.length) state.draft = null;
    return render();
  }
  settle();
  const shape = chosenShape();
  if (!shape) return say("Choose a region first, with Q.");
  if (shape.kind === "polygon" && state.chosen.corner !== undefined && shape.points.length > 3) {
    const corner = state.chosen.corner;
    const fewer = withoutPoint(shape, corner);
    state.chosen = { ...state.chosen, corner: undefined };
    return reshape(fewer);
  }
  if (state.chosen.region !== undefined) removeRegion(state.chosen.region);
  else answer([{ ...state.chosen, shape }], "rejected");
}

/* Choose a region or a suggestion of the finding, or none. */
export function choosePiece(piece) {
  settle();
  state.chosen = piece;
  render();
}
