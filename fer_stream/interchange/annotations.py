"""Annotations of films: spans with a label. All readers of this package return these values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Span = tuple[float, float]
"""Start and end in seconds; the end is not part of it."""

HISTORY = "history"
"""The kind of annotations from the history page."""

MEDIA = frozenset({
    "3gp", "asf", "avi", "flv", "gif", "m2ts", "m4a", "m4v", "mjpeg", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "mts",
    "mxf", "ogg", "ogv", "qt", "ts", "vob", "wav", "webm", "webp", "wmv",
})  # fmt: skip
"""Suffixes of films where a name may be without one; another one may be a part of the name, as in ``talk.pre``."""

IN_VIEW = "in view"
"""The text of a face's stay in our exports, in place of a label."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A span with a label, in seconds. ``track`` is the tier, subject or face that it belongs to, or empty."""

    start: float
    end: float
    label: str
    track: str = ""


@dataclass(frozen=True, slots=True)
class Coding:
    """The annotations of one film by one coder.

    ``film`` is the film's name without folder and suffix, and ``coder`` the coder's name, if the file has them.
    ``spans`` are the parts of the film that were coded; empty if the file does not tell. ``labels`` are those that the
    coder could have given, as far as is known. Times are in seconds of the film's clock, or since the Unix epoch if
    ``absolute``. ``origin`` is the time of the film's first frame in seconds since the epoch, if it is known.
    ``points`` is the number of annotations without a duration, which were left out. If ``sparse``, the time between the
    annotations was not coded, such as where an annotator marks only wrong labels.
    """

    path: Path
    kind: str
    annotations: tuple[Annotation, ...]
    film: str | None = None
    coder: str | None = None
    spans: tuple[Span, ...] = ()
    labels: frozenset[str] = frozenset()
    absolute: bool = False
    origin: float | None = None
    points: int = 0
    sparse: bool = False

    @property
    def tracks(self) -> tuple[str, ...]:
        """The tracks that have annotations, in order of appearance."""
        return tuple(dict.fromkeys(each.track for each in self.annotations))


def codings(
    path: Path,
    kind: str,
    annotations: Mapping[tuple[str | None, str | None], Sequence[Annotation]],
    *,
    absolute: bool = False,
) -> list[Coding]:
    """Return a `Coding` for each film and coder, without annotations that have no duration."""
    found = []
    for (film, coder), given in annotations.items():
        kept = sorted((one for one in given if one.end > one.start), key=lambda one: one.start)
        if kept:
            points = len(given) - len(kept)
            found.append(Coding(path, kind, tuple(kept), film, coder, absolute=absolute, points=points))
    return found


def film_name(address: str, *, written: bool = False) -> str:
    """Return a film's name without folders and suffix, from a path of any system, or a URL.

    If people have ``written`` it, it may have no suffix, so only those in `MEDIA` are taken for one.
    """
    path = unquote(address.strip()) if "://" in address or "%" in address else address.strip()
    name = PurePosixPath(PureWindowsPath(path).as_posix()).name if "\\" in path else PurePosixPath(path).name
    stem, dot, suffix = name.rpartition(".")
    if written:
        return stem if stem and suffix.lower() in MEDIA else name
    return stem if dot and stem and suffix.isalnum() and not suffix.isdigit() and len(suffix) <= 5 else name
