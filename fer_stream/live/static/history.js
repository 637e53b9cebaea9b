// When each face was visible and which label it had when, from the events. No access to the page or the clock.

const KEPT = 120; // seconds after which a face that has left is removed

/** One camera's faces over time, from its events. Times are in seconds. */
export class History {
  constructor() {
    this.faces = new Map(); // "epoch/track" -> {track, start, end, spans: [{label, start, end}]}
    this.now = 0;
  }

  /** Take one event. */
  take(event) {
    const time = seconds(event.time);
    this.now = Math.max(this.now, time);
    const [family, what] = event.type.split(".");
    if (event.type === "camera.online") this.now = time; // a looped recording may have started again
    const track = trackOf(event);
    if (!track || family === "zone" || family === "line") return; // they are not drawn
    const { data } = event;
    const key = `${event.epoch}/${track}`;
    if (!this.faces.has(key)) {
      this.faces.set(key, { key, track, start: seconds(data.start_time), end: null, spans: [] });
    }
    const face = this.faces.get(key);
    const start = seconds(data.start_time);
    const end = data.end_time === null ? null : seconds(data.end_time);
    if (family === "face") {
      face.start = start;
      face.end = what === "left" ? end : null;
      if (what === "left") for (const span of face.spans) span.end ??= end;
    } else {
      const open = face.spans.find((span) => span.start === start && span.label === data.label);
      if (open) open.end = end;
      else face.spans.push({ label: data.label, start, end });
    }
    this.#forget();
  }

  /** Return faces of the last `length` seconds: first those still visible, by entry time, then the latest to leave. */
  recent(length) {
    const since = this.now - length;
    const found = [...this.faces.values()].filter((f) => f.start <= this.now && (f.end === null || f.end > since));
    return found.sort((a, b) => (a.end !== null) - (b.end !== null) || (b.end ?? 0) - (a.end ?? 0) || a.start - b.start);
  }

  #forget() {
    for (const [key, face] of this.faces) {
      if (face.end !== null && face.end < this.now - KEPT) this.faces.delete(key);
    }
  }
}

export const seconds = (time) => Date.parse(time) / 1000;

/** Return an event's track number; 0 if the event is about the camera. */
export const trackOf = (event) => Number(event.subject?.slice("tracks/".length) ?? 0);

export const cameraOf = (event) => event.source.slice("/cameras/".length);
