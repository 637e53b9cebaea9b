// The list of events, newest first, with its filter, and a live region that announces new events to screen readers.

import { cameraOf, trackOf } from "./history.js";
import { colour, named, percent } from "./labels.js";

const KEPT = 500; // events in the list
const SILENCE = 3000; // ms between two announcements

export class Events {
  constructor(list, form, count, announcer) {
    this.#list = list;
    this.#form = form;
    this.#count = count;
    this.#announcer = announcer;
    form.addEventListener("input", () => this.draw());
    form.addEventListener("submit", (submitted) => submitted.preventDefault());
  }

  #list; #form; #count; #announcer;
  #events = [];
  #unannounced = [];
  #timer = 0;

  clear() {
    this.#events = [];
    this.draw();
  }

  /** Add events in order. The first `past` of them happened before the page was opened and are not announced. */
  take(events, past) {
    this.#events = [...this.#events, ...events].slice(-KEPT);
    const wanted = events.filter((event) => this.#wanted(event));
    this.#list.prepend(...wanted.map(newRow).reverse());
    while (this.#list.children.length > KEPT) this.#list.lastElementChild.remove();
    this.#drawCount();
    this.#announce(events.slice(past).filter((event) => this.#wanted(event)));
  }

  /** Redraw the whole list, for example after a change of the filter or the colours. */
  draw() {
    this.#list.replaceChildren(...this.#events.filter((event) => this.#wanted(event)).map(newRow).reverse());
    this.#drawCount();
  }

  #drawCount() {
    const [shown, all] = [this.#list.children.length, this.#events.length];
    this.#count.textContent = shown === all ? `${all}` : `${shown} of ${all}`;
  }

  #wanted(event) {
    const wanted = new FormData(this.#form).getAll("kind");
    if (!kinds(event).every((kind) => wanted.includes(kind))) return false;
    const words = this.#form.querySelector("#words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = words.length ? sentence(event).toLowerCase() : "";
    return words.every((word) => text.includes(word));
  }

  #announce(events) {
    this.#unannounced.push(...events);
    if (this.#timer || !this.#unannounced.length) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      const [last, more] = [this.#unannounced.at(-1), this.#unannounced.length - 1];
      this.#unannounced = [];
      this.#announcer.textContent = sentence(last) + (more ? `, and ${more} more` : "");
    }, this.#announcer.textContent ? SILENCE : 0);
  }
}

function kinds(event) {
  const [family, what] = event.type.split(".");
  const kind = { face: "face", zone: "face", line: "face", emotion: "expression", valence: "expression" }[family] ?? "camera";
  return what === "updated" ? [kind, "updated"] : [kind];
}

/** Return an event in words. */
export function sentence(event) {
  return [clock(event.time), cameraOf(event), ...[trackOf(event)].filter(Boolean).map((track) => `#${track}`), ...about(event)].join(" ");
}

function about(event) {
  const { data, type } = event;
  const [family, what] = type.split(".");
  if (family === "face") return [what === "entered" ? "face entered" : `face left after ${duration(data)}`];
  if (family === "zone") return [what === "entered" ? `entered ${data.zone}` : `left ${data.zone} after ${duration(data)}`];
  if (family === "line") return [`crossed ${data.line}: ${data.direction}`];
  if (family === "camera") return [`camera ${what}:`, data.reason];
  if (family === "stream") return [data.reason !== "another journal" ? `events after cursor ${data.from}, up to ${data.to}, are gone:` : "all events anew:", data.reason];
  const probability = percent(data.probability.mean);
  const shown = named(data.label) === data.label ? data.label : `${data.label} (${named(data.label)})`;
  return what === "started" ? [shown, probability] : [shown, what, probability, duration(data)];
}

const duration = (data) => `${(data.duration_ms / 1000).toFixed(1)}\u00a0s`; // non-breaking space before the unit

/** Return the local time of day, or the position in a recording, whose timestamps begin in 1970. */
function clock(time) {
  if (time.startsWith("1970")) return time.slice(11, 21);
  return new Date(time).toLocaleTimeString([], { hourCycle: "h23" });
}

function newRow(event) {
  const row = document.createElement("li");
  const label = event.data.label;
  row.dataset.type = event.type;
  row.dataset.cursor = event.cursor;
  const parts = [
    ["time", clock(event.time)], ["where", cameraOf(event)], ["track", trackOf(event) ? `#${trackOf(event)}` : ""],
    ["what", about(event).join(" ")],
  ];
  for (const [name, text] of parts) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    row.append(part, " ");
  }
  if (label) row.style.setProperty("--paint", colour(named(label)));
  row.classList.toggle("labelled", Boolean(label));
  return row;
}
