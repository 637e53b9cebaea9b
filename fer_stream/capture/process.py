"""The capture: the process of one camera.

It has two threads: a reader, which the source may block for as long as it likes, and the one that owns the socket. A
`Slot` of one frame lies between them, so memory is bounded, and the frame that is sent is the latest one.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fer_stream import plugins
from fer_stream.capture.reader import READER_GRACE
from fer_stream.capture.session import BEAT, Capture
from fer_stream.errors import SourceError
from fer_stream.operations import metrics
from fer_stream.operations.process import install_stop, leave_behind, parent_gone

if TYPE_CHECKING:
    from fer_stream.operations.process import Stop
    from fer_stream.settings.tree import Settings

DRAIN = 3.0
"""Seconds that a capture which was told to stop waits for its last frame to be taken and resolved."""

_log = logging.getLogger(__name__)


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
                if not reader.opened:  # not registered: no BYE is needed
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
