// The history page: the events and the annotations of a period.

import { annotations, history } from "./api.js";
import { begin, drawMark, onStored } from "./mark.js";
import { around, link, linked, pan, set, view, zoom } from "./period.js";
import { bars, grouped, intervals, lanes, same } from "./spans.js";
import { list, listParts } from "./table.js";
import { DAY, duration, entered, HOUR, local, MINUTE, moment, SECOND, zone } from "./time.js";
import { at, draw } from "./timeline.js";

const PATIENCE = 3 * SECOND; // until a failed request is repeated
const find = (id) => document.getElementById(id);
const canvas = find("timeline");
const filterForm = find("filter");
let answer = null;
let notes = new Map();
let cut = false;
let annotator = null;
let places = [];
let shown = [];
let selected = null;
let wanted = null; // the interval that the page's address names, until it is found
let began = false;
let ahead = 0;
let waiting = 0;
let running = new AbortController();

function open() {
  const { period, interval } = linked();
  began ||= Boolean(period);
  wanted = interval;
  if (period) set(period.from, period.to);
  shift();
}

/** Show the period that was set. */
function shift() {
  const period = find("period").elements;
  period.from.value = local(view.from);
  period.to.value = local(view.to);
  link(selected ?? wanted);
  redraw();
  later(150);
}

function later(time) {
  clearTimeout(waiting);
  waiting = setTimeout(load, time);
}

async function load() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  say("loading", "Loading");
  try {
    const camera = filterForm.elements.camera.value;
    const [past, about] = await Promise.all([
      history(view.from, view.to, camera, signal), annotations(view.from, view.to, camera, signal),
    ]);
    answer = past.body;
    ahead = Date.now() - past.time;
    notes = grouped(about.found);
    ({ annotator, cut } = about);
  } catch (error) {
    if (signal.aborted) return; // a later call has replaced this one
    running.abort();
    say("error", error.again ? `${error.message}; the page tries again` : error.message);
    if (error.again) later(PATIENCE);
    return;
  }
  if (empty() && !began && answer.last) {
    began = true;
    last();
    return;
  }
  began = true;
  options();
  redraw();
  tell();
}

const empty = () => answer.aggregated ? answer.rows.every((row) => !row.online_s)
  : answer.cameras.every((camera) => !camera.stays.length && camera.states.every((each) => each.state !== "online"));

function tell() {
  if (!answer.last) say("empty", "The journal has no event yet");
  else if (empty()) say("empty", `No camera was online in this period; the latest event is of ${moment(Date.parse(answer.last))}`);
  else if (answer.least_faces > 1) say("much", `Single faces are not shown, because least_faces is ${answer.least_faces}: each bar is ${duration(answer.resolution_s)}`);
  else if (answer.aggregated) say("much", `Too many intervals to show each: a bar is ${duration(answer.resolution_s)}; zoom in`);
  else say("shown", `${moment(view.from)} to ${moment(view.to)}${cut ? "; too many annotations to show all" : ""}`);
}

function say(state, text) {
  find("state").dataset.state = state;
  find("state").textContent = text;
}

function last() {
  const end = Date.parse(answer.last);
  const start = Math.max(Date.parse(answer.first), end - DAY);
  const room = Math.max(SECOND, (end - start) / 20);
  set(start - room, end + room);
  shift();
}

function options() {
  const names = answer.aggregated ? answer.rows.map((row) => row.camera) : answer.cameras.map((each) => each.camera);
  extend(filterForm.elements.camera, names);
  extend(filterForm.elements.label, Object.keys(answer.colours));
}

function extend(select, names) {
  const known = new Set([...select.options].map((option) => option.value));
  for (const name of new Set(names)) if (!known.has(name)) select.add(new Option(name, name));
}

function filter() {
  const { label, track } = filterForm.elements;
  const number = track.value.trim().replace(/^#/, "");
  track.setCustomValidity(/^\d*$/.test(number) ? "" : "A track is a number, such as 12");
  track.disabled = Boolean(answer?.aggregated);
  track.title = track.disabled ? "Zoom in to filter by track" : "";
  return { label: label.value, track: Number(number) || 0 };
}

function redraw() {
  if (!answer) return;
  const passing = filter();
  let cameras;
  let what;
  let left;
  if (answer.aggregated) {
    cameras = bars(answer, passing, notes);
    shown = [];
    const parts = cameras.flatMap((camera) => camera.bars);
    left = listParts(find("spans"), parts, enlarge);
    what = `${parts.length} parts`;
  } else {
    shown = intervals(answer, passing, notes).filter((each) => each.to >= view.from && each.from <= view.to);
    cameras = lanes(answer, shown);
    left = list(find("spans"), shown, select);
    what = shown.length === 1 ? "1 interval" : `${shown.length} intervals`;
    if (passing.label || passing.track) what += shown.length === 1 ? " passes the filter" : " pass the filter";
  }
  selected = shown.find((each) => same(each, selected ?? wanted)) ?? null;
  if (selected) wanted = null;
  places = draw(canvas, view, cameras, answer.colours, selected);
  canvas.setAttribute("aria-label", `Timeline from ${moment(view.from)} to ${moment(view.to)}: ${what}, listed in the table below`);
  find("count").textContent = left ? `${what}; the last ${left} are not listed: zoom in` : what;
  find("zone").textContent = zone(view.from, view.to) + clocks();
  legend();
  drawMark(selected, annotator, Object.keys(answer.colours));
}

/** Return by how much the browser's clock is wrong, if it matters. */
function clocks() {
  if (!(Math.abs(ahead) > MINUTE)) return "";
  return `; this browser's clock is ${duration(Math.abs(ahead) / SECOND)} ${ahead > 0 ? "ahead of" : "behind"} the server's`;
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
    ...Object.entries(answer.colours).map(([label, colour]) => entry(label, "", colour)), entry("uncertain", "thin"),
    entry("online, no face", "plain"), entry("offline", "hatched"), entry("unknown, or events missing", "dotted"), entry("marked", "framed"),
  );
}

function select(each) {
  selected = each;
  link(selected);
  redraw();
  begin();
}

function deselect() {
  selected = wanted = null;
  link(null);
  redraw();
  canvas.focus({ preventScroll: true });
}

function enlarge(part) {
  set(part.from, part.to);
  shift();
  canvas.focus({ preventScroll: true });
}

onStored(load);
find("close").addEventListener("click", deselect);
find("mark").addEventListener("keydown", (event) => event.key === "Escape" && deselect());

find("period").addEventListener("submit", (event) => {
  event.preventDefault();
  const { from, to } = event.target.elements;
  const [start, end] = [entered(from.value, view.from), entered(to.value, view.to)];
  if (!(end > start)) {
    say("error", "The period is empty: its end must be after its beginning");
    return;
  }
  set(start, end);
  shift();
});

const moves = {
  back: () => pan(-0.5), forth: () => pan(0.5), in: () => zoom(0.5), out: () => zoom(2),
  day: () => around(DAY), hour: () => around(HOUR), minute: () => around(MINUTE),
  all: () => answer?.last && set(Date.parse(answer.first) - SECOND, Date.parse(answer.last) + SECOND),
};

function move(name) {
  if (name === "last") {
    if (answer?.last) last();
  } else if (name in moves) {
    moves[name]();
    shift();
  }
}

find("moves").addEventListener("click", (event) => move(event.target.dataset.move));

const KEYS = { "+": "in", "=": "in", "-": "out", Home: "all", End: "last" };
const ARROWS = { ArrowLeft: -0.2, ArrowRight: 0.2 };
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS || event.key in ARROWS)) return;
  event.preventDefault();
  if (event.key in KEYS) move(KEYS[event.key]);
  else {
    pan(ARROWS[event.key]);
    shift();
  }
});

canvas.addEventListener("wheel", (event) => {
  const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (!sideways && !event.ctrlKey) return; // the page scrolls
  event.preventDefault();
  if (sideways) pan(event.deltaX / canvas.clientWidth);
  else zoom(2 ** (event.deltaY / 200), view.from + (event.offsetX / canvas.clientWidth) * (view.to - view.from));
  shift();
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
  const time = (by / canvas.clientWidth) * (drag.to - drag.from);
  if (!drag.moved) return;
  set(drag.from - time, drag.to - time);
  shift();
});
canvas.addEventListener("pointerup", (event) => {
  const hit = drag && !drag.moved ? at(places, event.offsetX, event.offsetY) : null;
  drag = null;
  if (hit) (answer.aggregated ? enlarge : select)(hit);
});
canvas.addEventListener("pointercancel", () => { drag = null; });

filterForm.addEventListener("input", (event) => (event.target.name === "camera" ? load() : redraw()));
filterForm.addEventListener("change", () => filterForm.reportValidity());
filterForm.addEventListener("submit", (event) => event.preventDefault());
addEventListener("resize", redraw);
addEventListener("hashchange", open);
matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);

open();
