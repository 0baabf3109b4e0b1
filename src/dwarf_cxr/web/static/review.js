/* A film under review: one reader's verdicts and regions, drawn over it and saved at once. */

import { connectTools, FilmViewer, isTyping, pressKey, View } from "/static/film.js";
import { flushAll, Outbox } from "/static/review-outbox.js";
import { Turns } from "/static/review-turns.js";
import {
  boundsOf, canvasOf, cornersOf, isInside, maskOf, moved, paintShape, tint, withCorner, withoutPoint, withPoint,
} from "/static/review-shapes.js";

const OWN = "#8cc8ff";
const COLOURS = { run: "#ff9628", data: "#7ee0a0", reader: "#d9a8ff" };
const MARKS = { present: ["●", "present"], absent: ["–", "absent"], unsure: ["?", "unsure"], null: ["○", "open"] };
const HIDDEN = "dwarf-review-hide";
const REACH = { mouse: 10, pen: 14, touch: 24 }; // CSS pixels around a corner
const SMALLEST = 4; // CSS pixels of a box's side
const STEP = 8; // CSS pixels of a key

const $ = (id) => document.getElementById(id);
const main = $("main");
const number = Number(main.dataset.number);
const { store } = main.dataset;
const width = Number(main.dataset.width);
const height = Number(main.dataset.height);
const findingButtons = [...document.querySelectorAll("#findings button")];
const names = findingButtons.map((button) => button.querySelector(".name").textContent);

let findings = names.map(() => ({ verdict: null, regions: [], comment: "" }));
let suggestions = names.map(() => []);
let current = 0;
let chosen = null; // { region } or { by, number }, and corner
let draft = null; // what is being drawn or dragged
let cross = null; // where the keyboard draws
let toolName = "select";
let busy = true; // until the state is known, and while an undo is under way
let canUndo = false;
let canRedo = false;
let hidden = localStorage.getItem(HIDDEN) === "yes";

const view = new View();
const viewer = new FilmViewer($("film"), view);

/* ---- saving ---- */

const outbox = new Outbox(store, number, {
  saved(state, notes, empty) {
    if (notes.length) say(notes.join(". ") + ".");
    if (empty) take(state);
    turns.run();
    showSaving();
  },
  waiting(words) {
    $("saving").dataset.state = "unsaved";
    $("saving").textContent = `Not saved. ${words}${turns.length ? ` ${turns.length} to be done after it.` : ""}`;
  },
  refused(words, state) {
    const dropped = turns.clear();
    say(dropped ? `${words} What you did after it was dropped.` : words, true);
    if (state) take(state);
    else load();
    showSaving();
  },
});

const turns = new Turns(() => busy, () => outbox.isEmpty);

function showSaving() {
  const empty = outbox.isEmpty;
  $("saving").dataset.state = empty ? "saved" : "saving";
  $("saving").textContent = empty ? "✓ Saved" : `Saving…${turns.length ? ` ${turns.length} to be done after it` : ""}`;
  $("undo").disabled = !(empty && canUndo);
  $("redo").disabled = !(empty && canRedo);
}

function take(state) {
  const touched = names.findIndex((_, k) => JSON.stringify(findings[k]) !== JSON.stringify(state.findings[k]));
  findings = state.findings;
  canUndo = state.can_undo;
  canRedo = state.can_redo;
  if (busy && touched >= 0 && touched !== current && started) {
    current = touched; // show what an undo changed
    showMap();
  }
  busy = false;
  if (chosen && chosen.region >= (findings[current].regions.length)) chosen = null;
  render();
}

function change(edits) {
  for (const [k, assessment] of Object.entries(edits)) findings[k] = assessment;
  outbox.add({ kind: "edit", findings: edits, shown: !hidden });
  showSaving();
  render();
}

function put(assessment) {
  change({ [current]: assessment });
}

function turn(kind) {
  if (!started) return say("The film is still loading.");
  if ($("saving").dataset.state === "unsaved") return say(`The ${kind} has to wait until all is saved.`);
  settle();
  const undoOrRedo = () => {
    if (!(kind === "undo" ? canUndo : canRedo)) return say(`There is nothing to ${kind}.`);
    stopDrawing();
    chosen = null;
    busy = true;
    outbox.add({ kind });
  };
  turns.add(undoOrRedo, true);
  showSaving();
}

/* Do it when no undo is under way: what is changed must build on what the undo leaves. */
function soon(action) {
  if (!started) return say("The film is still loading.");
  turns.add(action);
  showSaving();
}

let started = false;

async function load() {
  try {
    const response = await fetch(`/films/${number}/state`);
    if (response.status === 401) throw new Error("Your session has ended: open your private link again.");
    if (!response.ok) throw new Error("The server failed.");
    const state = await response.json();
    suggestions = state.suggestions;
    outbox.start(state.version);
    take(state);
    // what was not saved before a reload, on top of what was
    for (const one of outbox.box.changes) {
      for (const [k, assessment] of Object.entries(one.findings ?? {})) findings[k] = assessment;
    }
    if (!started) {
      const open = findings.findIndex((one) => one.verdict === null);
      choose(open < 0 ? 0 : open);
      started = true;
    }
    render();
    showSaving();
    outbox.send();
  } catch (fault) {
    $("saving").dataset.state = "unsaved";
    $("saving").textContent = `${fault.message || "No connection."} Trying again.`;
    setTimeout(load, 2000);
  }
}

let messageTimer;

function say(words, isError = false) {
  const line = $("message");
  line.textContent = words;
  line.hidden = false;
  line.classList.toggle("error", isError);
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => (line.hidden = true), isError ? 15000 : 5000);
}

/* ---- regions and suggestions of the finding ---- */

const counts = (region) => region.origin !== "rejected";
const own = () => findings[current].regions;

/* A region's number on film and list: rejected suggestions have none. */
const numberOf = (index) => own().slice(0, index + 1).filter(counts).length;

function isAnswered(by, index) {
  return own().some((region) => region.suggested?.by === by && region.suggested.number === index);
}

/* What is suggested and neither accepted nor rejected yet. */
function open(group) {
  return group.regions.map((shape, index) => ({ by: group.by, number: index, shape }))
    .filter((one) => !isAnswered(one.by, one.number));
}

function chosenShape() {
  if (!chosen) return null;
  if (chosen.region !== undefined) return own()[chosen.region]?.shape ?? null;
  const group = suggestions[current].find((one) => one.by === chosen.by);
  return group?.regions[chosen.number] ?? null;
}

function withRegions(regions, verdict = findings[current].verdict) {
  const there = regions.some(counts);
  // what is marked is there, unless the reader said that they are not sure
  return { ...findings[current], regions, verdict: there && verdict !== "unsure" ? "present" : verdict };
}

function addRegion(shape) {
  put(withRegions([...own(), { shape, origin: "drawn", suggested: null }]));
  chosen = { region: own().length - 1 };
  render();
}

/* Put another shape in the place of the chosen region; a chosen suggestion is thereby corrected. */
function reshape(shape) {
  if (chosen.region === undefined) {
    const region = { shape, origin: "corrected", suggested: { by: chosen.by, number: chosen.number } };
    const corner = chosen.corner;
    put(withRegions([...own(), region]));
    chosen = { region: own().length - 1, corner };
  } else {
    put(withRegions(own().map((region, index) => {
      if (index !== chosen.region) return region;
      return { ...region, shape, origin: region.origin === "accepted" ? "corrected" : region.origin };
    })));
  }
  render();
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/* Delete a region that was pointed at, wherever an undo has moved it meanwhile. */
function removeWhenFree(index) {
  const region = own()[index];
  const finding = current;
  soon(() => {
    const at = finding === current ? own().findIndex((one) => isSame(one, region)) : -1;
    if (at < 0) say("The region is not there any more.");
    else removeRegion(at);
  });
}

function removeRegion(index) {
  const region = own()[index];
  const regions = region.origin === "drawn"
    ? own().filter((_, at) => at !== index)
    : own().map((one, at) => (at === index ? { ...one, origin: "rejected" } : one));
  chosen = null;
  put(withRegions(regions));
}

function answer(pieces, origin, verdict) {
  const regions = [...own(), ...pieces.map(({ shape, by, number: index }) => (
    { shape, origin, suggested: { by, number: index } }
  ))];
  chosen = null;
  put(origin === "rejected" ? { ...findings[current], regions } : withRegions(regions, verdict));
}

function accept(group) {
  if (hidden) return say("Suggestions are hidden; show them with H.");
  if (group.verdict === "absent" && !(chosen && chosen.by === group.by)) {
    return setVerdict("absent");
  }
  const pieces = picked(group);
  const verdict = group.verdict === "unsure" ? "unsure" : "present";
  if (!pieces.length && findings[current].verdict === verdict) return say("Nothing is left to accept.");
  answer(pieces, "accepted", verdict);
}

function reject(group) {
  if (hidden) return say("Suggestions are hidden; show them with H.");
  const pieces = picked(group);
  if (!pieces.length) return say("No suggested region is left to reject; say whether the finding is there with 1, 2, 3.");
  answer(pieces, "rejected");
}

/* The chosen suggestion if it is of this group, else all that is open in it. */
function picked(group) {
  const pieces = open(group);
  return chosen?.by === group.by ? pieces.filter((one) => one.number === chosen.number) : pieces;
}

/* Which group the keys A and X mean. */
function keyGroup() {
  const groups = suggestions[current];
  return groups.find((one) => one.by === chosen?.by)
    ?? groups.find((one) => one.verdict !== "absent" && open(one).length) ?? groups.at(-1);
}

function setVerdict(verdict) {
  const assessment = { ...findings[current], verdict };
  const there = own().filter(counts).length;
  if (verdict === "absent" && there) {
    assessment.regions = own().filter((one) => one.origin !== "drawn").map((one) => ({ ...one, origin: "rejected" }));
    say(`${there} region${there > 1 ? "s" : ""} removed, since the finding is absent. Undo brings ${there > 1 ? "them" : "it"} back.`);
    chosen = null;
  }
  put(assessment);
}

function restAbsent() {
  const edits = {};
  findings.forEach((one, k) => {
    if (one.verdict === null && !one.regions.some(counts)) edits[k] = { ...one, verdict: "absent" };
  });
  if (Object.keys(edits).length) change(edits);
}

/* ---- tools ---- */

const clampToFilm = ({ x, y }) => [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
const perPixel = () => 1 / viewer.frame().scale;
const apart = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by);

/* Drag to move the film, a chosen region or one of its corners; tap to choose. */
const selectTool = {
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
        chosen = { ...chosen, corner: near };
        this.drag = { kind: "corner", shape };
      } else if (shape.kind === "polygon") {
        const side = corners.findIndex((corner, index) => {
          const next = corners[(index + 1) % corners.length];
          return apart([(corner[0] + next[0]) / 2, (corner[1] + next[1]) / 2], at) < reach * 0.8;
        });
        if (side >= 0) {
          chosen = { ...chosen, corner: side + 1 };
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
      draft = { kind: "reshape", shape: withCorner(this.drag.shape, chosen.corner, clampToFilm(point)) };
    } else {
      const [x, y] = this.drag.from;
      draft = { kind: "reshape", shape: moved(this.drag.shape, point.x - x, point.y - y) };
    }
    this.drag.going = true;
    viewer.redraw();
  },
  up(point) {
    const { going, kind } = this.drag;
    if (draft?.kind === "reshape") {
      const { shape } = draft;
      draft = null;
      reshape(shape);
    } else if (!going && kind !== "corner") {
      choose(current, under(point));
    } else if (!going && this.drag.shape !== chosenShape()) {
      chosen = { ...chosen, corner: undefined }; // a corner that was not pulled out of the side
    }
    this.drag = null;
    render();
  },
  cancel() {
    draft = null;
    this.drag = null;
    viewer.redraw();
  },
};

/* The region or suggestion at a place: the smallest first, so that what lies on top can be had. */
function under({ x, y }) {
  const pieces = own().map((region, index) => ({ region: index, shape: region.shape, there: counts(region) }))
    .filter((one) => one.there);
  if (!hidden) for (const group of suggestions[current]) pieces.push(...open(group));
  const size = ({ shape }) => {
    const [left, top, right, bottom] = boundsOf(shape);
    return (right - left) * (bottom - top);
  };
  const hit = pieces.filter(({ shape }) => isInside(shape, x, y)).sort((a, b) => size(a) - size(b))[0];
  if (!hit) return null;
  return hit.region !== undefined ? { region: hit.region } : { by: hit.by, number: hit.number };
}

const boxTool = {
  down(point) {
    const [x, y] = clampToFilm(point);
    draft = { kind: "box", x1: x, y1: y, x2: x, y2: y };
    viewer.redraw();
  },
  move(point) {
    if (draft?.kind !== "box") return;
    [draft.x2, draft.y2] = clampToFilm(point);
    viewer.redraw();
  },
  up(point) {
    if (draft?.kind !== "box") return;
    [draft.x2, draft.y2] = clampToFilm(point);
    const { x1, y1, x2, y2 } = draft;
    draft = null;
    const smallest = SMALLEST * perPixel();
    if (Math.abs(x2 - x1) < smallest || Math.abs(y2 - y1) < smallest) return render();
    addRegion({ kind: "box", x1: Math.min(x1, x2), y1: Math.min(y1, y2), x2: Math.max(x1, x2), y2: Math.max(y1, y2) });
  },
  cancel: stopDrawing,
};

/* Tap corner by corner, or draw the outline in one go; on the first corner it closes. */
const polygonTool = {
  down(point, event) {
    const at = clampToFilm(point);
    const reach = (REACH[event.pointerType] ?? 12) * perPixel();
    if (draft?.kind === "polygon") {
      if (draft.points.length > 2 && apart(draft.points[0], at) < reach) return closePolygon();
      if (apart(draft.points.at(-1), at) > perPixel()) draft.points.push(at);
    } else {
      draft = { kind: "polygon", points: [at] };
    }
    draft.free = 0;
    render();
  },
  move(point) {
    if (draft?.kind !== "polygon") return;
    const at = clampToFilm(point);
    draft.hover = at;
    if (apart(draft.points.at(-1), at) > 9 * perPixel()) {
      draft.points.push(at);
      draft.free += 1;
    }
    viewer.redraw();
  },
  hover(point) {
    if (draft?.kind !== "polygon") return;
    draft.hover = clampToFilm(point);
    viewer.redraw();
  },
  up() {
    if (draft?.kind === "polygon" && draft.free > 7) closePolygon();
  },
  cancel: stopDrawing,
};

function closePolygon() {
  if (draft?.kind !== "polygon") return;
  const { points } = draft;
  draft = null;
  if (points.length < 3) {
    say("A polygon needs at least three corners.");
    return render();
  }
  addRegion({ kind: "polygon", points });
}

/* Brush and eraser paint on a canvas of the film's size; what is opaque at the end is the mask. */
function paintTool(erases) {
  return {
    down(point) {
      const masks = own().map((region, index) => ({ region: index, mask: counts(region) && region.shape.kind === "mask" }));
      if (!chosen) {
        const last = masks.filter((one) => one.mask).at(-1);
        if (last) chosen = { region: last.region };
      }
      if (erases && !chosen) {
        say("Choose a region to erase from, with V and a tap, or Q.");
        return;
      }
      const shape = chosenShape();
      draft = { kind: "paint", erases, canvas: canvasOf(shape, width, height), isNew: !shape, last: point };
      this.stroke(point);
    },
    stroke(point) {
      const context = draft.canvas.getContext("2d");
      context.globalCompositeOperation = erases ? "destination-out" : "source-over";
      context.lineWidth = Number($("brush-size").value) * perPixel();
      context.lineCap = "round";
      context.strokeStyle = "#fff";
      context.beginPath();
      context.moveTo(draft.last.x, draft.last.y);
      context.lineTo(point.x + 0.01, point.y);
      context.stroke();
      draft.last = point;
      draft.shown = null;
      viewer.redraw();
    },
    move(point) {
      if (draft?.kind === "paint") this.stroke(point);
      cross = null;
    },
    hover(point) {
      draft ??= { kind: "ring" };
      if (draft.kind === "ring") draft.at = point;
      viewer.redraw();
    },
    up() {
      if (draft?.kind !== "paint") return;
      const { canvas, isNew } = draft;
      draft = null;
      const mask = maskOf(canvas);
      if (mask && isNew) addRegion(mask);
      else if (mask) reshape(mask);
      else if (chosen?.region !== undefined) removeRegion(chosen.region);
      else if (chosen) answer([{ ...chosen, shape: chosenShape() }], "rejected");
      render();
    },
    cancel: stopDrawing,
  };
}

const TOOLS = {
  select: selectTool, box: boxTool, polygon: polygonTool, brush: paintTool(false), eraser: paintTool(true),
};

/* While nothing is known, and while an undo is under way, nothing is drawn. */
const guarded = (tool) => ({
  down: (...told) => {
    if (busy) say(started ? "Draw again when the undo is done." : "The film is still loading.");
    else tool.down(...told);
  },
  move: (...told) => { if (!busy && (tool !== selectTool || tool.drag)) tool.move(...told); },
  hover: (...told) => { if (!busy) tool.hover?.(...told); },
  up: (...told) => { if (!busy && (tool !== selectTool || tool.drag)) tool.up(...told); },
  cancel: () => tool.cancel(),
});

/* With `focus`, the keys that follow are the film's and not a button's. */
function setTool(name, focus = false) {
  stopDrawing();
  toolName = name;
  cross = null;
  viewer.tool = guarded(TOOLS[name]);
  for (const button of $("draw-tools").querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", button.dataset.tool === name);
  }
  $("film").style.cursor = name === "select" ? "grab" : "crosshair";
  if (focus) $("film").focus({ preventScroll: true });
  render();
}

function stopDrawing() {
  draft = null;
  render();
}

/* ---- the keyboard draws with a cross ---- */

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveCross(event) {
  const [dx, dy] = ARROWS[event.key];
  const step = event.shiftKey ? 1 : STEP * perPixel();
  if (!cross) {
    const canvas = $("film");
    const box = canvas.getBoundingClientRect();
    cross = viewer.toFilm(box.left + box.width / 2, box.top + box.height / 2);
  } else {
    cross = { x: cross.x + dx * step, y: cross.y + dy * step };
  }
  const [x, y] = clampToFilm(cross);
  cross = { x, y };
  if (draft?.kind === "box") [draft.x2, draft.y2] = [x, y];
  if (draft?.kind === "polygon") draft.hover = [x, y];
  viewer.redraw();
}

function press() {
  if (busy) return;
  if (!cross) moveCross({ key: "ArrowRight" }); // into the middle
  const event = { pointerType: "mouse", clientX: 0, clientY: 0 };
  if (toolName === "box") {
    if (draft?.kind === "box") boxTool.up(cross);
    else boxTool.down(cross);
  } else if (toolName === "polygon") {
    polygonTool.down(cross, event);
  } else {
    const at = cross;
    TOOLS[toolName].down(at);
    TOOLS[toolName].up(at);
    cross = at;
  }
  viewer.redraw();
}

let nudge = null;

/* Move the chosen corner; what was moved is saved when the keys rest. */
function moveCorner(event) {
  const [dx, dy] = ARROWS[event.key];
  const step = event.shiftKey ? 0.5 : 4 * perPixel();
  const shape = draft?.kind === "reshape" ? draft.shape : chosenShape();
  const [x, y] = cornersOf(shape)[chosen.corner];
  draft = { kind: "reshape", shape: withCorner(shape, chosen.corner, clampToFilm({ x: x + dx * step, y: y + dy * step })) };
  viewer.redraw();
  clearTimeout(nudge);
  nudge = setTimeout(settle, 400);
}

function settle() {
  clearTimeout(nudge);
  if (draft?.kind !== "reshape" || selectTool.drag) return;
  const { shape } = draft;
  draft = null;
  reshape(shape);
}

function chooseNext() {
  settle();
  const pieces = own().map((region, index) => ({ region: index, there: counts(region) })).filter((one) => one.there)
    .map(({ region }) => ({ region }));
  if (!hidden) for (const group of suggestions[current]) pieces.push(...open(group).map(({ by, number: n }) => ({ by, number: n })));
  if (!pieces.length) return say("There is no region to choose.");
  const at = pieces.findIndex((one) => one.region === chosen?.region && one.by === chosen?.by && one.number === chosen?.number);
  choose(current, pieces[(at + 1) % pieces.length]);
}

function chooseCorner() {
  settle();
  const corners = cornersOf(chosenShape() ?? {});
  if (!corners.length) return say("Choose a box or a polygon first, with Q.");
  chosen = { ...chosen, corner: ((chosen.corner ?? -1) + 1) % corners.length };
  viewer.redraw();
}

function remove() {
  if (draft?.kind === "polygon") {
    draft.points.pop();
    if (!draft.points.length) draft = null;
    return render();
  }
  settle();
  const shape = chosenShape();
  if (!shape) return say("Choose a region first, with Q.");
  if (shape.kind === "polygon" && chosen.corner !== undefined && shape.points.length > 3) {
    const corner = chosen.corner;
    const fewer = withoutPoint(shape, corner);
    chosen = { ...chosen, corner: undefined };
    return reshape(fewer);
  }
  if (chosen.region !== undefined) removeRegion(chosen.region);
  else answer([{ ...chosen, shape }], "rejected");
}

const KEYS = {
  1: () => setVerdict("present"), 2: () => setVerdict("absent"), 3: () => setVerdict("unsure"),
  j: () => choose((current + 1) % names.length), k: () => choose((current + names.length - 1) % names.length),
  n: () => $("following")?.click(), p: () => $("previous")?.click(),
  a: () => { const group = keyGroup(); group ? accept(group) : say("Nothing is suggested."); },
  x: () => { const group = keyGroup(); group ? reject(group) : say("Nothing is suggested."); },
  r: restAbsent,
  v: () => setTool("select", true), b: () => setTool("box", true), g: () => setTool("polygon", true),
  m: () => setTool("brush", true), e: () => setTool("eraser", true),
  "{": () => resizeBrush(0.8), "}": () => resizeBrush(1.25),
  q: chooseNext, t: chooseCorner, h: () => setHidden(!hidden),
  delete: remove, backspace: remove,
  "?": () => { $("keys").open = !$("keys").open; $("keys").scrollIntoView(); },
};

function resizeBrush(factor) {
  $("brush-size").value = Math.round($("brush-size").value * factor);
}

const NEVER_WAITS = "npvh?";

document.addEventListener("keydown", (event) => {
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  if ((key === "z" || key === "y") && !event.altKey) {
    event.preventDefault();
    return turn(key === "y" || event.shiftKey ? "redo" : "undo");
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const goes = ARROWS[event.key] && !(event.target instanceof HTMLInputElement);
  const draws = event.key === " " && !isControl(event.target);
  if ((busy || turns.length) && (goes || draws || KEYS[key]) && !(NEVER_WAITS.includes(key) && !turns.length)) {
    event.preventDefault();
    return soon(() => doKey(event));
  }
  doKey(event);
});

const isControl = (target) => target.closest?.("button, a, input, summary") !== null;

function doKey(event) {
  const key = event.key.toLowerCase();
  const onControl = isControl(event.target);
  const draws = toolName !== "select";
  if (ARROWS[event.key] && !(event.target instanceof HTMLInputElement)) {
    if (draws) moveCross(event);
    else if (chosen?.corner !== undefined && chosenShape()) moveCorner(event);
    else return void pressKey(view, event);
    return event.preventDefault();
  }
  if (event.key === " " && draws && !onControl) {
    press();
    return event.preventDefault();
  }
  if (event.key === "Enter" && draft?.kind === "polygon" && !onControl) return closePolygon();
  if (event.key === "Escape") {
    if (draft) stopDrawing();
    else choose(current, null);
    return;
  }
  const action = KEYS[key];
  if (action) {
    event.preventDefault();
    action();
    return;
  }
  pressKey(view, event);
}

/* ---- what is shown ---- */

function choose(finding, piece = null) {
  settle();
  if (finding !== current) {
    stopDrawing();
    saveComment();
  }
  current = finding;
  chosen = piece;
  showMap();
  render();
}

const maps = new Map();

async function showMap() {
  const group = suggestions[current].find((one) => one.kind === "run");
  const wanted = current;
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
    if (wanted === current) viewer.layers = [image];
  } catch {
    maps.delete(wanted);
  }
  viewer.redraw();
}

function setHidden(hide) {
  hidden = hide;
  localStorage.setItem(HIDDEN, hide ? "yes" : "no");
  if (hide && chosen?.by) chosen = null;
  view.layersShown = !hide;
  view.changed();
  render();
}

// the viewer shows its layers again when it is reset or the opacity changes; hidden is hidden
view.addEventListener("change", () => { if (hidden) view.layersShown = false; });

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
  const over = draft?.kind === "reshape" || draft?.kind === "paint";
  if (!hidden) {
    for (const group of suggestions[current]) {
      for (const piece of open(group)) {
        const isChosen = chosen?.by === piece.by && chosen.number === piece.number;
        if (isChosen && over) continue;
        paintShape(context, piece.shape, { colour: COLOURS[group.kind], line, dashed: true, chosen: isChosen });
        const [left, top] = boundsOf(piece.shape);
        tag(context, `${group.title} ${piece.number + 1}`, [left, top], COLOURS[group.kind], line);
      }
    }
  }
  own().forEach((region, index) => {
    if (!counts(region)) return;
    const isChosen = chosen?.region === index;
    if (isChosen && over) return;
    paintShape(context, region.shape, { colour: OWN, line, chosen: isChosen, fill: isChosen });
    const [left, top] = boundsOf(region.shape);
    tag(context, `${numberOf(index)}`, [left, top], OWN, line);
  });
  if (draft?.kind === "reshape") paintShape(context, draft.shape, { colour: OWN, line, chosen: true, fill: true });
  if (draft?.kind === "box") paintShape(context, draft, { colour: OWN, line, chosen: true });
  if (draft?.kind === "polygon") paintDraft(context, line);
  if (draft?.kind === "paint") paintStroke(context);
  if (draft?.kind === "ring" && draft.at) ring(context, draft.at, line);
  const shape = draft?.kind === "reshape" ? draft.shape : chosenShape();
  if (shape && draft?.kind !== "paint") paintCorners(context, shape, line);
  if (cross) paintCross(context, line);
});

function paintDraft(context, line) {
  const points = draft.hover ? [...draft.points, draft.hover] : draft.points;
  context.beginPath();
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.lineWidth = 4 * line;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.stroke();
  context.lineWidth = 2 * line;
  context.strokeStyle = OWN;
  context.stroke();
  draft.points.forEach((point, index) => dot(context, point, (index ? 4 : 7) * line, line, index === 0));
}

function paintStroke(context) {
  if (!draft.shown) {
    draft.shown = document.createElement("canvas");
    draft.shown.width = width;
    draft.shown.height = height;
    draft.shown.getContext("2d").drawImage(draft.canvas, 0, 0);
    tint(draft.shown, OWN);
  }
  context.globalAlpha = 0.5;
  context.drawImage(draft.shown, 0, 0);
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
    const isChosen = chosen?.corner === index;
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
  context.moveTo(cross.x - 14 * line, cross.y);
  context.lineTo(cross.x + 14 * line, cross.y);
  context.moveTo(cross.x, cross.y - 14 * line);
  context.lineTo(cross.x, cross.y + 14 * line);
  context.stroke();
  if (toolName === "brush" || toolName === "eraser") ring(context, cross, line);
}

function element(kind, words, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function key(name) {
  return element("kbd", name);
}

function render() {
  findingButtons.forEach((button, k) => {
    const [mark, words] = MARKS[findings[k].verdict];
    button.querySelector(".mark").textContent = mark;
    button.querySelector(".state").textContent = words;
    if (k === current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  const assessment = findings[current];
  $("finding-name").textContent = names[current];
  $("shown-finding").textContent = names[current];
  for (const radio of document.querySelectorAll("input[name=verdict]")) {
    radio.checked = radio.value === assessment.verdict;
  }
  if (document.activeElement !== $("comment")) $("comment").value = assessment.comment;
  $("rest-absent").disabled = findings.every((one) => one.verdict !== null);
  $("close-polygon").hidden = !(draft?.kind === "polygon" && draft.points.length > 2);
  $("cancel").hidden = !(draft?.kind === "polygon" || draft?.kind === "box");
  $("hide").setAttribute("aria-pressed", hidden);
  renderSuggestions();
  renderRegions();
  viewer.redraw();
}

function renderSuggestions() {
  const groups = suggestions[current];
  const target = keyGroup();
  if (hidden) {
    return $("suggestions").replaceChildren(...(groups.length ? [element("p", "Suggestions are hidden.", { class: "quiet" })] : []));
  }
  $("suggestions").replaceChildren(...groups.map((group) => {
    const box = element("div", "", { class: "group" });
    const title = element("h3", group.title);
    title.prepend(element("span", "", { class: `swatch ${group.kind}` }));
    box.append(title);
    const left = open(group).length;
    const words = { present: "present", absent: "absent", unsure: "unsure", null: "no call" }[group.verdict];
    const marked = group.regions.length ? `, ${left} of ${group.regions.length} regions open` : "";
    box.append(element("p", `says ${words}${marked}`));
    if (group.score !== undefined) box.append(...meter(group));
    if (group.comment) box.append(element("p", `“${group.comment}”`, { class: "quiet" }));
    const tools = element("div", "", { class: "tools" });
    const yes = element("button", "Accept ");
    const no = element("button", "Reject ");
    yes.addEventListener("click", () => soon(() => accept(group)));
    no.addEventListener("click", () => soon(() => reject(group)));
    no.disabled = left === 0;
    if (group === target) {
      yes.append(key("A"));
      no.append(key("X"));
    }
    yes.setAttribute("aria-label", `Accept what the ${group.title.toLowerCase()} says`);
    no.setAttribute("aria-label", `Reject the regions of the ${group.title.toLowerCase()}`);
    tools.append(yes, no);
    box.append(tools);
    return box;
  }));
}

/* The score on a line from 0 to 1, with the threshold. */
function meter(group) {
  const has = group.threshold !== null;
  const said = `score ${group.score.toFixed(3)}` + (has ? `, threshold ${group.threshold.toFixed(3)}` : "");
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", "0 0 100 10");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  const bar = (x, wide, colour) => {
    const one = document.createElementNS(space, "rect");
    for (const [name, value] of Object.entries({ x, y: 0, width: wide, height: 10, fill: colour })) one.setAttribute(name, value);
    picture.append(one);
  };
  bar(0, 100 * group.score, COLOURS.run);
  if (has) bar(100 * group.threshold - 0.6, 1.2, "#ffffff");
  const box = element("div", "", { class: "meter" });
  box.append(picture);
  return [element("p", said, { class: "quiet" }), box];
}

const ORIGINS = { drawn: "drawn", accepted: "accepted", corrected: "corrected" };

function renderRegions() {
  const list = own().map((region, index) => ({ region, index })).filter(({ region }) => counts(region));
  const rejected = own().length - list.length;
  const rows = list.map(({ region, index }) => {
    const row = element("li", "");
    const pick = element("button", `${numberOf(index)} ${region.shape.kind}, ${ORIGINS[region.origin]}`, {
      "aria-pressed": chosen?.region === index,
    });
    pick.addEventListener("click", () => { setTool("select"); choose(current, { region: index }); });
    const gone = element("button", "✕", { "aria-label": `Delete region ${numberOf(index)}` });
    gone.addEventListener("click", () => removeWhenFree(index));
    row.append(pick, gone);
    return row;
  });
  if (!rows.length) rows.push(element("li", "none", { class: "quiet" }));
  if (rejected) rows.push(element("li", `${rejected} suggested region${rejected > 1 ? "s" : ""} rejected`, { class: "quiet" }));
  $("regions").replaceChildren(...rows);
}

/* ---- the page's controls ---- */

function saveComment() {
  clearTimeout(commentTimer);
  const comment = $("comment").value;
  const finding = current;
  if (!started || comment === findings[finding].comment) return;
  soon(() => {
    if (comment !== findings[finding].comment) change({ [finding]: { ...findings[finding], comment } });
  });
}

$("comment").addEventListener("change", saveComment);
let commentTimer;
$("comment").addEventListener("input", () => {
  clearTimeout(commentTimer);
  commentTimer = setTimeout(saveComment, 1500);
});
$("verdict").addEventListener("change", (event) => soon(() => setVerdict(event.target.value)));
findingButtons.forEach((button, k) => button.addEventListener("click", () => choose(k)));
$("rest-absent").addEventListener("click", () => soon(restAbsent));
$("undo").addEventListener("click", () => turn("undo"));
$("redo").addEventListener("click", () => turn("redo"));
$("hide").addEventListener("click", () => setHidden(!hidden));
$("close-polygon").addEventListener("click", closePolygon);
$("cancel").addEventListener("click", stopDrawing);
$("draw-tools").addEventListener("click", (event) => {
  const name = event.target.closest("[data-tool]")?.dataset.tool;
  if (name) setTool(name, true);
});
$("film").addEventListener("dblclick", closePolygon);
$("film").addEventListener("pointerleave", () => {
  if (draft?.kind === "ring") stopDrawing();
});
addEventListener("beforeunload", (event) => {
  settle();
  saveComment();
  if (turns.length) event.preventDefault(); // the browser keeps what is saved, not what waits
});
addEventListener("pagehide", () => {
  settle();
  saveComment();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) outbox.hurry(); });

connectTools(view, $("view-tools"));
setTool("select");
setHidden(hidden);
viewer.show(`/films/${number}/film.png`).then(() => { showMap(); main.dataset.ready = "yes"; })
  .catch(() => say("The film could not be loaded; reload the page.", true));
load();
flushAll(store, outbox.name).then((wrong) => { if (wrong.length) say(wrong.join(" "), true); });
