// The service's state: key figures, problems, the ledger of frames, the workers.

const TERMS = ["captured", "done", "superseded", "expired", "rejected", "lost_worker", "lost_link", "in_flight"];
const MEANING = {
  captured: "frames that the camera delivered",
  done: "processed by a worker",
  superseded: "replaced by a fresher one before a worker was free",
  expired: "too old before a worker was free",
  rejected: "corrupt, over a limit, or could not be recognised",
  lost_worker: "lost with a worker that died or took too long",
  lost_link: "did not arrive, or its result was lost when a process ended",
  in_flight: "waiting or being processed",
};
const whole = new Intl.NumberFormat("en-GB");

/** Return the present problems as sentences; an empty list if there are none. */
export function problems(open, why, connected, status) {
  if (!open) return [why || "No connection to the page's server"];
  if (!connected) return ["The aggregator does not answer"];
  const cameras = Object.entries(status.cameras);
  const silent = Object.values(status.fleet?.aggregators ?? {}).filter((aggregator) => aggregator.error);
  const unowned = status.fleet?.unowned.length;
  const offline = cameras.filter(([, camera]) => camera.state === "offline").map(([name]) => name);
  return [
    ...silent.map((aggregator) => `The aggregator at ${aggregator.address} does not answer`),
    ...(unowned ? [`${unowned} partitions have no aggregator`] : []),
    ...(Object.keys(status.workers).length ? [] : ["There is no worker"]),
    ...(status.events_held ? [`${status.events_held} events wait for the journal`] : []),
    ...(offline.length > 3 ? [`${offline.length} cameras are offline`] : offline.map((name) => `${name} is offline`)),
  ];
}

/** Fill in the figures at the top. */
export function figures(element, status) {
  const cameras = Object.values(status.cameras);
  const online = cameras.filter((camera) => camera.state === "online");
  const workers = Object.values(status.workers);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const texts = {
    cameras: `${online.length}/${cameras.length}`,
    faces: String(sum(online.map((camera) => camera.tracks.length))),
    rate: sum(online.map((camera) => camera.rate)).toFixed(1),
    age: online.length ? `${Math.round(1000 * Math.max(...online.map((camera) => camera.frame_age_s)))} ms` : "–",
    workers: `${workers.filter((worker) => worker.state === "busy").length}/${workers.length} busy`,
  };
  for (const [name, text] of Object.entries(texts)) {
    element.querySelector(`[data-figure=${name}]`).textContent = text;
  }
}

/** Fill in the ledger of frames. */
export function ledger(table, cameras) {
  const used = TERMS.filter((term) => ["captured", "done", "superseded", "in_flight"].includes(term)
    || Object.values(cameras).some((camera) => camera.ledger[term]));
  const names = ["camera", ...used, "share"];
  fill(table, names.map((name) => [name.replace("_", " "), MEANING[name]]), Object.entries(cameras).map(([name, camera]) => [
    name, ...used.map((term) => whole.format(camera.ledger[term])), bar(camera.ledger),
  ]), "No camera yet");
}

/** Fill in the workers. */
export function workers(table, status) {
  const rows = Object.entries(status.workers).map(([name, worker]) => [
    name, worker.state, whole.format(worker.frames), worker.model, worker.detector,
  ]);
  fill(table, [["worker"], ["state"], ["frames"], ["model"], ["detector"]], rows, "No worker");
}

function fill(table, names, rows, nothing) {
  const head = document.createElement("thead");
  const row = head.insertRow();
  for (const [name, meaning] of names) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    if (meaning) cell.title = meaning;
    row.append(cell);
  }
  const body = document.createElement("tbody");
  for (const parts of rows) {
    const line = body.insertRow();
    parts.forEach((part, n) => {
      const cell = document.createElement(n ? "td" : "th");
      if (!n) cell.scope = "row";
      if (typeof part === "string" && /^[\d,]+$/.test(part)) cell.className = part === "0" ? "number zero" : "number";
      cell.append(part);
      if (part === "busy" || part === "idle") cell.dataset.state = part;
      line.append(cell);
    });
  }
  if (!rows.length) {
    const cell = body.insertRow().insertCell();
    cell.colSpan = names.length;
    cell.textContent = nothing;
  }
  table.replaceChildren(head, body);
}

function bar(frames) {
  const element = document.createElement("div");
  element.className = "bar";
  element.setAttribute("role", "img");
  const total = Math.max(1, frames.captured);
  const lost = frames.expired + frames.rejected + frames.lost_worker + frames.lost_link;
  const shares = [["done", frames.done], ["superseded", frames.superseded], ["lost", lost], ["in flight", frames.in_flight]];
  element.setAttribute("aria-label", shares.map(([name, n]) => `${name} ${(100 * n / total).toFixed(1)}%`).join(", "));
  element.title = element.getAttribute("aria-label");
  for (const [name, count] of shares) {
    const part = document.createElement("i");
    part.className = name.replace(" ", "-");
    part.style.width = `${100 * count / total}%`;
    element.append(part);
  }
  return element;
}
