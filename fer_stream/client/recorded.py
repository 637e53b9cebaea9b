"""Reads the events that `fer-stream analyze` or the sink ``file`` has written: one JSON object a line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.errors import ConfigError, WireError
from fer_stream.events.cloudevents import MAX_TEXT, decode, from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fer_stream.types import Event

EVENTS = "events.jsonl"
"""The events in a folder that `fer-stream analyze` has written."""


class Recording(NamedTuple):
    """A file of events."""

    film: str
    """The name of the analysed file, or of its folder in a folder of several; of other files of events their own."""
    start: int
    """The capture time at which the film begins, in nanoseconds since the Unix epoch; 0 if nothing tells it."""
    path: Path
    source: str
    """The name of the analysed file; of other files of events their own name."""
    labels: tuple[str, ...] = ()
    """The labels that the model may give; nothing if that is not told."""

    def events(self) -> Iterator[Event]:
        """Yield the events in their order.

        Raises:
            ConfigError: the file cannot be read, or a line is not an event.
        """
        try:
            with self.path.open("rb") as file:
                number, line = 0, b""
                while line := file.readline(2 * MAX_TEXT):
                    number += 1
                    if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise ConfigError(f"{str(self.path)!r} is text in UTF-16: save it as UTF-8")
                    text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
                    if not text:
                        continue
                    try:
                        yield decode(text)
                    except WireError as error:
                        cut = not line.endswith(b"\n") and len(line) < 2 * MAX_TEXT
                        why = "the file breaks off in it" if cut else str(error)
                        if number == 1 and not text.startswith(b"{"):
                            why = f"this is no event; give an {EVENTS}, not a table"
                        raise ConfigError(f"{str(self.path)!r}, line {number}: {why}") from error
        except OSError as error:
            raise _unreadable(self.path, error) from error


def recordings(paths: Iterable[str | Path]) -> list[Recording]:
    """Return the recordings in files of events, in folders that `analyze` has written, and in folders of such folders.

    A folder of folders calls its films like its common tables do: like their folders. Other films of the same name are
    told apart by their folders.

    Raises:
        ConfigError: a path does not exist or cannot be read, or a folder holds no events.
    """
    found = [recording for path in paths for recording in _under(Path(path))]
    twice = Counter(recording.film for recording in found)
    return [
        recording._replace(film=str(recording.path.parent)) if twice[recording.film] > 1 else recording
        for recording in found
    ]


def _under(path: Path) -> list[Recording]:
    try:
        if not path.is_dir():
            path.stat()
            return [_recording(path)]
        if (path / EVENTS).exists():
            return [_recording(path / EVENTS)]
        inside = sorted(folder / EVENTS for folder in path.iterdir() if (folder / EVENTS).exists())
    except OSError as error:
        raise _unreadable(path, error) from error
    if not inside:
        raise ConfigError(
            f"the folder {str(path)!r} holds no {EVENTS}: give a folder that fer-stream analyze has written for a "
            "recording, or a folder of them"
        )
    return [_recording(each)._replace(film=each.parent.name) for each in inside]


def _recording(path: Path) -> Recording:
    summary = _summary(path.with_name("summary.json")) if path.name == EVENTS else {}
    film, start = summary.get("source"), summary.get("start_time")
    try:
        since = from_rfc3339(start) if isinstance(start, str) else 0
    except ValueError:
        since = 0
    labels = summary.get("labels")
    known = tuple(labels) if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else ()
    name = film if isinstance(film, str) else path.name
    return Recording(name, since, path, name, known)


def _summary(path: Path) -> dict[str, Any]:
    """Return what `analyze` says about its result; empty if there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}")
