/* The queue: Enter goes on; what another page could not save is saved now. */

import { flushAll, unsavedFilms } from "/static/review-outbox.js";

const { store } = document.querySelector("main").dataset;
const notice = document.getElementById("unsaved");

function tell() {
  const films = unsavedFilms(store);
  notice.hidden = films.length === 0;
  notice.textContent = `Not saved yet, tried again and again: film ${films.join(", ")}.`;
}

async function flush() {
  const wrong = await flushAll(store, null);
  tell();
  if (wrong.length) {
    notice.hidden = false;
    notice.textContent = wrong.join(" ");
  } else if (!notice.hidden) setTimeout(flush, 3000);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target === document.body) document.getElementById("continue")?.click();
});

tell();
if (!notice.hidden) flush();
