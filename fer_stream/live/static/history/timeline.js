// The drawing: an axis of time, for each camera a strip of its states, and below it a lane for the faces in view.

import { ticks } from "./time.js";

const AXIS = 22; // heights and widths in pixels, as all numbers here
const NAME = 18;
const LANE = 18;
const PAUSE = 6;
const BARS = 60;
const LEAST = 2; // width of the shortest interval
const MOST_LANES = 60;

/** Draw everything; return the places of the intervals, for `at`. */
export function draw(canvas, view, cameras, colours, selected) {
  const width = canvas.clientWidth;
  const rows = (camera) => camera.bars ? BARS : Math.min(Math.max(1, camera.rows.length), MOST_LANES) * LANE;
  const height = AXIS + cameras.reduce((sum, camera) => sum + NAME + rows(camera) + PAUSE, 0) + 6;
  const scale = devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const paint = (name) => style.getPropertyValue(name).trim();
  const x = (time) => ((time - view.from) / (view.to - view.from)) * width;
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (const [time, text] of ticks(view.from, view.to, Math.max(2, Math.floor(width / 90)))) {
    pen.fillStyle = paint("--line");
    pen.fillRect(Math.round(x(time)), 0, 1, height);
    pen.fillStyle = paint("--soft");
    pen.fillText(text, x(time) + 4, AXIS / 2);
  }
  const places = [];
  let top = AXIS;
  for (const camera of cameras) {
    pen.fillStyle = paint("--text");
    const more = camera.bars || camera.rows.length <= MOST_LANES ? "" : ` (${camera.rows.length - MOST_LANES} lanes more: zoom in)`;
    pen.fillText(camera.camera + more, 4, top + NAME / 2);
    top += NAME;
    const tall = rows(camera);
    for (const state of camera.states ?? []) background(pen, state, x(state.from), x(state.to), top, tall, paint);
    if (camera.bars) bars(pen, camera.bars, x, top, tall, colours, paint);
    for (const [number, lane] of (camera.rows ?? []).slice(0, MOST_LANES).entries()) {
      for (const each of lane) {
        const left = Math.max(-2, x(each.from));
        const right = Math.min(width + 2, Math.max(x(each.to), x(each.from) + LEAST));
        if (right < 0 || left > width) continue;
        const y = top + number * LANE;
        interval(pen, each, left, right, y, colours, paint, each === selected);
        places.push({ left, right, top: y, bottom: y + LANE, each });
      }
    }
    top += tall + PAUSE;
  }
  return places;
}

function background(pen, { state }, left, right, top, height, paint) {
  const width = Math.max(1, right - left);
  pen.fillStyle = paint(state === "online" ? "--raised" : "--ground");
  pen.fillRect(left, top, width, height);
  if (state === "online") return;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, width, height);
  pen.clip();
  pen.strokeStyle = pen.fillStyle = paint(state === "offline" ? "--bad" : "--soft");
  const start = Math.max(left, 0) - (Math.max(left, 0) % 6);
  const end = Math.min(right, pen.canvas.clientWidth);
  if (state === "offline") {
    pen.beginPath();
    for (let at = start - height; at < end; at += 6) {
      pen.moveTo(at, top + height);
      pen.lineTo(at + height, top);
    }
    pen.lineWidth = 1; // that of a selected interval would stay
    pen.globalAlpha = 0.6;
    pen.stroke();
  } else {
    for (let at = start; at < end; at += 6) for (let y = top + 3; y < top + height; y += 6) pen.fillRect(at, y, 1.5, 1.5);
  }
  pen.restore();
}

function interval(pen, each, left, right, y, colours, paint, chosen) {
  const width = right - left;
  pen.fillStyle = each.label ? colours[each.label] : paint("--soft");
  if (each.label) pen.fillRect(left, y + 2, width, LANE - 4);
  else pen.fillRect(left, y + LANE / 2 - 1.5, width, 3);
  if (each.marked || chosen) {
    pen.strokeStyle = paint(chosen ? "--accent" : "--text");
    pen.lineWidth = chosen ? 3 : 2;
    pen.strokeRect(left + 1, y + 2, Math.max(2, width - 2), LANE - 4);
  }
}

function bars(pen, rows, x, top, height, colours, paint) {
  for (const row of rows) {
    const [left, right] = [x(row.from), x(row.to)];
    const wide = Math.max(1, right - left - 0.5);
    const whole = row.online_s + row.offline_s + row.unknown_s;
    const gap = row.offline_s + row.unknown_s;
    background(pen, { state: "online" }, left, left + wide, top, height, paint);
    if (gap) {
      const state = row.offline_s >= row.unknown_s ? "offline" : "unknown";
      background(pen, { state }, left, left + wide, top, (height * gap) / whole, paint);
    }
    let y = top + height;
    const room = height * (1 - gap / whole);
    const seen = row.in_view_s ? Math.min(1, row.in_view_s / Math.max(row.online_s, 0.001)) : 0;
    for (const [label, part] of [...Object.entries(row.share), [null, row.in_view_s ? row.uncertain_s / row.in_view_s : 0]]) {
      const tall = room * seen * part;
      pen.fillStyle = label ? colours[label] : paint("--soft");
      pen.fillRect(left, y - tall, wide, tall);
      y -= tall;
    }
  }
}

/** Return the interval at a place of the drawing, or null. */
export function at(places, x, y) {
  return places.findLast((place) => x >= place.left - 2 && x <= place.right + 2 && y >= place.top && y < place.bottom)?.each ?? null;
}
