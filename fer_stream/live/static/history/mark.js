// The part of the page in which an annotator marks the selected interval.

import { UNCERTAIN } from "../labels.js";
import { annotate } from "./api.js";
import { WRONG } from "./spans.js";
import { duration, moment } from "./time.js";

const find = (id) => document.getElementById(id);
const form = find("annotate");
let shown = null;
let sending = Promise.resolve(); // resolves after all earlier annotations are sent, so they are stored in order of entry
let draft = { text: "", id: "" };

/** Show an interval, or nothing; `annotator` is the name under which this browser may annotate, or null. */
export function drawMark(selected, annotator, labels) {
  find("mark").hidden = !selected;
  shown = selected;
  if (!selected) return;
  const { camera, track, from, to, label, open, notes } = selected;
  find("selected").textContent = `${camera}, track ${track}, ${moment(from)} to ${open ? "now" : moment(to)} (${duration((to - from) / 1000)}): ${label ?? UNCERTAIN}.`;
  find("notes").replaceChildren(...notes.map((each, number) => {
    const item = document.createElement("li");
    const counts = notes.slice(number + 1).some((later) => later.annotator === each.annotator) ? ", replaced by a later one" : "";
    item.textContent = `${each.annotator}, ${moment(Date.parse(each.made))}: ${each.label}${each.note && ` (${each.note})`}${counts}`;
    return item;
  }));
  find("who").textContent = annotator ? `You annotate as ${annotator}.` : "Only annotators can mark labels. Enter an annotator's token:";
  form.hidden = !annotator;
  find("enter").hidden = Boolean(annotator);
  find("enter").action = `enter${location.hash}`;
  const select = form.elements.label;
  const chosen = select.value;
  select.replaceChildren(
    new Option("choose", ""), ...labels.map((each) => new Option(each === label ? `${each} (as shown: confirm)` : each, each)),
    new Option("wrong (right label unknown)", WRONG),
  );
  select.value = [...select.options].some((option) => option.value === chosen) ? chosen : "";
}

/** Clear the form, and focus its first field. */
export function begin() {
  form.reset();
  find("sent").textContent = "";
  find("mark").scrollIntoView({ block: "nearest" });
  (form.hidden ? find("enter").elements.token : form.elements.label).focus({ preventScroll: true });
}

/** Call `stored` after an annotation is stored. */
export function onStored(stored) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = filled();
    if (draft.text !== text) draft = { text, id: identity() };
    const { id } = draft; // same text, same id: it is stored once, even after a double click or a lost answer
    sending = sending.then(() => send(text, id)).then((made) => { if (made) stored(); });
  });
}

/** Send an annotation (`text`: JSON, `id`: its id); return whether it is stored. */
async function send(text, id) {
  try {
    const made = await annotate({ ...JSON.parse(text), id });
    find("sent").textContent = `Stored as annotation ${made.number}, by ${made.annotator}: ${made.label}`;
  } catch (error) {
    find("sent").textContent = error.message;
    return false;
  }
  if (draft.id === id) draft = { text: "", id: "" };
  if (shown && filled() === text) form.reset(); // keep another annotation that is being entered
  return true;
}

/** Return the annotation in the form, as JSON. */
function filled() {
  const { camera, track, start, end, label } = shown;
  return JSON.stringify({ camera, track, start, end, label: form.elements.label.value, previous: label, note: form.elements.note.value });
}

const identity = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
