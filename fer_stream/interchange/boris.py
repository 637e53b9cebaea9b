"""Reads annotations of BORIS: tables of events, aggregated or not, of versions 7 to 9, and projects (.boris).

The tables: https://www.boris.unito.it/user_guide/export_events/. A subject becomes a track, a behaviour a label. Point
events have no duration, and are left out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation, codings, film_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding
    from fer_stream.interchange.sheets import Sheet

EVENTS = frozenset({"time", "subject", "behavior"})
"""Columns of every version's table of events, in lower case."""

AGGREGATED = frozenset({"subject", "behavior", "start (s)", "stop (s)"})
"""Columns of every version's table of aggregated events."""

NOBODY = "no focal subject"
"""BORIS's name for events of no subject, in lower case."""

_MEDIA = ("media file name", "media file path", "media file", "source")


class _Event(NamedTuple):
    """An event; ``kind`` is START, STOP or POINT, ``where`` the place in the file."""

    where: str
    observation: str
    subject: str
    behaviour: str
    time: float
    kind: str


def read_events(sheet: Sheet) -> list[Coding]:
    """Return the annotations in a table of events, which has a row for each start and each stop.

    Raises:
        AnnotationError: a start has no stop, or a stop no start; or an observation shows several films.
    """
    kind = sheet.column("the kind of event", "behavior type", "status")
    events, films = [], _Films(sheet)
    for row in sheet.rows():
        observation = films.take(row.cells)
        where = f"{sheet.path}, line {row.line}"
        events.append(
            _Event(
                where,
                observation,
                _subject(row.cells["subject"]),
                sheet.text(row, "behavior"),
                sheet.seconds(row, "time"),
                row.cells[kind].upper().replace("STATE", "").strip() or "STATE",
            )
        )
    return _codings(sheet.path, _paired(events), films.names)


def read_aggregated(sheet: Sheet) -> list[Coding]:
    """Return the annotations in a table of aggregated events, which has a row for each span.

    Raises:
        AnnotationError: a row has no times, or an observation shows several films.
    """
    found, films = [], _Films(sheet)
    for row in sheet.rows():
        observation = films.take(row.cells)
        start, stop = (sheet.seconds(row, column) for column in ("start (s)", "stop (s)"))
        if stop < start:
            raise AnnotationError(
                f"{sheet.path}, line {row.line}: the event stops before it starts: correct it in BORIS"
            )
        annotation = Annotation(start, stop, sheet.text(row, "behavior"), _subject(row.cells["subject"]))
        found.append((observation, annotation))
    return _codings(sheet.path, found, films.names)


def read_project(path: Path, project: Any) -> list[Coding]:
    """Return the annotations in the observations of a project (parsed JSON).

    Raises:
        AnnotationError: as `read_events`; or it does not have the form of a project.
    """
    try:
        states = {
            each["code"] for each in project["behaviors_conf"].values() if "state" in str(each.get("type", "")).lower()
        }
        events, films = [], {}
        for name, observation in project["observations"].items():
            played = [film for player in (observation.get("file") or {}).values() for film in player]
            if len(set(played)) > 1:
                raise _several(path, name, played)
            films[name] = film_name(played[0]) if played else None
            running: set[tuple[str, ...]] = set()
            for number, (time, subject, code, modifiers, *_) in enumerate(observation["events"], 1):
                key = (subject, code, modifiers)
                kind = "POINT" if code not in states else "STOP" if key in running else "START"
                running ^= {key} if code in states else set()
                where = f"{path}, event {number} of the observation {name!r}"
                events.append(_Event(where, name, _subject(subject), code, float(time), kind))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnnotationError(
            f"{path} is not a complete project of BORIS 7 to 9: save it again with one of these versions"
        ) from error
    return _codings(path, _paired(events), films)


class _Films:
    """Which film each observation in a table shows."""

    def __init__(self, sheet: Sheet) -> None:
        self._path = sheet.path
        self._media = next((column for column in _MEDIA if column in sheet), "")
        self.names: dict[str, str | None] = {}
        self._played: dict[str, str] = {}

    def take(self, cells: Any) -> str:
        """Note the film of a row, and return its observation."""
        observation: str = cells.get("observation id", "")
        media = cells.get(self._media, "").removeprefix("player #1:")
        if media.lower() in ("", "na", "live", "n/a"):
            self.names.setdefault(observation, None)
            return observation
        if self._played.setdefault(observation, media) != media:
            raise _several(self._path, observation, [self._played[observation], media])
        self.names[observation] = film_name(media)
        return observation


def _several(path: Path, observation: str, played: Iterable[str]) -> AnnotationError:
    return AnnotationError(
        f"{path}: the observation {observation!r} shows several films, {' and '.join(list(played)[:2])}: BORIS counts "
        "their times together, so code and export one observation for each film"
    )


def _subject(text: str) -> str:
    return "" if text.lower() == NOBODY else text


def _paired(events: Iterable[_Event]) -> Iterator[tuple[str, Annotation]]:
    open_: dict[tuple[str, str, str], _Event] = {}
    for event in events:
        key = (event.observation, event.subject, event.behaviour)
        if event.kind == "START":
            if key in open_:
                raise AnnotationError(
                    f"{event.where}: {event.behaviour!r} starts again before it stops: correct it in BORIS"
                )
            open_[key] = event
        elif event.kind == "STOP":
            if key not in open_:
                raise AnnotationError(
                    f"{event.where}: {event.behaviour!r} stops, but it has not started: correct it in BORIS"
                )
            began = open_.pop(key)
            if event.time < began.time:
                raise AnnotationError(f"{event.where}: {event.behaviour!r} stops before it starts: correct it in BORIS")
            yield event.observation, Annotation(began.time, event.time, event.behaviour, event.subject)
        elif event.kind == "POINT":
            yield event.observation, Annotation(event.time, event.time, event.behaviour, event.subject)
        else:
            raise AnnotationError(
                f"{event.where}: {event.kind!r:.40} is neither START, STOP nor POINT: export the events again"
            )
    for left in open_.values():
        raise AnnotationError(f"{left.where}: {left.behaviour!r} starts, but it never stops: add its stop in BORIS")


def _codings(path: Path, found: Iterable[tuple[str, Annotation]], films: dict[str, str | None]) -> list[Coding]:
    by_observation: defaultdict[str, list[Annotation]] = defaultdict(list)
    for observation, annotation in found:
        by_observation[observation].append(annotation)
    return [  # one by one, because two observations may show the same film
        coding
        for observation, annotations in by_observation.items()
        for coding in codings(path, "BORIS", {(films[observation] or observation or None, None): annotations})
    ]
