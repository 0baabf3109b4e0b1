/* The queue: Enter goes on; what another page could not save is saved now. */

import { flushAll, unsavedFilms } from "/static/review-outbox.js";

const reader = document.querySelector("main").dataset.reader;
const notice = document.getElementById("unsaved");

function tell() {
  const films = unsavedFilms(reader);
  notice.hidden = films.length === 0;
  notice.textContent = `Not saved yet, tried again and again: film ${films.join(", ")}.`;
}

async function flush() {
  const wrong = await flushAll(reader, null);
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
