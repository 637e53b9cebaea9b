"""The worker: take a frame, find the faces, score their expressions, answer, forget.

Nothing is kept from one frame to the next, so any worker can take any frame of any camera. Two threads: one that owns
the socket and gives signs of life, and one that computes.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.errors import ConfigError, WireError
from fer_stream.inference.recognizer import Recognizer
from fer_stream.operations import metrics
from fer_stream.operations.process import install_stop, leave_behind, parent_gone
from fer_stream.protocol import shared, wire
from fer_stream.protocol.wire import Encoding, Kind, Message, Stages

if TYPE_CHECKING:
    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Peer
    from fer_stream.settings.tree import Settings

BEAT = 0.5
"""Seconds between signs of life."""

_log = logging.getLogger(__name__)

_reader = shared.Reader()


def answer(parts: list[Any], recognizer: Recognizer) -> list[wire.Buffer]:
    """Return the message that answers a FRAME: DONE with its faces, or REJECT with a reason."""
    ticket = 0
    try:
        ticket = wire.unpack(parts[:2], verify=False).ticket
        message = wire.unpack(parts[:2])
        hints = wire.unpack_hints(parts[2]) if len(parts) > 2 else None
    except WireError as error:
        _log.warning("a frame is rejected: %s", error)
        return wire.json_message(Kind.REJECT, {"reason": "corrupt"}, ticket=ticket)
    try:
        before = time.perf_counter()
        image = _reader.picture(message)
        decoded = time.perf_counter() - before
        result = recognizer.recognize(image, hints)
        if message.encoding is Encoding.SHARED and not _reader.intact(bytes(message.payload)):
            raise WireError("a frame that was overwritten while it was looked at")
        stages = Stages(decoded, result.seconds["detect"], result.seconds["classify"])
        found = wire.Result(result.faces[: wire.MAX_FACES], stages, result.searched)
        payload = wire.pack_faces(found, recognizer.labels)
        wire.unpack_faces(payload, recognizer.labels)  # what the aggregator would refuse is told here
    except WireError as error:
        _log.warning("a frame is rejected: %s", error)
        reason = "memory" if isinstance(error, shared.UnreachableError) else "corrupt"
        return wire.json_message(Kind.REJECT, {"reason": reason}, ticket=ticket)
    except Exception:  # whatever a model or a plug-in does with this frame, the next one may be fine
        _log.exception("a frame is rejected: it cannot be recognised")
        return wire.json_message(Kind.REJECT, {"reason": "poisoned"}, ticket=ticket)
    for name in ("decode", "detect", "classify"):
        metrics.stage.labels(name).observe(getattr(stages, name))
    return wire.pack(Message(Kind.DONE, payload, ticket=ticket))


class _Computer(threading.Thread):
    """Answers one frame at a time."""

    def __init__(self, recognizer: Recognizer, peer: Peer) -> None:
        super().__init__(name="compute", daemon=True)
        self.answers: deque[list[wire.Buffer]] = deque()
        self._recognizer = recognizer
        self._peer = peer
        self._frames: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()

    def run(self) -> None:
        while (parts := self._frames.get()) is not None:
            self.answers.append(answer(parts, self._recognizer))
            self._peer.wake()

    def give(self, parts: list[Any] | None) -> None:
        self._frames.put(parts)


@dataclass(slots=True)
class Session:
    """The worker's side of the protocol: its one credit, and what it says about itself."""

    peer: Peer
    about: dict[str, Any]
    computer: _Computer
    patience: float
    """Seconds for which it may be refused: another one of its name may only be dead and not known to be."""
    busy: bool = False
    ticket: int = 0
    """Of the frame that came last."""
    known: bool = False
    """Whether the aggregator has taken this worker's READY."""
    beat: float = 0.0
    owes_ready: bool = True
    refused_since: float | None = None

    def step(self, timeout: float) -> None:
        """Wait for a message or an answer, and pass it on.

        Raises:
            ConfigError: the aggregator refuses this worker.
        """
        parts = self.peer.receive(timeout)
        if parts is not None:
            self._handle(parts)
        while self.computer.answers:
            self.peer.send(self.computer.answers.popleft())
            self.busy = False
        now = time.monotonic()
        if self.owes_ready and not self.busy:
            self.peer.send(wire.json_message(Kind.READY, self.about))
            self.owes_ready, self.beat = False, now + BEAT
        elif now >= self.beat:
            self._live(now)

    def _live(self, now: float) -> None:
        self.peer.send(wire.json_message(Kind.PING, ticket=self.ticket, seq=self.peer.standing().life))
        self.beat = now + BEAT

    def _handle(self, parts: list[Any]) -> None:
        try:
            message = wire.unpack(parts[:2], verify=False)
        except WireError as error:
            metrics.rejected_messages.labels("work").inc()
            _log.warning("a message of the aggregator is rejected: %s", error)
            return
        if message.kind is Kind.FRAME and not self.busy:
            self.busy, self.ticket = True, message.ticket
            self.computer.give(parts)
            self._live(
                time.monotonic()
            )  # its time begins now, not when the frame was sent over a link that may be slow
        elif message.kind is Kind.WELCOME:
            self.known, self.refused_since = True, None
        elif message.kind is Kind.WHO:
            self.owes_ready, self.known = True, False
        elif message.kind is Kind.REFUSED:
            about, now = message.body(), time.monotonic()
            self.refused_since = self.refused_since or now
            if about.get("final") or now - self.refused_since > self.patience:
                raise ConfigError(str(about.get("reason")))


def run(settings: Settings, name: str | None = None, stop: Stop | None = None) -> None:
    """Work for an aggregator until SIGINT or SIGTERM; the frame in hand is finished first.

    Args:
        settings: the whole tree.
        name: for people; on one machine it is one worker's at a time, and who is started again under it takes the dead
            one's place. By default one that no other has.
        stop: ends the worker when it is set; by default the process's signals do.

    Raises:
        ModelError, PluginError: detector or classifier cannot be loaded.
        ConfigError: the aggregator refuses this worker.
    """
    stop = stop or install_stop()
    recognizer = Recognizer.from_settings(settings)
    recognizer.warm_up()
    peer = plugins.transport(settings).connect(settings.address, "work")
    about = {
        # The process id alone is 1 in every container, and containers on the host's network have its name, too.
        "name": name or f"{os.getpid()}-{secrets.token_hex(4)}",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "labels": recognizer.labels,
        "model": recognizer.classifier.version,
        "detector": settings.detector.name,
        "memory": shared.identity(),
    }
    computer = _Computer(recognizer, peer)
    computer.start()
    session = Session(peer, about, computer, settings.dispatch.silence + 2.0)
    server = metrics.serve(settings, lambda: "" if session.known else "an aggregator")
    _log.info("ready", extra={"model": recognizer.classifier.version})
    try:
        while not (stop.is_set() or parent_gone()):
            session.step(BEAT / 2)
        deadline = time.monotonic() + settings.dispatch.deadline
        while session.busy and time.monotonic() < deadline:
            session.step(BEAT / 2)
        peer.send(wire.json_message(Kind.BYE))
    finally:
        computer.give(None)
        leave_behind(computer, BEAT)
        peer.close()
        if server:
            server.close()
