/* The lists beside the film: findings, suggestions, regions. */

import { choosePiece } from "/static/review-cross.js";
import { accept, keyGroup, reject, removeWhenFree } from "/static/review-edits.js";
import { strokeOf } from "/static/review-painting.js";
import { soon } from "/static/review-saving.js";
import { $, counts, findingButtons, names, numberOf, onRender, open, own, state } from "/static/review-state.js";
import { setTool } from "/static/review-tools.js";

const MARKS = { present: ["●", "present"], absent: ["–", "absent"], unsure: ["?", "unsure"], null: ["○", "open"] };

function element(kind, words, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function key(name) {
  return element("kbd", name);
}

function showPanel() {
  findingButtons.forEach((button, k) => {
    const [mark, words] = MARKS[state.findings[k].verdict];
    button.querySelector(".mark").textContent = mark;
    button.querySelector(".state").textContent = words;
    if (k === state.current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  bringIntoView(findingButtons[state.current], $("findings"));
  const assessment = state.findings[state.current];
  $("finding-name").textContent = names[state.current];
  $("shown-finding").textContent = names[state.current];
  for (const radio of document.querySelectorAll("input[name=verdict]")) {
    radio.checked = radio.value === assessment.verdict;
  }
  if (document.activeElement !== $("comment")) $("comment").value = assessment.comment;
  if ($("rest-absent")) $("rest-absent").disabled = state.findings.every((one) => one.verdict !== null);
  $("close-polygon").hidden = !(state.draft?.kind === "polygon" && state.draft.points.length > 2);
  $("cancel").hidden = !(state.draft?.kind === "polygon" || state.draft?.kind === "box");
  $("brush-place").hidden = !(state.toolName === "brush" || state.toolName === "eraser");
  $("hide").setAttribute("aria-pressed", state.hidden);
  renderSuggestions();
  renderRegions();
}

/* Scrolls the list and never the page, on which the film would move. */
function bringIntoView(row, list) {
  const [inner, outer] = [row.getBoundingClientRect(), list.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop += inner.top - outer.top;
  else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
}

function renderSuggestions() {
  const groups = state.suggestions[state.current];
  const target = keyGroup();
  if (state.hidden) {
    return $("suggestions").replaceChildren(...(groups.length ? [element("p", "Suggestions are hidden.", { class: "quiet" })] : []));
  }
  $("suggestions").replaceChildren(...groups.map((group) => {
    const box = element("div", "", { class: "group" });
    const title = element("h3", group.title);
    title.prepend(swatch(group));
    box.append(title);
    const left = open(group).length;
    const words = { present: "present", absent: "absent", unsure: "unsure", null: "no call" }[group.verdict];
    const count = group.regions.length;
    const regions = `${count} region${count > 1 ? "s" : ""}`;
    const answered = left === count ? "" : left ? `, ${left} not answered yet` : ", answered";
    const marked = !count ? "" : group.verdict === "absent" ? `, yet has ${regions}${answered}` : `, has ${regions}${answered}`;
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

const SVG = "http://www.w3.org/2000/svg";

/* The line that the group's regions are drawn with. */
function swatch(group) {
  const { colour, dash } = strokeOf(group);
  const picture = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "line");
  const drawn = { x1: 0, y1: 3, x2: 32, y2: 3, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash.join(" ") };
  for (const [name, value] of Object.entries({ class: `swatch ${group.kind}`, width: 32, height: 6, "aria-hidden": "true" })) picture.setAttribute(name, value);
  for (const [name, value] of Object.entries(drawn)) line.setAttribute(name, value);
  picture.append(line);
  return picture;
}

/* Both numbers with as many digits, three or more, as it takes to tell them apart. */
function apartInDigits(one, other) {
  let digits = 3;
  while (one !== other && digits < 17 && one.toFixed(digits) === other.toFixed(digits)) digits += 1;
  return [one.toFixed(digits), other.toFixed(digits)];
}

/* The score on a line from 0 to 1, with the threshold. */
function meter(group) {
  const has = group.threshold !== null;
  const [score, threshold] = apartInDigits(group.score, group.threshold ?? group.score);
  const said = `score ${score}` + (has ? `, threshold ${threshold}` : "");
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 10");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  const bar = (x, wide, colour) => {
    const one = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x, y: 0, width: wide, height: 10, fill: colour })) one.setAttribute(name, value);
    picture.append(one);
  };
  bar(0, 100 * group.score, strokeOf(group).colour);
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
      "aria-pressed": state.chosen?.region === index,
    });
    pick.addEventListener("click", () => { setTool("select"); choosePiece({ region: index }); });
    const gone = element("button", "✕", { "aria-label": `Delete region ${numberOf(index)}` });
    gone.addEventListener("click", () => removeWhenFree(index));
    row.append(pick, gone);
    return row;
  });
  if (!rows.length) rows.push(element("li", "none", { class: "quiet" }));
  if (rejected) rows.push(element("li", `${rejected} suggested region${rejected > 1 ? "s" : ""} rejected`, { class: "quiet" }));
  $("regions").replaceChildren(...rows);
}

onRender(showPanel);
