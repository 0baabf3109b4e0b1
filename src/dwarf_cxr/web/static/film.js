/* A radiograph on a canvas: zoom, pan, window and level, invert, coloured layers over it.

   A View says how films are looked at; viewers that share one move together, whatever their sizes.
   A Film is an image with its grey values; a FilmViewer draws one film, its layers and whatever
   painters add, and hands pointers to a tool.

     const view = new View();
     const viewer = new FilmViewer(canvas, view);
     await viewer.show("/film.png", ["/map.png"]);
     viewer.painters.push((context, viewer) => …);   // in the film's pixels
     viewer.tool = { down(point, event) {…}, move(…) {…}, up(…) {…}, cancel() {…} };
*/

const LARGEST_ZOOM = 24;
const FULL_WINDOW = 255; // with the level in the middle: the film as it is
const MIDDLE_LEVEL = 127.5;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class View extends EventTarget {
  constructor() {
    super();
    this.opacity = 0.6;
    this.reset();
  }

  /* All but the opacity, which is a habit of the reader and not of a film. */
  reset() {
    this.zoom = 1; // 1: the whole film fits
    this.x = 0.5; // the film's point in the middle of the pane, as shares of its sides
    this.y = 0.5;
    this.window = FULL_WINDOW;
    this.level = MIDDLE_LEVEL;
    this.inverted = false;
    this.layersShown = true;
    this.changed();
  }

  changed() {
    const margin = 0.5 / this.zoom;
    this.x = clamp(this.x, margin, 1 - margin);
    this.y = clamp(this.y, margin, 1 - margin);
    this.dispatchEvent(new Event("change"));
  }

  /* Zoom so that the film's point (x, y), in shares of its sides, stays where it is. */
  zoomAt(factor, x = this.x, y = this.y) {
    const before = this.zoom;
    this.zoom = clamp(before * factor, 1, LARGEST_ZOOM);
    const kept = before / this.zoom;
    this.x = x + (this.x - x) * kept;
    this.y = y + (this.y - y) * kept;
    this.changed();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.changed();
  }

  setWindow(width, level) {
    this.window = clamp(width, 2, 2 * FULL_WINDOW);
    this.level = clamp(level, 0, 255);
    this.changed();
  }

  invert() {
    this.inverted = !this.inverted;
    this.changed();
  }

  setOpacity(opacity) {
    this.opacity = clamp(opacity, 0, 1);
    this.layersShown = true;
    this.changed();
  }

  toggleLayers() {
    this.layersShown = !this.layersShown;
    this.changed();
  }
}

const ACTIONS = {
  "zoom-in": (view) => view.zoomAt(1.25),
  "zoom-out": (view) => view.zoomAt(0.8),
  left: (view) => view.pan(-0.1 / view.zoom, 0),
  right: (view) => view.pan(0.1 / view.zoom, 0),
  up: (view) => view.pan(0, -0.1 / view.zoom),
  down: (view) => view.pan(0, 0.1 / view.zoom),
  narrower: (view) => view.setWindow(view.window / 1.15, view.level),
  wider: (view) => view.setWindow(view.window * 1.15, view.level),
  brighter: (view) => view.setWindow(view.window, view.level - 8),
  darker: (view) => view.setWindow(view.window, view.level + 8),
  invert: (view) => view.invert(),
  layers: (view) => view.toggleLayers(),
  "more-opaque": (view) => view.setOpacity(view.opacity + 0.1),
  "less-opaque": (view) => view.setOpacity(view.opacity - 0.1),
  reset: (view) => view.reset(),
};

const KEYS = {
  "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", "0": "reset",
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
  "[": "narrower", "]": "wider", ".": "brighter", ",": "darker",
  i: "invert", h: "layers", o: "more-opaque", l: "less-opaque",
};

export function isTyping(target) {
  return target instanceof Element && target.closest("textarea, select, input[type=text]") !== null;
}

/* Do what a key asks of the view; false if it asks nothing of it. */
export function pressKey(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return false;
  const arrows = event.key.startsWith("Arrow");
  if (arrows && event.target instanceof HTMLInputElement) return false; // moves in radios, sliders
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return false;
  ACTIONS[action](view);
  event.preventDefault();
  return true;
}

/* Bind a toolbar: buttons with data-view="ACTION", a range with data-view="opacity" (0 to 100). */
export function connectTools(view, toolbar) {
  toolbar.addEventListener("click", (event) => {
    const action = ACTIONS[event.target.closest("button[data-view]")?.dataset.view];
    if (action) action(view);
  });
  const slider = toolbar.querySelector('input[data-view="opacity"]');
  slider?.addEventListener("input", () => view.setOpacity(slider.value / 100));
  const state = () => {
    if (slider) slider.value = Math.round((view.layersShown ? view.opacity : 0) * 100);
    toolbar.querySelector('[data-view="invert"]')?.setAttribute("aria-pressed", view.inverted);
    toolbar.querySelector('[data-view="layers"]')?.setAttribute("aria-pressed", !view.layersShown);
  };
  view.addEventListener("change", state);
  state();
}

/* The image at an address, ready to be drawn. */
export async function picture(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

export class Film {
  constructor(image) {
    this.width = image.naturalWidth;
    this.height = image.naturalHeight;
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.width;
    this.canvas.height = this.height;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.context.drawImage(image, 0, 0);
    this.pixels = this.context.getImageData(0, 0, this.width, this.height);
    this.grey = new Uint8Array(this.width * this.height);
    for (let i = 0; i < this.grey.length; i++) this.grey[i] = this.pixels.data[4 * i];
    this.shown = `${FULL_WINDOW} ${MIDDLE_LEVEL} false`;
  }

  static async load(url) {
    return new Film(await picture(url));
  }

  /* The film under the view's window and level: a canvas of the film's size. */
  rendered(view) {
    const wanted = `${view.window} ${view.level} ${view.inverted}`;
    if (wanted === this.shown) return this.canvas;
    const table = new Uint8ClampedArray(256);
    for (let value = 0; value < 256; value++) {
      const shade = ((value - view.level) / view.window + 0.5) * 255;
      table[value] = view.inverted ? 255 - shade : shade;
    }
    const data = this.pixels.data;
    for (let i = 0, at = 0; i < this.grey.length; i++, at += 4) {
      data[at] = data[at + 1] = data[at + 2] = table[this.grey[i]];
    }
    this.context.putImageData(this.pixels, 0, 0);
    this.shown = wanted;
    return this.canvas;
  }
}

export class FilmViewer {
  constructor(canvas, view) {
    this.canvas = canvas;
    this.view = view;
    this.film = null;
    this.layers = [];
    this.outlines = [];
    this.painters = [];
    this.tool = "pan"; // "pan", "window", or an object with down, move, up, cancel
    this.pointers = new Map();
    this.waiting = false;
    view.addEventListener("change", () => this.redraw());
    this.observer = new ResizeObserver(() => this.redraw());
    this.observer.observe(canvas);
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#up(event, true));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /* Show a film (an address, or a Film that other viewers show too), layers over it in the view's
     opacity, and outlines, which are never pale; both are addresses, or pictures of `picture`. */
  async show(film, layers = [], outlines = []) {
    const [shown, ...images] = await Promise.all([
      film instanceof Film ? film : Film.load(film),
      ...[...layers, ...outlines].map((one) => one instanceof Image ? one : picture(one)),
    ]);
    this.film = shown;
    this.layers = images.slice(0, layers.length);
    this.outlines = images.slice(layers.length);
    this.canvas.dataset.ready = "true";
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#draw();
    });
  }

  /* Where the film lies in the pane, in CSS pixels. */
  frame() {
    const width = this.canvas.clientWidth;
    const height = this.canvas.clientHeight;
    const scale = Math.min(width / this.film.width, height / this.film.height) * this.view.zoom;
    return {
      scale,
      left: width / 2 - this.view.x * this.film.width * scale,
      top: height / 2 - this.view.y * this.film.height * scale,
    };
  }

  /* A pointer's place in pixels of the film. */
  toFilm(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const { scale, left, top } = this.frame();
    return { x: (clientX - box.left - left) / scale, y: (clientY - box.top - top) / scale };
  }

  /* A place on the film in CSS pixels of the canvas. */
  toCanvas(x, y) {
    const { scale, left, top } = this.frame();
    return { x: left + x * scale, y: top + y * scale };
  }

  #draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.film || !width || !height) return;
    const { scale, left, top } = this.frame();
    context.setTransform(scale * ratio, 0, 0, scale * ratio, left * ratio, top * ratio);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.film.rendered(this.view), 0, 0);
    if (this.view.layersShown) {
      context.globalAlpha = this.view.opacity;
      for (const layer of this.layers) {
        context.drawImage(layer, 0, 0, this.film.width, this.film.height);
      }
      context.globalAlpha = 1;
      for (const outline of this.outlines) {
        context.drawImage(outline, 0, 0, this.film.width, this.film.height);
      }
    }
    for (const paint of this.painters) {
      context.save();
      paint(context, this);
      context.restore();
    }
  }

  #wheel(event) {
    if (!this.film) return;
    event.preventDefault();
    const { x, y } = this.toFilm(event.clientX, event.clientY);
    const factor = Math.exp(-clamp(event.deltaY, -100, 100) * 0.002);
    this.view.zoomAt(factor, x / this.film.width, y / this.film.height);
  }

  #down(event) {
    if (!this.film) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.pointers.size > 1) {
      this.#abandon(); // a second finger: the first did not mean to draw
      this.action = "pinch";
    } else if (event.button === 1) {
      this.action = "pan";
    } else if (event.button === 2 || event.shiftKey) {
      this.action = "window";
    } else {
      this.action = this.tool;
      if (typeof this.tool === "object") {
        this.tool.down(this.toFilm(event.clientX, event.clientY), event);
      }
    }
  }

  #move(event) {
    if (!this.film) return;
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (typeof this.tool === "object") {
        this.tool.hover?.(this.toFilm(event.clientX, event.clientY), event);
      }
      return;
    }
    const now = { x: event.clientX, y: event.clientY };
    if (this.action === "pinch") {
      this.#pinch(event.pointerId, before, now);
    } else if (this.action === "pan") {
      this.#drag(now.x - before.x, now.y - before.y);
    } else if (this.action === "window") {
      const width = this.view.window + (now.x - before.x);
      this.view.setWindow(width, this.view.level + (now.y - before.y) * 0.5);
    } else if (typeof this.action === "object") {
      this.action.move(this.toFilm(now.x, now.y), event);
    }
    this.pointers.set(event.pointerId, now);
  }

  #up(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (typeof this.action === "object" && this.action) {
      if (cancelled) this.action.cancel?.();
      else this.action.up(this.toFilm(event.clientX, event.clientY), event);
    }
    // the finger that is left after a pinch does nothing
    this.action = null;
  }

  #abandon() {
    if (typeof this.action === "object" && this.action) this.action.cancel?.();
  }

  #drag(dx, dy) {
    const { scale } = this.frame();
    this.view.pan(-dx / scale / this.film.width, -dy / scale / this.film.height);
  }

  #pinch(moved, before, now) {
    const other = [...this.pointers].find(([id]) => id !== moved)?.[1];
    if (!other) return;
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    this.#drag((now.x - before.x) / 2, (now.y - before.y) / 2);
    const middle = this.toFilm((now.x + other.x) / 2, (now.y + other.y) / 2);
    const factor = apart(now) / Math.max(1, apart(before));
    this.view.zoomAt(factor, middle.x / this.film.width, middle.y / this.film.height);
  }
}
