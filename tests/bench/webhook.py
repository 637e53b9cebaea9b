"""Measure the events per second that the webhook sink sends, beside urllib3 alone, in turns.

    python tests/bench/webhook.py

The receiver is a process of its own on this machine, which reads a request and answers 204. urllib3 sends one event in
each request over one connection, unsigned. Figures are medians of several rounds, and the ratio to urllib3 in the same
round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import urllib3

sys.path.insert(0, str(Path(__file__).parents[1]))
from journals import event
from processes import free_port, wait_for

from fer_stream.events.cloudevents import encode, event_id
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.webhook import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, EVENTS = 7, 1000

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response_only(204)
        self.end_headers()


def main() -> None:
    """Print a table."""
    port = free_port()
    server = subprocess.Popen([sys.executable, __file__, str(port)])
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port)

    def answers() -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return pool.urlopen("POST", "/", b"", retries=False).status == 204
        return False

    events = [event("emotion.started", frame=number) for number in range(1, EVENTS + 1)]
    batch = [Delivery(event_id(one), one, encode(one)) for one in events]

    def alone() -> None:
        for one in batch:
            pool.urlopen("POST", "/hook", one.text.encode(), {"Content-Type": "application/cloudevents+json"})

    os.environ["HOOK_SECRET"] = SECRET
    sends: dict[str, Callable[[], None]] = {"urllib3 alone": alone}
    for mode in ("structured", "binary", "batched"):
        options: dict[str, str | int | float | bool] = {"mode": mode, "secret": "env:HOOK_SECRET"}
        sink = open_sink(f"http://127.0.0.1:{port}/hook", DeliverSettings(sink="webhook:x", options=options))

        def send(sink: object = sink) -> None:
            for begin in range(0, EVENTS, 100):
                sink.write(batch[begin : begin + 100])  # type: ignore[attr-defined]

        sends[mode] = send
    try:
        wait_for(answers, "the receiver")
        rounds = [{name: rate(send) for name, send in sends.items()} for _ in range(ROUNDS + 1)][1:]
    finally:
        server.kill()
        server.wait()
    for name in sends:
        rates = [one[name] for one in rounds]
        ratio = statistics.median(one[name] / one["urllib3 alone"] for one in rounds)
        print(
            f"{name:15}{statistics.median(rates):9,.0f} events/s  ({min(rates):,.0f} to {max(rates):,.0f}){ratio:8.2f}"
        )


def rate(send: Callable[[], None]) -> float:
    begin = time.perf_counter()
    send()
    return EVENTS / (time.perf_counter() - begin)


if __name__ == "__main__":
    if sys.argv[1:]:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
    main()
