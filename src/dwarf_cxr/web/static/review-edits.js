/* What a reader can do to a finding: mark, correct, accept, reject, delete, give a verdict. */

import { change, put, soon } from "/static/review-saving.js";
import { $, counts, open, own, render, say, state } from "/static/review-state.js";

/* What is marked is there, unless the reader said that they are not sure; when nothing is marked
   any more, the verdict is again what it was before the first mark. */
function withRegions(regions, verdict = state.findings[state.current].verdict) {
  const assessment = state.findings[state.current];
  const were = assessment.regions.some(counts);
  const there = regions.some(counts);
  if (there && !were) state.unmarked[state.current] = assessment.verdict;
  if (there) return { ...assessment, regions, verdict: verdict === "unsure" ? verdict : "present" };
  if (!were || verdict !== "present") return { ...assessment, regions, verdict };
  return { ...assessment, regions, verdict: beforeMarks() };
}

function beforeMarks() {
  const before = state.unmarked[state.current];
  if (before === undefined || before === "present") {
    say("No region is left; the finding is still present. Say with 2 or 3 if it is not.");
    return "present";
  }
  say(before === null ? "No region is left: the finding is open again." : `No region is left: the finding is ${before} again.`);
  return before;
}

export function addRegion(shape) {
  put(withRegions([...own(), { shape, origin: "drawn", suggested: null }]));
  state.chosen = { region: own().length - 1 };
  render();
}

/* Put another shape in the place of the chosen region; a chosen suggestion is thereby corrected. */
export function reshape(shape) {
  if (state.chosen.region === undefined) {
    const region = { shape, origin: "corrected", suggested: { by: state.chosen.by, number: state.chosen.number } };
    const corner = state.chosen.corner;
    put(withRegions([...own(), region]));
    state.chosen = { region: own().length - 1, corner };
  } else {
    put(withRegions(own().map((region, index) => {
      if (index !== state.chosen.region) return region;
      return { ...region, shape, origin: region.origin === "accepted" ? "corrected" : region.origin };
    })));
  }
  render();
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/* Delete a region that was pointed at, wherever an undo has moved it meanwhile. */
export function removeWhenFree(index) {
  const region = own()[index];
  const finding = state.current;
  soon(() => {
    const at = finding === state.current ? own().findIndex((one) => isSame(one, region)) : -1;
    if (at < 0) say("The region is not there any more.");
    else removeRegion(at);
  });
}

export function removeRegion(index) {
  const region = own()[index];
  const regions = region.origin === "drawn"
    ? own().filter((_, at) => at !== index)
    : own().map((one, at) => (at === index ? { ...one, origin: "rejected" } : one));
  state.chosen = null;
  put(withRegions(regions));
}

export function answer(pieces, origin, verdict) {
  const regions = [...own(), ...pieces.map(({ shape, by, number: index }) => (
    { shape, origin, suggested: { by, number: index } }
  ))];
  state.chosen = null;
  put(origin === "rejected" ? { ...state.findings[state.current], regions } : withRegions(regions, verdict));
}

export function accept(group) {
  if (state.hidden) return say("Suggestions are hidden; show them with H.");
  if (group.verdict === "absent" && !(state.chosen && state.chosen.by === group.by)) {
    return setVerdict("absent");
  }
  const pieces = picked(group);
  const verdict = group.verdict === "unsure" ? "unsure" : "present";
  if (!pieces.length && state.findings[state.current].verdict === verdict) return say("Nothing is left to accept.");
  answer(pieces, "accepted", verdict);
}

export function reject(group) {
  if (state.hidden) return say("Suggestions are hidden; show them with H.");
  const pieces = picked(group);
  if (!pieces.length) return say("No suggested region is left to reject; say whether the finding is there with 1, 2, 3.");
  answer(pieces, "rejected");
}

/* The chosen suggestion if it is of this group, else all that is open in it. */
function picked(group) {
  const pieces = open(group);
  return state.chosen?.by === group.by ? pieces.filter((one) => one.number === state.chosen.number) : pieces;
}

/* Which group the keys A and X mean. */
export function keyGroup() {
  const groups = state.suggestions[state.current];
  return groups.find((one) => one.by === state.chosen?.by)
    ?? groups.find((one) => one.verdict !== "absent" && open(one).length) ?? groups.at(-1);
}

export function setVerdict(verdict) {
  const assessment = { ...state.findings[state.current], verdict };
  state.unmarked[state.current] = verdict; // said, whatever is marked
  const there = own().filter(counts).length;
  if (verdict === "absent" && there) {
    assessment.regions = own().filter((one) => one.origin !== "drawn").map((one) => ({ ...one, origin: "rejected" }));
    say(`${there} region${there > 1 ? "s" : ""} removed, since the finding is absent. Undo brings ${there > 1 ? "them" : "it"} back.`);
    state.chosen = null;
  }
  put(assessment);
}

/* Not for the adjudicator: what readers agree on would be overruled, disputes decided unread. */
export function restAbsent() {
  if (!$("rest-absent")) return say("Decide finding by finding; R is for readers.");
  const edits = {};
  state.findings.forEach((one, k) => {
    if (one.verdict === null && !one.regions.some(counts)) edits[k] = { ...one, verdict: "absent" };
  });
  if (Object.keys(edits).length) change(edits);
}
