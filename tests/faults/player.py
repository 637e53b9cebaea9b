"""A simulated camera and worker that cause events as fast as an aggregator accepts them: the frame size alternates, so
each frame is a ``camera.reset``. They use real sockets, for faults that need more events than faces would cause."""

from __future__ import annotations

import threading
import time
from typing import Any

from fer_stream import plugins
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals
from fer_stream.types import EMOTIONS

READY = {"labels": EMOTIONS, "name": "player", "host": "here", "pid": 1, "model": "m", "detector": "d"}
HELLO: dict[str, Any] = {
    "camera": "film", "incarnation": "a", "reported": {}, "frames": None, "rate": None, "policy": "wait", "pid": 1,
    "live": True,
}  # fmt: skip


class Player:
    """Runs until the ``with`` block ends. ``frames`` is the number of frames sent; their times are wall-clock times."""

    def __init__(self, address: str, rate: float = 1e9, policy: str = "wait") -> None:
        transport = plugins.load("transports", "zeromq")()
        self.frames = 0
        self._pause = 1 / rate
        self._policy = policy
        self._capture, self._worker = transport.connect(address, "frames"), transport.connect(address, "work")
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=play) for play in (self._play_capture, self._play_worker)]

    def __enter__(self) -> Player:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._capture.close()
        self._worker.close()

    def _offer(self, hello: bool = False) -> None:
        totals = Totals(self.frames + 1, 0, 0, self.frames)
        reported = {"done": self.frames}
        body = HELLO | {"policy": self._policy, "reported": reported} if hello else {"full": True}
        kind = Kind.HELLO if hello else Kind.OFFER
        self._capture.send(messages.json_message(kind, body, totals=totals, time=time.time_ns()))

    def _play_capture(self) -> None:
        beat = due = 0.0
        welcomed = False
        while not self._ended.is_set():
            parts = self._capture.receive(0.1)
            now = time.monotonic()
            kind = messages.unpack(parts).kind if parts else None
            if kind is Kind.NEXT:
                self._ended.wait(max(0.0, due - now))
                due = max(due, now - 0.1) + self._pause
                self.frames += 1
                fields: dict[str, Any] = {"seq": self.frames, "time": time.time_ns(), "width": 1 + self.frames % 2}
                totals = Totals(self.frames, 0, 0, self.frames)
                pixels = bytes(3 * fields["width"])
                self._capture.send(
                    messages.pack(Message(Kind.FRAME, pixels, encoding=Encoding.RAW, height=1, totals=totals, **fields))
                )
                self._offer()
            elif kind is Kind.WHO or (not welcomed and now > beat):
                self._offer(hello=True)
                beat = now + 0.4
            elif kind is Kind.WELCOME or now > beat:
                welcomed = True
                self._offer()
                beat = now + 0.4

    def _play_worker(self) -> None:
        answer = results.pack_faces(results.Result(()), EMOTIONS)
        beat = 0.0
        ready = messages.json_message(Kind.READY, READY)
        self._worker.send(ready)
        while not self._ended.is_set():
            parts = self._worker.receive(0.1)
            message = messages.unpack(parts[:2]) if parts else None
            if message and message.kind is Kind.FRAME:
                self._worker.send(messages.pack(Message(Kind.DONE, answer, ticket=message.ticket)))
            elif message and message.kind is Kind.WHO:
                self._worker.send(ready)
            elif time.monotonic() > beat:
                self._worker.send(messages.json_message(Kind.PING))
                beat = time.monotonic() + 0.4
