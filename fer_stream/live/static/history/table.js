// The table beside the drawing: what is drawn, for the keyboard and screen readers. All texts are inserted as text, never as HTML.

import { percent, UNCERTAIN } from "../labels.js";
import { duration, moment } from "./time.js";

const MOST = 500; // rows

/** List intervals; `select(interval)` is called by a row's button. Returns how many are left out. */
export function list(table, found, select) {
  const rows = found.slice(0, MOST).map((each) => {
    const label = each.label ?? UNCERTAIN;
    const { marked } = each;
    const mark = marked ? `${marked.label} (${marked.annotator})${marked.note ? `: ${marked.note}` : ""}` : "";
    const choose = button("Select", `Select ${label}, track ${each.track}, ${moment(each.from)}`, () => select(each));
    return [each.camera, `#${each.track}`, label, moment(each.from), each.open ? "still in view" : moment(each.to), duration((each.to - each.from) / 1000), mark, choose];
  });
  fill(table, ["camera", "track", "label", "from", "to", "length", "marked", "choose"], rows);
  return found.length - rows.length;
}

/** List parts of the period, if there are too many intervals; `open(part)` is called by a row's button. */
export function listParts(table, parts, open) {
  const rows = parts.slice(0, MOST).map((part) => [
    part.camera, moment(part.from), duration(part.online_s), duration(part.offline_s), duration(part.unknown_s),
    part.withheld ? "withheld" : String(part.faces),
    part.shares.map(([label, share]) => `${label ?? UNCERTAIN} ${percent(share)}`).join(", "),
    button("Zoom in", `Zoom in to ${moment(part.from)}`, () => open(part)),
  ]);
  fill(table, ["camera", "from", "online", "offline", "unknown", "faces", "time in view", "choose"], rows);
  return parts.length - rows.length;
}

function button(text, name, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", name);
  made.addEventListener("click", act);
  return made;
}

function fill(table, names, rows) {
  const head = document.createElement("thead");
  const line = head.insertRow();
  for (const name of names) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    line.append(cell);
  }
  const body = document.createElement("tbody");
  for (const parts of rows) {
    const row = body.insertRow();
    parts.forEach((part, number) => {
      const cell = document.createElement(number ? "td" : "th");
      if (!number) cell.scope = "row";
      cell.append(part);
      row.append(cell);
    });
  }
  table.replaceChildren(head, body);
}
