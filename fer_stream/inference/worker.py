"""The worker receives a frame, finds the faces, classifies their expressions, and sends the result.

A worker keeps nothing from one frame to the next, so any worker can take any frame of any camera. It has two threads:
one owns the socket and sends heartbeats, the other computes. If the worker takes several frames at a time, it computes
those that have arrived together (`fer_stream.inference.batching`); it never waits for more.
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
from fer_stream.fleet.link import Link
from fer_stream.inference.batching import together
from fer_stream.inference.recognizer import Recognizer
from fer_stream.operations import metrics
from fer_stream.operations.process import Report, install_stop, leave_behind, parent_gone
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Kind, Message
from fer_stream.protocol.results import Stages
from fer_stream.protocol.shared import MappedFrames, UnreachableError, identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.operations.process import Stop
    from fer_stream.protocol.messages import Buffer
    from fer_stream.settings.tree import Settings

BEAT = 0.5
"""Seconds between heartbeats."""

ON_ACCELERATOR = 8
"""Frames at a time, if an accelerator runs both models."""

_log = logging.getLogger(__name__)


def answer(message: Message, hints: Buffer | None, recognizer: Recognizer, mapped: MappedFrames) -> list[Buffer]:
    """Return the message that answers a FRAME: DONE with its faces, or REJECT with a reason.

    Args:
        message: the frame; its payload is verified here.
        hints: the FRAME's third part, if it has one.
        recognizer: finds the faces.
        mapped: reads frames in shared memory.
    """
    try:
        message.verify()
        expected = results.unpack_hints(hints) if hints is not None else None
    except WireError as error:
        return _reject(message, "corrupt", error)
    try:
        before = time.perf_counter()
        image = mapped.picture(message)
        decoded = time.perf_counter() - before
        result = recognizer.recognize(image, expected)
        if not mapped.intact(message):
            raise WireError("the frame was overwritten while it was read")
        stages = Stages(decoded, result.seconds["detect"], result.seconds["classify"])
        found = results.Result(result.faces[: results.MAX_FACES], stages, result.searched)
        payload = results.pack_faces(found, recognizer.labels, recognizer.measures)
        # Reject here what the aggregator would refuse.
        results.unpack_faces(payload, recognizer.labels, recognizer.measures)
    except WireError as error:
        return _reject(message, "memory" if isinstance(error, UnreachableError) else "corrupt", error)
    except Exception:  # a model or plug-in may fail on this frame and work on the next one
        _log.exception("a frame is rejected: detection or classification failed")
        return _reject(message, "poisoned")
    for name in ("decode", "detect", "classify"):
        metrics.stage.labels(name).observe(getattr(stages, name))
    return messages.pack(Message(Kind.DONE, payload, ticket=message.ticket))


def _reject(message: Message, reason: str, error: WireError | None = None) -> list[Buffer]:
    if error is not None:
        _log.warning("a frame is rejected: %s", error)
    return messages.json_message(Kind.REJECT, {"reason": reason}, ticket=message.ticket)


class _Computer(threading.Thread):
    """The thread that computes: it answers up to ``most`` frames that have arrived, and fills ``answers``."""

    def __init__(self, recognizer: Recognizer, wake: Callable[[], None], most: int = 1) -> None:
        super().__init__(name="compute", daemon=True)
        self.answers: deque[list[Buffer]] = deque()
        self.most = most
        self._recognizer = recognizer
        self._wake = wake
        self._mapped = MappedFrames()
        self._frames: queue.SimpleQueue[tuple[Message, Buffer | None] | None] = queue.SimpleQueue()

    def run(self) -> None:
        while (frame := self._frames.get()) is not None:
            frames: list[tuple[Message, Buffer | None]] = [frame]
            while len(frames) < self.most and not self._frames.empty() and (frame := self._frames.get()) is not None:
                frames.append(frame)
            self.answers += together(lambda frame: answer(*frame, self._recognizer, self._mapped), frames)
            metrics.batch.observe(len(frames))
            self._wake()
            if frame is None:
                return

    def give(self, message: Message, hints: Buffer | None) -> None:
        self._frames.put((message, hints))

    def end(self) -> None:
        self._frames.put(None)


@dataclass(slots=True)
class Session:
    """The worker's side of the protocol: its registration, its credit, and its heartbeat."""

    link: Link
    about: dict[str, Any]
    """The body of READY."""
    computer: _Computer
    patience: float
    """Seconds for which it retries after a refusal: an earlier worker of its name may be dead without the aggregator
    knowing."""
    held: int = 0
    """How many frames it has received and not answered."""
    outdated: bool = False
    """Whether these frames came from an aggregator to which it is no longer connected."""
    ticket: int = 0
    """The ticket of the latest frame received."""
    known: bool = False
    """Whether the aggregator has accepted this worker's READY."""
    beat: float = 0.0
    """When the next heartbeat is due, in monotonic seconds."""
    owes_ready: bool = True
    refused_since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether it computes."""
        return self.held > 0

    def step(self, timeout: float) -> None:
        """Wait for a message or an answer, handle it, and send what is due.

        Raises:
            ConfigError: the aggregator refuses this worker.
        """
        parts = self.link.receive(timeout)
        if parts is not None:
            self._handle(parts)
        while self.computer.answers:
            answered = self.computer.answers.popleft()
            if not self.outdated:
                self.link.send(answered)
            self.held -= 1
            self.outdated = self.outdated and self.busy
        if (self.known or not self.busy) and self.link.turn():  # elsewhere, or here again
            self.owes_ready, self.known, self.outdated, self.refused_since = True, False, self.busy, None
        now = time.monotonic()
        if self.owes_ready and not self.busy:
            self.link.send(messages.json_message(Kind.READY, self.about))
            self.owes_ready, self.beat = False, now + BEAT
        elif now >= self.beat:
            self._live(now)

    def _live(self, now: float) -> None:
        connection = self.link.peer.connection_state().number
        self.link.send(messages.json_message(Kind.PING, ticket=self.ticket, seq=connection))
        self.beat = now + BEAT

    def _handle(self, parts: list[Any]) -> None:
        try:
            message = messages.unpack(parts[:2], verify=False)
            self._answer(message, parts[2] if len(parts) > 2 else None)
        except WireError as error:
            metrics.rejected_messages.labels("work").inc()
            _log.warning("a message of the aggregator is rejected: %s", error)

    def _answer(self, message: Message, hints: Buffer | None) -> None:
        if message.kind is Kind.FRAME and self.held < self.computer.most and not self.outdated:
            self.held, self.ticket = self.held + 1, message.ticket
            self.computer.give(message, hints)
            if not self.link.address.startswith("ipc://"):
                # Confirm now: the frame may have taken long to arrive, and its deadline begins with this PING. On one
                # machine the next heartbeat is soon enough.
                self._live(time.monotonic())
        elif message.kind is Kind.WELCOME:
            self.link.welcome(message.body())
            self.known, self.refused_since = True, None
        elif message.kind is Kind.MOVED:
            self.link.moved(message.body())
            self.known, self.outdated = False, self.busy
        elif message.kind is Kind.WHO and not self.link.resting:
            self.owes_ready, self.known = True, False
        elif message.kind is Kind.REFUSED:
            about, now = message.body(), time.monotonic()
            self.refused_since = self.refused_since or now
            if about.get("final") or now - self.refused_since > self.patience:
                raise ConfigError(str(about.get("reason")))


def frames_at_a_time(recognizer: Recognizer, settings: Settings) -> int:
    """Return how many frames the worker takes at a time.

    Raises:
        ConfigError: more than one are wanted, and a model takes only one.
    """
    if settings.batch is None:
        accelerated = not {settings.detector.provider, settings.classifier.provider} & {"cpu", "openvino"}
        return ON_ACCELERATOR if accelerated and recognizer.concurrent else 1
    if settings.batch > 1 and not recognizer.concurrent:
        raise ConfigError(
            f"batch = {settings.batch}, but the detector {settings.detector.name} or the classifier "
            f"{settings.classifier.name} takes one frame at a time: leave batch out"
        )
    return settings.batch


def run(settings: Settings, name: str | None = None, stop: Stop | None = None) -> None:
    """Work for an aggregator until SIGINT, SIGTERM or SIGHUP; then finish the frames that it holds, and end.

    Args:
        settings: all settings.
        name: the worker's name in logs and in the status. Only one worker of a machine can have it at a time; a
            restarted worker replaces the dead one of its name. By default a unique name.
        stop: ends the worker when it is set; by default set by the process's signals.

    Raises:
        ModelError, PluginError: the detector or the classifier cannot be loaded.
        ConfigError: the aggregator refuses this worker, or the models take no batches.
    """
    stop = stop or install_stop()
    recognizer = Recognizer.from_settings(settings)
    most = frames_at_a_time(recognizer, settings)
    recognizer.warm_up()
    link = Link(plugins.transport(settings), settings.addresses, "work")
    about = {
        # The process id is not unique: in every container it is 1, and containers may share the host's name.
        "name": name or f"{os.getpid()}-{secrets.token_hex(4)}",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "labels": recognizer.labels,
        "model": recognizer.classifier.version,
        "detector": settings.detector.name,
        "memory": identity(),
        "moves": True,
        "frames": most,
    }
    if recognizer.measures:
        about["measures"] = {each.name: [each.least, each.greatest] for each in recognizer.measures}
    if recognizer.smoother:
        about["smoother"] = dict(recognizer.smoother)
    computer = _Computer(recognizer, link.wake, most)
    computer.start()
    session = Session(link, about, computer, settings.dispatch.silence + 2.0)
    server = metrics.serve(settings, lambda: "" if session.known else "an aggregator")
    _log.info("ready", extra={"model": recognizer.classifier.version})
    report = Report()
    try:
        while not (stop.is_set() or parent_gone()):
            session.step(BEAT / 2)
            report.tell()
        deadline = time.monotonic() + settings.dispatch.deadline
        while session.busy and time.monotonic() < deadline:
            session.step(BEAT / 2)
        link.send(messages.json_message(Kind.BYE))
    finally:
        computer.end()
        leave_behind(computer, BEAT)
        link.close()
        if server:
            server.close()
