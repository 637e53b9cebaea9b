// Requests to the API. A failure is an Error whose message is the server's sentence; `again`: repeating it may help.

const MOST = 5000; // annotations of one drawing

async function json(address, options = {}) {
  let answer;
  let text;
  try {
    answer = await fetch(address, options);
    text = await answer.text(); // the request can be aborted, or fail, here too
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw failure("The page's server does not answer", true);
  }
  if (answer.status === 401) throw failure("The page needs its token, or the token has changed: open the live page, enter it, and come back");
  const body = parsed(text);
  if (!body) throw failure(`A proxy between the browser and the page's server answers ${answer.status}`, answer.status >= 500);
  if (!answer.ok) throw failure(body.detail, answer.status === 503);
  return { body, time: Date.parse(answer.headers.get("date")) };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const failure = (text, again = false) => Object.assign(new Error(text), { again });

/** Return the history of a period, and the server's time; `from` and `to` are milliseconds since 1970. */
export const history = (from, to, camera, signal) => json(`api/v1/history?${period(from, to, camera)}`, { signal });

/** Return the annotations of a period, whether there are more, and the name under which this browser may annotate, or null. */
export async function annotations(from, to, camera, signal) {
  const found = [];
  let page = { more: 0 };
  do {
    page = (await json(`api/v1/annotations?${period(from, to, camera)}&after=${page.more}`, { signal })).body;
    found.push(...page.annotations);
  } while (page.more && found.length < MOST);
  return { found, annotator: page.annotator, cut: Boolean(page.more) };
}

/** Store an annotation; return it. */
export async function annotate(annotation) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(annotation) };
  return (await json("api/v1/annotations", options)).body;
}

function period(from, to, camera) {
  const query = new URLSearchParams({ from: new Date(from).toISOString(), to: new Date(to).toISOString() });
  if (camera) query.set("camera", camera);
  return query;
}
