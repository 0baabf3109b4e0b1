/* What the reader changes, on its way to the server and back: saved, undone, redone. */

import { number } from "/static/review-film.js";
import { Outbox } from "/static/review-outbox.js";
import { $, hush, isDisputed, names, render, say, state, stopDrawing } from "/static/review-state.js";
import { Turns } from "/static/review-turns.js";

const { store } = document.getElementById("main").dataset;
let canUndo = false;
let canRedo = false;
let unreached = ""; // why the server does not have it yet

export const outbox = new Outbox(store, number, {
  saved(done, notes, empty) {
    unreached = "";
    if (notes.length) say(notes.join(". ") + ".");
    if (empty) take(done);
    turns.run();
    showSaving();
  },
  waiting(words) {
    unreached = words;
    showSaving();
  },
  refused(words, newest) {
    unreached = "";
    const dropped = turns.clear();
    state.unmarked = {};
    say(dropped ? `${words} What you did after it was dropped.` : words, true);
    if (newest) take(newest);
    else load();
    showSaving();
  },
});

export const turns = new Turns(() => state.busy, () => outbox.isEmpty);

function showSaving() {
  const empty = outbox.isEmpty;
  const words = unreached ? `Not saved. ${unreached}` : "Saving…";
  $("saving").dataset.state = empty ? "saved" : unreached ? "unsaved" : "saving";
  $("saving").textContent = empty ? "✓ Saved" : turns.length ? `${words} ${turns.length} to be done after it.` : words;
  $("undo").disabled = !(empty && canUndo);
  $("redo").disabled = !(empty && canRedo);
}

function take(newest) {
  const touched = names.findIndex((_, k) => JSON.stringify(state.findings[k]) !== JSON.stringify(newest.findings[k]));
  state.findings = newest.findings;
  canUndo = newest.can_undo;
  canRedo = newest.can_redo;
  if (state.busy && touched >= 0 && touched !== state.current && state.started) {
    state.current = touched; // show what an undo changed
  }
  state.busy = false;
  if (state.chosen && state.chosen.region >= (state.findings[state.current].regions.length)) state.chosen = null;
  render();
}

export function change(edits) {
  for (const [k, assessment] of Object.entries(edits)) state.findings[k] = assessment;
  outbox.add({ kind: "edit", findings: edits, shown: !state.hidden });
  showSaving();
  render();
}

export function put(assessment) {
  change({ [state.current]: assessment });
}

export function turn(kind) {
  if (!state.started) return say("The film is still loading.");
  if (unreached) return say(`The ${kind} has to wait until all is saved.`);
  const undoOrRedo = () => {
    if (!(kind === "undo" ? canUndo : canRedo)) return say(`There is nothing to ${kind}.`);
    stopDrawing();
    hush();
    state.chosen = null;
    state.busy = true;
    outbox.add({ kind });
  };
  turns.add(undoOrRedo, true);
  showSaving();
}

/* Do it when no undo is under way: what is changed must build on what the undo leaves. */
export function soon(action) {
  if (!state.started) return say("The film is still loading.");
  turns.add(action);
  showSaving();
}

export async function load() {
  try {
    const response = await fetch(`/films/${number}/state`);
    if (response.status === 401) throw new Error("Your session has ended: open your private link again.");
    if (!response.ok) throw new Error("The server failed.");
    const told = await response.json();
    state.suggestions = told.suggestions;
    outbox.start(told.version);
    take(told);
    // what was not saved before a reload, on top of what was
    for (const one of outbox.box.changes) {
      for (const [k, assessment] of Object.entries(one.findings ?? {})) state.findings[k] = assessment;
    }
    if (!state.started) {
      const isOpen = (one) => one.verdict === null;
      const toDecide = state.findings.findIndex((one, k) => isOpen(one) && isDisputed(k));
      state.current = Math.max(0, toDecide >= 0 ? toDecide : state.findings.findIndex(isOpen));
      state.started = true;
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
