"""The capture: the process of one camera.

It has two threads: the reader, which the source may block without limit, and the thread that owns the socket. A `Slot`
of one frame connects them, so memory is bounded, and the frame sent is the latest one.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Literal

from fer_stream import plugins
from fer_stream.capture.reader import READER_GRACE
from fer_stream.capture.session import BEAT, Capture
from fer_stream.errors import SourceError
from fer_stream.fleet.link import Link
from fer_stream.operations import metrics
from fer_stream.operations.process import REMOVED, Report, install_stop, leave_behind, parent_gone, read_note

if TYPE_CHECKING:
    from fer_stream.operations.process import Stop
    from fer_stream.settings.tree import Settings

DRAIN = 3.0
"""Seconds for which a stopping capture waits until its last frame is sent and resolved."""

_log = logging.getLogger(__name__)


class _Flow:
    """Whether a capture is welcome at an aggregator, and its source gives frames."""

    def __init__(self, capture: Capture, patience: float) -> None:
        self._capture, self._patience = capture, patience
        self._captured, self._moved = 0, -math.inf

    def state(self) -> Literal["starting", "online", "offline"]:
        """Return it; ``offline``: frames have come, and none for ``patience`` seconds, or it is not welcome."""
        totals, full = self._capture.slot.state()
        now = time.monotonic()
        if full or totals.captured > self._captured:
            self._captured, self._moved = totals.captured, now
        if self._capture.welcomed and now - self._moved <= self._patience:
            return "online"
        return "offline" if self._captured and self._capture.welcomed else "starting"


def run(settings: Settings, camera: str, stop: Stop | None = None) -> None:
    """Capture one camera until its source ends, or SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: all settings; those of the camera are in ``settings.cameras[camera]``.
        camera: the camera's name.
        stop: ends the capture when it is set; by default set by the process's signals.

    Raises:
        SourceError: the source cannot be opened, or failed and must not be retried.
        ConfigError: the aggregator refuses this camera.
    """
    stop = stop or install_stop()
    link = Link(plugins.transport(settings), settings.addresses, "frames")
    capture = Capture(settings, camera, link)
    reader = capture.reader

    def missing() -> str:
        return "" if capture.welcomed else "an aggregator" if reader.opened else "the source"

    server = metrics.serve(settings, missing)
    deadline: float | None = None
    patience = max(settings.dispatch.offline_after, 2 / (settings.cameras[camera].rate or math.inf))
    report, flow = Report(), _Flow(capture, patience)
    reader.start()
    try:
        while not capture.finished and not (reader.ended and not reader.opened):
            capture.step(BEAT / 2)
            report.tell(state=flow.state(), live=reader.live)
            if deadline is None and (stop.is_set() or parent_gone()):
                reader.stop()
                if camera in read_note(REMOVED):
                    reader.reason = "camera removed"
                deadline = time.monotonic() + DRAIN
                if not reader.opened:  # not registered: no BYE is needed
                    break
            if deadline is not None and time.monotonic() > deadline:
                _log.warning(
                    "the aggregator did not confirm the end of camera %s; its last frames count as lost", camera
                )
                capture.give_up()
                break
            if reader.stuck():
                raise SourceError(
                    f"the source of camera {camera} delivers nothing and does not time out: check the camera"
                )
    finally:
        reader.stop()
        leave_behind(reader, READER_GRACE)
        capture.close()
        link.close()
        if server:
            server.close()
    if reader.error:
        raise reader.error
