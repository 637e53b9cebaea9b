// The period that is shown, and how to move it. The page's address contains it, so a link or a reload shows it again.

import { DAY, SECOND } from "./time.js";

const SHORTEST = 10 * SECOND;
const LONGEST = 200 * 366 * DAY;
const EARLIEST = Date.UTC(1700, 0, 2);
const LATEST = Date.UTC(2200, 11, 30);

/** The period: milliseconds since 1970. */
export const view = { from: Date.now() - DAY, to: Date.now() };

/** Set the period, within the server's limits. */
export function set(from, to) {
  const length = Math.min(LONGEST, Math.max(SHORTEST, to - from));
  const middle = (from + to) / 2;
  view.from = Math.round(Math.min(Math.max(EARLIEST, middle - length / 2), LATEST - length));
  view.to = view.from + Math.round(length);
}

export function zoom(factor, centre = (view.from + view.to) / 2) {
  if ((view.to - view.from) * factor < SHORTEST && factor < 1) return;
  set(centre - (centre - view.from) * factor, centre + (view.to - centre) * factor);
}

export function pan(share) {
  const by = (view.to - view.from) * share;
  set(view.from + by, view.to + by);
}

export function around(length) {
  const middle = (view.from + view.to) / 2;
  set(middle - length / 2, middle + length / 2);
}

/** Return the period and the selected interval in the page's address; each may be null. */
export function linked() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [from, to] = ["from", "to"].map((name) => Date.parse(given.get(name)));
  const interval = given.get("start") ? { camera: given.get("camera"), track: Number(given.get("track")), start: given.get("start") } : null;
  return { period: to > from ? { from, to } : null, interval };
}

/** Write the period and the selected interval into the page's address. */
export function link(selected) {
  const given = new URLSearchParams({ from: new Date(view.from).toISOString(), to: new Date(view.to).toISOString() });
  if (selected) for (const name of ["camera", "track", "start"]) given.set(name, selected[name]);
  const here = new URL(location.href);
  here.search = "";
  here.hash = given;
  history.replaceState(null, "", here);
}
