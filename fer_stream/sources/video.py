"""Streams and recordings that FFmpeg opens, as sources."""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING

import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.sources.opening import MULTIPART
from fer_stream.sources.stamps import SECOND, Stamps
from fer_stream.sources.truncation import loss_in_words
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_stream.plugins.recognition import Allocate
    from fer_stream.settings.tree import CameraSettings
    from fer_stream.sources.container import Container, Content

TIMED_OUT = 0.9
"""A wait that took at least this share of its timeout is taken to have failed because of the timeout."""

_log = logging.getLogger(__name__)


def timed_out(begin: float, timeout: float) -> bool:
    """Return whether a wait that began at ``begin`` (`time.monotonic`) failed because of its timeout, in seconds."""
    return time.monotonic() - begin > TIMED_OUT * timeout


class _Video:
    """What streams and recordings have in common."""

    def __init__(self, container: Container, name: str) -> None:
        self.allocate: Allocate | None = None
        """Provides the memory of decoded pictures; see `fer_stream.plugins.AllocatingSource`."""
        self._container = container
        self._name = name
        self._closed = False
        self._damaged = 0
        """Number of damaged pictures in containers that were closed since."""
        if container.others:
            _log.warning("%s has other video streams, which --stream chooses: %s", name, "; ".join(container.others))

    @property
    def damaged(self) -> int:
        """Number of pictures left out because they did not decode."""
        return self._damaged + self._container.damaged

    def _fetch(self) -> tuple[Content, int | None] | None:
        self._container.allocate = self.allocate
        try:
            return self._container.read()
        except WireError as error:
            raise SourceError(f"{self._name} cannot be shown: {error}") from error

    def close(self) -> None:
        """Close the file or the connection."""
        self._closed = True
        self._container.close()

    def _replace(self, reopen: Callable[[], Container]) -> None:
        self._damaged += self._container.damaged
        self._container.close()
        self._container = reopen()
        if self._closed:  # by another thread, during the reopening
            self._container.close()


class Live(_Video):
    """A stream. It has no regular end, so an end is an error.

    Args:
        container: the open stream.
        name: the stream's name in messages.
        settings: the camera's settings.
        reopen: opens the stream again as JPEGs one after the other. Called once, if FFmpeg cannot read a boundary.
    """

    live = True
    frames: int | None = None

    def __init__(
        self,
        container: Container,
        name: str,
        settings: CameraSettings,
        reopen: Callable[[], Container] | None = None,
    ) -> None:
        super().__init__(container, name)
        self._timeout = settings.read_timeout
        self._reopen = reopen if container.format == MULTIPART else None

    def read(self) -> Picture | None:
        """Return the next picture; ``None`` after `close`.

        Raises:
            SourceError: no picture came within the timeout, or the connection is gone.
        """
        begin, late = time.monotonic(), False
        found, reason = None, "the connection was closed"
        try:
            found = self._fetch()
        except av.error.InvalidDataError as error:
            if self._reopen is not None and not self._closed:
                reopen, self._reopen = self._reopen, None
                self._replace(reopen)
                return self.read()
            reason = error.strerror or type(error).__name__
        except av.error.ExitError:  # the timeout
            late = True
        except av.error.FFmpegError as error:
            if error.errno not in (errno.EIO, errno.ECONNRESET) and not isinstance(error, av.error.EOFError):
                reason = error.strerror or type(error).__name__
        if found is not None:
            return Picture(found[0])
        if self._closed:
            return None
        if late or timed_out(begin, self._timeout):
            raise SourceError(f"{self._name} has sent no picture for {self._timeout:g} s")
        raise SourceError(f"{self._name} has stopped sending pictures: {reason}")


class Recording(_Video):
    """A video with a beginning and an end.

    Args:
        container: the open video.
        reopen: opens the video again for each repetition, as not every container can be rewound.
        name: the video's name in messages.
        settings: the camera's settings; `rate` and `loop` are used here.
        missing: returns the fraction of the file that is missing at its end; 0 if it is complete.
        joined: each opens one of the recordings that follow in the same file.
    """

    live = False

    def __init__(
        self,
        container: Container,
        reopen: Callable[[], Container],
        name: str,
        settings: CameraSettings,
        missing: Callable[[], float] = lambda: 0.0,
        joined: Sequence[Callable[[], Container]] = (),
    ) -> None:
        super().__init__(container, name)
        self._reopen = reopen
        self._joined = joined
        self._following = list(joined)
        self._loop = settings.loop
        self._missing = missing
        self._missing_at_first = missing()
        self._failure = ""
        self._length = container.length
        self._stamps = Stamps(container.period, settings.rate, container.length, wraps=container.wraps)
        self._count = 0
        self._ahead: tuple[Content, int | None] | None = None
        self._started = False
        self.frames = None if self._loop or joined else container.frames
        if not container.stamped and not settings.rate:
            _log.warning(
                "%s has no time stamps: %.4g frames/s are assumed; set rate to the true one",
                name,
                SECOND / container.period,
            )

    def read(self) -> Picture | None:
        """Return the next picture with its offset; ``None`` at the end, or after `close`.

        Raises:
            SourceError: the video has no picture, or its end is missing.
        """
        found = self._next()
        if found is None and self._loop and self._count and not self._closed:
            self._rewind()
            found = self._next()
        if found is None:
            if not self._closed:
                self._warn()
                self._check_end()
            return None
        content, stamp = found
        following = None if self._ahead is None else self._ahead[1]
        self._count += 1
        return Picture(content, self._stamps.next(stamp, following))

    def _next(self) -> tuple[Content, int | None] | None:
        """Return the next picture, and read the one after it, whose time stamp helps to check this one's."""
        if not self._started:
            self._started, self._ahead = True, self._fetch()
        found = self._ahead
        self._ahead = self._fetch() if found is not None else None
        return None if self._closed else found

    def _fetch(self) -> tuple[Content, int | None] | None:
        try:
            found = super()._fetch()
            while found is None and self._following and not self._closed and self._continue():
                found = super()._fetch()
            return found
        except av.error.FFmpegError as error:
            # If a transfer's length is unknown, FFmpeg takes its regular end for an error.
            ends = error.errno == errno.EIO and not self._container.sized
            if not self._closed and not ends:
                self._failure = error.strerror or type(error).__name__
            return None

    def _continue(self) -> bool:
        """Go on with the next of the joined recordings; return whether it could be opened."""
        try:
            container = self._following.pop(0)()
        except SourceError as error:
            self._failure = f"in a part that was joined, {error}"
            self._following.clear()
            return False
        self._replace(lambda: container)
        return True

    def _rewind(self) -> None:
        self._replace(self._reopen)
        self._following = list(self._joined)
        self._stamps.rewind()
        self._count, self._started = 0, False

    def _warn(self) -> None:
        """Log the defects that do not make the recording incomplete."""
        if not self._count:
            return
        if self._stamps.replaced:
            _log.warning("%s: wrong time stamps that were replaced: %d", self._name, self._stamps.replaced)
        if self._container.format == "hls" and self._length and self._stamps.last < self._length - SECOND:
            times = f"{self._stamps.last / SECOND:.1f} s, and the playlist names {self._length / SECOND:.1f} s"
            _log.warning("%s: the pictures end after %s", self._name, times)
        if self._container.late:
            _log.warning("%s has streams that begin later than the others; they are not read", self._name)
        if self.damaged:
            _log.warning("%s: damaged pictures that were left out: %d", self._name, self.damaged)

    def _check_end(self) -> None:
        """Raise an error if this is not the video's true end."""
        if not self._count:
            loss = self._missing_at_first
            reason = f"it is truncated: {loss_in_words(loss)}" if loss else "it is empty, truncated or damaged"
            if self._failure and not loss:
                reason = self._failure.lower()
                if self._container.ranges:
                    reason = "its index is behind the pictures, and the server may not support HTTP range requests"
            raise SourceError(f"no picture can be read from {self._name}; {reason}")
        last = f"picture {self._count} is the last that can be read"
        try:
            missing = self._missing()
        except OSError:  # the file is gone
            missing = self._missing_at_first
        if missing:
            raise SourceError(f"{self._name} is truncated: {loss_in_words(missing)}; {last}")
        if self._missing_at_first:
            raise SourceError(f"{self._name} was still being written when it was opened: read it again; {last}")
        beyond, entries = self._container.missing_entries
        if beyond:
            raise SourceError(f"{self._name} is truncated: {beyond} of its {entries} pictures are incomplete; {last}")
        if self._container.cut:
            raise SourceError(f"{self._name} is truncated: it ends within a picture; {last}")
        if self._failure:
            raise SourceError(f"{self._name} cannot be read to its end: {self._failure}; {last}")
