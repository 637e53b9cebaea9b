// The one connection to the server. It comes back by itself, soon at first, then every few seconds.

const FIRST = 300;
const LONGEST = 4000;
const SILENCE = 10000; // the server tells the state every second

/** Keep a WebSocket open; `handlers` are text(message), picture(head, blob), and open(yes, why). Returns send(object). */
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
    // The first failure may be a restart.
    made.onclose = async () => ended(heard || failures < 1 ? "" : await reason());
  }

  open();
  return (message) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };
}

const NOTHING_COMES = "The connection opens, but nothing comes through it: a proxy holds it back; turn off its buffering";

/** Ask why no WebSocket opens, which browsers do not tell. Nothing, where nobody answers. */
async function reason() {
  let answer;
  try {
    answer = await fetch("feed", { method: "POST", signal: AbortSignal.timeout(5000) });
  } catch {
    return "";
  }
  if (answer.status === 401) location.reload(); // the token is asked for again
  const own = answer.headers.get("content-type")?.startsWith("text/plain") && [401, 403, 421, 426, 503].includes(answer.status);
  const said = own ? (await answer.text()).trim().slice(0, 400) : "";
  return said || `A proxy between here and the page's server answers ${answer.status}`;
}

function split(data) {
  const length = new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  return [head, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" })];
}
