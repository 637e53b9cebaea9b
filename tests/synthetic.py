"""Captures and workers in one process, at the protocol's level: ``synthetic ADDRESSES RATE WORKERS NAME...``.

Each has its own connection, and uses the code of real ones for the protocol; only pictures and recognition are made up.
So a cell of hundreds of cameras fits into a small machine. Each camera has one face, whose expression changes every
`STEADY` frames. Lines of JSON say how things stand. SIGTERM ends the captures, then the workers.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fer_stream import plugins
from fer_stream.capture.session import Capture
from fer_stream.fleet.link import Link
from fer_stream.inference.worker import Session
from fer_stream.operations.logs import setup_logging
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Kind, Message
from fer_stream.settings.tree import CameraSettings, Settings
from fer_stream.types import EMOTIONS, Box, Face, Frame, Probabilities

if TYPE_CHECKING:
    from fer_stream.protocol.messages import Buffer

STEADY = 5
"""Frames for which an expression stays."""

TELL = 0.2
"""Seconds between two lines."""

END = 20.0
"""Seconds for the captures' end."""

PICTURE = np.zeros((48, 64, 3), np.uint8)


class Computer:
    """Recognizes at once: the expression follows from the frame's number."""

    most = 1

    def __init__(self) -> None:
        self.answers: deque[list[Buffer]] = deque()

    def give(self, message: Message, hints: Buffer | None) -> None:
        del hints
        label = message.seq // STEADY % len(EMOTIONS)
        rest = 0.1 / (len(EMOTIONS) - 1)
        values = tuple(0.9 if number == label else rest for number in range(len(EMOTIONS)))
        face = Face(Box(10, 10, 50, 40), 0.99, (), Probabilities(EMOTIONS, values))
        payload = results.pack_faces(results.Result((face,)), EMOTIONS)
        self.answers.append(messages.pack(Message(Kind.DONE, payload, ticket=message.ticket)))


class Cameras:
    """The captures, and the frames that are due."""

    def __init__(self, settings: Settings, rate: float) -> None:
        self._rate = rate
        transport = plugins.transport(settings)
        self.all = [Capture(settings, name, Link(transport, settings.addresses, "frames")) for name in settings.cameras]
        self._numbers = dict.fromkeys(settings.cameras, 0)
        self._due = {
            name: time.monotonic() + index / len(self.all) / rate for index, name in enumerate(settings.cameras)
        }
        for capture in self.all:
            capture.reader.opened = capture.reader.live = True

    def step(self, now: float) -> None:
        for capture in self.all:
            if now >= self._due[capture.name] and not capture.slot.closed:
                self._due[capture.name] = max(self._due[capture.name] + 1 / self._rate, now)
                self._numbers[capture.name] += 1
                number, taken = self._numbers[capture.name], capture.reader.clock.now()
                capture.slot.put(Frame(capture.name, number, taken, PICTURE), now)
            capture.step(0)

    def end(self) -> None:
        for capture in self.all:
            capture.slot.close()


def main() -> None:
    addresses, rate, workers, *names = sys.argv[1:]
    setup_logging("warning", "synthetic")
    settings = Settings(
        address=addresses, cameras={name: CameraSettings(source="demo", encoding="raw") for name in names}
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    cameras = Cameras(settings, float(rate))
    transport, pool = plugins.transport(settings), []
    for number in range(int(workers)):
        about: dict[str, Any] = {
            "name": f"synthetic-{os.getpid()}-{number}", "host": "here", "pid": os.getpid(), "labels": EMOTIONS,
            "model": "synthetic", "detector": "synthetic", "memory": "", "moves": True,
        }  # fmt: skip
        link = Link(transport, settings.addresses, "work")
        pool.append(Session(link, about, cast("Any", Computer()), settings.dispatch.silence + 2.0))
    tell, ends = 0.0, float("inf")
    while time.monotonic() < ends and not all(capture.finished for capture in cameras.all):
        now = time.monotonic()
        cameras.step(now)
        for worker in pool:
            worker.step(0)
        if stop.is_set() and ends == float("inf"):
            cameras.end()
            ends = now + END
        if now >= tell:
            tell = now + TELL
            say(cameras, pool)
        time.sleep(0.002)
    say(cameras, pool)
    for worker in pool:
        worker.link.send(messages.json_message(Kind.BYE))
        worker.link.close()


def say(cameras: Cameras, pool: list[Session]) -> None:
    states = [capture.slot.state()[0] for capture in cameras.all]
    welcome = sum(capture.welcomed for capture in cameras.all)
    line = {
        "time": time.monotonic(),
        "welcome": welcome,
        "finished": sum(capture.finished for capture in cameras.all),
        "workers": sum(worker.known for worker in pool),
        "captured": sum(totals.captured for totals in states),
        "sent": sum(totals.sent for totals in states),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
