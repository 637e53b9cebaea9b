// The history page: a period, what the journal says of it, and what annotators have marked.

import { annotate, annotations, history } from "./api.js";
import { intervals, lanes, latest, WRONG } from "./spans.js";
import { list, listParts } from "./table.js";
import { DAY, HOUR, local, MINUTE, moment, SECOND, zone } from "./time.js";
import { at, draw } from "./timeline.js";

const here = new URL(location.href);
here.search = "";
window.history.replaceState(null, "", here);

const find = (id) => document.getElementById(id);
const canvas = find("timeline");
const filterForm = find("filter");
const SHORTEST = 10 * SECOND;
const EARLIEST = Date.UTC(1700, 0, 2);
const LATEST = Date.UTC(2200, 11, 30);
const LONGEST = 200 * 366 * DAY;
const view = { from: Date.now() - DAY, to: Date.now() };
let answer = null;
let marks = new Map();
let annotator = null;
let places = [];
let shown = [];
let selected = null;
let began = false;
let waiting = 0;
let running = new AbortController();

find("zone").textContent = `times in ${zone()}`;

function show(from, to) {
  const length = Math.min(LONGEST, Math.max(SHORTEST, to - from));
  const middle = (from + to) / 2;
  view.from = Math.round(Math.min(Math.max(EARLIEST, middle - length / 2), LATEST - length));
  view.to = view.from + Math.round(length);
  const period = find("period").elements;
  period.from.value = local(view.from);
  period.to.value = local(view.to);
  redraw();
  clearTimeout(waiting);
  waiting = setTimeout(load, 150);
}

async function load() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  say("loading", "Loading");
  try {
    const camera = filterForm.elements.camera.value;
    const [past, said] = await Promise.all([
      history(view.from, view.to, camera, signal), annotations(view.from, view.to, camera, signal),
    ]);
    answer = past;
    marks = latest(said.found);
    annotator = said.annotator;
  } catch (error) {
    if (error.name !== "AbortError") say("error", error.message);
    return;
  }
  const empty = answer.aggregated ? answer.rows.every((row) => !row.online_s) : answer.cameras.every((camera) => !camera.stays.length && camera.states.every((each) => each.state !== "online"));
  if (empty && !began && answer.last) {
    began = true;
    last();
    return;
  }
  began = true;
  options();
  redraw();
  if (!answer.last) say("empty", "The journal has no event yet");
  else if (empty) say("empty", "No camera was online in this period; the latest events are elsewhere");
  else if (answer.aggregated) say("much", `Too much for single intervals: each bar is ${answer.resolution_s} s; zoom in`);
  else say("shown", `${moment(view.from)} to ${moment(view.to)}`);
}

function say(state, text) {
  find("state").dataset.state = state;
  find("state").textContent = text;
}

function last() {
  const end = Date.parse(answer.last);
  const start = Math.max(Date.parse(answer.first), end - DAY);
  const room = Math.max(SECOND, (end - start) / 20);
  show(start - room, end + room);
}

function options() {
  const names = answer.aggregated ? answer.rows.map((row) => row.camera) : answer.cameras.map((each) => each.camera);
  extend(filterForm.elements.camera, names);
  extend(filterForm.elements.label, Object.keys(answer.colours));
  extend(find("annotate").elements.label, [...Object.keys(answer.colours), WRONG]);
}

function extend(select, names) {
  const known = new Set([...select.options].map((option) => option.value));
  for (const name of new Set(names)) if (!known.has(name)) select.add(new Option(name === WRONG ? "wrong, not said which is right" : name, name));
}

function redraw() {
  if (!answer) return;
  const { label, track } = filterForm.elements;
  const filter = { label: label.value, track: Number(track.value) || 0 };
  let cameras;
  let left;
  if (answer.aggregated) {
    const rows = answer.rows.map((row) => ({ ...row, share: row.share ?? {}, from: Date.parse(row.start), to: Date.parse(row.end) }));
    cameras = [...new Set(rows.map((row) => row.camera))].map((camera) => ({ camera, bars: rows.filter((row) => row.camera === camera) }));
    shown = [];
    left = listParts(find("spans"), rows);
  } else {
    shown = intervals(answer, filter, marks).filter((each) => each.to >= view.from && each.from <= view.to);
    cameras = lanes(answer, shown);
    left = list(find("spans"), shown, select);
  }
  if (selected) selected = shown.find((each) => each.camera === selected.camera && each.track === selected.track && each.start === selected.start) ?? null;
  places = draw(canvas, view, cameras, answer.colours, selected);
  const what = answer.aggregated ? `${answer.rows.length} parts` : `${shown.length} intervals`;
  canvas.setAttribute("aria-label", `Timeline from ${moment(view.from)} to ${moment(view.to)}: ${what}, listed in the table below`);
  find("count").textContent = left ? `${what}, the first ${shown.length - left || 500} of them; zoom in for the rest` : what;
  legend();
  drawSelected();
}

function legend() {
  const entry = (name, kind, colour) => {
    const item = document.createElement("li");
    item.textContent = name;
    if (kind) item.className = kind;
    if (colour) item.style.setProperty("--paint", colour);
    return item;
  };
  find("legend").replaceChildren(
    ...Object.entries(answer.colours).map(([label, colour]) => entry(label, "", colour)),
    entry("online, no face", "plain"), entry("offline", "hatched"), entry("unknown, or events missing", "dotted"), entry("marked", ""),
  );
}

function select(each) {
  selected = each;
  redraw();
  find("sent").textContent = "";
  find("mark").scrollIntoView({ block: "nearest" });
  (annotator ? find("annotate").elements.label : find("enter").elements.token).focus({ preventScroll: true });
}

function drawSelected() {
  find("mark").hidden = !selected;
  if (!selected) return;
  const { camera, track, from, to, label, marked } = selected;
  const said = marked ? ` Marked as ${marked.label} by ${marked.annotator}, ${moment(Date.parse(marked.made))}.` : "";
  find("selected").textContent = `${camera}, track ${track}, ${moment(from)} to ${moment(to)}: ${label ?? "uncertain"}.${said}`;
  find("annotate").hidden = !annotator;
  find("enter").hidden = Boolean(annotator);
  for (const option of find("annotate").elements.label.options) option.disabled = option.value === label;
}

find("annotate").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target.elements;
  const { camera, track, start, end, label } = selected;
  const button = event.target.querySelector("button");
  button.disabled = true;
  try {
    const made = await annotate({ camera, track, start, end, label: form.label.value, previous: label, note: form.note.value });
    find("sent").textContent = `Stored as annotation ${made.number}, by ${made.annotator}: ${made.label}`;
    form.note.value = "";
    await load();
  } catch (error) {
    find("sent").textContent = error.message;
  } finally {
    button.disabled = false;
  }
});

find("period").addEventListener("submit", (event) => {
  event.preventDefault();
  const { from, to } = event.target.elements;
  const [start, end] = [new Date(from.value).getTime(), new Date(to.value).getTime()];
  if (end > start) show(start, end);
  else say("error", "The period is empty: its end must be after its beginning");
});

function zoom(factor, centre = (view.from + view.to) / 2) {
  const length = (view.to - view.from) * factor;
  if (length < SHORTEST && factor < 1) return;
  show(centre - (centre - view.from) * factor, centre + (view.to - centre) * factor);
}

function pan(share) {
  const by = (view.to - view.from) * share;
  show(view.from + by, view.to + by);
}

function around(length) {
  const middle = (view.from + view.to) / 2;
  show(middle - length / 2, middle + length / 2);
}

const moves = {
  back: () => pan(-0.5), forth: () => pan(0.5), in: () => zoom(0.5), out: () => zoom(2),
  day: () => around(DAY), hour: () => around(HOUR), minute: () => around(MINUTE),
  all: () => answer?.last && show(Date.parse(answer.first) - SECOND, Date.parse(answer.last) + SECOND),
  last: () => answer?.last && last(),
};
find("moves").addEventListener("click", (event) => moves[event.target.dataset.move]?.());

const KEYS = { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": moves.in, "=": moves.in, "-": moves.out, Home: moves.all, End: moves.last };
canvas.addEventListener("keydown", (event) => {
  const move = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
  if (!move) return;
  event.preventDefault();
  move();
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / canvas.clientWidth);
  else zoom(2 ** (event.deltaY / 200), view.from + (event.offsetX / canvas.clientWidth) * (view.to - view.from));
}, { passive: false });

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = { x: event.offsetX, from: view.from, to: view.to, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const by = event.offsetX - drag.x;
  drag.moved ||= Math.abs(by) > 4;
  const shift = (by / canvas.clientWidth) * (drag.to - drag.from);
  if (drag.moved) show(drag.from - shift, drag.to - shift);
});
canvas.addEventListener("pointerup", (event) => {
  const hit = drag && !drag.moved ? at(places, event.offsetX, event.offsetY) : null;
  drag = null;
  if (hit) select(hit);
});
canvas.addEventListener("pointercancel", () => { drag = null; });

filterForm.addEventListener("input", (event) => (event.target.name === "camera" ? load() : redraw()));
filterForm.addEventListener("submit", (event) => event.preventDefault());
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);

show(view.from, view.to);
