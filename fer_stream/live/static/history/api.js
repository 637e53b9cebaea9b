// Requests to the API. A failure is an Error whose message is the server's sentence.

async function json(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The page's server does not answer");
  }
  if (answer.status === 401) throw new Error("The page asks for its token: open the live page first");
  const body = await answer.json().catch(() => null);
  if (!body) throw new Error(`A proxy between the browser and the page's server answers ${answer.status}`);
  if (!answer.ok) throw new Error(body.detail);
  return body;
}

/** Return the history of a period; `from` and `to` are milliseconds since 1970. */
export function history(from, to, camera, signal) {
  return json(`api/v1/history?${period(from, to, camera)}`, { signal });
}

/** Return all annotations of a period, and the name under which this browser may annotate, or null. */
export async function annotations(from, to, camera, signal) {
  const found = [];
  let page = { more: 0 };
  do {
    page = await json(`api/v1/annotations?${period(from, to, camera)}&after=${page.more}`, { signal });
    found.push(...page.annotations);
  } while (page.more && found.length < MOST);
  return { found, annotator: page.annotator, cut: Boolean(page.more) };
}

const MOST = 5000; // annotations of one drawing

/** Store an annotation. */
export function annotate(annotation) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(annotation) };
  return json("api/v1/annotations", options);
}

function period(from, to, camera) {
  const query = new URLSearchParams({ from: new Date(from).toISOString(), to: new Date(to).toISOString() });
  if (camera) query.set("camera", camera);
  return query;
}
