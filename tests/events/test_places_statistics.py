"""Statistics of tracks, zones, lines and trials: the same numbers as those of a second computation, in small steps."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Any

import pytest
from events.test_timeline import VALENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import ConfigError
from fer_stream.events.attention import Attention
from fer_stream.events.cloudevents import decode, encode
from fer_stream.events.rows import cells, write_csv
from fer_stream.events.smoother import LabelSet
from fer_stream.events.spans import Parts, Trial, common, union
from fer_stream.events.statistics import Record
from fer_stream.events.timeline import Timeline
from fer_stream.settings.sections import CameraSettings
from fer_stream.settings.tree import SearchSettings, SmootherSettings, TrackerSettings
from fer_stream.types import EMOTIONS, Box, Face, Nanoseconds, Probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.events.rows import Group

MS = 1_000_000
STEP = 5
"""Time step of the second computation, in milliseconds. All times of events are multiples of it."""

PLACES = CameraSettings.model_validate(
    {
        "zones": {
            "left": [(0, 0), (0.5, 0), (0.5, 1), (0, 1)],
            "middle": [(0.25, 0), (0.75, 0), (0.75, 1), (0.25, 1)],
            "nobody": [(0, 0.9), (1, 0.9), (1, 1)],
        },
        "lines": {"door": {"points": [(0.5, 0), (0.5, 1)], "to_right": "in", "to_left": "out"}},
    }
).places


def texts(seed: int) -> list[str]:
    """Return the events of up to four faces that wander, change and leave, in a camera that may end and begin again."""
    chance, found, now = random.Random(seed), list[str](), 0
    epochs = chance.randint(1, 2)
    for epoch in range(1, epochs + 1):
        timeline = Timeline(
            "door", epoch, LabelSet("emotions", EMOTIONS, VALENCE), TrackerSettings(), SmootherSettings(),
            Attention(SearchSettings(), "drop_oldest", 4), None, PLACES,
        )  # fmt: skip
        shown: dict[int, tuple[float, str]] = {}
        events = []
        for frame in range(1, chance.randint(20, 150)):
            now += chance.choice([40, 70, 100, 100, 900 if chance.random() < 0.05 else 90])
            for row in range(4):
                if chance.random() < 0.02:
                    shown.pop(row, None)
                if chance.random() < 0.05:
                    shown[row] = (shown[row][0] if row in shown else chance.uniform(0, 640)), chance.choice(EMOTIONS)
                if row in shown:
                    shown[row] = min(max(shown[row][0] + chance.gauss(0, 30), 0), 640), shown[row][1]
            faces = []
            for row, (x, label) in shown.items():
                values = tuple(0.94 if label == each else 0.01 for each in EMOTIONS)
                box = Box(x - 45, 110 * row, x + 45, 110 * row + 90)
                faces.append(Face(box, 0.9, (), Probabilities(EMOTIONS, values)))
            events += timeline.observe(frame, Nanoseconds(now * MS), (640, 480), faces)
        if epoch < epochs or chance.random() < 0.8:
            events += timeline.offline("ended")
        found += map(encode, events)
        now += chance.randint(0, 400) * STEP
    return found


# The second computation knows only the texts. It looks every few milliseconds at what is so at that moment


def milliseconds(text: str) -> int:
    hours, minutes, seconds = text[11:-1].split(":")
    assert text.startswith("1970-01-01")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)


class Sampled:
    """The spans that the texts tell, as ``(what, name): [(begin, end)]`` of each track, in milliseconds."""

    def __init__(self, lines: list[str]) -> None:
        bodies = [json.loads(line) for line in lines]
        ends: dict[int, int] = {}
        for body in bodies:
            ends[body["epoch"]] = milliseconds(body["time"])
        self.tracks: defaultdict[tuple[int, int], dict[tuple[str, str, int], int]] = defaultdict(dict)
        self.crossings: list[tuple[int, str, tuple[int, int]]] = []
        for body in bodies:
            data = body["data"]
            if "subject" not in body:
                continue
            track = body["epoch"], int(body["subject"].removeprefix("tracks/"))
            if body["type"] == "line.crossed":
                self.crossings.append((milliseconds(body["time"]), data["direction"], track))
                continue
            family = body["type"].partition(".")[0]
            key = family, data.get("label") or data.get("zone") or "", milliseconds(data["start_time"])
            end = data["end_time"]
            self.tracks[track][key] = milliseconds(end) if end else ends[body["epoch"]]

    def at(self, track: tuple[int, int], family: str, now: int) -> set[str]:
        return {
            name for (kind, name, begin), end in self.tracks[track].items() if kind == family and begin <= now < end
        }

    def numbers(self, begin: int, end: int, zone: str | None, only: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return the numbers of a period: of the whole picture, or of a zone, or of one track."""
        labels: defaultdict[str, int] = defaultdict(int)
        in_view = occupied = 0
        for now in range(begin, end, STEP):
            there = [
                track
                for track in self.tracks
                if only in (None, track)
                and (self.at(track, "face", now) if zone is None else zone in self.at(track, "zone", now))
            ]
            in_view += STEP * len(there)
            occupied += STEP * bool(there)
            for track in there:
                for label in self.at(track, "emotion", now):
                    labels[label] += STEP
        visits = [
            (max(start, begin), min(until, end), track)
            for track, spans in self.tracks.items()
            for (kind, name, start), until in spans.items()
            if only in (None, track) and kind == ("face" if zone is None else "zone") and name == (zone or "")
            and start < end and (until > begin or start == until == begin)
        ]  # fmt: skip
        lasted = [until - start for start, until, _ in visits]
        return {
            "faces": len({track for _, _, track in visits}),
            "in_view_s": in_view,
            "uncertain_s": in_view - sum(labels.values()),
            "labels_s": {label: part for label, part in labels.items() if part},
            "occupied": occupied,
            "visits": (len(lasted), median_low(lasted), max(lasted)) if lasted else (0, 0, 0),
        }


def record_of(lines: list[str]) -> Record:
    record = Record()
    for line in lines:
        record.take(decode(line))
    return record


def trials_of(chance: random.Random, last: int) -> list[tuple[int, int]]:
    """Return trials in milliseconds, some of which overlap, and some of which are after the end."""
    starts = [chance.randrange(0, last + 500, STEP) for _ in range(4)]
    return sorted((start, start + chance.randrange(STEP, 4000, STEP)) for start in starts)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_a_second_computation_gives_the_same(seed: int) -> None:
    lines = texts(seed)
    record, sampled = record_of(lines), Sampled(lines)
    trials = trials_of(random.Random(seed), record.last // MS)
    parts = Parts(Trial(f"{number}", begin * MS, end * MS) for number, (begin, end) in enumerate(trials))
    for group in ("camera", "zone", "track"):
        rows = [row.as_dict() for row in record.rows(parts, group)]
        for row in rows:
            begin, end = trials[int(row["trial"])]
            only = (row["epoch"], row["track"]) if group == "track" else None
            expected = sampled.numbers(begin, end, row.get("zone"), only)
            for name in ("in_view_s", "uncertain_s"):
                assert round(row[name] * 1000) == expected[name], (row, expected)
            assert {name: round(part * 1000) for name, part in row["labels_s"].items()} == expected["labels_s"]
            assert row["faces"] == expected["faces"]
            assert round(1000 * (row["online_s"] - row["unseen_s"])) == expected["occupied"]
            assert row["online_s"] + row["offline_s"] + row["unknown_s"] == pytest.approx((end - begin) / 1000)
            if group == "zone":
                told = row["visits"], round(1000 * row["median_visit_s"]), round(1000 * row["longest_visit_s"])
                assert told == expected["visits"]
        if group == "zone":
            assert [(row["trial"], row["zone"]) for row in rows] == [
                (str(number), zone) for number in range(4) for zone in ("left", "middle", "nobody")
            ]
    for row in (row.as_dict() for row in record.rows(parts, "line")):
        begin, end = trials[int(row["trial"])]
        crossed = [track for time, way, track in sampled.crossings if begin <= time < end and way == row["direction"]]
        assert (row["line"], row["crossings"], row["faces"]) == ("door", len(crossed), len(set(crossed)))


def test_the_second_computation_is_not_empty() -> None:
    """Otherwise the comparison would be of empty tables."""
    found: defaultdict[str, int] = defaultdict(int)
    for seed in range(20):
        sampled = Sampled(texts(seed))
        numbers = sampled.numbers(0, 20_000, "left")
        for name in ("faces", "in_view_s", "uncertain_s", "labels_s"):
            found[name] += bool(numbers[name])
        found["several visits"] += numbers["visits"][0] > numbers["faces"]
        for way in ("in", "out"):
            found[way] += any(way == each for _, each, _ in sampled.crossings)
    assert min(found.values()) >= 5, dict(found)


# Small groups


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_rows_about_fewer_faces_are_withheld_and_cannot_be_computed(seed: int, least: int) -> None:
    record = record_of(texts(seed))
    parts = Parts.of(0, record.last + 1, 3000 * MS)
    whole = record.rows(parts, "camera", least_faces=least)
    zones: defaultdict[int, list[Any]] = defaultdict(list)
    openly = {(row.start, row.zone): row for row in record.rows(parts, "zone")}  # type: ignore[union-attr]
    for row in record.rows(parts, "zone", least_faces=least):
        zones[row.start].append(row)
    for row in whole:
        own = zones[row.start]
        assert row.faces is None or row.faces.count == 0 or row.faces.count >= least  # type: ignore[union-attr]
        hidden = [openly[each.start, each.zone].faces.count for each in own if each.faces is None]  # type: ignore[union-attr]
        if row.faces is None:
            assert all(each.faces is None for each in own)
        elif any(0 < count < least for count in hidden):
            rest = [each for each in own if each.faces is not None and each.faces.count]
            assert not rest or (len(hidden) > 1 and sum(hidden) >= least), "the hidden ones are a group of their own"
        for each in own:
            assert each.faces is None or each.faces.count == 0 or each.faces.count >= least
    for line in record.rows(parts, "line", least_faces=least):
        assert line.faces is None or line.faces == 0 or line.faces >= least  # type: ignore[operator]
    tracks = record.rows(parts, "track", least_faces=least)
    assert all(row.faces is None and row.track is None for row in tracks)  # type: ignore[union-attr]
    for group in ("zone", "line", "track"):
        file = io.StringIO()
        write_csv(record.rows(parts, group, least_faces=least), file, group)
        for told in csv.DictReader(io.StringIO(file.getvalue())):
            if told["withheld"] == "1":
                times = ("start", "end", "online_s", "offline_s", "unknown_s")
                names = ("camera", "withheld", "zone", "line", "direction", *times)
                assert not any(value for name, value in told.items() if name not in names), told


# Spans, parts and rows

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda at: (at[0], sum(at))), max_size=6)


def moments(them: list[tuple[int, int]]) -> set[int]:
    return {now for begin, end in them for now in range(begin, end)}


@given(spans, spans)
def test_unions_and_common_spans(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    joined = union(one)
    assert moments(joined) == moments(one)
    assert all(before[1] < after[0] for before, after in pairwise(joined)), "they do not touch"
    assert moments(common(joined, union(other))) == moments(one) & moments(other)


@given(spans, spans.filter(lambda each: all(begin < end for begin, end in each)))
def test_pieces_of_parts(found: list[tuple[int, int]], trials: list[tuple[int, int]]) -> None:
    parts = Parts(Trial(str(number), *trial) for number, trial in enumerate(trials))
    assert [(trial.start, trial.end) for trial in parts.trials] == sorted(trials)
    expected = [len(moments([(t.start, t.end)]) & moments([s])) for t in parts.trials for s in found]
    amount = len(found)
    assert parts.spread(found) == [sum(expected[n * amount : (n + 1) * amount]) for n in range(len(trials))]
    for begin, _ in found:
        inside = [number for number, begun, _ in parts.pieces([(begin, begin)]) if begun == begin]
        assert inside == [number for number, trial in enumerate(parts.trials) if trial.start <= begin < trial.end]


def test_an_empty_trial_is_refused() -> None:
    with pytest.raises(ConfigError, match="the trial 'rest' is empty"):
        Parts([Trial("rest", 5, 5)])


def test_too_many_rows_are_refused() -> None:
    record = record_of(texts(3))
    with pytest.raises(ConfigError, match="more than 5 rows, one for each zone and part, and at most 5"):
        record.rows(Parts.of(0, 3, 1), "zone", most=5)


@pytest.mark.parametrize("group", ["camera", "track", "zone", "line"])
def test_tables_for_people_and_programs_have_the_same_rows(group: Group) -> None:
    record = record_of(texts(5))
    rows = record.rows(Parts([Trial("all", 0, record.last + 1)]), group)
    assert rows
    file = io.StringIO()
    write_csv(rows, file, group, ["a.mp4"] * len(rows))
    told = list(csv.DictReader(io.StringIO(file.getvalue())))
    shown = cells(rows, group, ["a.mp4"] * len(rows))
    assert len(told) == len(rows) == len(shown) - 1
    assert len({len(line) for line in shown}) == 1
    assert all((row["film"], row["trial"], row["camera"]) == ("a.mp4", "all", "door") for row in told)
    assert [line[:3] for line in shown[1:]] == [["a.mp4", "door", "all"]] * len(rows)
    place = shown[0].index("faces")
    assert [line[place] for line in shown[1:]] == [row["faces"] for row in told]


def test_labels_that_were_not_given_have_a_column_and_no_column_is_there_twice() -> None:
    record = record_of(texts(5))
    rows = record.rows(Parts([Trial("", 0, record.last + 1)]), "camera")
    file = io.StringIO()
    write_csv(rows, file, "camera", possible=["contempt", "unknown", "uncertain", "longest_visit"])
    header, cells = csv.reader(io.StringIO(file.getvalue()))
    assert len(set(header)) == len(header)
    told = dict(zip(header, cells, strict=True))
    names = ("contempt_s", "label_unknown_s", "label_uncertain_s", "label_longest_visit_s")
    assert [float(told[name]) for name in names] == [0.0] * 4
    assert float(told["unknown_s"]) == rows[0].unknown / 1e9
    assert "longest_visit_s" not in told


def rows_of(lines: list[str]) -> Iterator[Any]:
    yield from record_of(lines).rows(Parts.of(0, 60_000 * MS), "zone")


def test_a_camera_with_zones_has_rows_before_anybody_was_there() -> None:
    online = [text for text in texts(1) if '"camera.online"' in text][:1]
    assert [(row.zone, row.faces.count, row.visits.count) for row in rows_of(online)] == [
        ("left", 0, 0), ("middle", 0, 0), ("nobody", 0, 0)
    ]  # fmt: skip
    lines = record_of(online).rows(Parts.of(0, 60_000 * MS), "line")
    assert [(row.direction, row.crossings) for row in lines] == [("in", 0), ("out", 0)]  # type: ignore[union-attr]
