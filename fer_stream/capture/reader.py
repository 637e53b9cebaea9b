"""The thread that reads a source: it opens the source, masks and timestamps its pictures, and puts them into the slot.

A camera's JPEG stays a JPEG: a worker decodes it, so a superseded picture is never decoded.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from fer_stream import plugins
from fer_stream.capture.clock import Clock
from fer_stream.errors import ConfigError, FerStreamError, SourceError, WireError
from fer_stream.imaging.jpeg import Jpeg
from fer_stream.imaging.limits import check_size
from fer_stream.imaging.pixels import pixels
from fer_stream.imaging.privacy import mask
from fer_stream.imaging.yuv import Yuv
from fer_stream.operations import metrics
from fer_stream.operations.process import report_trouble
from fer_stream.settings.tree import redact
from fer_stream.sources import open_source
from fer_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.capture.slot import Slot
    from fer_stream.plugins import Source
    from fer_stream.plugins.recognition import Allocate
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import CameraSettings
    from fer_stream.types import Picture

READER_GRACE = 1.0
"""Seconds that the reader has to return from its source at the end."""

PAUSES = (1.0, 3.0)
"""First and longest pause in seconds before a failed live source is reopened; each pause is twice the one before.
A camera that returns is noticed within 5 s."""

TELLING = 10.0
"""Least seconds between two warnings about rejected frames, as every frame may be rejected."""

_log = logging.getLogger(__name__)


class Reader(threading.Thread):
    """Reads the source into the slot until it ends, fails or `stop` is called; it calls ``wake`` after each change.

    ``offline`` is for the analysis of recordings: a recording is read as fast as possible, whatever its rate, a source
    that cannot be opened is not retried, and a live source is a `ConfigError`.
    """

    def __init__(
        self,
        name: str,
        settings: CameraSettings,
        policy: Policy,
        slot: Slot,
        wake: Callable[[], None],
        allocate: Allocate | None = None,
        *,
        offline: bool = False,
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self.clock = Clock(settings)
        self.opened = False  # whether the source has ever been open: the camera is registered only then
        self.live = False
        self.frames: int | None = None
        self.ended = False
        self.reason = "capture ended"  # why no more frames come; the initial value is for an end by `stop`
        self.error: FerStreamError | None = None
        self._camera = name
        metrics.source_failures.labels(name)  # create the label set up front so that rate() sees the first increment
        self._settings = settings
        self._policy = policy
        self._slot = slot
        self._wake = wake
        self._allocate = allocate
        self._offline = offline
        self._stop_reading = threading.Event()
        self._reject_logged = -TELLING
        self._read_began = time.monotonic()  # monotonic start (s) of the current read
        self._seq = 0

    def run(self) -> None:
        """Read until the end; the outcome is in `ended`, `reason` and `error`."""
        try:
            self._read_all()
            if not self._stop_reading.is_set():
                self.reason = "end of stream"
        except FerStreamError as error:
            self.reason, self.error = "source failed", error
        except Exception as error:  # a plug-in's source may raise any exception
            _log.exception("the source failed")
            self.reason = "source failed"
            self.error = SourceError(f"the source of camera {self._camera} failed: {type(error).__name__}: {error}")
        finally:
            self._slot.close()
            self.ended = True
            self._wake()

    def stop(self) -> None:
        """Stop reading after the current picture; a frame in the slot can still be taken."""
        self._stop_reading.set()
        self._slot.close()

    def stuck(self) -> bool:
        """Return whether a live source has blocked the reader for more than twice its timeout."""
        limit = 2 * max(self._settings.open_timeout, self._settings.read_timeout)
        return self.live and not self.ended and time.monotonic() - self._read_began > limit

    def _read_all(self) -> None:
        pause = PAUSES[0]
        while not self._stop_reading.is_set():
            try:
                source = open_source(self._settings)
            except SourceError as error:
                # A live source that was open before may return, even if its plug-in calls the failure permanent.
                if self._offline or not (self._settings.retry and (self.live or error.transient)):
                    raise
                pause = self._wait_to_retry(error, pause)
                continue
            if self._offline and source.live:
                source.close()
                where = redact(self._settings.source)
                raise ConfigError(f"analyze is for recordings, and {where} is a live camera: use fer-stream run")
            if isinstance(source, plugins.AllocatingSource):
                source.allocate = self._allocate
            self.live, self.frames, self.opened = source.live, source.frames, True
            report_trouble("")
            self._wake()
            began = self._seq
            try:
                self._read_source(source)
                failure = SourceError(f"the stream of camera {self._camera} ended")
            except SourceError as error:
                if not (self.live and self._settings.retry):
                    raise
                # The traceback would keep the last picture and its shared memory alive.
                failure = error.with_traceback(None)
            finally:
                source.close()
            if self._stop_reading.is_set() or not (self.live and self._settings.retry):
                return
            pause = self._wait_to_retry(failure, PAUSES[0] if self._seq > began else pause)

    def _wait_to_retry(self, error: SourceError, pause: float) -> float:
        """Wait, and return the next pause in seconds."""
        metrics.source_failures.labels(self._camera).inc()
        _log.warning("%s; trying again in %g s", error, pause)
        report_trouble(str(error))
        self._read_began = math.inf
        self._stop_reading.wait(pause)
        self._read_began = time.monotonic()
        return min(2 * pause, PAUSES[1])

    def _read_source(self, source: Source) -> None:
        start = time.monotonic()
        due, damaged = 0.0, 0
        counting = source if isinstance(source, plugins.DamageCountingSource) else None
        interval = 1 / self._settings.rate if self._settings.rate else 0.0
        while not self._stop_reading.is_set():
            self._read_began = time.monotonic()
            try:
                picture = source.read()
            finally:  # a source may raise its error after damaged pictures
                if counting is not None:
                    for _ in range(damaged, counting.damaged):
                        self._slot.reject()
                    damaged = counting.damaged
            now = time.monotonic()
            if picture is None:
                break
            metrics.stage.labels("read").observe(now - self._read_began)
            self._read_began = math.inf  # waiting for a worker does not count as a blocked source
            if picture.offset is None:
                if now < due:
                    continue  # the limit on a live camera's rate: this picture does not count as captured
                due = max(due, now - interval) + interval
            elif (
                not self._offline
                and (self._policy == "drop_oldest" or self._settings.rate)
                and self._stop_reading.wait(max(0.0, start + picture.offset / 1e9 - now))  # play in real time
            ):
                break
            if not self._keep(picture):
                break

    def _keep(self, picture: Picture) -> bool:
        try:
            content = self._content(picture)
        except WireError as error:
            if (now := time.monotonic()) >= self._reject_logged + TELLING:
                self._reject_logged = now
                _log.warning("a frame of camera %s is rejected: %s", self._camera, error)
            self._slot.reject()
            return True
        frame = Frame(self._camera, self._seq + 1, self.clock.of(picture), content)
        if not self._slot.put(frame, time.monotonic()):
            return False
        self._seq += 1
        self._wake()
        return True

    def _content(self, picture: Picture) -> NDArray[np.uint8] | Jpeg | Yuv:
        """Return the content to send: the camera's own JPEG if its pixels need no change, otherwise masked pixels.

        Raises:
            WireError: the picture is invalid or too large.
        """
        content, settings = picture.content, self._settings
        if not isinstance(content, Jpeg | Yuv):
            try:  # a plug-in may return any object
                content = pixels(content)
            except ValueError as error:
                raise WireError(str(error)) from error
        height, width = content.shape[:2]
        check_size(width, height)
        if isinstance(content, Jpeg) and content.plain and not settings.masks and settings.encoding != "raw":
            return content
        return mask(content.decode() if isinstance(content, Jpeg) else content, settings.masks)
