"""Streams and recordings that FFmpeg opens, as sources."""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING

import av.error

from fer_stream.errors import SourceError, WireError
from fer_stream.sources.container import ASSEMBLED
from fer_stream.sources.opening import MULTIPART
from fer_stream.sources.stamps import SECOND, Stamps
from fer_stream.types import Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.plugins import Allocate
    from fer_stream.settings.tree import CameraSettings
    from fer_stream.sources.container import Container, Content

PART = 0.9
"""A wait that took at least this part of its timeout was ended by the timeout."""

LEAST = 0.0005
"""The smallest fraction of a file that a message rounds to 0.1%."""

_log = logging.getLogger(__name__)


def lacking(missing: float) -> str:
    """Return in words which fraction of a file is missing."""
    return f"at least {missing:.1%} of it is missing" if missing >= LEAST else "its end is missing"


class _Video:
    """What streams and recordings have in common."""

    def __init__(self, container: Container, name: str) -> None:
        self.allocate: Allocate | None = None
        """Provides the memory of decoded pictures; see `fer_stream.plugins.AllocatingSource`."""
        self._container = container
        self._name = name
        self._damaged = 0
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
        self._container.close()


class Live(_Video):
    """A stream. It has no regular end, so an end is an error.

    Args:
        container: the open stream.
        name: the stream's name in messages.
        settings: the camera's settings.
        reopen: opens a stream of JPEGs again, if something between them cannot be read.
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
        self._closed = False

    def read(self) -> Picture | None:
        """Return the next picture; ``None`` after `close`.

        Raises:
            SourceError: no picture came within the timeout, or the connection is gone.
        """
        begin = time.monotonic()
        found, failure = None, ": the connection was closed"
        try:
            found = self._fetch()
        except av.error.InvalidDataError as error:
            if self._reopen is not None and not self._closed:
                self._again(self._reopen)
                return self.read()
            failure = f": {error.strerror}"
        except av.error.ExitError:  # the timeout
            begin = 0.0
        except av.error.FFmpegError as error:
            if error.errno not in (errno.EIO, errno.ECONNRESET) and not isinstance(error, av.error.EOFError):
                failure = f": {error.strerror}"
        if found is not None:
            return Picture(found[0])
        if self._closed:
            return None
        if time.monotonic() - begin > PART * self._timeout:
            raise SourceError(f"{self._name} has sent no picture for {self._timeout:g} s")
        raise SourceError(f"{self._name} has stopped sending pictures{failure}")

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        super().close()

    def _again(self, reopen: Callable[[], Container]) -> None:
        self._reopen = None
        self._damaged += self._container.damaged
        self._container.close()
        self._container = reopen()
        if self._closed:  # by another thread, during the reopening
            self._container.close()


class Recording(_Video):
    """A video with a beginning and an end.

    Args:
        container: the open video.
        reopen: opens the video again for each repetition, as not every container can be rewound.
        name: the video's name in messages.
        settings: the camera's settings; `rate` and `loop` are used here.
        missing: returns the fraction of the file that is missing at its end; 0 if it is complete.
    """

    live = False

    def __init__(
        self,
        container: Container,
        reopen: Callable[[], Container],
        name: str,
        settings: CameraSettings,
        missing: Callable[[], float] = float,
    ) -> None:
        super().__init__(container, name)
        self._reopen = reopen
        self._closed = False
        self._loop = settings.loop
        self._missing = missing
        self._missed = missing()
        self._failure = ""
        self._stamps = Stamps(container.period, settings.rate, container.length, wraps=container.wraps)
        self._read = 0
        self._ahead: tuple[Content, int | None] | None = None
        self._started = False
        self.frames = None if self._loop else container.frames
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
        if found is None and self._loop and self._read and not self._closed:
            self._rewind()
            found = self._next()
        if found is None:
            if not self._closed:
                self._check_end()
            return None
        content, stamp = found
        self._read += 1
        return Picture(content, self._stamps.next(stamp, self._ahead and self._ahead[1]))

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        super().close()

    def _next(self) -> tuple[Content, int | None] | None:
        """Return the next picture, and read the one after it, whose time stamp helps to check this one's."""
        if not self._started:
            self._started, self._ahead = True, self._fetch()
        found = self._ahead
        self._ahead = self._fetch() if found is not None else None
        return None if self._closed else found

    def _fetch(self) -> tuple[Content, int | None] | None:
        try:
            return super()._fetch()
        except av.error.FFmpegError as error:
            # If a transfer's length is unknown, FFmpeg takes its regular end for an error.
            ends = error.errno == errno.EIO and not self._container.sized
            if not self._closed and not ends:
                self._failure = error.strerror or type(error).__name__
            return None

    def _rewind(self) -> None:
        self._damaged += self._container.damaged
        self._container.close()
        self._container = self._reopen()
        if self._closed:  # by another thread, during the reopening
            self._container.close()
        self._stamps.rewind()
        self._read, self._started = 0, False

    def _check_end(self) -> None:
        if not self._read:
            reason = f"truncated: {lacking(self._missed)}" if self._missed else "truncated or damaged"
            raise SourceError(f"no picture can be read from {self._name}; it is {reason}")
        if self._stamps.replaced:
            _log.warning("wrong time stamps of %s that are replaced: %d", self._name, self._stamps.replaced)
        if self._container.late:
            _log.warning("%s has streams that begin later; they are not read", self._name)
        if self.damaged:
            _log.warning("damaged pictures of %s that are left out: %d", self._name, self.damaged)
        last = f"picture {self._read} is the last that can be read"
        try:
            missing = self._missing()
        except OSError:  # the file is gone
            missing = self._missed
        if missing:
            raise SourceError(f"{self._name} is truncated: {lacking(missing)}; {last}")
        if self._missed:
            raise SourceError(f"{self._name} was still being written when it was opened: read it again; {last}")
        beyond, entries = self._container.missing_entries
        if beyond:
            raise SourceError(f"{self._name} is truncated: {beyond} of its {entries} pictures are incomplete; {last}")
        if self._container.cut and self._container.format not in ASSEMBLED:
            raise SourceError(f"{self._name} is truncated: it ends within a picture; {last}")
        if self._failure:
            raise SourceError(f"{self._name} cannot be read to its end: {self._failure}; {last}")
