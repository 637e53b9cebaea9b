// The table beside the drawing: what is drawn, for the keyboard and screen readers. Texts of strangers stay texts.

import { moment } from "./time.js";

const MOST = 500; // rows

/** List intervals; `select(interval)` is called by a row's button. Returns how many are left out. */
export function list(table, found, select) {
  const names = ["camera", "track", "from", "to", "label", "marked", ""];
  const rows = found.slice(0, MOST).map((each) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Select";
    button.setAttribute("aria-label", `Select ${each.label ?? "uncertain"}, track ${each.track}, ${moment(each.from)}`);
    button.addEventListener("click", () => select(each));
    const { marked } = each;
    const mark = marked ? `${marked.label} (${marked.annotator})${marked.note ? `: ${marked.note}` : ""}` : "";
    return [each.camera, `#${each.track}`, moment(each.from), each.open ? "still there" : moment(each.to), each.label ?? "uncertain", mark, button];
  });
  fill(table, names, rows);
  return found.length - rows.length;
}

/** List parts of the period, if there are too many intervals. */
export function listParts(table, rows) {
  const names = ["camera", "from", "online s", "offline s", "unknown s", "faces", "shares"];
  fill(table, names, rows.slice(0, MOST).map((row) => [
    row.camera, moment(row.from), String(row.online_s), String(row.offline_s), String(row.unknown_s),
    row.withheld ? "withheld" : String(row.faces),
    Object.entries(row.share).map(([label, share]) => `${label} ${Math.round(100 * share)}%`).join(", "),
  ]));
  return Math.max(0, rows.length - MOST);
}

function fill(table, names, rows) {
  const head = document.createElement("thead");
  const line = head.insertRow();
  for (const name of names) {
    const cell = document.createElement(name ? "th" : "td");
    if (name) cell.scope = "col";
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
