/* What a reader asked for while an undo was under way: done after it, in the order of asking. */

export class Turns {
  #waiting = [];
  #isBusy;
  #isSaved;

  /* isBusy(): nothing can be done now; isSaved(): nothing is on its way to the server. */
  constructor(isBusy, isSaved) {
    this.#isBusy = isBusy;
    this.#isSaved = isSaved;
  }

  get length() {
    return this.#waiting.length;
  }

  /* Do it now or in its turn; afterSaving: not before the server has all that was changed. */
  add(action, afterSaving = false) {
    this.#waiting.push({ action, afterSaving });
    this.run();
  }

  run() {
    while (this.#waiting.length && !this.#isBusy()) {
      if (this.#waiting[0].afterSaving && !this.#isSaved()) return;
      this.#waiting.shift().action();
    }
  }

  /* How many are given up, because what they build on was not saved. */
  clear() {
    return this.#waiting.splice(0).length;
  }
}
