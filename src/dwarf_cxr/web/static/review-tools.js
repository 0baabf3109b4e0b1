/* The drawing tools under a pointer: select, box, polygon, brush, eraser. */

import { addRegion, answer, removeRegion, reshape } from "/static/review-edits.js";
import { apart, clampToFilm, height, perPixel, view, viewer, width } from "/static/review-film.js";
import {
  boundsOf, canvasOf, cornersOf, isInside, maskOf, moved, withCorner, withPoint,
} from "/static/review-shapes.js";
import { $, chosenShape, counts, open, own, render, say, state, stopDrawing } from "/static/review-state.js";

const REACH = { mouse: 10, pen: 14, touch: 24 }; // CSS pixels around a corner
const SMALLEST = 4; // CSS pixels of a box's side

/* Drag to move the film, a chosen region or one of its corners; tap to choose. */
export const selectTool = {
  down(point, event) {
    const at = [point.x, point.y];
    const reach = (REACH[event.pointerType] ?? 12) * perPixel();
    this.start = { x: event.clientX, y: event.clientY };
    this.drag = null;
    const shape = chosenShape();
    if (shape) {
      const corners = cornersOf(shape);
      const near = corners.findIndex((corner) => apart(corner, at) < reach);
      if (near >= 0) {
        state.chosen = { ...state.chosen, corner: near };
        this.drag = { kind: "corner", shape };
      } else if (shape.kind === "polygon") {
        const side = corners.findIndex((corner, index) => {
          const next = corners[(index + 1) % corners.length];
          return apart([(corner[0] + next[0]) / 2, (corner[1] + next[1]) / 2], at) < reach * 0.8;
        });
        if (side >= 0) {
          state.chosen = { ...state.chosen, corner: side + 1 };
          this.drag = { kind: "corner", shape: withPoint(shape, side + 1, at) };
        }
      }
      if (!this.drag && shape.kind !== "mask" && isInside(shape, point.x, point.y)) {
        this.drag = { kind: "whole", shape, from: at };
      }
    }
    this.drag ??= { kind: "pan" };
    viewer.redraw();
  },
  move(point, event) {
    const far = Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) > 3;
    if (!far && !this.drag.going) return;
    if (this.drag.kind === "pan") {
      const last = this.drag.last ?? this.start;
      const { scale } = viewer.frame();
      view.pan((last.x - event.clientX) / scale / width, (last.y - event.clientY) / scale / height);
      this.drag.last = { x: event.clientX, y: event.clientY };
    } else if (this.drag.kind === "corner") {
      state.draft = { kind: "reshape", shape: withCorner(this.drag.shape, state.chosen.corner, clampToFilm(point)) };
    } else {
      const [x, y] = this.drag.from;
      state.draft = { kind: "reshape", shape: moved(this.drag.shape, point.x - x, point.y - y) };
    }
    this.drag.going = true;
    viewer.redraw();
  },
  up(point) {
    const { going, kind } = this.drag;
    if (state.draft?.kind === "reshape") {
      const { shape } = state.draft;
      state.draft = null;
      reshape(shape);
    } else if (!going && kind !== "corner") {
      state.chosen = under(point);
    } else if (!going && this.drag.shape !== chosenShape()) {
      state.chosen = { ...state.chosen, corner: undefined }; // a corner that was not pulled out of the side
    }
    this.drag = null;
    render();
  },
  hover(point) {
    const at = under(point);
    const same = at?.region === state.pointed?.region && at?.by === state.pointed?.by && at?.number === state.pointed?.number;
    if (same) return;
    state.pointed = at;
    viewer.redraw();
  },
  cancel() {
    state.draft = null;
    this.drag = null;
    viewer.redraw();
  },
};

/* The region or suggestion at a place: the smallest first, so that what lies on top can be had. */
function under({ x, y }) {
  const pieces = own().map((region, index) => ({ region: index, shape: region.shape, there: counts(region) }))
    .filter((one) => one.there);
  if (!state.hidden) for (const group of state.suggestions[state.current]) pieces.push(...open(group));
  const size = ({ shape }) => {
    const [left, top, right, bottom] = boundsOf(shape);
    return (right - left) * (bottom - top);
  };
  const hit = pieces.filter(({ shape }) => isInside(shape, x, y)).sort((a, b) => size(a) - size(b))[0];
  if (!hit) return null;
  return hit.region !== undefined ? { region: hit.region } : { by: hit.by, number: hit.number };
}

export const boxTool = {
  down(point) {
    const [x, y] = clampToFilm(point);
    state.draft = { kind: "box", x1: x, y1: y, x2: x, y2: y };
    viewer.redraw();
  },
  move(point) {
    if (state.draft?.kind !== "box") return;
    [state.draft.x2, state.draft.y2] = clampToFilm(point);
    viewer.redraw();
  },
  up(point) {
    if (state.draft?.kind !== "box") return;
    [state.draft.x2, state.draft.y2] = clampToFilm(point);
    const { x1, y1, x2, y2 } = state.draft;
    state.draft = null;
    const smallest = SMALLEST * perPixel();
    if (Math.abs(x2 - x1) < smallest || Math.abs(y2 - y1) < smallest) return render();
    addRegion({ kind: "box", x1: Math.min(x1, x2), y1: Math.min(y1, y2), x2: Math.max(x1, x2), y2: Math.max(y1, y2) });
  },
  cancel: stopDrawing,
};

/* Tap corner by corner, or draw the outline in one go; on the first corner it closes. */
export const polygonTool = {
  down(point, event) {
    const at = clampToFilm(point);
    const reach = (REACH[event.pointerType] ?? 12) * perPixel();
    if (state.draft?.kind === "polygon") {
      if (state.draft.points.length > 2 && apart(state.draft.points[0], at) < reach) return closePolygon();
      if (apart(state.draft.points.at(-1), at) > perPixel()) state.draft.points.push(at);
    } else {
      state.draft = { kind: "polygon", points: [at] };
    }
    state.draft.free = 0;
    render();
  },
  move(point) {
    if (state.draft?.kind !== "polygon") return;
    const at = clampToFilm(point);
    state.draft.hover = at;
    if (apart(state.draft.points.at(-1), at) > 9 * perPixel()) {
      state.draft.points.push(at);
      state.draft.free += 1;
    }
    viewer.redraw();
  },
  hover(point) {
    if (state.draft?.kind !== "polygon") return;
    state.draft.hover = clampToFilm(point);
    viewer.redraw();
  },
  up() {
    if (state.draft?.kind === "polygon" && state.draft.free > 7) closePolygon();
  },
  cancel: stopDrawing,
};

export function closePolygon() {
  if (state.draft?.kind !== "polygon") return;
  const { points } = state.draft;
  state.draft = null;
  if (points.length < 3) {
    say("A polygon needs at least three corners.");
    return render();
  }
  addRegion({ kind: "polygon", points });
}

/* Brush and eraser paint on a canvas of the film's size; what is opaque at the end is the mask.
   The brush goes on with a mask that is chosen, and else begins a region: a box or polygon that
   was just drawn stays as it is. */
function paintTool(erases) {
  return {
    down(point) {
      const masks = own().map((region, index) => ({ region: index, mask: counts(region) && region.shape.kind === "mask" }));
      if (!erases && chosenShape()?.kind !== "mask") state.chosen = null;
      if (erases && !state.chosen) {
        const last = masks.filter((one) => one.mask).at(-1);
        if (last) state.chosen = { region: last.region };
      }
      if (erases && !state.chosen) {
        say("Choose a region to erase from, with V and a tap, or Q.");
        return;
      }
      const shape = chosenShape();
      state.draft = { kind: "paint", erases, canvas: canvasOf(shape, width, height), isNew: !shape, last: point };
      this.stroke(point);
    },
    stroke(point) {
      const context = state.draft.canvas.getContext("2d");
      context.globalCompositeOperation = erases ? "destination-out" : "source-over";
      context.lineWidth = Number($("brush-size").value) * perPixel();
      context.lineCap = "round";
      context.strokeStyle = "#fff";
      context.beginPath();
      context.moveTo(state.draft.last.x, state.draft.last.y);
      context.lineTo(point.x + 0.01, point.y);
      context.stroke();
      state.draft.last = point;
      state.draft.shown = null;
      viewer.redraw();
    },
    move(point) {
      if (state.draft?.kind === "paint") this.stroke(point);
      state.cross = null;
    },
    hover(point) {
      state.draft ??= { kind: "ring" };
      if (state.draft.kind === "ring") state.draft.at = point;
      viewer.redraw();
    },
    up() {
      if (state.draft?.kind !== "paint") return;
      const { canvas, isNew } = state.draft;
      state.draft = null;
      const mask = maskOf(canvas);
      if (mask && isNew) addRegion(mask);
      else if (mask) reshape(mask);
      else if (state.chosen?.region !== undefined) removeRegion(state.chosen.region);
      else if (state.chosen) answer([{ ...state.chosen, shape: chosenShape() }], "rejected");
      render();
    },
    cancel: stopDrawing,
  };
}

export const TOOLS = {
  select: selectTool, box: boxTool, polygon: polygonTool, brush: paintTool(false), eraser: paintTool(true),
};

/* While nothing is known, and while an undo is under way, nothing is drawn. */
const guarded = (tool) => ({
  down: (...told) => {
    if (state.busy) say(state.started ? "Draw again when the undo is done." : "The film is still loading.");
    else tool.down(...told);
  },
  move: (...told) => { if (!state.busy && (tool !== selectTool || tool.drag)) tool.move(...told); },
  hover: (...told) => { if (!state.busy) tool.hover?.(...told); },
  up: (...told) => { if (!state.busy && (tool !== selectTool || tool.drag)) tool.up(...told); },
  cancel: () => tool.cancel(),
});

/* With `focus`, the keys that follow are the film's and not a button's. */
export function setTool(name, focus = false) {
  stopDrawing();
  state.toolName = name;
  state.cross = null;
  state.pointed = null;
  viewer.tool = guarded(TOOLS[name]);
  for (const button of $("draw-tools").querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", button.dataset.tool === name);
  }
  $("film").style.cursor = name === "select" ? "grab" : "crosshair";
  if (focus) $("film").focus({ preventScroll: true });
  render();
}
