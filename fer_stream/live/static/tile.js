// One camera's tile: its picture with boxes around the faces, and a lane (a timeline of labels) for each face.

import { History } from "./history.js";
import { colour, ink, named, percent, UNCERTAIN } from "./labels.js";

export const WINDOW = 60; // seconds that a lane shows

export class Tile {
  constructor(name, { enlarge, shown }) {
    this.name = name;
    this.history = new History();
    this.size = [4, 3];
    this.state = "";
    this.lanes = 3;
    this.#shown = shown;
    this.element = document.createElement("article");
    this.element.className = "tile";
    this.element.dataset.camera = name;
    this.element.innerHTML = `
      <header><h3></h3><p class="badge"><i aria-hidden="true"></i><span></span></p><p class="pace"><span></span><span class="age"></span></p>
      <button type="button" class="enlarge" aria-pressed="false"><svg aria-hidden="true" viewBox="0 0 16 16"><path/></svg></button></header>
      <div class="picture"><canvas role="img"></canvas><div class="faces" aria-hidden="true"></div><p class="veil"></p></div>
      <ol class="lanes"></ol>
      <p class="axis" aria-hidden="true"><span>−60 s</span><span>−30 s</span><span>now</span></p>`;
    const find = (selector) => this.element.querySelector(selector);
    find("h3").textContent = name;
    find("h3").id = `tile-${name}`;
    this.element.setAttribute("aria-labelledby", `tile-${name}`);
    this.#badge = find(".badge");
    this.#pace = find(".pace");
    this.#picture = find(".picture");
    this.#canvas = find("canvas");
    this.#faces = find(".faces");
    this.#veil = find(".veil");
    this.#lanes = find(".lanes");
    this.#axis = find(".axis");
    this.#lanes.setAttribute("aria-label", `Faces on ${name} in the last minute`);
    this.#canvas.setAttribute("aria-label", `${name}: no picture yet`);
    this.button = find("button");
    this.button.addEventListener("click", () => enlarge(this));
    this.enlarged = false;
  }

  #badge; #pace; #picture; #canvas; #faces; #veil; #lanes; #axis; #shown;
  #tracks = []; // of the newest picture
  #stamp = null; // the newest picture's capture time in seconds, and performance.now() when it was drawn
  #rows = new Map();

  set enlarged(yes) {
    this.element.classList.toggle("enlarged", yes);
    this.button.setAttribute("aria-pressed", yes);
    this.button.setAttribute("aria-label", yes ? `Show all cameras` : `Enlarge ${this.name}`);
    this.button.title = this.button.getAttribute("aria-label");
    this.button.querySelector("path").setAttribute("d", yes ? "M6 2v4H2M10 2v4h4M6 14v-4H2M10 14v-4h4" : "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4");
  }

  /** Show the camera's part of the aggregator's status; `connected` tells whether the aggregator still answers. */
  update(status, connected) {
    const state = connected ? status.state : "unknown";
    this.state = state;
    this.element.dataset.state = state;
    this.#badge.lastElementChild.textContent = state;
    const online = state === "online";
    this.#pace.firstElementChild.textContent = online ? `${status.rate.toFixed(status.rate < 10 ? 1 : 0)} fps` : "";
    this.#pace.lastElementChild.textContent = online ? ` · ${Math.round(1000 * status.frame_age_s)} ms` : "";
    this.#veil.textContent = { offline: "Offline", ended: "Ended", unknown: "No connection to the aggregator" }[state]
      ?? (this.#stamp ? "" : "Waiting for a picture");
    if (state !== "online") this.#draw([]);
    return this;
  }

  /** Show a picture and its faces, then call the callback `shown`, also if the picture cannot be decoded. */
  async show(head, blob) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob);
    } catch {
      this.#shown(this.name);
      return;
    }
    requestAnimationFrame(() => {
      if (this.#canvas.width !== bitmap.width || this.#canvas.height !== bitmap.height) {
        [this.#canvas.width, this.#canvas.height] = [bitmap.width, bitmap.height];
      }
      this.#canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      const changed = this.size[0] * head.size[1] !== this.size[1] * head.size[0];
      this.size = head.size;
      if (changed) this.element.dispatchEvent(new CustomEvent("resized", { bubbles: true }));
      const time = head.time / 1e9;
      if (this.#stamp && time < this.#stamp.time - 1) this.history.now = time; // a looped recording has started again
      this.#stamp = { time, came: performance.now() };
      if (this.state === "online") this.#veil.textContent = "";
      this.element.dataset.frame = head.frame;
      this.#draw(this.state === "online" ? head.tracks : []);
      this.#shown(this.name);
    });
  }

  #draw(tracks) {
    this.#tracks = tracks;
    const [width, height] = this.size;
    const known = new Map([...this.#faces.children].map((box) => [box.dataset.track, box]));
    for (const track of tracks) {
      const key = String(track.track);
      const box = known.get(key) ?? this.#faces.appendChild(newBox(key));
      known.delete(key);
      const [x1, y1, x2, y2] = track.box;
      const position = { left: x1 / width, top: y1 / height, width: (x2 - x1) / width, height: (y2 - y1) / height };
      for (const [side, share] of Object.entries(position)) box.style[side] = `${100 * share}%`;
      box.classList.toggle("low", y1 < 0.09 * height);
      box.classList.toggle("right", x1 > 0.72 * width);
      const shown = named(track.label);
      const paint = colour(shown);
      box.style.setProperty("--paint", paint);
      box.style.setProperty("--ink", ink(paint));
      box.dataset.label = shown;
      box.firstElementChild.textContent = caption(track);
    }
    for (const gone of known.values()) gone.remove();
    const faces = tracks.map(caption).join(", ") || "no face";
    this.#canvas.setAttribute("aria-label", `${this.name}, ${this.state}: ${faces}`);
  }

  /** Draw the lanes up to the present time, which runs on from the newest picture's by at most a second. */
  tick() {
    if (this.#stamp && this.state === "online") {
      const ahead = Math.min(1, (performance.now() - this.#stamp.came) / 1000);
      const now = this.#stamp.time + ahead;
      this.history.now = Math.max(this.history.now, now);
    }
    const recent = this.history.recent(WINDOW);
    const there = recent.slice(0, this.lanes);
    const rows = new Map();
    for (const face of there) {
      const row = this.#rows.get(face.key) ?? newLane();
      rows.set(face.key, row);
      this.#drawLane(row, face);
    }
    this.#rows = rows;
    const wanted = [...rows.values()];
    const more = recent.length - there.length;
    this.#axis.dataset.more = more > 0 ? `+${more} more` : "";
    if (wanted.length !== this.#lanes.children.length || wanted.some((row, n) => row !== this.#lanes.children[n])) {
      this.#lanes.replaceChildren(...wanted);
    }
  }

  #drawLane(row, face) {
    const track = this.#tracks.find((shown) => shown.track === face.track && face.end === null);
    const label = track ? track.label : face.end === null ? face.spans.find((span) => span.end === null)?.label : null;
    const text = face.end === null ? `#${face.track} ${named(label)}` : `#${face.track} left`;
    if (row.firstElementChild.textContent !== text) row.firstElementChild.textContent = text;
    row.classList.toggle("left", face.end !== null);
    const canvas = row.lastElementChild;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    const at = (time) => ((time - this.history.now) / WINDOW + 1) * width;
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = getComputedStyle(canvas).color;
    pen.fillRect(at(face.start), height / 2 - ratio, at(face.end ?? this.history.now) - at(face.start), 2 * ratio);
    pen.font = `600 ${10.5 * ratio}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    for (const span of face.spans) {
      const [from, to] = [Math.max(0, at(span.start)), at(span.end ?? this.history.now)];
      if (to <= 0) continue;
      const shown = named(span.label);
      pen.fillStyle = colour(shown);
      pen.beginPath();
      pen.roundRect(from, ratio, Math.max(to - from, 2 * ratio), height - 2 * ratio, 3 * ratio);
      pen.fill();
      if (pen.measureText(shown).width + 10 * ratio < to - from) {
        pen.fillStyle = ink(colour(shown));
        pen.fillText(shown, from + 5 * ratio, height / 2 + ratio / 2);
      }
    }
  }
}

function caption(track) {
  const shown = named(track.label);
  const share = shown === track.label ? track.probabilities[track.label] : groupShare(track, shown);
  const unlabelled = track.measures && !Object.keys(track.probabilities).length; // the model has only measures
  const label = shown === UNCERTAIN ? " uncertain" : ` ${shown} ${percent(share)}`;
  const measures = Object.entries(track.measures ?? {}).map(([name, value]) => `${name} ${value.toFixed(2)}`);
  return [`#${track.track}${unlabelled ? "" : label}`, ...measures].join(", ");
}

function groupShare(track, group) {
  return Object.entries(track.probabilities).reduce((sum, [label, share]) => sum + (named(label) === group ? share : 0), 0);
}

function newBox(track) {
  const box = document.createElement("div");
  box.className = "face";
  box.dataset.track = track;
  box.append(document.createElement("span"));
  return box;
}

function newLane() {
  const row = document.createElement("li");
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true"); // the list of events has the same as text
  row.append(document.createElement("span"), canvas);
  return row;
}
