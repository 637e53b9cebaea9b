// The page: passes the server's messages to the tiles, the events and the tables, and tells the server what is in view.

import { connect } from "./connection.js";
import { Events } from "./events.js";
import { cameraOf } from "./history.js";
import { colour, named, scheme, UNCERTAIN } from "./labels.js";
import { arrange } from "./layout.js";
import { figures, ledger, problems, workers } from "./tables.js";
import { Tile } from "./tile.js";

const here = new URL(location.href);
here.search = ""; // remove the token, which the server has checked, from the address bar and the history
history.replaceState(null, "", here);

const find = (id) => document.getElementById(id);
const tiles = new Map();
const visible = new Set();
const events = new Events(find("events"), find("filter"), find("count"), find("announcer"));
let version = null;
let open = false;
let why = "";
let connected = false;
let status = { cameras: {}, workers: {} };
let enlarged = null;
let paused = false;

const send = connect({
  open(yes, reason) {
    open = yes;
    why = reason;
    if (!yes) connected = false;
    drawHealth();
    for (const [name, tile] of tiles) if (status.cameras[name]) tile.update(status.cameras[name], connected);
  },
  text(message) {
    ({ hello, state, events: happened })[message.type](message);
  },
  picture(head, blob) {
    const tile = tiles.get(head.camera);
    if (tile) tile.show(head, blob);
    else send({ shown: head.camera });
  },
});

function hello(message) {
  if (version && version !== message.version) location.reload();
  version = message.version;
  Object.assign(scheme, { valence: message.valence, colours: message.colours });
  find("blurred").textContent = message.blurred ? "The server blurs every face that it finds before it sends a picture." : "Faces are not blurred.";
  events.clear();
  watch();
}

function state(message) {
  ({ connected, status } = message.status.cameras ? message : { connected: message.connected, status });
  const names = Object.keys(status.cameras).sort(byName);
  status.cameras = Object.fromEntries(names.map((name) => [name, status.cameras[name]]));
  for (const name of names) tileOf(name).update(status.cameras[name], connected);
  for (const [name, tile] of tiles) {
    if (connected && !(name in status.cameras)) drop(name, tile);
  }
  find("nothing").hidden = tiles.size > 0;
  figures(find("figures"), status);
  ledger(find("ledger"), status.cameras);
  workers(find("workers"), status);
  drawHealth();
  layout();
}

function happened(message) {
  for (const [index, event] of message.events.entries()) {
    const name = cameraOf(event);
    if (!name) continue;
    tiles.get(name)?.history.take(event);
    (pasts.get(name) ?? pasts.set(name, []).get(name)).push(event);
    if (pasts.get(name).length > 500) pasts.get(name).shift();
    const tile = tiles.get(name);
    // Show the change now; the next status repeats it, up to a second later.
    if (event.type === "camera.offline" && tile && status.cameras[name] && index >= message.past) tile.update({ ...status.cameras[name], state: "offline" }, true);
  }
  events.take(message.events, message.past);
}

// Cameras are always sorted by name, with numbers compared by value: door-2 before door-10.
const byName = new Intl.Collator("en", { numeric: true }).compare;

const pasts = new Map(); // events by camera, for tiles that are made after the events have come

function tileOf(name) {
  if (!tiles.has(name)) {
    const tile = new Tile(name, { enlarge, shown: (camera) => send({ shown: camera }) });
    for (const event of pasts.get(name) ?? []) tile.history.take(event);
    tiles.set(name, tile);
    const next = [...tiles.keys()].filter((other) => byName(name, other) < 0).sort(byName)[0];
    find("tiles").insertBefore(tile.element, tiles.get(next)?.element ?? null);
    sight.observe(tile.element);
  }
  return tiles.get(name);
}

function drop(name, tile) {
  sight.unobserve(tile.element);
  visible.delete(name);
  tile.element.remove();
  tiles.delete(name);
  if (enlarged === tile) enlarge(tile);
}

// What is in view

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target.dataset.camera);
    else visible.delete(target.dataset.camera);
  }
  watch();
}, { rootMargin: "100px" });

let watching = 0;
function watch() {
  clearTimeout(watching);
  watching = setTimeout(() => {
    const wanted = {};
    if (!document.hidden && !paused) {
      for (const name of visible) {
        const width = tiles.get(name)?.element.querySelector(".picture").clientWidth ?? 0;
        if (width) wanted[name] = Math.round(width * (devicePixelRatio || 1));
      }
    }
    send({ watch: wanted });
  }, 50);
}
document.addEventListener("visibilitychange", watch);

function layout() {
  arrange(find("tiles"), find("tables"), tiles, enlarged);
}
new ResizeObserver(() => { layout(); watch(); }).observe(find("tiles"));
addEventListener("resize", () => { layout(); watch(); });
find("tiles").addEventListener("resized", () => { layout(); watch(); });

// Controls

function enlarge(tile) {
  enlarged = enlarged === tile ? null : tile;
  for (const other of tiles.values()) {
    other.enlarged = other === enlarged;
    other.element.hidden = enlarged !== null && other !== enlarged;
  }
  layout();
  watch();
}

addEventListener("keydown", (pressed) => {
  if (pressed.key === "Escape" && enlarged) {
    const { button } = enlarged;
    enlarge(enlarged);
    button.focus();
  }
});

find("pause").addEventListener("click", () => {
  paused = !paused;
  find("pause").setAttribute("aria-pressed", paused);
  find("pause").textContent = paused ? "Resume" : "Pause";
  watch();
});

for (const radio of document.querySelectorAll("[name=colour]")) {
  radio.addEventListener("change", () => {
    scheme.by = radio.value;
    events.draw();
    legend();
  });
}

function legend() {
  const labels = scheme.by === "valence" ? Object.values(scheme.valence) : status.labels ?? [];
  const items = [...new Set([...labels.map(named), UNCERTAIN])].map((label) => {
    const item = document.createElement("li");
    item.style.setProperty("--paint", colour(label));
    item.textContent = label;
    return item;
  });
  find("legend").replaceChildren(...items);
}

function drawHealth() {
  const found = problems(open, why, connected, status);
  const health = find("health");
  health.dataset.state = !open || !connected ? "bad" : found.length ? "warn" : "good";
  const text = found[0] ? found[0] + (found.length > 1 ? ` (+${found.length - 1})` : "") : "All well";
  if (health.lastElementChild.textContent !== text) health.lastElementChild.textContent = text;
  health.title = found.join("\n");
  const lost = version !== null && (!open || !connected);
  const past = lost ? " The page shows the last known state and reconnects by itself." : "";
  find("banner").hidden = !lost && !why;
  find("banner").textContent = lost || why ? `${found[0]}.${past}` : "";
  if (String(find("legend").dataset.labels) !== String(status.labels)) {
    find("legend").dataset.labels = String(status.labels);
    legend();
  }
}

setInterval(() => {
  if (!document.hidden && !paused) for (const tile of tiles.values()) if (visible.has(tile.name)) tile.tick();
}, 250);
