/* A film under review: one reader's verdicts and regions, drawn over it and saved at once. */

import { connectTools, isTyping, pressKey } from "/static/film.js";
import {
  ARROWS, chooseCorner, chooseNext, choosePiece, moveCorner, moveCross, press, remove, settle,
} from "/static/review-cross.js";
import { accept, keyGroup, reject, restAbsent, setVerdict } from "/static/review-edits.js";
import { number, view, viewer } from "/static/review-film.js";
import { flushAll } from "/static/review-outbox.js";
import { setHidden, showMap } from "/static/review-painting.js";
import "/static/review-panel.js";
import { change, load, outbox, soon, turn, turns } from "/static/review-saving.js";
import { $, chosenShape, findingButtons, hush, names, render, say, state, stopDrawing } from "/static/review-state.js";
import { closePolygon, selectTool, setTool } from "/static/review-tools.js";

/* What is still being moved by keys is a change of its own, and the last one. */
function undo(kind) {
  if (selectTool.drag) selectTool.cancel(); // what is dragged may be gone after it
  settle();
  turn(kind);
}

function choose(finding) {
  settle();
  if (finding !== state.current) {
    stopDrawing();
    hush();
    saveComment();
  }
  state.current = finding;
  state.chosen = null;
  state.pointed = null;
  render();
}

/* ---- keys ---- */

const KEYS = {
  1: () => setVerdict("present"), 2: () => setVerdict("absent"), 3: () => setVerdict("unsure"),
  j: () => choose((state.current + 1) % names.length), k: () => choose((state.current + names.length - 1) % names.length),
  n: () => $("following")?.click(), p: () => $("previous")?.click(),
  a: () => { const group = keyGroup(); group ? accept(group) : say("Nothing is suggested."); },
  x: () => { const group = keyGroup(); group ? reject(group) : say("Nothing is suggested."); },
  r: restAbsent,
  v: () => setTool("select", true), b: () => setTool("box", true), g: () => setTool("polygon", true),
  m: () => setTool("brush", true), e: () => setTool("eraser", true),
  "{": () => resizeBrush(0.8), "}": () => resizeBrush(1.25),
  q: chooseNext, t: chooseCorner, h: () => setHidden(!state.hidden),
  delete: remove, backspace: remove,
  "?": () => { $("keys").open = !$("keys").open; $("keys").scrollIntoView(); },
};

function resizeBrush(factor) {
  $("brush-size").value = Math.round($("brush-size").value * factor);
}

const NEVER_WAITS = "npvh?";

let leaving = false; // what is pressed now is meant for the next film

document.addEventListener("keydown", (event) => {
  if (leaving) return event.preventDefault();
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  if ((key === "z" || key === "y") && !event.altKey) {
    event.preventDefault();
    return undo(key === "y" || event.shiftKey ? "redo" : "undo");
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const goes = ARROWS[event.key] && !takesArrows(event.target);
  const draws = event.key === " " && !isControl(event.target);
  if ((state.busy || turns.length) && (goes || draws || KEYS[key]) && !(NEVER_WAITS.includes(key) && !turns.length)) {
    event.preventDefault();
    return soon(() => doKey(event));
  }
  doKey(event);
});

const takesArrows = (target) => target instanceof HTMLInputElement; // a slider; a verdict reached by Tab

const isControl = (target) => target.closest?.("button, a, input, summary") !== null;

function doKey(event) {
  const key = event.key.toLowerCase();
  const onControl = isControl(event.target);
  const draws = state.toolName !== "select";
  if (ARROWS[event.key] && !takesArrows(event.target)) {
    if (draws) moveCross(event);
    else if (state.chosen?.corner !== undefined && chosenShape()) moveCorner(event);
    else return void pressKey(view, event);
    return event.preventDefault();
  }
  if (event.key === " " && draws && !onControl) {
    press();
    return event.preventDefault();
  }
  if (event.key === "Enter" && state.draft?.kind === "polygon" && !onControl) return closePolygon();
  if (event.key === "Escape") {
    if (state.draft) stopDrawing();
    else choosePiece(null);
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

/* ---- the page's controls ---- */

/* Leave for another film only when the server answers: the browser's page of errors has no way back. */
async function leave(link) {
  if (leaving) return;
  leaving = true;
  const slow = setTimeout(() => say("Waiting for the server."), 700);
  try {
    await fetch("/static/icon.svg", { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(8000) });
    location.assign(link.href);
  } catch {
    say("No connection to the server, so this film stays. What you did is kept in the browser; try again.", true);
  }
  clearTimeout(slow);
  leaving = false;
}

for (const link of document.querySelectorAll("header.film-bar a")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return; // into a tab of its own
    event.preventDefault();
    leave(link);
  });
}

function saveComment() {
  clearTimeout(commentTimer);
  const comment = $("comment").value;
  const finding = state.current;
  if (!state.started || comment === state.findings[finding].comment) return;
  soon(() => {
    if (comment !== state.findings[finding].comment) change({ [finding]: { ...state.findings[finding], comment } });
  });
}

$("comment").addEventListener("change", saveComment);
let commentTimer;
$("comment").addEventListener("input", () => {
  clearTimeout(commentTimer);
  commentTimer = setTimeout(saveComment, 1500);
});
$("verdict").addEventListener("change", (event) => soon(() => setVerdict(event.target.value)));
// a verdict that was clicked keeps no focus: arrows would change it, and they are the film's
$("verdict").addEventListener("mousedown", (event) => event.preventDefault());
$("verdict").addEventListener("click", (event) => {
  if (event.detail > 0) $("film").focus({ preventScroll: true });
});
findingButtons.forEach((button, k) => button.addEventListener("click", () => choose(k)));
$("rest-absent")?.addEventListener("click", () => soon(restAbsent));
$("undo").addEventListener("click", () => undo("undo"));
$("redo").addEventListener("click", () => undo("redo"));
$("hide").addEventListener("click", () => setHidden(!state.hidden));
$("close-polygon").addEventListener("click", closePolygon);
$("cancel").addEventListener("click", stopDrawing);
$("draw-tools").addEventListener("click", (event) => {
  const name = event.target.closest("[data-tool]")?.dataset.tool;
  if (name) setTool(name, true);
});
$("film").addEventListener("dblclick", closePolygon);
$("film").addEventListener("pointerleave", () => {
  state.pointed = null;
  if (state.draft?.kind === "ring") stopDrawing();
  else viewer.redraw();
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
setHidden(state.hidden);
viewer.show(`/films/${number}/film.png`).then(() => { showMap(); $("main").dataset.ready = "yes"; })
  .catch(() => say("The film could not be loaded; reload the page.", true));
load();
flushAll($("main").dataset.store, outbox.name).then((wrong) => { if (wrong.length) say(wrong.join(" "), true); });
