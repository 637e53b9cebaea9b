// Converts the server's answer into the intervals, lanes and bars that are drawn and listed.

export const WRONG = "wrong";

/** Return the intervals of an answer that pass the filter: labels, and the time of each face without one. */
export function intervals(answer, filter, notes) {
  const found = [];
  for (const camera of answer.cameras) {
    for (const stay of camera.stays) {
      if (filter.track && stay.track !== filter.track) continue;
      for (const each of parts(stay)) {
        if (filter.label && each.label !== filter.label) continue;
        const own = notes.get(key(camera.camera, stay.track, each.start)) ?? [];
        found.push({ ...each, camera: camera.camera, track: stay.track, notes: own, marked: own.at(-1) ?? null });
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

/** Return the annotations of each interval, in the order in which they were stored. */
export const grouped = (annotations) => group(annotations, (each) => key(each.camera, each.track, each.start));

const key = (...parts) => JSON.stringify(parts);

/** Return whether two intervals are the same one, perhaps of different answers. */
export const same = (one, other) => Boolean(one && other) && key(one.camera, one.track, one.start) === key(other.camera, other.track, other.start);

/** Return the cameras with their states, each with lanes of intervals of which none overlap. */
export function lanes(answer, found) {
  const byCamera = group(found, (each) => each.camera);
  return answer.cameras.map(({ camera, states }) => {
    const ends = [];
    const rows = [];
    const tracks = group(byCamera.get(camera) ?? [], (each) => each.track);
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

/** Return the cameras with bars for the parts of the period: of each label, or of one. `marks`: times of annotations. */
export function bars(answer, filter, notes) {
  const rows = answer.rows.map((row) => {
    const uncertain = row.in_view_s ? row.uncertain_s / row.in_view_s : 0;
    const shares = [...Object.entries(row.share ?? {}), [null, uncertain]].filter(([label, share]) => share && (!filter.label || label === filter.label));
    return { ...row, shares, from: Date.parse(row.start), to: Date.parse(row.end) };
  });
  const marks = group([...notes.values()].map((own) => own.at(-1)), (each) => each.camera);
  return [...group(rows, (row) => row.camera)].map(([camera, own]) => ({
    camera, bars: own, marks: (marks.get(camera) ?? []).map((each) => Date.parse(each.start)),
  }));
}

function group(each, by) {
  const groups = new Map();
  for (const one of each) {
    const name = by(one);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(one);
  }
  return groups;
}
