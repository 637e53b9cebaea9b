"""Statistics of a period: for how long each apparent expression was seen on each camera, computed from events alone.

Time is never counted twice, and time about which nothing is known is told::

    period = online + offline + unknown        of a camera
    online = unseen + time with a face in view
    in_view = uncertain + labels               summed over the faces

A face without an open interval is *uncertain*: it is not counted as neutral. A camera is *offline* from
``camera.offline`` to its next event, and its state is *unknown* before its first event, where events are missing
(``stream.gap``), and after its latest event, unless the caller knows more. What is still open counts up to there.

This module uses no clock, socket or file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import to_rfc3339
from fer_stream.types import CameraData, Event, EventType, ExpressionData, FaceData, GapData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Span = tuple[int, int]
    """Begin (inclusive) and end (exclusive) in nanoseconds."""

MOST_ROWS = 100_000
"""Most rows of one answer."""

FOREVER = 1 << 62
"""Nanoseconds: later than any time."""


ANOTHER_JOURNAL = "another journal"
"""The reason of a gap after which epochs begin anew (`fer_stream.client.partition`)."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of a camera in a period. Durations are in nanoseconds."""

    count: int
    """How many faces were in view: a face that leaves and comes back counts again."""
    unseen: int
    """Time in which the camera was online and no face was in view."""
    in_view: int
    """Time that the faces were in view, summed over the faces."""
    uncertain: int
    """The part of ``in_view`` in which the face had no label."""
    labels: dict[str, int]
    """The part of ``in_view`` of each label."""


@dataclass(frozen=True, slots=True)
class Row:
    """One camera in one period. Durations are in nanoseconds; ``online + offline + unknown`` is the whole period."""

    camera: str
    start: Nanoseconds
    end: Nanoseconds
    online: int
    offline: int
    unknown: int
    faces: Faces | None
    """``None``: withheld, because there were some faces, but fewer than `least_faces` asks for."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values: durations in seconds, ``share`` as a part of ``in_view_s``."""
        found: dict[str, Any] = {
            "camera": self.camera,
            "start": to_rfc3339(self.start),
            "end": to_rfc3339(self.end),
            "online_s": _seconds(self.online),
            "offline_s": _seconds(self.offline),
            "unknown_s": _seconds(self.unknown),
            "withheld": self.faces is None,
        }
        if self.faces is None:
            return found
        faces = self.faces
        return found | {
            "faces": faces.count,
            "unseen_s": _seconds(faces.unseen),
            "in_view_s": _seconds(faces.in_view),
            "uncertain_s": _seconds(faces.uncertain),
            "labels_s": {label: _seconds(part) for label, part in faces.labels.items()},
            "share": {label: round(part / faces.in_view, 4) for label, part in faces.labels.items() if faces.in_view},
        }


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1e9, 3)


class Record:
    """What the events say about the time from ``since`` to ``until``. Each camera's events are taken in their order."""

    def __init__(self, since: int = 0, until: int = FOREVER) -> None:
        """Begin without events; times are in nanoseconds since the Unix epoch."""
        self.first = FOREVER
        """The earliest time of an event; `FOREVER` without events."""
        self.last = 0
        """The latest time of an event."""
        self._bounds = since, until
        self._cameras: dict[str, _Camera] = {}

    def take(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event.data, GapData):  # of which cameras is not known
            for each in self._cameras.values():
                each.lose(another_journal=event.data.reason == ANOTHER_JOURNAL)
            return
        self.first, self.last = min(self.first, event.time), max(self.last, event.time)
        if event.camera not in self._cameras:
            self._cameras[event.camera] = _Camera(*self._bounds)
        self._cameras[event.camera].take(event, event.data)

    def rows(
        self,
        start: int,
        end: int,
        every: int | None = None,
        *,
        camera: str | None = None,
        least_faces: int = 1,
        groups: Mapping[str, str] | None = None,
        online: Mapping[str, int] | None = None,
        most: int = MOST_ROWS,
    ) -> list[Row]:
        """Return a row for each camera and each part of a period.

        Args:
            start: the beginning of the period, in nanoseconds since the Unix epoch.
            end: its end, exclusive.
            every: nanoseconds of each part, of which the last one may be shorter; ``None``: one part.
            camera: only this camera.
            least_faces: of how many faces at least something is said; what is said of fewer is withheld.
            groups: the group of each label, such as its valence; a label without a group counts as uncertain.
            online: the time until which a camera is known to be online, by its name.
            most: the most rows.

        Raises:
            ConfigError: the period is empty, or there would be more than ``most`` rows.
        """
        every = end - start if every is None else every
        if end <= start or every <= 0:
            raise ConfigError("the period is empty: its end must be after its beginning")
        count = -(-(end - start) // every)
        cameras = sorted(name for name in self._cameras if camera in (None, name))
        if count * max(1, len(cameras)) > most:
            raise ConfigError(
                f"these are {count} parts for each of {len(cameras)} cameras, and at most {most} in all are "
                "possible: choose a shorter period or longer parts"
            )
        parts = _Parts(start, end, every, count)
        found = []
        for name in cameras:
            found += self._cameras[name].rows(name, parts, least_faces, groups, (online or {}).get(name, 0))
        return found


class _Camera:
    """What is known of one camera. Later events of a stay or an interval replace what earlier ones said of it."""

    def __init__(self, since: int, until: int) -> None:
        self._bounds = since, until
        self._online: list[Span] = []
        self._offline: list[Span] = []
        self._stays: dict[tuple[int, int, int], Span] = {}
        """Start and latest known time of each face, by journal, epoch and track."""
        self._intervals: dict[tuple[int, int, int, int], tuple[str, int]] = {}
        """Label and latest known time of each interval, by journal, epoch, track and start."""
        self._open_stays: set[tuple[int, int, int]] = set()
        self._open_intervals: set[tuple[int, int, int, int]] = set()
        self._journal = self._epoch = 0
        self._state: bool | None = None
        """Whether it is online; ``None``: unknown."""
        self._since = self._known = 0

    def take(self, event: Event, data: CameraData | FaceData | ExpressionData) -> None:
        if event.epoch >= self._epoch:  # else a restarted aggregator closes what was open when a new epoch began
            self._take_state(event, data)
        track = self._journal, event.epoch, event.track
        if isinstance(data, FaceData):
            self._take_stay(track, data, event.time)
        elif isinstance(data, ExpressionData):
            self._take_interval(track, data, event.time)
        if event.type is EventType.CAMERA_OFFLINE and event.epoch == self._epoch:
            self.lose()
            self._state, self._since = False, event.time

    def _take_state(self, event: Event, data: CameraData | FaceData | ExpressionData) -> None:
        if event.epoch != self._epoch and self._state:
            self.lose()  # the end of that epoch is missing
        self._epoch = event.epoch
        if self._state is not True:
            since = event.time if isinstance(data, CameraData) else data.start_time
            if self._state is False:
                self._add(self._offline, self._since, since)
            self._state, self._since, self._known = True, since, event.time
        self._known = max(self._known, event.time)

    def _take_stay(self, track: tuple[int, int, int], data: FaceData, time: int) -> None:
        self._stays[track] = data.start_time, max(data.start_time, time if data.end_time is None else data.end_time)
        if data.end_time is None:
            self._open_stays.add(track)
        else:
            self._open_stays.discard(track)
            if not self._reaches(*self._stays[track]):
                del self._stays[track]

    def _take_interval(self, track: tuple[int, int, int], data: ExpressionData, time: int) -> None:
        # If a gap hides when the face came, its first interval is the first that is known of it.
        start, last = self._stays.get(track, (data.start_time, 0))
        self._stays[track] = min(start, data.start_time), max(last, time)
        if track[1] == self._epoch:
            self._open_stays.add(track)
        interval = *track, data.start_time
        self._intervals[interval] = data.label, max(data.start_time, time if data.end_time is None else data.end_time)
        if data.end_time is None:
            self._open_intervals.add(interval)
        else:
            self._open_intervals.discard(interval)
            if not self._reaches(data.start_time, data.end_time):
                del self._intervals[interval]

    def lose(self, *, another_journal: bool = False) -> None:
        """Take that nothing is known of what follows the latest event."""
        if self._state:
            self._add(self._online, self._since, self._known)
        self._open_stays.clear()
        self._open_intervals.clear()
        self._state = None
        if another_journal:  # whose epochs and tracks may have the same numbers
            self._journal, self._epoch = self._journal + 1, 0

    def _add(self, spans: list[Span], start: int, end: int) -> None:
        if start <= end and self._reaches(start, end):
            spans.append((start, end))

    def _reaches(self, start: int, end: int) -> bool:
        since, until = self._bounds
        return end >= since and start < until

    def rows(
        self, name: str, parts: _Parts, least_faces: int, groups: Mapping[str, str] | None, until: int
    ) -> list[Row]:
        now = max(self._known, until)
        stays = [
            (start, max(last, now) if key in self._open_stays else last) for key, (start, last) in self._stays.items()
        ]
        online, offline = [*self._online, *stays], list(self._offline)
        if self._state is not None:
            (online if self._state else offline).append((self._since, now if self._state else FOREVER))
        labels: dict[str, list[Span]] = {}
        for key, (label, last) in self._intervals.items():
            span = key[-1], max(last, now) if key in self._open_intervals else last
            group = label if groups is None else groups.get(label, label if label in groups.values() else None)
            if group is not None:
                labels.setdefault(group, []).append(span)
        on, occupied = parts.spread(_union(online)), parts.spread(_union(stays))
        known = parts.spread(_union([*online, *offline]))
        counts, in_view = parts.counts(stays), parts.spread(stays)
        shares = {label: parts.spread(labels[label]) for label in sorted(labels)}
        rows = []
        for number, (start, end) in enumerate(parts):
            faces = None
            if not 0 < counts[number] < least_faces:
                told = {label: spread[number] for label, spread in shares.items() if spread[number]}
                uncertain = in_view[number] - sum(told.values())
                unseen = on[number] - occupied[number]
                faces = Faces(counts[number], unseen, in_view[number], uncertain, told)
            rest = known[number] - on[number], end - start - known[number]
            rows.append(Row(name, Nanoseconds(start), Nanoseconds(end), on[number], *rest, faces))
        return rows


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a period."""

    start: int
    end: int
    every: int
    count: int

    def __iter__(self) -> Iterator[Span]:
        for number in range(self.count):
            begin = self.start + number * self.every
            yield begin, min(begin + self.every, self.end)

    def _within(self, spans: Iterable[Span]) -> Iterable[tuple[int, int, int, int]]:
        """Yield begin and end of each span within the period, and the numbers of its first and last part."""
        for begin, end in spans:
            if begin < self.end and (end > self.start or begin == end == self.start):
                begin, end = max(begin, self.start), min(end, self.end)  # noqa: PLW2901
                first = (begin - self.start) // self.every
                yield begin, end, first, max(first, (end - 1 - self.start) // self.every)

    def spread(self, spans: Iterable[Span]) -> list[int]:
        """Return how much of the spans is in each part."""
        found = [0] * self.count
        for begin, end, first, last in self._within(spans):
            for number in range(first, last + 1):
                edge = self.start + number * self.every
                found[number] += min(end, edge + self.every) - max(begin, edge)
        return found

    def counts(self, spans: Iterable[Span]) -> list[int]:
        """Return how many of the spans reach into each part."""
        found = [0] * self.count
        for _, _, first, last in self._within(spans):
            for number in range(first, last + 1):
                found[number] += 1
        return found


def _union(spans: Iterable[Span]) -> list[Span]:
    """Return the same time in spans that do not overlap, in order."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
