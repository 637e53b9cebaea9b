// The drawing: an axis of time, for each camera a strip of its states, and below it a lane for the faces in view.

import { ink } from "../labels.js";
import { ticks } from "./time.js";

const AXIS = 22; // heights and widths in pixels, as all numbers here
const NAME = 18;
const LANE = 18;
const PAUSE = 6;
const BARS = 60;
const LEAST = 2; // width of the shortest interval
const MOST_LANES = 60;

/** Draw everything; return the places of the intervals and bars, for `at`. */
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
  axis(pen, ticks(view.from, view.to, Math.max(2, Math.floor(width / 90))), x, width, height, paint);
  const places = [];
  let top = AXIS;
  for (const camera of cameras) {
    pen.fillStyle = paint("--text");
    const more = camera.bars || camera.rows.length <= MOST_LANES ? "" : ` (${camera.rows.length - MOST_LANES} lanes more: zoom in)`;
    pen.fillText(fitting(pen, camera.camera, width - 8 - pen.measureText(more).width) + more, 4, top + NAME / 2);
    top += NAME;
    const tall = rows(camera);
    for (const state of camera.states ?? []) background(pen, state, x(state.from), x(state.to), top, tall, paint);
    for (const each of camera.bars ?? []) {
      const place = { left: x(each.from), right: x(each.to), top, bottom: top + tall, each };
      bar(pen, place, colours, paint);
      places.push(place);
    }
    for (const time of camera.marks ?? []) mark(pen, x(time), top, paint);
    for (const [number, lane] of (camera.rows ?? []).slice(0, MOST_LANES).entries()) {
      for (const each of lane) {
        const left = Math.max(-4, x(each.from));
        const right = Math.min(width + 4, Math.max(x(each.to), x(each.from) + LEAST));
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

function axis(pen, marks, x, width, height, paint) {
  for (const [time, text] of marks) {
    pen.fillStyle = paint("--line");
    pen.fillRect(Math.round(x(time)), 0, 1, height);
    pen.fillStyle = paint("--soft");
    if (x(time) + 4 + pen.measureText(text).width < width) pen.fillText(text, x(time) + 4, AXIS / 2);
  }
}

function fitting(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let length = text.length;
  while (length && pen.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
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
    for (let at = start - height - (height % 6); at < end; at += 6) {
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
  if (each.label && pen.measureText(each.label).width + 8 <= right - Math.max(0, left)) {
    pen.fillStyle = ink(colours[each.label]);
    pen.fillText(each.label, Math.max(0, left) + 4, y + LANE / 2);
  }
  if (each.marked || chosen) {
    pen.strokeStyle = paint(chosen ? "--accent" : "--text");
    pen.lineWidth = chosen ? 3 : 2;
    pen.strokeRect(left + 1, y + 2, Math.max(2, width - 2), LANE - 4);
  }
}

/** Draw a part of the period: above, how long the camera was not online; below, for how long which labels were in view. */
function bar(pen, { left, right, top, bottom, each }, colours, paint) {
  const height = bottom - top;
  const wide = Math.max(1, right - left - 0.5);
  const whole = each.online_s + each.offline_s + each.unknown_s;
  let y = top;
  for (const [state, seconds] of [["offline", each.offline_s], ["unknown", each.unknown_s], ["online", each.online_s]]) {
    const tall = (height * seconds) / whole;
    if (tall) background(pen, { state }, left, left + wide, y, tall, paint);
    y += tall;
  }
  const seen = each.online_s ? (height * Math.min(each.online_s, each.in_view_s ?? 0)) / whole : 0;
  y = bottom;
  for (const [label, share] of each.shares) {
    pen.fillStyle = label ? colours[label] : paint("--soft");
    pen.fillRect(left, y - seen * share, wide, seen * share);
    y -= seen * share;
  }
}

function mark(pen, at, top, paint) {
  pen.fillStyle = paint("--text");
  pen.beginPath();
  pen.moveTo(at - 4, top);
  pen.lineTo(at + 4, top);
  pen.lineTo(at, top + 7);
  pen.fill();
}

/** Return the interval or bar at a place of the drawing, or null. */
export function at(places, x, y) {
  return places.findLast((place) => x >= place.left - 2 && x <= place.right + 2 && y >= place.top && y < place.bottom)?.each ?? null;
}
