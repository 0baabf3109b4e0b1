/* Changes on their way to the server: kept in the browser until the server has them.

   Each has a key, so that one sent twice, because the answer to the first was lost, is done once;
   the box remembers the version that its first change goes back to. A lost connection, a killed
   server, a closed tab: what is in the box is sent when a page of the review is open again. Every
   page has a box of its own, so that two tabs at one film do not write over each other's, named
   after the review and its reader: another review may be served at the same address later. */

import { formToken } from "/static/page.js";

const PREFIX = "dwarf-review";
const SLOWEST = 8000; // milliseconds between two tries

const startOf = (store) => `${PREFIX}/${store}/`;

/* crypto.randomUUID is missing on pages of other hosts without TLS. */
function freshKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function boxOf(name) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? { version: 0, changes: [] };
  } catch {
    return { version: 0, changes: [] };
  }
}

/* The names of the boxes of a store, or of one film in it. */
function namesOf(store, number = null) {
  const start = startOf(store) + (number === null ? "" : `${number}/`);
  return Object.keys(localStorage).filter((name) => name.startsWith(start)).sort();
}

const numberOf = (store, name) => Number(name.slice(startOf(store).length).split("/")[0]);

function keep(name, box) {
  if (box.changes.length) localStorage.setItem(name, JSON.stringify(box));
  else localStorage.removeItem(name);
}

/* Send one change. `again`: nobody knows whether it arrived, or it could not; try once more. */
async function post(number, version, change) {
  const request = new AbortController();
  const late = setTimeout(() => request.abort(), 20000);
  try {
    const response = await fetch(`/films/${number}/changes`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": formToken },
      body: JSON.stringify({ ...change, version }),
      signal: request.signal,
    });
    if (response.ok) return { done: await response.json() };
    if (response.status === 401 || response.status === 403) {
      return { again: "Session ended: open your private link again; all is kept here." };
    }
    if (response.status === 409 || response.status === 422) return { refused: await response.json() };
    if (response.status >= 500) return { again: "The server failed; trying again." };
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return { refused: { words: page.querySelector("h1")?.textContent ?? `Refused (${response.status}).` } };
  } catch {
    return { again: "No connection to the server; trying again." };
  } finally {
    clearTimeout(late);
  }
}

export class Outbox {
  /* told: saved(state, notes, empty), waiting(words), refused(words, state or undefined) */
  constructor(store, number, told) {
    this.name = `${startOf(store)}${number}/${freshKey()}`;
    this.number = number;
    this.told = told;
    // what a page of this film left behind; should its tab be open still, both send the same keys
    const [left] = namesOf(store, number);
    this.box = boxOf(left ?? this.name);
    keep(this.name, this.box);
    if (left) localStorage.removeItem(left);
    this.pause = 0;
    this.sending = false;
    addEventListener("online", () => this.hurry());
  }

  get isEmpty() {
    return this.box.changes.length === 0;
  }

  /* What the page knew when it had nothing to send. */
  start(version) {
    if (this.isEmpty) this.box.version = version;
  }

  add(change) {
    this.box.changes.push({ key: freshKey(), ...change });
    keep(this.name, this.box);
    this.send();
  }

  hurry() {
    clearTimeout(this.timer);
    this.pause = 0;
    this.send();
  }

  async send() {
    if (this.sending || this.isEmpty) return;
    this.sending = true;
    clearTimeout(this.timer);
    const answer = await post(this.number, this.box.version, this.box.changes[0]);
    this.sending = false;
    if (answer.again) {
      this.pause = Math.min(SLOWEST, this.pause * 2 || 500);
      this.timer = setTimeout(() => this.send(), this.pause);
      this.told.waiting(answer.again);
      return;
    }
    this.pause = 0;
    if (answer.refused) {
      // whatever was changed after it goes back to what the server does not have
      this.box.changes = [];
      keep(this.name, this.box);
      if (answer.refused.state) this.box.version = answer.refused.state.version;
      this.told.refused(answer.refused.words, answer.refused.state);
      return;
    }
    this.box.changes.shift();
    this.box.version = answer.done.version;
    keep(this.name, this.box);
    this.told.saved(answer.done, answer.done.notes ?? [], this.isEmpty);
    this.send();
  }
}

export function unsavedFilms(store) {
  return [...new Set(namesOf(store).map((name) => numberOf(store, name)))].sort((a, b) => a - b);
}

/* Send what other pages left; sentences about what was refused. */
export async function flushAll(store, butNot) {
  const wrong = [];
  for (const name of namesOf(store)) {
    if (name === butNot) continue;
    const number = numberOf(store, name);
    const box = boxOf(name);
    while (box.changes.length) {
      const answer = await post(number, box.version, box.changes[0]);
      if (answer.again) return wrong;
      if (answer.refused) {
        wrong.push(`Film ${number}: ${answer.refused.words}`);
        box.changes = [];
      } else {
        box.changes.shift();
        box.version = answer.done.version;
      }
      keep(name, box);
    }
  }
  return wrong;
}
