/* Boxes, polygons and masks as review.js draws and edits them: points, hits, run lengths.

   Places are in pixels of the film. A mask is COCO's run lengths as text: column by column, zeros
   first; on screen it is a canvas of the film's size. */

export function cornersOf(shape) {
  if (shape.kind === "box") {
    return [[shape.x1, shape.y1], [shape.x2, shape.y1], [shape.x2, shape.y2], [shape.x1, shape.y2]];
  }
  return shape.kind === "polygon" ? shape.points : [];
}

/* The shape with one corner elsewhere; a box stays a box. */
export function withCorner(shape, index, [x, y]) {
  if (shape.kind === "box") {
    const moved = { ...shape };
    moved[index === 0 || index === 3 ? "x1" : "x2"] = x;
    moved[index < 2 ? "y1" : "y2"] = y;
    return moved;
  }
  return { ...shape, points: shape.points.map((point, at) => (at === index ? [x, y] : point)) };
}

export function withPoint(shape, index, point) {
  return { ...shape, points: [...shape.points.slice(0, index), point, ...shape.points.slice(index)] };
}

export function withoutPoint(shape, index) {
  return { ...shape, points: shape.points.filter((_, at) => at !== index) };
}

export function moved(shape, dx, dy) {
  if (shape.kind === "box") {
    return { ...shape, x1: shape.x1 + dx, x2: shape.x2 + dx, y1: shape.y1 + dy, y2: shape.y2 + dy };
  }
  if (shape.kind === "polygon") {
    return { ...shape, points: shape.points.map(([x, y]) => [x + dx, y + dy]) };
  }
  return shape;
}

/* By the winding number, as everywhere. */
export function isInside(shape, x, y) {
  if (shape.kind === "mask") {
    const column = Math.floor(x);
    const row = Math.floor(y);
    if (column < 0 || row < 0 || column >= shape.width || row >= shape.height) return false;
    return pixelsOf(shape)[column * shape.height + row] === 1;
  }
  const corners = cornersOf(shape);
  let winding = 0;
  for (let i = 0; i < corners.length; i++) {
    const [ax, ay] = corners[i];
    const [bx, by] = corners[(i + 1) % corners.length];
    const side = (bx - ax) * (y - ay) - (x - ax) * (by - ay);
    if (ay <= y && by > y && side > 0) winding++;
    else if (ay > y && by <= y && side < 0) winding--;
  }
  return winding !== 0;
}

export function boundsOf(shape) {
  if (shape.kind === "mask") {
    const pixels = pixelsOf(shape);
    let [left, top, right, bottom] = [shape.width, shape.height, 0, 0];
    for (let x = 0, at = 0; x < shape.width; x++) {
      for (let y = 0; y < shape.height; y++, at++) {
        if (!pixels[at]) continue;
        if (x < left) left = x;
        if (x + 1 > right) right = x + 1;
        if (y < top) top = y;
        if (y + 1 > bottom) bottom = y + 1;
      }
    }
    return [left, top, right, bottom];
  }
  const corners = cornersOf(shape);
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/* COCO's text: differences to the last but one, six bits a character (data/geometry.py). */
export function compressCounts(counts) {
  let text = "";
  counts.forEach((count, index) => {
    let value = index > 2 ? count - counts[index - 2] : count;
    let more = true;
    while (more) {
      const bits = value & 0x1f;
      value >>= 5;
      more = value !== (bits & 0x10 ? -1 : 0);
      text += String.fromCharCode((bits | (more ? 0x20 : 0)) + 48);
    }
  });
  return text;
}

export function decompressCounts(text) {
  const counts = [];
  let value = 0;
  let shift = 0;
  for (const character of text) {
    const bits = character.charCodeAt(0) - 48;
    value |= (bits & 0x1f) << shift;
    shift += 5;
    if (bits & 0x20) continue;
    if (bits & 0x10) value -= 1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
    value = 0;
    shift = 0;
  }
  return counts;
}

const unpacked = new WeakMap();

/* The mask's pixels, column by column. */
export function pixelsOf(mask) {
  let pixels = unpacked.get(mask);
  if (!pixels) {
    pixels = new Uint8Array(mask.width * mask.height);
    let at = 0;
    decompressCounts(mask.counts).forEach((count, index) => {
      if (index % 2) pixels.fill(1, at, at + count);
      at += count;
    });
    unpacked.set(mask, pixels);
  }
  return pixels;
}

/* The mask of what is opaque on a canvas of the film's size; null if nothing is. */
export function maskOf(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const pixels = new Uint8Array(width * height);
  const counts = [];
  let value = 0;
  let run = 0;
  let any = false;
  for (let x = 0, at = 0; x < width; x++) {
    for (let y = 0; y < height; y++, at++) {
      const here = data[4 * (y * width + x) + 3] >= 128 ? 1 : 0;
      if (here) any = true;
      pixels[at] = here;
      if (here !== value) {
        counts.push(run);
        value = here;
        run = 0;
      }
      run++;
    }
  }
  counts.push(run);
  if (!any) return null;
  const mask = { kind: "mask", width, height, counts: compressCounts(counts) };
  unpacked.set(mask, pixels);
  return mask;
}

function outlineOf(shape) {
  const path = new Path2D();
  cornersOf(shape).forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
  path.closePath();
  return path;
}

/* A canvas of the film's size on which the shape is opaque. */
export function canvasOf(shape, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  if (!shape) return canvas;
  if (shape.kind !== "mask") {
    context.fill(outlineOf(shape), "nonzero");
    return canvas;
  }
  const image = context.createImageData(width, height);
  const pixels = pixelsOf(shape);
  for (let x = 0, at = 0; x < width; x++) {
    for (let y = 0; y < height; y++, at++) {
      if (!pixels[at]) continue;
      const to = 4 * (y * width + x);
      image.data[to] = image.data[to + 1] = image.data[to + 2] = image.data[to + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

const tinted = new WeakMap();

function tintedCanvas(mask, colour) {
  const known = tinted.get(mask);
  if (known?.colour === colour) return known.canvas;
  const canvas = canvasOf(mask, mask.width, mask.height);
  tint(canvas, colour);
  tinted.set(mask, { colour, canvas });
  return canvas;
}

export function tint(canvas, colour) {
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "source-over";
}

/* Draw a shape, in the film's pixels; `line` is how wide a line of one CSS pixel is, `dash` the
   lengths of dashes and gaps in CSS pixels. */
export function paintShape(context, shape, { colour, line, dash = [], chosen = false, fill = false }) {
  context.strokeStyle = colour;
  if (shape.kind === "mask") {
    context.globalAlpha = chosen ? 0.55 : 0.4;
    context.drawImage(tintedCanvas(shape, colour), 0, 0);
    context.globalAlpha = 1;
    if (!dash.length && !chosen) return;
    const [left, top, right, bottom] = boundsOf(shape);
    context.lineWidth = line;
    context.setLineDash((dash.length ? dash : [3, 3]).map((length) => length * line));
    context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
    return;
  }
  const path = outlineOf(shape);
  if (fill) {
    context.fillStyle = colour;
    context.globalAlpha = 0.12;
    context.fill(path, "nonzero");
    context.globalAlpha = 1;
  }
  // a dark edge keeps the line visible on white bone as on black air
  context.setLineDash(dash.map((length) => length * line));
  context.lineJoin = "round";
  context.lineWidth = (chosen ? 5.5 : 4) * line;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.stroke(path);
  context.lineWidth = (chosen ? 3 : 2) * line;
  context.strokeStyle = colour;
  context.stroke(path);
  context.setLineDash([]);
}
