"""Statistics: the same numbers as those of a second computation, which paints every millisecond."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from journals import event

from fer_stream.errors import ConfigError
from fer_stream.events.attention import Attention
from fer_stream.events.cloudevents import decode, encode
from fer_stream.events.smoother import LabelSet
from fer_stream.events.spans import MOST_ROWS, Parts
from fer_stream.events.statistics import FOREVER, Record
from fer_stream.events.timeline import Timeline, closing
from fer_stream.journal import gap
from fer_stream.journal.contents import OpenEvents
from fer_stream.settings.tree import SearchSettings, Settings, SmootherSettings, TrackerSettings
from fer_stream.types import EMOTIONS, Box, Event, Face, Nanoseconds, Probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fer_stream.events.rows import Row

MS = 1_000_000
SECOND = 1000 * MS
VALENCE: dict[str, str] = Settings.model_fields["valence"].get_default(call_default_factory=True)


# Events of cameras at which faces come and go, as the aggregator would make them


def face(number: int, label: str) -> Face:
    values = tuple(0.94 if label == each else 0.01 for each in EMOTIONS)
    return Face(Box(150.0 * number, 10, 150.0 * number + 90, 100), 0.9, (), Probabilities(EMOTIONS, values))


def epoch_of(camera: str, epoch: int, start: int, chance: random.Random, *, killed: bool) -> Iterator[Event]:
    """Yield the events of an epoch of a camera; ``start`` in milliseconds."""
    choice = Attention(SearchSettings(), "drop_oldest", 4)
    timeline = Timeline(
        camera, epoch, LabelSet("emotions", EMOTIONS, VALENCE), TrackerSettings(), SmootherSettings(), choice
    )
    shown: dict[int, str] = {}
    now = start
    left_open = OpenEvents()
    for frame in range(1, chance.randint(20, 250)):
        now += chance.choice([40, 70, 100, 700 if chance.random() < 0.05 else 90])
        for number in range(3):
            if chance.random() < 0.03:
                shown.pop(number, None)
            if chance.random() < 0.04:
                shown[number] = chance.choice(EMOTIONS)
        faces = [face(number, label) for number, label in shown.items()]
        for new in timeline.observe(frame, Nanoseconds(now * MS), (640, 480), faces):
            left_open.see(new)
            yield new
    yield from map(closing, left_open.unclosed()) if killed else timeline.offline("ended")


def some_events(seed: int) -> list[Event]:
    chance = random.Random(seed)
    streams = []
    for camera in ("door", "hall", "yard")[: chance.randint(1, 3)]:
        epochs, start = [], chance.randint(0, 5000)
        for epoch in range(1, chance.randint(2, 4)):
            found = list(epoch_of(camera, epoch, start, chance, killed=chance.random() < 0.4))
            epochs.append(found)
            start = max(event.time for event in found) // MS + chance.randint(0, 8000)
        streams.append(list(itertools.chain(*epochs)))
    mixed = []
    while any(streams):  # each camera's order is kept
        mixed.append(chance.choice([stream for stream in streams if stream]).pop(0))
    return mixed[: chance.randint(1, len(mixed))] if chance.random() < 0.5 else mixed


# The second computation: it knows only texts, paints each millisecond of each face, and counts


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def painted(texts: list[str], start: int, end: int, every: int) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the numbers of each camera and part; times in milliseconds."""
    bodies = [json.loads(text) for text in texts]
    size = 1 + max(end, *(moment(body["time"]) for body in bodies))
    found = {}
    for camera in sorted({body["source"] for body in bodies}):
        own = [body for body in bodies if body["source"] == camera]
        online, offline = np.zeros(size, bool), np.zeros(size, bool)
        for body in own:  # each state lasts until the next one
            at = moment(body["time"])
            if body["type"] in ("camera.online", "camera.offline"):
                online[at:] = body["type"] == "camera.online"
                offline[at:] = not online[at]
        latest = max(moment(body["time"]) for body in own)
        if online[-1]:
            online[latest:] = False
        faces: dict[tuple[int, str], tuple[NDArray[np.bool_], NDArray[np.int_], int]] = {}
        for body in own:
            if "subject" in body:
                key = body["epoch"], body["subject"]
                here, label, _ = faces.setdefault(
                    key, (np.zeros(size, bool), np.zeros(size, int), moment(body["data"]["start_time"]))
                )
                until = body["data"]["end_time"]
                begin, stop = moment(body["data"]["start_time"]), moment(until) if until else latest
                if body["type"].startswith("face"):
                    here[begin:] = False
                    here[begin:stop] = True
                else:
                    label[begin:] = 0
                    label[begin:stop] = 1 + EMOTIONS.index(body["data"]["label"])
        for begin in range(start, end, every):
            part = slice(begin, min(begin + every, end))
            present = sum(here[part].astype(int) for here, _, _ in faces.values())
            labels = {
                name: sum(int((label[part] == 1 + number).sum()) for _, label, _ in faces.values())
                for number, name in enumerate(EMOTIONS)
            }
            found[camera.removeprefix("/cameras/"), begin] = {
                "online": int(online[part].sum()),
                "offline": int(offline[part].sum()),
                "unknown": int((~online[part] & ~offline[part]).sum()),
                "count": sum(
                    bool(here[part].any()) or (not here.any() and part.start <= since < part.stop)
                    for here, _, since in faces.values()
                ),
                "unseen": int((online[part] & (present == 0)).sum()),
                "in_view": int(np.sum(present)),
                "uncertain": sum(int((here[part] & (label[part] == 0)).sum()) for here, label, _ in faces.values()),
                "labels": {name: amount for name, amount in labels.items() if amount},
            }
    return found


def in_milliseconds(row: Row) -> dict[str, Any]:
    assert row.faces is not None
    faces = row.faces
    assert row.online + row.offline + row.unknown == row.end - row.start
    found = {
        "online": row.online,
        "offline": row.offline,
        "unknown": row.unknown,
        "unseen": faces.unseen,
        "in_view": faces.in_view,
        "uncertain": faces.uncertain,
    }
    assert all(value % MS == 0 for value in found.values())
    labels = {label: part // MS for label, part in faces.labels.items()}
    return {name: value // MS for name, value in found.items()} | {"count": faces.count, "labels": labels}


@pytest.mark.parametrize("seed", range(60))
def test_a_second_computation_gives_the_same(seed: int) -> None:
    texts = [encode(event) for event in some_events(seed)]
    record = Record()
    for text in texts:
        record.take(decode(text))
    chance = random.Random(seed)
    start = chance.randint(0, 3000)
    end = start + chance.randint(1, 40_000)
    every = chance.choice([700, 5000, 60_000])
    expected = painted(texts, start, end, every)
    found = {
        (row.camera, row.start // MS): in_milliseconds(row)
        for row in record.rows(Parts.of(start * MS, end * MS, every * MS))
    }
    assert found == expected
    bounded = Record(start * MS, end * MS)
    for text in texts:
        bounded.take(decode(text))
    assert bounded.rows(Parts.of(start * MS, end * MS, every * MS)) == record.rows(
        Parts.of(start * MS, end * MS, every * MS)
    )


def test_the_second_computation_is_not_empty() -> None:
    """Otherwise the comparison would be of empty tables."""
    rows = []
    for seed in range(40):
        texts = [encode(event) for event in some_events(seed)]
        rows += painted(texts, 0, 60_000, 10_000).values()
    for what in ("online", "offline", "unknown", "count", "unseen", "in_view", "uncertain", "labels"):
        assert sum(bool(row[what]) for row in rows) > 20, what


# By hand


def at(made: Event, seconds: float) -> Event:
    return replace(made, time=Nanoseconds(round(seconds * SECOND)))


def history(*, until: int = 10) -> list[Event]:
    """Return the events of one face: in view from 1 s to 7 s, happy from 2 s to 5 s, and offline from 8 s."""
    online = at(event("camera.online"), 0)
    entered = at(event("face.entered", track=1), 1)
    entered = replace(entered, data=replace(entered.data, start_time=Nanoseconds(SECOND)))
    started = at(event("emotion.started", track=1), 3)
    started = replace(started, data=replace(started.data, start_time=Nanoseconds(2 * SECOND)))
    ended = at(event("emotion.ended", track=1), 6)
    ended = replace(ended, data=replace(started.data, end_time=Nanoseconds(5 * SECOND)))
    left = at(event("face.left", track=1), 8)
    left = replace(left, data=replace(entered.data, end_time=Nanoseconds(7 * SECOND)))
    offline = at(event("camera.offline"), 8)
    return [each for each in (online, entered, started, ended, left, offline) if each.time <= until * SECOND]


def of(events: list[Event], start: float = 0, end: float = 10, **how: Any) -> Row:
    record = Record()
    for each in events:
        record.take(each)
    (row,) = record.rows(Parts.of(round(start * SECOND), round(end * SECOND)), **how)
    return row


def test_by_hand() -> None:
    assert of(history()).as_dict() == {
        "camera": "door",
        "start": "1970-01-01T00:00:00.000000Z",
        "end": "1970-01-01T00:00:10.000000Z",
        "online_s": 8.0,
        "offline_s": 2.0,
        "unknown_s": 0.0,
        "withheld": False,
        "faces": 1,
        "unseen_s": 2.0,
        "in_view_s": 6.0,
        "uncertain_s": 3.0,
        "labels_s": {"happy": 3.0},
        "share": {"happy": 0.5},
    }


def test_what_is_open_counts_until_the_latest_event_or_longer_if_more_is_known() -> None:
    row = of(history(until=3))
    assert (row.online, row.offline, row.unknown) == (3 * SECOND, 0, 7 * SECOND)
    assert row.faces is not None
    assert (row.faces.in_view, row.faces.labels) == (2 * SECOND, {"happy": SECOND})
    longer = of(history(until=3), online={"door": 9 * SECOND, "another": FOREVER})
    assert (longer.online, longer.unknown) == (9 * SECOND, SECOND)
    assert longer.faces is not None
    assert longer.faces.labels == {"happy": 7 * SECOND}


def test_a_gap_is_unknown_time_and_not_neutral() -> None:
    events = history()
    missing = gap(3, 4, "expired")
    row = of([*events[:3], missing, *events[4:]])  # the end of the interval is lost
    assert row.unknown == 0, "the end of the stay says when it began"
    assert row.faces is not None
    assert row.faces.labels == {"happy": SECOND}, "it is happy as long as an event says so"
    assert row.faces.uncertain == 5 * SECOND
    row = of([*events[:3], missing, events[5]])  # so is that of the stay
    assert (row.online, row.offline, row.unknown) == (3 * SECOND, 2 * SECOND, 5 * SECOND)
    assert of([missing, *events]) == of(events), "a gap before everything hides nothing that is known"


def test_what_a_restarted_aggregator_closes_late_does_not_end_the_new_epoch() -> None:
    events = history()
    online = replace(at(events[0], 4), epoch=2)
    row = of([*events[:3], online, *events[3:]], online={"door": 10 * SECOND})
    assert (row.online, row.offline, row.unknown) == (10 * SECOND, 0, 0)
    assert row.faces is not None
    assert (row.faces.count, row.faces.labels) == (1, {"happy": 3 * SECOND})


def test_an_epoch_without_an_end_is_unknown_after_its_latest_event() -> None:
    later = [replace(at(history()[0], 9), epoch=2)]
    row = of([*history(until=3), *later])
    assert (row.online, row.unknown) == (3 * SECOND, 7 * SECOND)


def test_the_same_time_twice_counts_once() -> None:
    again = [replace(each, epoch=2) for each in history()]
    row = of([*history(), *again])
    assert (row.online, row.offline, row.unknown) == (8 * SECOND, 2 * SECOND, 0)
    assert row.faces is not None
    assert (row.faces.count, row.faces.in_view, row.faces.unseen) == (2, 12 * SECOND, 2 * SECOND)


def test_groups_smaller_than_the_least_are_withheld() -> None:
    row = of(history(), least_faces=2)
    assert row.faces is None
    told = row.as_dict()
    assert told["withheld"] is True
    assert not {"faces", "unseen_s", "in_view_s", "labels_s", "share"} & told.keys()
    assert of(history(), 8.5, 9, least_faces=2).faces is not None, "nobody was there, so nobody is hidden"


def test_valence() -> None:
    faces = of(history(), groups={"happy": "positive"}).faces
    assert faces is not None
    assert faces.labels == {"positive": 3 * SECOND}
    faces = of(history(), groups={"sad": "negative"}).faces
    assert faces is not None
    assert (faces.labels, faces.uncertain) == ({}, 6 * SECOND)
    faces = of(history(), groups={"grin": "happy"}).faces
    assert faces is not None
    assert faces.labels == {"happy": 3 * SECOND}, "events of a service whose labels are the groups"


def test_periods_that_are_empty_or_have_too_many_parts_are_refused() -> None:
    record = Record()
    record.take(history()[0])
    for start, end, every in ((5, 5, 1), (5, 4, 1), (0, 5, 0), (0, 5, -1)):
        with pytest.raises(ConfigError, match="must be after its beginning"):
            record.rows(Parts.of(start, end, every))
    assert len(record.rows(Parts.of(0, MOST_ROWS, 1))) == MOST_ROWS
    with pytest.raises(ConfigError, match="longer parts"):
        record.rows(Parts.of(0, MOST_ROWS + 1, 1))
