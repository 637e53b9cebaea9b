"""What every journal contains, whatever stores it: numbered events and their texts, and gaps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fer_stream.events.cloudevents import encode, event_id
from fer_stream.events.cursor import to_cursor, to_numbers
from fer_stream.events.statistics import ANOTHER_JOURNAL
from fer_stream.types import Event, EventType, GapData, Nanoseconds, ZoneData

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fer_stream.types import Cursor


class Numbered(NamedTuple):
    """An event with its numbers, the text to store, and its id."""

    event: Event
    text: str
    identity: str


def number(new: Iterable[tuple[Event, str]], cursor: int, sequences: Mapping[str, int]) -> list[Numbered]:
    """Number events and encode them.

    Args:
        new: events that are not stored yet, with their ids (`event_id`).
        cursor: the number of the latest cursor.
        sequences: the sequence of each camera's latest event; 0 for a camera that is missing.
    """
    used: dict[str, int] = {}
    found = []
    for e, identity in new:
        cursor += 1
        sequence = used[e.camera] = (used.get(e.camera) or sequences.get(e.camera, 0)) + 1
        # dataclasses.replace would take twice as long
        event = Event(e.type, e.camera, e.epoch, e.frame, e.track, e.time, e.data, sequence, to_cursor(cursor))
        found.append(Numbered(event, encode(event, identity), identity))
    return found


def gap(after: int, upto: int, reason: str) -> Event:
    """Return the event that reports missing events: those with a cursor number above ``after``, up to ``upto``."""
    data = GapData(to_cursor(after), to_cursor(upto), reason)
    return Event(EventType.STREAM_GAP, "", 0, 0, 0, Nanoseconds(0), data, sequence=0, cursor=data.to_cursor)


def stored_gap(after: int, upto: int, reason: str) -> Numbered:
    """Return `gap` as it is stored and read; its id differs from those of gaps that end elsewhere."""
    event = gap(after, upto, reason)
    identity = event_id(replace(event, frame=upto))
    return Numbered(event, encode(event, identity), identity)


def another_journal(after: Cursor, begin: Cursor) -> tuple[Event, str]:
    """Return the event, and its text, that reports that a cursor is of another journal; all events follow.

    Its id is that of this cursor, so that a receiver which drops repeats takes it each time.

    Args:
        after: the cursor, which is of events that this journal does not have.
        begin: that after which the events follow.
    """
    data = GapData(after, begin, ANOTHER_JOURNAL)
    event = Event(EventType.STREAM_GAP, "", 0, 0, 0, Nanoseconds(0), data, sequence=0, cursor=begin)
    return event, encode(event, event_id(replace(event, frame=sum(to_numbers(after)))))


class OpenEvents:
    """Finds what a killed aggregator left open: the latest event of each face, interval and visit without an end."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, int, str, str], Event] = {}
        self._latest: dict[tuple[str, int, int], Event] = {}

    def see(self, event: Event) -> None:
        """Take the next event, in the journal's order."""
        family, _, what = event.type.partition(".")
        if family == "stream":
            return
        zone = event.data.zone if isinstance(event.data, ZoneData) else ""  # a face may be in several
        key = (event.camera, event.epoch, event.track, family, zone)
        for track in {event.track, 0}:
            self._latest[event.camera, event.epoch, track] = event
        if what in ("ended", "left", "offline"):
            self._open.pop(key, None)
        elif what != "crossed" and (what != "reset" or key in self._open):
            self._open[key] = event

    def unclosed(self) -> list[Event]:
        """Return the open ones in closing order: a face's intervals and visits, the face, and the camera at last.

        Their time and frame are those of the latest event of the same face, or of the same camera.
        """
        known = [
            replace(event, time=last.time, frame=last.frame)
            for event in self._open.values()
            for last in (self._latest[event.camera, event.epoch, event.track],)
        ]
        order = {"emotion": 0, "valence": 0, "zone": 1, "face": 2, "camera": 3}
        return sorted(known, key=lambda e: (e.camera, e.epoch, order[e.type.partition(".")[0]], e.track))
