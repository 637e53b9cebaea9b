"""A real aggregator, with a capture and a worker that the test simulates."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

from processes import PATIENCE

from fer_stream import plugins
from fer_stream.aggregator import aggregator
from fer_stream.client import Subscription, read_journal
from fer_stream.events.cursor import to_cursor
from fer_stream.operations.process import Stop
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals
from fer_stream.settings.tree import DispatchSettings, JournalSettings, Settings
from fer_stream.types import EMOTIONS, CameraData, Event, EventType, Nanoseconds

if TYPE_CHECKING:
    from pathlib import Path


def event(cursor: int, camera: str = "door", sequence: int | None = None) -> Event:
    data = CameraData("resolution changed", 640, 480)
    seq = cursor if sequence is None else sequence
    return Event(EventType.CAMERA_RESET, camera, 1, seq, 0, Nanoseconds(0), data, seq, to_cursor(cursor))


class House:
    """An aggregator in a thread. Each picture has another size, so that each one causes one event."""

    def __init__(self, transport: str, address: str, journal: Path) -> None:
        self.address = address
        self.journal = journal
        self.settings = Settings(
            transport=transport,
            address=address,
            journal=JournalSettings(path=journal),
            dispatch=DispatchSettings(silence=60),  # the simulated worker sends no heartbeats
        )
        self._made = plugins.load("transports", transport)()
        self._thread: threading.Thread | None = None
        self._stop: Stop | None = None
        self._error: list[BaseException] = []
        self._taken = 0
        self._lives = itertools.count()

    def start(self) -> None:
        stop = self._stop = Stop()

        def run() -> None:
            try:
                aggregator.run(self.settings, stop)
            except BaseException as error:
                self._error.append(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def end(self) -> None:
        if self._thread and self._stop:
            self._stop.set()
            self._thread.join()
            self._stop.close()
        self._thread = None
        assert not self._error, self._error

    def take(self, count: int, camera: str = "door") -> None:
        """Send ``count`` pictures through the pipeline; the first causes ``camera.online``, and the end ``offline``."""
        capture = self._made.connect(self.address, "frames")
        worker = self._made.connect(self.address, "work")
        try:
            self._play(capture, worker, camera, count)
        finally:
            capture.close()
            worker.close()

    def _play(self, capture: plugins.Peer, worker: plugins.Peer, camera: str, count: int) -> None:
        about = {"labels": EMOTIONS, "name": "1", "host": "here", "pid": 1, "model": "test", "detector": "test"}
        worker.send(messages.json_message(Kind.READY, about))
        incarnation = f"life {next(self._lives)}"
        hello = {
            "camera": camera, "incarnation": incarnation, "reported": {}, "frames": None, "rate": None,
            "policy": "wait", "pid": 1, "live": False,
        }  # fmt: skip
        capture.send(messages.json_message(Kind.HELLO, hello))
        self.expect(capture, Kind.WELCOME)
        for seq in range(1, count + 1):
            self._taken += 1
            size = {"width": 1 + self._taken % 1000, "height": 1 + self._taken // 1000}
            header = {"seq": seq, "time": self._taken * 1_000_000, "totals": Totals(seq, 0, 0, seq)}
            capture.send(messages.pack(Message(Kind.FRAME, b"x", encoding=Encoding.JPEG, **header, **size)))  # type: ignore[arg-type]
            got = self.expect(worker, Kind.FRAME)
            faces = results.pack_faces(results.Result(()), EMOTIONS)
            worker.send(messages.pack(Message(Kind.DONE, faces, ticket=got.ticket)))
        capture.send(messages.json_message(Kind.BYE, {"reason": "test"}, totals=Totals(count, 0, 0, count)))
        self.expect(capture, Kind.GOODBYE)
        worker.send(messages.json_message(Kind.BYE))

    def expect(self, peer: plugins.Peer, kind: Kind) -> Message:
        for _ in range(round(PATIENCE / 0.1)):
            parts = peer.receive(0.1)
            assert not self._error, self._error
            if parts is not None and (message := messages.unpack(parts[:2])).kind is kind:
                return message
        raise AssertionError(f"no {kind.name} came")

    def listen(self, after: int | None = None, **how: Any) -> Subscription:
        cursor = None if after is None else to_cursor(after)
        return Subscription(self.address, after=cursor, transport=self.settings.transport, **how)

    def stored(self, after: int = 0, camera: str | None = None) -> list[str]:
        return [text for _, text in read_journal(self.journal, after=to_cursor(after), camera=camera)]
