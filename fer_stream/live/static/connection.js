// The one connection to the server. It comes back by itself, soon at first, then every few seconds.

const FIRST = 300;
const LONGEST = 4000;

/** Keep a WebSocket open; `handlers` are text(message), picture(head, blob), and open(yes). Returns send(object). */
export function connect(handlers) {
  let socket = null;
  let pause = FIRST;

  function open() {
    const url = new URL("feed", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      pause = FIRST;
      handlers.open(true);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") handlers.text(JSON.parse(data));
      else handlers.picture(...split(data));
    };
    socket.onclose = () => {
      handlers.open(false);
      setTimeout(open, pause * (0.75 + Math.random() / 2));
      pause = Math.min(2 * pause, LONGEST);
    };
  }

  open();
  return (message) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };
}

function split(data) {
  const length = new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  return [head, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" })];
}
