"""The capture: one camera's process. Read a picture, mask and stamp it, keep the freshest, send it when asked.

A picture that its camera gives as a JPEG stays one: a worker decodes it, and nobody does if it is superseded.

Two threads: a reader, which the source may block for as long as it likes, and the one that owns the socket. Between
them lies a `Slot` of one frame, so memory is bounded and what is sent is the freshest there is.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from fer_stream import plugins
from fer_stream.capture.encoder import Encoder
from fer_stream.errors import ConfigError, FerStreamError, SourceError, WireError
from fer_stream.events.cloudevents import from_rfc3339
from fer_stream.imaging.jpeg import Jpeg
from fer_stream.imaging.limits import check_size
from fer_stream.imaging.pixels import pixels
from fer_stream.imaging.privacy import mask
from fer_stream.operations import metrics
from fer_stream.operations.process import install_stop, leave_behind, parent_gone
from fer_stream.protocol import shared, wire
from fer_stream.protocol.wire import Encoding, Kind, Message, Totals
from fer_stream.settings.tree import redact
from fer_stream.sources import open_source
from fer_stream.types import Frame, Nanoseconds, Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Peer, Place, Source
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import CameraSettings, Settings

BEAT = 0.5
"""Seconds between signs of life."""

DRAIN = 3.0
"""Seconds that a capture which was told to stop waits for its last frame to be taken and resolved."""

READER_GRACE = 1.0
"""Seconds that the reader has to come back from its source at the end."""

PAUSES = (1.0, 3.0)
"""First and longest pause before a failed live source is opened again, each twice the last: a camera that returns is
seen within 5 s."""

TELLING = 10.0
"""Least seconds from one word on a frame that may not be sent to the next: there may be one in every frame."""

_log = logging.getLogger(__name__)


class Slot:
    """Room for one frame between the reader and the sender, and the capture's count of all frames.

    Under ``drop_oldest`` a fresher frame takes the place of one that nobody took (it is *superseded*); under ``wait``
    the reader waits until it is taken.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._changed = threading.Condition()
        self._held: tuple[Frame, float] | None = None
        self._captured = self._superseded = self._rejected = self._sent = 0
        self._closed = False

    def put(self, frame: Frame, taken: float) -> bool:
        """Leave a frame, taken at this monotonic time; return ``False`` (and count nothing) once closed."""
        with self._changed:
            while self._policy == "wait" and self._held is not None and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._superseded += self._held is not None
            self._captured += 1
            self._held = (frame, taken)
            return True

    def reject(self) -> None:
        """Count a frame that is captured but may not be sent; none once closed."""
        with self._changed:
            self._captured += not self._closed
            self._rejected += not self._closed

    def take(self) -> tuple[Frame, float] | None:
        """Return the frame and make room; it counts as sent from here on."""
        with self._changed:
            held, self._held = self._held, None
            self._sent += held is not None
            self._changed.notify_all()
            return held

    def state(self) -> tuple[Totals, bool]:
        """Return the totals, and whether a frame is there."""
        with self._changed:
            totals = Totals(self._captured, self._superseded, self._rejected, self._sent)
            return totals, self._held is not None

    @property
    def closed(self) -> bool:
        """Whether no more frames will come."""
        return self._closed

    def close(self) -> None:
        """Take no more frames; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Clock:
    """Capture time: a live camera's from the wall clock at the start and monotonic from there, a file's its own."""

    def __init__(self, settings: CameraSettings) -> None:
        """Begin now."""
        self.start = from_rfc3339(settings.start_time)
        """The capture time at which a recording begins."""
        self._wall, self._began = time.time_ns(), time.monotonic_ns()

    def now(self) -> Nanoseconds:
        """Return the capture time of a live picture that arrives now."""
        return Nanoseconds(self._wall + time.monotonic_ns() - self._began)

    def of(self, picture: Picture) -> Nanoseconds:
        """Return a picture's capture time."""
        return self.now() if picture.offset is None else Nanoseconds(self.start + picture.offset)


class Reader(threading.Thread):
    """Reads the source into the slot until it ends, fails or is told to stop; ``wake`` tells that there is news.

    ``offline`` is for the analysis of recordings: a recording is read as fast as possible, whatever its rate, a source
    that cannot be opened is not tried again, and a live source is a `ConfigError`.
    """

    def __init__(
        self,
        name: str,
        settings: CameraSettings,
        policy: Policy,
        slot: Slot,
        wake: Callable[[], None],
        place: Place | None = None,
        *,
        offline: bool = False,
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self.clock = Clock(settings)
        self.opened = False  # whether the source has been open once: before that there is no camera to tell of
        self.live = False
        self.frames: int | None = None
        self.ended = False
        self.reason = "capture ended"  # why no more frames come: until the source has ended, because of `stop`
        self.error: FerStreamError | None = None
        self._camera = name
        metrics.source_failures.labels(name)  # there from the beginning, so that its first step is seen
        self._settings = settings
        self._policy = policy
        self._slot = slot
        self._wake = wake
        self._place = place
        self._offline = offline
        self._stop_reading = threading.Event()
        self._told = -TELLING
        self._asked = time.monotonic()  # when the source was asked for what it has not given yet
        self._seq = 0

    def run(self) -> None:
        """Read until the end; the outcome is in `ended`, `reason` and `error`."""
        try:
            self._read_all()
            if not self._stop_reading.is_set():
                self.reason = "end of stream"
        except FerStreamError as error:
            self.reason, self.error = "source failed", error
        except Exception as error:  # a plug-in's source may raise anything
            _log.exception("the source failed")
            self.reason = "source failed"
            self.error = SourceError(f"the source of camera {self._camera} failed: {type(error).__name__}: {error}")
        finally:
            self._slot.close()
            self.ended = True
            self._wake()

    def stop(self) -> None:
        """End soon; a frame in the slot stays there."""
        self._stop_reading.set()
        self._slot.close()

    def stuck(self) -> bool:
        """Whether a live source has kept the reader waiting for far longer than its time-outs allow."""
        limit = 2 * max(self._settings.open_timeout, self._settings.read_timeout)
        return self.live and not self.ended and time.monotonic() - self._asked > limit

    def _read_all(self) -> None:
        pause = PAUSES[0]
        while not self._stop_reading.is_set():
            try:
                source = open_source(self._settings)
            except SourceError as error:
                # A live source that was open once may come back, whatever its plug-in says about the failure.
                if self._offline or not (self._settings.retry and (self.live or error.transient)):
                    raise
                pause = self._wait_to_retry(error, pause)
                continue
            if self._offline and source.live:
                source.close()
                where = redact(self._settings.source)
                raise ConfigError(f"analyze is for recordings, and {where} is a live camera: use fer-stream run")
            if isinstance(source, plugins.PlacingSource):
                source.place = self._place
            self.live, self.frames, self.opened = source.live, source.frames, True
            self._wake()
            began = self._seq
            try:
                self._read_source(source)
                failure = SourceError(f"the stream of camera {self._camera} ended")
            except SourceError as error:
                if not (self.live and self._settings.retry):
                    raise
                failure = error.with_traceback(None)  # which holds the last picture, and its place
            finally:
                source.close()
            if self._stop_reading.is_set() or not (self.live and self._settings.retry):
                return
            pause = self._wait_to_retry(failure, PAUSES[0] if self._seq > began else pause)

    def _wait_to_retry(self, error: SourceError, pause: float) -> float:
        """Wait, and return how long to wait the next time."""
        metrics.source_failures.labels(self._camera).inc()
        _log.warning("%s; trying again in %g s", error, pause)
        self._asked = math.inf
        self._stop_reading.wait(pause)
        self._asked = time.monotonic()
        return min(2 * pause, PAUSES[1])

    def _read_source(self, source: Source) -> None:
        start = time.monotonic()
        due = 0.0
        interval = 1 / self._settings.rate if self._settings.rate else 0.0
        while not self._stop_reading.is_set():
            self._asked = time.monotonic()
            picture = source.read()
            now = time.monotonic()
            if picture is None:
                break
            metrics.stage.labels("read").observe(now - self._asked)
            self._asked = math.inf  # however long a worker keeps us waiting, the source does not
            if picture.offset is None:
                if now < due:
                    continue  # the cap on a live camera's rate: this one was never captured
                due = max(due, now - interval) + interval
            elif (
                not self._offline
                and (self._policy == "drop_oldest" or self._settings.rate)
                and self._stop_reading.wait(max(0.0, start + picture.offset / 1e9 - now))  # it plays at its own pace
            ):
                break
            if not self._keep(picture):
                break

    def _keep(self, picture: Picture) -> bool:
        try:
            content = self._content(picture)
        except WireError as error:
            if (now := time.monotonic()) >= self._told + TELLING:
                self._told = now
                _log.warning("a frame of camera %s is rejected: %s", self._camera, error)
            self._slot.reject()
            return True
        frame = Frame(self._camera, self._seq + 1, self.clock.of(picture), content)
        if not self._slot.put(frame, time.monotonic()):
            return False
        self._seq += 1
        self._wake()
        return True

    def _content(self, picture: Picture) -> NDArray[np.uint8] | Jpeg:
        """Return what may leave the capture: the camera's own JPEG, where nothing has to be done to its pixels first.

        Raises:
            WireError: nothing of it may.
        """
        content, settings = picture.content, self._settings
        if not isinstance(content, Jpeg):
            try:  # a plug-in may give anything
                content = pixels(content)
            except ValueError as error:
                raise WireError(str(error)) from error
        height, width = content.shape[:2]
        check_size(width, height)
        if isinstance(content, Jpeg) and content.plain and not settings.masks and settings.encoding != "raw":
            return content
        return mask(content.decode() if isinstance(content, Jpeg) else content, settings.masks)


class Capture:
    """The capture's side of the protocol: who it is, what it offers, what it was told."""

    def __init__(self, settings: Settings, name: str, peer: Peer) -> None:
        camera = settings.cameras[name]
        self.name = name
        self.policy: Policy = camera.policy or settings.policy
        self.slot = Slot(self.policy)
        # In flight, in the slot, being read, and one to spare.
        self._encoder = Encoder(name, camera, settings.address, settings.depth + 3)
        self.reader = Reader(name, camera, self.policy, self.slot, peer.wake, self._encoder.room)
        self.finished = False
        self.welcomed = False
        self._camera = camera
        self._peer = peer
        self._incarnation = secrets.token_hex(8)
        self._told: dict[str, int] = {}
        self._offered = False
        self._beat = 0.0
        self._refused_since: float | None = None
        self._patience = settings.dispatch.silence + 2.0
        self._exported = Totals()

    def step(self, timeout: float) -> None:
        """Wait for a message or a frame, and say what there is to say.

        Raises:
            ConfigError: the aggregator refuses this camera for good.
        """
        parts = self._peer.receive(timeout)
        while parts is not None:
            try:
                self._handle(wire.unpack(parts))
            except WireError as error:
                metrics.rejected_messages.labels("frames").inc()
                _log.warning("a message of the aggregator is rejected: %s", error)
            parts = self._peer.receive(0) if not self.finished else None
        if not self.reader.opened or self.finished:
            return
        totals, full = self.slot.state()
        now = time.monotonic()
        if self.welcomed and self.slot.closed and not full:  # whatever keeps the reader, told to stop, in its source
            if now >= self._beat:
                self._say(Kind.BYE, now, {"reason": self.reader.reason})
        elif now >= self._beat:
            self._hello(now) if not self.welcomed else self._offer(now)
        elif self.welcomed and full and not self._offered:
            self._offer(now)
        self._export(totals)

    def give_up(self) -> None:
        """Take leave though a frame that nobody took is still here: it is lost then, and not on its way for ever."""
        if self.welcomed:
            self._say(Kind.BYE, time.monotonic(), {"reason": self.reader.reason})

    def close(self) -> None:
        """Let the memory of the frames sent go."""
        self._encoder.close()

    def _handle(self, message: Message) -> None:
        match message.kind:
            case Kind.WELCOME:
                self.welcomed, self._refused_since = True, None
                here = self._encoder.encoding is Encoding.SHARED
                self._encoder.shares = here and message.body().get("memory") is True
                self._offer(time.monotonic())
            case Kind.NEXT:
                self._told = {str(term): int(n) for term, n in message.body().items()}
                if message.age:
                    self._encoder.came(message.age / 1e6)
                self._send_frame()
            case Kind.WHO:
                self._hello(time.monotonic())
            case Kind.REFUSED:
                # Another capture of this name may only be dead and not known to be: it is asked for a while.
                reason, now = str(message.body().get("reason")), time.monotonic()
                self.welcomed, self._refused_since = False, self._refused_since or now
                if message.body().get("final") or now - self._refused_since > self._patience:
                    raise ConfigError(reason)
            case Kind.GOODBYE:
                self.finished = True

    def _hello(self, now: float) -> None:
        about = {
            "camera": self.name,
            "incarnation": self._incarnation,
            "pid": os.getpid(),
            "policy": self.policy,
            "live": self.reader.live,
            "frames": self.reader.frames,
            "rate": self._camera.rate,
            "told": self._told,
            "memory": shared.identity(),
        }
        self._say(Kind.HELLO, now, about)

    def _offer(self, now: float) -> None:
        self._offered = self.slot.state()[1]
        self._say(Kind.OFFER, now, {"full": self._offered})

    def _say(self, kind: Kind, now: float, body: dict[str, object]) -> None:
        self._beat = now + BEAT
        # A live camera's time goes on without frames; a recording's does not.
        stamp = self.reader.clock.now() if self.reader.live else 0
        self._peer.send(wire.json_message(kind, body, totals=self.slot.state()[0], time=stamp))

    def _send_frame(self) -> None:
        held = self.slot.take()
        self._offered = False
        if held is None:
            return
        frame, taken = held
        totals = self.slot.state()[0]
        payload, encoding, (width, height) = self._encoder.encode(frame, totals.sent, sum(self._told.values()))
        message = Message(
            Kind.FRAME,
            payload,
            seq=frame.seq,
            time=frame.time,
            age=round((time.monotonic() - taken) * 1e6),
            totals=totals,
            width=width,
            height=height,
            encoding=encoding,
        )
        # Raw pixels between processes of one machine are not checked: that costs as much as decoding them did.
        self._peer.send(wire.pack(message, checked=encoding is not Encoding.RAW))

    def _export(self, totals: Totals) -> None:
        for term in ("captured", "superseded", "rejected", "sent"):
            step = getattr(totals, term) - getattr(self._exported, term)
            metrics.capture_frames.labels(self.name, term).inc(step)
        self._exported = totals


def run(settings: Settings, camera: str, stop: Stop | None = None) -> None:
    """Capture one camera until its source ends, or SIGINT or SIGTERM.

    Args:
        settings: the whole tree; ``settings.cameras[camera]`` is the camera.
        camera: its name.
        stop: ends the capture when it is set; by default the process's signals do.

    Raises:
        SourceError: the source cannot be opened, or failed and is not to be tried again.
        ConfigError: the aggregator refuses this camera.
    """
    stop = stop or install_stop()
    peer = plugins.transport(settings).connect(settings.address, "frames")
    capture = Capture(settings, camera, peer)
    reader = capture.reader

    def missing() -> str:
        return "" if capture.welcomed else "an aggregator" if reader.opened else "the source"

    server = metrics.serve(settings, missing)
    deadline: float | None = None
    reader.start()
    try:
        while not capture.finished and not (reader.ended and not reader.opened):
            capture.step(BEAT / 2)
            if deadline is None and (stop.is_set() or parent_gone()):
                reader.stop()
                deadline = time.monotonic() + DRAIN
                if not reader.opened:  # there is nothing to take leave of
                    break
            if deadline is not None and time.monotonic() > deadline:
                _log.warning("the aggregator did not take leave of camera %s; its last frames count as lost", camera)
                capture.give_up()
                break
            if reader.stuck():
                raise SourceError(
                    f"the source of camera {camera} gives nothing and does not time out: check the camera"
                )
    finally:
        reader.stop()
        leave_behind(reader, READER_GRACE)
        capture.close()
        peer.close()
        if server:
            server.close()
    if reader.error:
        raise reader.error
