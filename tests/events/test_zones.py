"""Zones and lines: what a face's way through a picture gives, by hand and beside a plain second computation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from events.test_timeline import SIZE, VALENCE, at, check_books, told
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.events.attention import Attention
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline, closing
from fer_stream.events.zones import MARGIN, PlaceTracker
from fer_stream.journal.contents import OpenEvents
from fer_stream.settings.sections import CameraSettings
from fer_stream.settings.tree import SearchSettings, SmootherSettings, TrackerSettings
from fer_stream.types import EMOTIONS, Box, CameraData, Event, Face, LineData, Places, Track, ZoneData

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fer_stream.events.zones import PlaceEvent

LEFT_HALF = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]
DOOR = {"points": ((0.5, 0.25), (0.5, 0.75)), "to_right": "in", "to_left": "out"}
"""A vertical line from above: who goes from left to right in the picture goes from right to left of it."""
SIDE = 80.0
REACH = MARGIN * SIDE


def places(**settings: object) -> Places:
    found = CameraSettings.model_validate(settings).places
    assert found is not None
    return found


def box(x: float, y: float = 240.0, side: float = SIDE) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def walk(
    where: PlaceTracker, way: Iterable[tuple[float, float]], track: int = 1, start: float = 0.0
) -> list[PlaceEvent]:
    """Let a face be at these points, ten times a second."""
    found = []
    for number, (x, y) in enumerate(way):
        seen = Track(track, Face(box(x, y), 0.9), at(start), at(start + number / 10))
        found += where.observe(seen)
    return found


def texts(found: Iterable[PlaceEvent]) -> list[str]:
    return [f"{each.kind} {getattr(each.data, 'zone', '')}{getattr(each.data, 'direction', '')}" for each in found]


# Zones


def test_a_visit_begins_inside_and_ends_a_quarter_of_a_face_outside() -> None:
    where = PlaceTracker(places(zones={"left": LEFT_HALF}), SIZE)
    assert texts(walk(where, [(400, 240), (321, 240)])) == []
    assert texts(walk(where, [(319, 240)])) == ["zone.entered left"]
    assert texts(walk(where, [(330, 240), (319, 240), (320 + REACH, 240)])) == [], "it jitters about the border"
    (left,) = walk(where, [(320 + REACH + 0.1, 240)], start=3)
    assert isinstance(left.data, ZoneData)
    assert (left.kind, left.data.zone, left.data.start_time, left.data.end_time) == ("zone.left", "left", at(0), at(3))
    assert left.data.duration_ms == 3000
    assert texts(walk(where, [(330, 240)])) == [], "not before it is inside again"
    assert texts(walk(where, [(310, 240)])) == ["zone.entered left"]


def test_a_track_that_is_first_seen_inside_is_there_since_its_beginning() -> None:
    where = PlaceTracker(places(zones={"left": LEFT_HALF, "right": [(0.5, 0), (1, 0), (1, 1)]}), SIZE)
    (entered,) = where.observe(Track(1, Face(box(100), 0.9), at(1), at(1.2)))
    assert isinstance(entered.data, ZoneData)
    assert (entered.data.start_time, entered.data.end_time, entered.data.duration_ms) == (at(1), None, 200)
    (left,) = where.leave(Track(1, Face(box(100), 0.9), at(1), at(5)))
    assert isinstance(left.data, ZoneData)
    assert (left.data.end_time, left.data.duration_ms) == (at(5), 4000)
    assert where.leave(Track(1, Face(box(100), 0.9), at(1), at(5))) == []
    assert where.leave(Track(2, Face(box(100), 0.9), at(1), at(5))) == [], "a track that was never seen"


def test_a_face_may_be_in_several_zones_and_a_teleport_leaves_one_for_another() -> None:
    top = [(0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5)]
    where = PlaceTracker(places(zones={"left": LEFT_HALF, "top": top}), SIZE)
    assert texts(walk(where, [(100, 100)])) == ["zone.entered left", "zone.entered top"]
    assert texts(walk(where, [(600, 100)])) == ["zone.left left"]
    assert texts(walk(where, [(100, 400)])) == ["zone.entered left", "zone.left top"]


def test_a_centre_beyond_the_edge_counts_as_at_the_edge() -> None:
    right = [(0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)]
    for point in ((660, 240), (660, 500), (630, 500), (639.9999, 479.9999)):
        where = PlaceTracker(places(zones={"right": right}), SIZE)
        assert texts(walk(where, [point])) == ["zone.entered right"], point


def test_of_zones_with_a_common_side_a_face_is_in_one() -> None:
    zones = {"left": LEFT_HALF, "right": [(0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)]}
    for x in (319.0, 320.0, 321.0):
        assert len(walk(PlaceTracker(places(zones=zones), SIZE), [(x, 240)])) == 1


points = st.tuples(st.integers(0, 20), st.integers(0, 15)).map(lambda at: (at[0] / 20, at[1] / 15))
polygons = st.lists(points, min_size=3, max_size=7)


@settings(max_examples=200)
@given(polygons, st.lists(st.tuples(st.floats(-20, 660), st.floats(-20, 500)), min_size=1, max_size=12))
def test_opencv_finds_the_same_visits(outline: list[tuple[float, float]], way: Sequence[tuple[float, float]]) -> None:
    try:
        zone = places(zones={"zone": outline})
    except ValueError:
        return
    corners = np.array([(x * 640, y * 480) for x, y in outline], np.float32)
    expected, there, where = [], False, PlaceTracker(zone, SIZE)
    for number, (x, y) in enumerate(way):
        point = min(max(x, 0.0), 640 - 1e-3), min(max(y, 0.0), 480 - 1e-3)
        inside = cv2.pointPolygonTest(corners, point, measureDist=True)  # its distance, negative outside
        if abs(inside) < 0.05 or abs(inside + REACH) < 0.05:
            return  # single precision cannot tell
        if inside > 0 if not there else inside < -REACH:
            there = not there
            expected.append((number, "zone.entered" if there else "zone.left"))
    found = [(round(each.track.last_seen / 1e8), each.kind) for each in walk(where, way)]
    assert found == expected


# Lines


def test_a_line_is_crossed_once_in_each_direction_whatever_the_jitter() -> None:
    where = PlaceTracker(places(lines={"door": DOOR}), SIZE)
    jitter = [(x, 240) for x in (200, 290, 318, 322, 317, 330, 319, 339)]
    assert texts(walk(where, jitter)) == [], "not yet a quarter of a face beyond it"
    (crossed,) = walk(where, [(342, 240), (400, 240), (330, 240), (310, 240), (400, 240)])
    assert crossed.data == LineData("door", "out", box(342), 0.9)
    assert texts(walk(where, [(100, 240)])) == ["line.crossed in"], "also in one leap"


def test_who_passes_beside_a_line_s_ends_does_not_cross_it() -> None:
    where = PlaceTracker(places(lines={"door": DOOR}), SIZE)
    assert texts(walk(where, [(200, 50), (450, 50), (450, 240), (350, 240)])) == []
    assert texts(walk(where, [(250, 240)])) == ["line.crossed in"]
    assert texts(walk(where, [(250, 30), (400, 30)])) == [], "back, beside it"
    assert texts(walk(where, [(400, 240), (318, 240), (400, 240)])) == []


def test_a_track_that_begins_on_a_line_has_not_crossed_it() -> None:
    where = PlaceTracker(places(lines={"door": DOOR}), SIZE)
    assert texts(walk(where, [(320, 240), (320, 240), (400, 240)])) == []
    assert texts(walk(where, [(320, 240), (320, 300), (200, 240)])) == ["line.crossed in"]


ways = st.lists(st.tuples(st.integers(0, 640), st.integers(0, 480)), min_size=1, max_size=12)


@settings(max_examples=200)
@given(st.tuples(points, points).filter(lambda two: two[0] != two[1]), ways)
def test_small_steps_find_the_same_crossings(
    ends: tuple[tuple[float, float], tuple[float, float]], way: Sequence[tuple[float, float]]
) -> None:
    """The second computation follows a turned picture, in which the line is the upper edge, in steps of 1/20 pixel."""
    (x1, y1), (x2, y2) = ((x * 640, y * 480) for x, y in ends)
    angle, length = math.atan2(y2 - y1, x2 - x1), math.dist((x1, y1), (x2, y2))
    turned = []
    for x, y in way:
        x, y = min(x, 640 - 1e-3), min(y, 480 - 1e-3)  # noqa: PLW2901
        along = (x - x1) * math.cos(angle) + (y - y1) * math.sin(angle)
        turned.append((along, (y - y1) * math.cos(angle) - (x - x1) * math.sin(angle)))
    if any(abs(abs(beside) - REACH) < 1e-6 or abs(beside) < 1e-6 for _, beside in turned):
        return  # on the border itself rounding decides
    expected, side, passed = [], 0, False
    for number, (to, beside) in enumerate(turned):
        before, was = turned[max(number - 1, 0)]
        steps = max(2, round(20 * math.dist((to, beside), (before, was))))
        previous = was
        for step in range(1, steps + 1):
            height = was + (beside - was) * step / steps
            if height * previous < 0 or (height == 0 and previous):
                along = before + (to - before) * (step - 0.5) / steps
                if min(abs(along), abs(along - length)) < 0.1:
                    return  # it hits an end of the line
                passed = 0 < along < length
            previous = height or previous
        now = int(math.copysign(1, beside)) if abs(beside) >= REACH else 0
        if now and now != side:
            if side and passed:
                expected.append((number, "right" if now > 0 else "left"))
            side = now
    found = walk(PlaceTracker(places(lines={"line": {"points": ends}}), SIZE), way)
    assert [
        (round(f.track.last_seen / 1e8), f.data.direction) for f in found if isinstance(f.data, LineData)
    ] == expected


# In a timeline


def timeline(shape: Places | None) -> Timeline:
    labels, how = LabelSet("emotions", EMOTIONS, VALENCE), SmootherSettings()
    attention = Attention(SearchSettings(), "drop_oldest", 4)
    return Timeline("door", 1, labels, TrackerSettings(), how, attention, None, shape)


HALL = places(zones={"left": LEFT_HALF}, lines={"door": DOOR})


def go(line: Timeline, way: Iterable[float], first: int = 1, size: tuple[int, int] = SIZE) -> list[Event]:
    events = []
    for number, x in enumerate(way, first):
        events += line.observe(number, at(number / 10), size, [Face(box(x), 0.9)])
    return events


def test_the_events_of_a_walk() -> None:
    line = timeline(HALL)
    events = go(line, range(200, 480, 10)) + line.offline("end of stream")
    assert told(events) == [
        "camera.online", "face.entered", "zone.entered", "line.crossed", "zone.left", "face.left", "camera.offline"
    ]  # fmt: skip
    online, entered = events[0].data, events[2].data
    assert isinstance(online, CameraData)
    assert (online.zones, online.lines) == (HALL.zones, HALL.lines)
    assert isinstance(entered, ZoneData)
    assert entered.start_time == at(0.1), "as that of its stay"
    check_books(events)


def test_without_zones_the_events_are_the_same_bytes_and_with_them_the_others_are() -> None:
    way = [*range(200, 480, 10), *range(480, 200, -10)]
    plain, zoned = timeline(None), timeline(HALL)
    without = go(plain, way) + plain.offline("end of stream")
    found = go(zoned, way) + zoned.offline("end of stream")
    others = [event for event in found if event.type.partition(".")[0] not in ("zone", "line")]
    others[0] = replace(others[0], data=replace(others[0].data, zones=None, lines=None))
    assert [encode(event) for event in others] == [encode(event) for event in without]
    assert not {"zones", "lines", "zone"} & set("".join(map(encode, without)).split('"'))


def test_another_resolution_ends_visits_and_scales_the_zones() -> None:
    line = timeline(HALL)
    events = go(line, [100] * 5) + go(line, [500] * 5, 6, (1280, 960))
    assert told(events) == [
        "camera.online", "face.entered", "zone.entered", "zone.left", "face.left", "camera.reset", "face.entered",
        "zone.entered",
    ]  # fmt: skip
    check_books(events + line.offline("end of stream"))


def test_a_visit_ends_with_its_face_and_when_no_frames_come() -> None:
    line = timeline(HALL)
    go(line, [100] * 5)
    ended = line.tick(at(3), 60)
    assert told(ended) == ["zone.left", "face.left"]
    assert isinstance(ended[0].data, ZoneData)
    assert ended[0].data.end_time == at(0.5)
    go(line, [100] * 5, 40)
    assert told(line.tick(at(99), 5)) == ["zone.left", "face.left", "camera.offline"]


def test_closing_ends_what_a_killed_aggregator_left_open() -> None:
    two = places(zones={"left": LEFT_HALF, "all": [(0, 0), (1, 0), (1, 1), (0, 1)]}, lines={"door": DOOR})
    line, open_ = timeline(two), OpenEvents()
    events = go(line, range(200, 360, 10))
    for event in events:
        open_.see(event)
    assert told(events)[-2:] == ["line.crossed", "zone.left"]
    closed = [closing(event) for event in open_.unclosed()]
    assert told(closed) == ["zone.left", "face.left", "camera.offline"], "a crossing is not open"
    assert isinstance(closed[0].data, ZoneData)
    assert (closed[0].data.zone, closed[0].data.end_time) == ("all", events[-1].time)
    check_books([*events, *closed])


steps = st.lists(
    st.tuples(
        st.sampled_from([0.04, 0.1, 0.1, 0.3, 1.5, 7.0]),
        st.lists(st.sampled_from([80.0, 100.0, 200.0, 300.0, 310.0, 330.0, 350.0, 500.0]), max_size=3, unique=True),
        st.sampled_from(["frame"] * 12 + ["tick", "resize", "offline"]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100)
@given(steps)
def test_for_any_observations_all_visits_end_and_ids_are_unique(seen: list[tuple[float, list[float], str]]) -> None:
    def play() -> list[Event]:
        line, now, size = timeline(HALL), 0.0, SIZE
        events: list[Event] = []
        for number, (gap, faces, what) in enumerate(seen, 1):
            now += gap
            if what == "tick":
                events += line.tick(at(now), 5.0)
            elif what == "offline":
                events += line.offline("no frames")
            else:
                size = (size[1], size[0]) if what == "resize" else size
                events += line.observe(number, at(now), size, [Face(box(x), 0.9) for x in faces])
        return events + line.offline("end of stream")

    events = play()
    assert [encode(event) for event in events] == [encode(event) for event in play()]
    check_books(events)
    visits = Counter[tuple[int, int]]()
    for event in events:
        if isinstance(event.data, ZoneData):
            visits[event.epoch, event.track] += 1 if event.type == "zone.entered" else -1
            assert visits[event.epoch, event.track] in (0, 1)
    assert not any(visits.values())
    assert len(set(map(event_id, events))) == len(events)
