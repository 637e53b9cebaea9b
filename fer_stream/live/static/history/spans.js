// From the server's answer to what is drawn and listed.

export const WRONG = "wrong";

/** Return the intervals of an answer that pass the filter: labels, and the time of each face without one. */
export function intervals(answer, filter, marks) {
  const found = [];
  for (const camera of answer.cameras) {
    for (const stay of camera.stays) {
      if (filter.track && stay.track !== filter.track) continue;
      for (const each of parts(stay)) {
        if (filter.label && each.label !== filter.label) continue;
        const marked = marks.get(key(camera.camera, stay.track, each.start)) ?? null;
        found.push({ ...each, camera: camera.camera, track: stay.track, marked });
      }
    }
  }
  return found;
}

function parts(stay) {
  const found = [];
  let at = stay.start;
  const add = (start, end, label, open) => {
    found.push({ start, end, label, open, from: Date.parse(start), to: Date.parse(end) });
  };
  for (const each of stay.labels) {
    if (each.start > at) add(at, each.start, null, false);
    add(each.start, each.end, each.label, each.open);
    if (each.end > at) at = each.end;
  }
  if (stay.end > at) add(at, stay.end, null, stay.open);
  return found;
}

/** Return the last annotation of each interval. */
export function latest(annotations) {
  return new Map(annotations.map((each) => [key(each.camera, each.track, each.start), each]));
}

const key = (...parts) => parts.join(" ");

/** Return the cameras with their states, each with lanes of intervals of which none overlap. */
export function lanes(answer, found) {
  return answer.cameras.map(({ camera, states }) => {
    const ends = [];
    const rows = [];
    const tracks = Map.groupBy ? Map.groupBy(found.filter((each) => each.camera === camera), (each) => each.track) : grouped(found.filter((each) => each.camera === camera));
    for (const own of [...tracks.values()].sort((a, b) => a[0].from - b[0].from)) {
      const begin = Math.min(...own.map((each) => each.from));
      let row = ends.findIndex((end) => end <= begin);
      if (row < 0) row = ends.length;
      ends[row] = Math.max(...own.map((each) => each.to));
      (rows[row] ??= []).push(...own);
    }
    return { camera, states: states.map((each) => ({ ...each, from: Date.parse(each.start), to: Date.parse(each.end) })), rows };
  });
}

function grouped(found) {
  const groups = new Map();
  for (const each of found) (groups.get(each.track) ?? groups.set(each.track, []).get(each.track)).push(each);
  return groups;
}
