"""Statistics of a period: for how long each apparent expression was seen, computed from events alone.

A row is about a camera, a track, a zone or a line. No time is counted twice, and unknown time is counted, too::

    period = online + offline + unknown        of a camera
    online = unseen + time with a face there   (in the picture, or in the zone)
    in_view = uncertain + labels               summed over the faces

A face without an open interval is *uncertain*: it is not counted as neutral. A camera is *offline* from
``camera.offline`` to its next event, and its state is *unknown* before its first event, where events are missing
(``stream.gap``), and after its latest event, unless the caller knows more. Open stays, intervals and visits count up to
the latest known time. The time of a label in a zone is the time that is in an interval and in a visit of the same face.

**Small groups.** With ``least_faces`` above 1, rows about fewer faces are withheld. So are all rows of tracks, and all
zones and lines of a camera whose own row is withheld. If only one zone is withheld, or if the withheld zones together
had fewer faces than ``least_faces``, the zone with the next fewest faces is withheld, too: otherwise the withheld
values could be computed from the camera's row and the other zones. This does not protect against requests for many
slightly different periods.

This module uses no clock, socket or file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError
from fer_stream.events.history import CameraHistory, Labelled, Stay, states
from fer_stream.events.rows import Faces, LineRow, Row, Visits
from fer_stream.events.spans import MOST_ROWS, Parts, common, union
from fer_stream.types import CameraData, EventType, ExpressionData, FaceData, GapData, LineData, Nanoseconds, ZoneData

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fer_stream.events.rows import Group
    from fer_stream.events.spans import Span
    from fer_stream.types import Event

FOREVER = 1 << 62
"""Nanoseconds: later than any time."""

ANOTHER_JOURNAL = "another journal"
"""The reason of a gap after which epochs begin anew (`fer_stream.client.partition`)."""

_Track = tuple[int, int, int]
"""Journal, epoch and number of a track."""

_Key = int | tuple[str, int]
"""An interval by its start, or a visit by its zone and start."""


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

    @property
    def cameras(self) -> list[str]:
        """The names of the cameras."""
        return sorted(self._cameras)

    def take(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event.data, GapData):  # of which cameras is not known
            for each in self._cameras.values():
                each.lose(another_journal=event.data.reason == ANOTHER_JOURNAL)
            return
        self.first, self.last = min(self.first, event.time), max(self.last, event.time)
        if event.camera not in self._cameras:
            self._cameras[event.camera] = _Camera(event.camera, *self._bounds)
        self._cameras[event.camera].take(event, event.data)

    def rows(
        self,
        parts: Parts,
        group: Group = "camera",
        *,
        camera: str | None = None,
        least_faces: int = 1,
        groups: Mapping[str, str] | None = None,
        online: Mapping[str, int] | None = None,
        most: int = MOST_ROWS,
    ) -> list[Row] | list[LineRow]:
        """Return a row for each camera and part; or for each of its tracks, zones or directions of lines and part.

        Args:
            parts: the parts of the period, or the trials.
            group: what a row is about. A track has rows for the parts in which it was in view.
            camera: only this camera.
            least_faces: rows about fewer faces are withheld.
            groups: the group of each label, such as its valence; a label without a group counts as uncertain.
            online: the time until which a camera is known to be online, by its name.
            most: the most rows.

        Raises:
            ConfigError: there would be more than ``most`` rows.
        """
        cameras = [name for name in self.cameras if camera in (None, name)]
        if len(parts) * max(1, len(cameras)) > most:
            raise _too_many(f"{len(parts)} parts for each of {len(cameras)} cameras", most)
        found: list[Row] | list[LineRow] = []
        for name in cameras:
            one = _CameraRows(self._cameras[name], parts, least_faces, groups, (online or {}).get(name, 0))
            made = {"camera": one.whole, "track": one.tracks, "zone": one.zones, "line": one.lines}[group]
            for row in made():
                if len(found) == most:
                    raise _too_many(f"more than {most} rows, one for each {group} and part", most)
                found.append(row)  # type: ignore[arg-type]
        return found

    def history(
        self, since: int, until: int, *, camera: str | None = None, online: Mapping[str, int] | None = None, most: int
    ) -> list[CameraHistory] | None:
        """Return the spans of a period; ``None`` if there would be more than ``most``.

        Args:
            since: the period's beginning, in nanoseconds since the Unix epoch.
            until: its end.
            camera: only this camera.
            online: as in `rows`.
            most: the most stays, labels and states together.
        """
        found, count = [], 0
        for name in [name for name in self.cameras if camera in (None, name)]:
            one = self._cameras[name]
            now = max(one.known, (online or {}).get(name, 0))
            stays = []
            for stay in one.history(now, since, until):
                stays.append(stay)
                count += 1 + len(stay.labels)
                if count > most:
                    return None
            found_states = states(since, until, *one.states(now))
            count += len(found_states)
            if count > most:
                return None
            found.append(CameraHistory(name, found_states, sorted(stays)))
        return found


def _too_many(what: str, most: int) -> ConfigError:
    return ConfigError(
        f"these are {what}, and at most {most} in all are possible: choose a shorter period or longer parts"
    )


@dataclass(slots=True)
class _Face:
    """What is known of one track. Later events of a stay, interval or visit replace earlier ones."""

    start: int
    last: int
    """The latest known time of its stay."""
    spans: dict[_Key, tuple[str, int]] = field(default_factory=dict)
    """Label and latest known time of each interval; zone and latest known time of each visit."""


class _Camera:
    """What is known of one camera."""

    def __init__(self, name: str, since: int, until: int) -> None:
        self.name = name
        self.online: list[Span] = []
        self.offline: list[Span] = []
        self.faces: dict[_Track, _Face] = {}
        self.crossings: dict[tuple[str, str], list[tuple[int, _Track]]] = {}
        """When which track crossed each line in each direction; those that were never crossed are here, too."""
        self.zones: set[str] = set()
        self.state: bool | None = None
        """Whether it is online; ``None``: unknown."""
        self.since = self.known = 0
        self._bounds = since, until
        self._open_stays: set[_Track] = set()
        self._open_spans: set[tuple[_Track, _Key]] = set()
        self._journal = self._epoch = 0

    def take(self, event: Event, data: CameraData | FaceData | ExpressionData | ZoneData | LineData) -> None:
        if event.epoch >= self._epoch:  # else a restarted aggregator closes what was open when a new epoch began
            self._take_state(event, data)
        track = self._journal, event.epoch, event.track
        match data:
            case CameraData():
                self.zones.update(data.zones or ())
                for name, line in (data.lines or {}).items():
                    for direction in (line.to_right, line.to_left):
                        self.crossings.setdefault((name, direction), [])
            case FaceData():
                self._take_stay(track, data, event.time)
            case ExpressionData():
                self._take_span(track, data.start_time, data.label, data, event.time)
            case ZoneData():
                self.zones.add(data.zone)
                self._take_span(track, (data.zone, data.start_time), data.zone, data, event.time)
            case LineData():
                crossed = self.crossings.setdefault((data.line, data.direction), [])
                if self._reaches(event.time, event.time):
                    crossed.append((event.time, track))
        if event.type is EventType.CAMERA_OFFLINE and event.epoch == self._epoch:
            self.lose()
            self.state, self.since = False, event.time

    def _take_state(self, event: Event, data: CameraData | FaceData | ExpressionData | ZoneData | LineData) -> None:
        if event.epoch != self._epoch and self.state:
            self.lose()  # the end of that epoch is missing
        self._epoch = event.epoch
        if self.state is not True:
            since = event.time if isinstance(data, CameraData | LineData) else data.start_time
            if self.state is False:
                self._add(self.offline, self.since, since)
            self.state, self.since, self.known = True, since, event.time
        self.known = max(self.known, event.time)

    def _take_stay(self, track: _Track, data: FaceData, time: int) -> None:
        last = max(data.start_time, time if data.end_time is None else data.end_time)
        face = self.faces.setdefault(track, _Face(data.start_time, last))
        face.start, face.last = data.start_time, last
        if data.end_time is None:
            self._open_stays.add(track)
        else:
            self._open_stays.discard(track)
            if not self._reaches(face.start, face.last):
                del self.faces[track]

    def _take_span(self, track: _Track, key: _Key, name: str, data: ExpressionData | ZoneData, time: int) -> None:
        # If a gap hides when the face came, its first interval is the first that is known of it.
        face = self.faces.setdefault(track, _Face(data.start_time, 0))
        face.start, face.last = min(face.start, data.start_time), max(face.last, time)
        if track[1] == self._epoch:
            self._open_stays.add(track)
        last = max(data.start_time, time if data.end_time is None else data.end_time)
        face.spans[key] = name, last
        if data.end_time is None:
            self._open_spans.add((track, key))
        else:
            self._open_spans.discard((track, key))
            if not self._reaches(data.start_time, last):
                del face.spans[key]

    def lose(self, *, another_journal: bool = False) -> None:
        """Set the state to unknown from the latest event on."""
        if self.state:
            self._add(self.online, self.since, self.known)
        self._open_stays.clear()
        self._open_spans.clear()
        self.state = None
        if another_journal:  # its epochs and tracks may have the same numbers
            self._journal, self._epoch = self._journal + 1, 0

    def stay(self, track: _Track, now: int) -> Span:
        """Return when a face was in view, if the latest known time is ``now``."""
        face = self.faces[track]
        return face.start, max(face.last, now) if track in self._open_stays else face.last

    def spans(self, track: _Track, now: int) -> Iterator[tuple[_Key, str, Span]]:
        """Yield key, name and span of each interval and visit of a face, if the latest known time is ``now``."""
        for key, (name, last) in self.faces[track].spans.items():
            start = key if isinstance(key, int) else key[1]
            yield key, name, (start, max(last, now) if (track, key) in self._open_spans else last)

    def states(self, now: int) -> tuple[list[Span], list[Span]]:
        """Return when it was online and when offline, if the latest known time is ``now``."""
        online = [*self.online, *(self.stay(track, now) for track in self.faces)]
        offline = list(self.offline)
        if self.state is not None:
            (online if self.state else offline).append((self.since, now if self.state else FOREVER))
        return online, offline

    def history(self, now: int, since: int, until: int) -> Iterator[Stay]:
        """Yield the faces in view in a period, if the latest known time is ``now``."""
        for track in self.faces:
            start, end = self.stay(track, now)
            if end < since or start >= until:
                continue
            labels = [
                Labelled(begin, stop, name, (track, key) in self._open_spans)
                for key, name, (begin, stop) in self.spans(track, now)
                if isinstance(key, int) and stop >= since and begin < until
            ]
            yield Stay(start, end, track[1], track[2], track in self._open_stays, sorted(labels))

    def _add(self, spans: list[Span], start: int, end: int) -> None:
        if start <= end and self._reaches(start, end):
            spans.append((start, end))

    def _reaches(self, start: int, end: int) -> bool:
        since, until = self._bounds
        return end >= since and start < until


class _Sum:
    """The sums over faces in one part."""

    __slots__ = ("count", "durations", "labels")

    def __init__(self) -> None:
        self.count = 0
        self.durations: list[int] = []
        self.labels: Counter[str] = Counter()


class _CameraRows:
    """Computes the rows of one camera."""

    def __init__(
        self, camera: _Camera, parts: Parts, least_faces: int, groups: Mapping[str, str] | None, until: int
    ) -> None:
        self._camera, self._parts, self._least, self._groups = camera, parts, least_faces, groups
        self._now = max(camera.known, until)
        self._stays = {track: camera.stay(track, self._now) for track in camera.faces}
        online, offline = camera.states(self._now)
        self._on = parts.spread(union(online))
        self._known = parts.spread(union([*online, *offline]))

    def whole(self) -> Iterator[Row]:
        """Yield a row for each part."""
        stays = self._stays.values()
        occupied = self._parts.spread(union(stays))
        sums = self._sums((track, [stay], [stay]) for track, stay in self._stays.items())
        for number in range(len(self._parts)):
            found = sums.get(number, _Sum())
            yield self._row(
                number, None if 0 < found.count < self._least else self._faces(number, found, occupied[number])
            )

    def tracks(self) -> Iterator[Row]:
        """Yield a row for each track and part, or one withheld row for each part if ``least_faces`` is above 1."""
        if self._least > 1:
            yield from (self._row(number, None) for number in range(len(self._parts)))
            return
        for track, stay in sorted(self._stays.items(), key=lambda each: (each[1], each[0])):
            for number, found in sorted(self._sums([(track, [stay], [stay])]).items()):
                yield self._row(number, self._faces(number, found, sum(found.durations)), track=track[1:])

    def zones(self) -> Iterator[Row]:
        """Yield a row for each zone and part."""
        visits: dict[str, dict[_Track, list[Span]]] = {zone: {} for zone in sorted(self._camera.zones)}
        for track in self._camera.faces:
            for key, name, span in self._camera.spans(track, self._now):
                if not isinstance(key, int):
                    visits[name].setdefault(track, []).append(span)
        sums, occupied = {}, {}
        for zone, found in visits.items():
            # Visits of a face to one zone do not overlap, but one without a duration may lie at the end of another.
            sums[zone] = self._sums((track, spans, union(spans)) for track, spans in found.items())
            occupied[zone] = self._parts.spread(union(span for spans in found.values() for span in spans))
        present = self._present()
        for number in range(len(self._parts)):
            by_zone = {zone: sums[zone].get(number, _Sum()) for zone in visits}
            withheld = self._withheld(present[number], {zone: found.count for zone, found in by_zone.items()})
            for zone, part in by_zone.items():
                if zone in withheld:
                    yield self._row(number, None, zone=zone)
                else:
                    faces = self._faces(number, part, occupied[zone][number])
                    yield self._row(number, faces, zone=zone, visits=_visits(part.durations))

    def lines(self) -> Iterator[LineRow]:
        """Yield a row for each direction of each line and part."""
        found: dict[tuple[str, str], dict[int, list[_Track]]] = {}
        for key, crossed in sorted(self._camera.crossings.items()):
            found[key] = {}
            for time, track in crossed:
                for number, _, _ in self._parts.pieces([(time, time)]):
                    found[key].setdefault(number, []).append(track)
        present = self._present()
        for number in range(len(self._parts)):
            for (line, direction), by_part in found.items():
                tracks = by_part.get(number, [])
                count = len(set(tracks))
                hidden = 0 < count < self._least or 0 < present[number] < self._least
                faces, crossings = (None, None) if hidden else (count, len(tracks))
                trial = self._parts.trials[number].name
                yield LineRow(self._camera.name, *self._times(number), line, direction, faces, crossings, trial)

    def _sums(self, faces: Iterable[tuple[_Track, Sequence[Span], Sequence[Span]]]) -> dict[int, _Sum]:
        """Add up faces by part: each with the spans to count, and the same time in spans that do not overlap."""
        sums: dict[int, _Sum] = {}
        for track, spans, distinct in faces:
            seen = set()
            for number, begin, end in self._parts.pieces(spans):
                found = sums.get(number)
                if found is None:
                    found = sums[number] = _Sum()
                found.durations.append(end - begin)
                if number not in seen:
                    seen.add(number)
                    found.count += 1
            if not seen:
                continue
            for key, name, span in self._camera.spans(track, self._now):
                if isinstance(key, int) and (label := self._label(name)) is not None:
                    for number, begin, end in self._parts.pieces(common([span], distinct)):
                        sums[number].labels[label] += end - begin
        return sums

    def _label(self, label: str) -> str | None:
        """Return the name under which the time of a label counts; ``None``: it counts as uncertain."""
        if self._groups is None:
            return label
        return self._groups.get(label, label if label in self._groups.values() else None)

    def _faces(self, number: int, found: _Sum, occupied: int) -> Faces:
        in_view = sum(found.durations)
        labels = {label: part for label, part in sorted(found.labels.items()) if part}
        return Faces(found.count, self._on[number] - occupied, in_view, in_view - sum(labels.values()), labels)

    def _present(self) -> list[int]:
        """Return how many faces were in view in each part."""
        counts = [0] * len(self._parts)
        for number, _, _ in self._parts.pieces(self._stays.values()):
            counts[number] += 1
        return counts

    def _withheld(self, present: int, counts: dict[str, int]) -> set[str]:
        """Return the zones whose rows are withheld; see "Small groups" above."""
        if 0 < present < self._least:
            return set(counts)
        found = {zone for zone, count in counts.items() if 0 < count < self._least}
        others = sorted((count, zone) for zone, count in counts.items() if count and zone not in found)
        if found:
            for _, zone in others:
                if len(found) > 1 and sum(counts[each] for each in found) >= self._least:
                    break
                found.add(zone)
        return found

    def _times(self, number: int) -> tuple[Nanoseconds, Nanoseconds, int, int, int]:
        """Return beginning and end of a part, and for how long the camera was online, offline, and unknown."""
        _, start, end = self._parts.trials[number]
        on, known = self._on[number], self._known[number]
        return Nanoseconds(start), Nanoseconds(end), on, known - on, end - start - known

    def _row(
        self,
        number: int,
        faces: Faces | None,
        *,
        track: tuple[int, int] | None = None,
        zone: str = "",
        visits: Visits | None = None,
    ) -> Row:
        trial = self._parts.trials[number].name
        return Row(self._camera.name, *self._times(number), faces, trial, track, zone, visits)


def _visits(durations: list[int]) -> Visits:
    return Visits(len(durations), median_low(durations), max(durations)) if durations else Visits(0, 0, 0)
