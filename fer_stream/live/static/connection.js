// The page's WebSocket to the server. It reconnects with exponential backoff.

const FIRST = 300; // ms until the first attempt to reconnect
const LONGEST = 4000; // ms, the most between two attempts
const SILENCE = 10000; // ms without a message after which the connection counts as lost; the server sends every second

/**
 * Keep a WebSocket open. `handlers` are text(message), picture(head, blob) and open(yes, why), where `why` is the reason
 * of a failure if it is known. Returns send(object), which drops the object while there is no connection.
 */
export function connect(handlers) {
  let socket = null;
  let pause = FIRST;
  let failures = 0;

  function open() {
    const url = new URL("feed", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const made = new WebSocket(url);
    let heard = false;
    let silence = 0;
    socket = made;
    made.binaryType = "arraybuffer";

    function listen() {
      clearTimeout(silence);
      silence = setTimeout(() => ended(heard ? "" : NOTHING_COMES), SILENCE);
    }
    function ended(why) {
      clearTimeout(silence);
      made.onopen = made.onmessage = made.onclose = null;
      made.close();
      failures += 1;
      handlers.open(false, why);
      setTimeout(open, pause * (0.75 + Math.random() / 2));
      pause = Math.min(2 * pause, LONGEST);
    }

    made.onopen = listen;
    made.onmessage = ({ data }) => {
      listen();
      if (!heard) {
        heard = true;
        pause = FIRST;
        failures = 0;
        handlers.open(true, "");
      }
      if (typeof data === "string") handlers.text(JSON.parse(data));
      else handlers.picture(...split(data));
    };
    // Do not ask for the reason after the first failure: the server may just be restarting.
    made.onclose = async () => ended(heard || failures < 1 ? "" : await reason());
  }

  open();
  return (message) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };
}

const NOTHING_COMES = "The connection opens, but no data arrives: a proxy holds it back; turn off the proxy's buffering";

/** Ask the server why the WebSocket does not open, since browsers do not report it. "" if nothing answers. */
async function reason() {
  let answer;
  try {
    answer = await fetch("feed", { method: "POST", signal: AbortSignal.timeout(5000) });
  } catch {
    return "";
  }
  if (answer.status === 401) location.reload(); // the server then asks for the token again
  const own = answer.headers.get("content-type")?.startsWith("text/plain") && [401, 403, 421, 426, 503].includes(answer.status);
  const text = own ? (await answer.text()).trim().slice(0, 400) : "";
  return text || `A proxy between the browser and the page's server answers ${answer.status}`;
}

/** Return a binary message's header and picture; see fer_stream/live/viewer.py for the format. */
function split(data) {
  const length = new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  return [head, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" })];
}
