/* A comparison: three panes, the questions, and answers that are not lost.

   Every answer is first put down in the browser's storage, then sent, and crossed out when the
   server has said that it is saved: a server that is away, a session that has ended or a closed
   page loses nothing. One that was saved though its confirmation got lost is sent again with the
   same key, and so is not kept twice.

   One that the server refuses for good is not sent again and holds up no other. The page says so,
   here or wherever the reader has gone, until the question is answered anew: a choice goes back to
   what is saved, a comment stays where it was written, to be changed. */

import { Film, FilmViewer, View, connectTools, isTyping, picture, pressKey } from "./film.js";
import { formToken } from "./page.js";

const RETRY = 1000;
const ORDER = ["accuracy", "specificity", "overall"];
const store = `answers ${formToken.slice(0, 16)}`; // another reader's are another's

const main = document.querySelector("main.comparison");
const notice = document.getElementById("pending");

function pending() {
  try {
    return JSON.parse(localStorage.getItem(store)) ?? [];
  } catch {
    return [];
  }
}

function keep(answers) {
  if (answers.length) localStorage.setItem(store, JSON.stringify(answers));
  else localStorage.removeItem(store);
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const isOwn = (one) => main !== null && one.address === main.dataset.address;
const isSameQuestion = (one, other) => one.address === other.address && one.question === other.question;
const waiting = () => pending().filter((one) => !one.refused);

const saved = new Map(); // what the server has of this comparison, by question
let showChoice = () => {}; // of a question: the last one that waits or is saved
let fault = ""; // of this page, whatever becomes of answers

function say(words) {
  notice.textContent = words || fault;
  notice.hidden = !notice.textContent;
}

function sayRefused() {
  const words = pending().filter((one) => one.refused).map((one) => {
    const what = one.question === "comment" ? "The comment" : `The answer on ${one.question}`;
    const where = isOwn(one) ? "" : ` of comparison ${one.address.split("/").pop()}`;
    const shown = isOwn(one) && one.question !== "comment" ? " What was saved before is shown again." : "";
    return `${what}${where} was refused and is not saved. ${one.refused}${shown}`;
  });
  say(words.join(" "));
}

/* What the server says on a page that refuses something. */
function sentenceOf(page) {
  const heading = new DOMParser().parseFromString(page, "text/html").querySelector("h1");
  return heading?.textContent || "The server gave no reason.";
}

/* Keep what was refused apart, unless the question was answered anew meanwhile. */
function setAside(refused, page) {
  const others = pending().filter((one) => one.key !== refused.key);
  const anew = others.some((one) => isSameQuestion(one, refused));
  keep(anew ? others : [...others, { ...refused, refused: sentenceOf(page) }]);
  if (isOwn(refused)) showChoice(refused.question);
}

let sending = false;
let timer = null;

/* Send what is put down, one after the other, in the order it was answered. */
async function send() {
  if (sending) return;
  sending = true;
  clearTimeout(timer);
  try {
    for (let next = waiting()[0]; next; next = waiting()[0]) {
      const { address, question, value, key } = next;
      const response = await fetch(`${address}/answers`, {
        method: "POST",
        headers: { "X-CSRF-Token": formToken },
        body: new URLSearchParams({ question, value, key }),
        keepalive: true,
      });
      if (response.status === 401) {
        say("Your session has ended. Open your private link again, here or in another tab; your answers are kept and will be sent then.");
        timer = setTimeout(send, 5 * RETRY);
        return;
      }
      if (response.status >= 500) throw new Error("server");
      const page = await response.text();
      if (response.status === 403) {
        // asking again changes nothing before the reader has done something, here or in another tab
        say(`${sentenceOf(page)} Your answers are kept in this browser, and are not saved yet.`);
        return;
      }
      if (!response.ok) {
        setAside(next, page);
        continue;
      }
      keep(pending().filter((one) => one.key !== key));
      if (isOwn(next)) {
        saved.set(question, value);
        htmx.swap("#state", page, { swapStyle: "outerHTML" });
      }
    }
    sayRefused(); // and nothing else any more, even if another tab has sent what waited here
  } catch {
    say("The server cannot be reached. Your answers are kept in this browser and will be sent as soon as it is back.");
    timer = setTimeout(send, RETRY);
  } finally {
    sending = false;
  }
}

function answer(question, value) {
  const one = { address: main.dataset.address, question, value, key: randomKey() };
  try {
    keep([...pending().filter((other) => !(other.refused && isSameQuestion(one, other))), one]);
  } catch {
    showChoice(question);
    say("Not saved: this browser keeps nothing for this page. Leave its private mode, or free some of its storage.");
    return;
  }
  send();
}

function startComparison() {
  const form = document.getElementById("answers");
  const comment = document.getElementById("comment");
  const keys = document.getElementById("keys");
  const address = main.dataset.address;
  const view = new View();
  const habit = Number(sessionStorage.getItem("opacity") ?? 0.6);
  view.setOpacity(Number.isFinite(habit) ? habit : 0.6);
  view.addEventListener("change", () => sessionStorage.setItem("opacity", view.opacity));
  connectTools(view, document.getElementById("tools"));

  // both maps or neither: which of them is there first says nothing
  Promise.all([
    Film.load(`${address}/film.png`),
    picture(`${address}/a.png`),
    picture(`${address}/b.png`),
    ...(main.dataset.region ? [picture(main.dataset.region)] : []),
  ]).then(([film, a, b, ...outlines]) => {
    const show = (id, ...shown) => new FilmViewer(document.getElementById(id), view).show(film, ...shown);
    return Promise.all([show("film", [], outlines), show("a", [a]), show("b", [b])]);
  }).catch(() => {
    fault = "The films could not be loaded. Reload the page.";
    say("");
  });

  const chosen = (question) => form.querySelector(`[name="${question}"]:checked`);
  for (const question of [...ORDER, "confidence"]) saved.set(question, chosen(question)?.value);
  showChoice = (question) => {
    const last = waiting().filter((one) => isOwn(one) && one.question === question).at(-1);
    for (const radio of form.querySelectorAll(`input[name="${question}"]`)) {
      radio.checked = radio.value === (last?.value ?? saved.get(question));
    }
  };
  // what the server does not know yet
  for (const one of pending().filter(isOwn)) {
    if (one.question === "comment") comment.value = one.value;
    else showChoice(one.question);
  }

  let active = null;
  function activate(question) {
    active = question;
    for (const field of form.querySelectorAll("fieldset")) {
      field.classList.toggle("active", field.dataset.question === active);
    }
  }
  const nextOpen = () => [...ORDER, "confidence"].find((question) => !chosen(question));
  activate(nextOpen() ?? "overall");

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => answer(event.target.name, event.target.value));
  form.addEventListener("focusin", (event) => {
    const field = event.target.closest("fieldset");
    if (field) activate(field.dataset.question);
  });

  function choose(question, value) {
    const radio = form.querySelector(`[name="${question}"][value="${value}"]`);
    if (!radio.checked) {
      radio.checked = true;
      answer(question, value);
    }
    const place = ORDER.indexOf(question);
    activate(place >= 0 ? ORDER[place + 1] ?? nextOpen() ?? "confidence" : nextOpen() ?? "confidence");
  }

  let written = comment.value;
  let typing = null;
  function saveComment() {
    clearTimeout(typing);
    if (comment.value !== written) {
      written = comment.value;
      answer("comment", written);
    }
  }
  comment.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(saveComment, 1500);
  });
  comment.addEventListener("blur", saveComment);
  window.addEventListener("pagehide", () => {
    saveComment();
    // the reader was told, here where it can be answered anew
    keep(pending().filter((one) => !(isOwn(one) && one.refused && one.question !== "comment")));
  });

  document.getElementById("show-keys").addEventListener("click", () => keys.showModal());
  document.getElementById("hide-keys").addEventListener("click", () => keys.close());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    if (event.key === "Escape" && event.target === comment) return comment.blur();
    if (isTyping(event.target)) return;
    const key = event.key.toLowerCase();
    const onControl = event.target.closest?.("button, a") !== null;
    if (key === "a" || key === "t" || key === "b") {
      const question = ORDER.includes(active) ? active : ORDER.find((one) => !chosen(one));
      if (question) choose(question, key === "t" ? "tie" : key.toUpperCase());
    } else if (/^[1-5]$/.test(key)) {
      choose("confidence", key);
    } else if (key === "r") {
      activate(ORDER[0]);
    } else if (key === "c") {
      comment.focus();
    } else if (key === "?") {
      keys.showModal();
    } else if (key === "n" || (key === "enter" && !onControl)) {
      document.getElementById("next").click();
    } else if (key === "p") {
      document.getElementById("previous").click();
    } else {
      pressKey(view, event);
      return;
    }
    event.preventDefault();
  });
}

// a page that comes out of the browser's own cache could show answers that have changed since
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
if (main) {
  startComparison();
} else {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === document.body) document.getElementById("next")?.click();
  });
}
// another tab may have sent what waits here, or have opened the link that it waits for
window.addEventListener("storage", (event) => {
  if (event.key === store) send();
});
window.addEventListener("focus", send);
sayRefused();
send();
