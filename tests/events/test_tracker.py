"""Following faces: by motion and overlap, in capture time."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fer_stream.events.tracker import ALIKE, FAR, Tracker
from fer_stream.imaging.geometry import overlap
from fer_stream.settings.tree import TrackerSettings
from fer_stream.types import Box, Face, Nanoseconds, Probabilities

profile = settings(deadline=None, max_examples=100)

SECOND = 1_000_000_000


def at(seconds: float) -> Nanoseconds:
    return Nanoseconds(round(seconds * SECOND))


def face(x: float, y: float, size: float = 100) -> Face:
    return Face(Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2), 0.99)


def tracker(**changes: float) -> Tracker:
    return Tracker(TrackerSettings(**changes))


def follow(found: Tracker, moments: list[float], *paths: list[tuple[float, float]]) -> list[set[int]]:
    """Return the set of track ids of each path's faces, over all times."""
    ids: list[set[int]] = [set() for _ in paths]
    for number, moment in enumerate(moments):
        faces = [face(*path[number]) for path in paths]
        tracking = found.update(at(moment), faces)
        for track in tracking.seen:
            ids[[f.box for f in faces].index(track.face.box)].add(track.id)
    return ids


sides = st.floats(-1000, 1000)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), sides, sides, st.floats(1, 500), st.floats(1, 500))


@profile
@given(boxes, boxes)
def test_a_face_continues_a_track_that_it_overlaps_or_is_near_to_and_no_other(a: Box, b: Box) -> None:
    how = TrackerSettings()
    (size, other), (x, y), (ax, ay) = ((math.sqrt((c.x2 - c.x1) * (c.y2 - c.y1)) for c in (b, a)), centre(b), centre(a))
    common, near, alike = overlap(a, b), math.hypot(x - ax, y - ay) / size, max(size / other, other / size)
    # The tracker uses logarithms of the sizes, so a box exactly at a threshold may be on either side of it.
    assume(all(abs(value - edge) > 1e-6 for value, edge in ((common, how.overlap), (near, FAR), (alike, ALIKE))))
    found = Tracker(how)
    for time, box in ((1, a), (2, b)):
        found.update(Nanoseconds(time), [Face(box, 0.9)])
    assert (len(found.courses) == 1) == (common >= how.overlap or (near < FAR and alike < ALIKE))


def centre(box: Box) -> tuple[float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


@profile
@given(boxes, boxes)
def test_overlap(a: Box, b: Box) -> None:
    assert 0 <= overlap(a, b) <= 1 + 1e-9
    assert overlap(a, b) == pytest.approx(overlap(b, a))
    assert overlap(a, a) == pytest.approx(1)


def test_overlap_of_known_boxes() -> None:
    assert overlap(Box(0, 0, 2, 1), Box(1, 0, 3, 1)) == pytest.approx(1 / 3)
    assert overlap(Box(0, 0, 2, 2), Box(2, 0, 4, 2)) == 0
    assert overlap(Box(0, 0, 4, 4), Box(1, 1, 3, 3)) == 0.25


def test_a_face_enters_once_it_was_seen_twice_and_long_enough() -> None:
    found = tracker(confirm=0.2)
    assert found.update(at(0), [face(100, 100)]).entered == ()
    assert found.update(at(0.1), [face(100, 100)]).entered == ()
    (entered,) = found.update(at(0.2), [face(100, 100)]).entered
    assert (entered.id, entered.first_seen, entered.last_seen) == (1, at(0), at(0.2))
    assert found.update(at(0.3), [face(100, 100)]).entered == ()
    assert [track.id for track in found.tracks] == [1]


def test_a_face_that_is_seen_once_does_not_enter() -> None:
    found = tracker(confirm=0)
    assert found.update(at(0), [face(100, 100)]).entered == ()
    for moment in (0.4, 0.8, 5.0):
        tracking = found.update(at(moment), [])
        assert (tracking.seen, tracking.entered, tracking.left) == ((), (), ())


def test_a_missed_face_keeps_its_track_until_patience_ends() -> None:
    found = tracker(patience=1.0)
    follow(found, [0, 0.1, 0.2, 0.3], [(100, 100)] * 4)
    assert found.update(at(1.2), []).left == ()
    assert [track.id for track in found.update(at(1.3), [face(102, 100)]).seen] == [1]
    assert found.advance(at(2.3)) == ()
    (left,) = found.advance(at(2.31))
    assert (left.id, left.last_seen) == (1, at(1.3))
    assert found.tracks == ()
    assert found.advance(at(9)) == ()


def test_a_face_that_returns_after_leaving_is_a_new_track() -> None:
    found = tracker()
    assert follow(found, [0, 0.2, 3.0, 3.2], [(100, 100)] * 4) == [{1, 2}]


@pytest.mark.parametrize("gap", [1.0, 5.0])
def test_at_low_frame_rates_patience_is_three_frame_intervals(gap: float) -> None:
    found = tracker()
    here = [face(100, 100)]
    for number in range(4):  # the frame interval is known after the first two gaps
        found.update(at(gap * number), here)
    assert [track.id for track in found.tracks] == [1]
    assert found.update(at(gap * 4), []).left == ()
    assert found.update(at(gap * 5), []).left == ()
    assert [track.id for track in found.update(at(gap * 6), here).seen] == [1]
    assert found.advance(at(gap * 9)) == ()
    assert [track.id for track in found.advance(at(gap * 9.01))] == [1]


def test_if_two_workers_answer_together_the_frame_interval_is_that_of_the_pairs() -> None:
    moments = [pair + at for pair in range(8) for at in (0.0, 0.05)]
    ids = follow(tracker(), moments, [(100 + 2 * t, 100) for t in moments])
    assert ids == [{1}]


def test_forgetting_tracks_forgets_the_frame_interval() -> None:
    found = tracker()
    follow(found, [0, 2, 4, 6], [(100, 100)] * 4)
    found.forget()
    assert follow(found, [60, 60.2, 62, 62.2], [(100, 100)] * 4) == [{2, 3}]


@profile
@given(st.lists(st.floats(0.0, 0.33), min_size=9, max_size=40), st.integers(0, 40), st.floats(1.01, 60))
def test_at_three_frames_a_second_a_stall_does_not_change_patience(
    steps: list[float], where: int, stall: float
) -> None:
    moments = list(itertools.accumulate(steps))
    before, after = moments[:where], [moment + stall for moment in moments[where:]]
    found = tracker(confirm=0)
    for moment in before:
        found.update(at(moment), [face(100, 100)])
    known = {track.id for track in found.tracks}
    left = set()
    for moment in after:
        left |= {track.id for track in found.update(at(moment), [face(100, 100)]).left}
    assert left == (known if after else set())


def test_forgotten_ids_are_not_used_again() -> None:
    found = tracker()
    assert follow(found, [0, 0.3], [(100, 100)] * 2) == [{1}]
    found.forget()
    assert found.tracks == ()
    assert follow(found, [0.4, 0.7], [(100, 100)] * 2) == [{2}]


def test_a_fast_face_is_followed_by_its_motion() -> None:
    """It moves 80 pixels a frame at a size of 100: only the predicted box overlaps the next one enough."""
    moments = [i / 10 for i in range(20)]
    assert follow(tracker(), moments, [(40.0 * i + 2 * i * i, 100.0) for i in range(20)]) == [{1}]


def test_two_faces_that_cross_keep_their_tracks() -> None:
    moments = [i / 15 for i in range(41)]
    right = [(100.0 + 10 * i, 200.0) for i in range(41)]
    left = [(500.0 - 10 * i, 260.0) for i in range(41)]
    first, second = follow(tracker(), moments, right, left)
    assert len(first) == len(second) == 1
    assert first != second


def test_a_growing_face_is_followed() -> None:
    found = tracker()
    ids = set()
    for i in range(30):
        ids |= {track.id for track in found.update(at(i / 10), [face(300, 300, 50 * 1.08**i)]).seen}
    assert ids == {1}


def test_a_near_face_of_a_very_different_size_is_another_track() -> None:
    found = tracker()
    follow(found, [0, 0.2, 0.4], [(100, 100)] * 3)
    found.update(at(0.5), [face(120, 120, 30)])
    found.update(at(0.8), [face(120, 120, 30)])
    assert [track.id for track in found.tracks] == [1, 2]


def test_the_better_of_two_candidates_continues_the_track() -> None:
    found = tracker()
    follow(found, [0, 0.2, 0.4], [(100, 100)] * 3)
    far, near = face(140, 100), face(104, 100)
    (track,) = found.update(at(0.5), [far, near]).seen
    assert track.face is near


def test_uneven_frames_and_gaps_make_no_difference() -> None:
    """Steady motion, observed at irregular times, is one track."""
    numbers = random.Random(3)
    moments = [0.0]
    while moments[-1] < 6:
        moments.append(moments[-1] + numbers.choice([0.0, 0.02, 0.05, 0.1, 0.4]))
    assert follow(tracker(), moments, [(100 + 60 * t, 100 + 20 * t) for t in moments]) == [{1}]


def test_two_frames_with_the_same_time_are_accepted() -> None:
    found = tracker(confirm=0)
    found.update(at(1), [face(100, 100)])
    (track,) = found.update(at(1), [face(110, 100)]).entered
    assert track.first_seen == track.last_seen == at(1)


steps = st.lists(
    st.tuples(st.floats(0, 1.5), st.lists(st.builds(face, sides, sides, st.floats(5, 400)), max_size=4)), max_size=25
)


@profile
@given(steps)
def test_for_any_observations_tracks_are_consistent(steps: list[tuple[float, list[Face]]]) -> None:
    found, again = tracker(), tracker()
    inside: dict[int, Nanoseconds] = {}
    gone: set[int] = set()
    now = 0.0
    for step, faces in steps:
        now += step
        tracking = found.update(at(now), faces)
        assert tracking == again.update(at(now), faces)
        for track in tracking.left:
            assert inside.pop(track.id) == track.last_seen
            assert at(now) - track.last_seen > SECOND
            gone.add(track.id)
        for track in tracking.entered:
            assert track.id not in inside
            assert track.id not in gone
            assert track.last_seen - track.first_seen >= 0.2 * SECOND
        for track in tracking.seen:
            assert track.last_seen == at(now)
            inside[track.id] = track.last_seen
        ids = [track.id for track in tracking.seen]
        assert ids == sorted(set(ids))
        assert sum(track.face in faces for track in tracking.seen) == len(ids) <= len(faces)
        assert {track.id for track in found.tracks} == set(inside)
    assert {track.id for track in found.advance(at(now + 4.6))} == set(inside)


def test_degenerate_boxes_do_no_harm() -> None:
    found = tracker(confirm=0)
    for number, size in enumerate([1e-3, 1e5, 1e-3, 1e5] * 3):
        found.update(at(number / 10), [face(1, 1, size), face(1, 1, size)])
    assert found.update(at(1e4), [face(1, 1)]).seen == ()


def test_courses_predict_all_faces_confirmed_or_not() -> None:
    it = tracker()
    for step in range(5):
        it.update(at(step / 10), [face(100 + 10 * step, 80), *([face(400, 80)] if step == 4 else [])])
    moving, fresh = it.courses
    assert (moving.key, fresh.key) == (1, 2)
    assert (moving.seen, fresh.seen) == (at(0.4), at(0.4))
    assert moving.at(at(0.5)).x1 == pytest.approx(face(150, 80).box.x1, abs=6)
    assert fresh.at(at(0.9)) == pytest.approx(face(400, 80).box)


def test_a_course_has_the_time_of_the_last_score() -> None:
    it = tracker()
    it.update(at(0.1), [face(100, 80)])
    assert it.courses[0].scored == 0
    it.update(at(0.2), [replace(face(100, 80), probabilities=Probabilities(("happy",), (1.0,)))])
    it.update(at(0.3), [face(100, 80)])
    assert it.courses[0].scored == at(0.2)


def test_frames_in_a_burst_do_not_cause_large_velocities() -> None:
    it = tracker()
    for step in range(3):  # 0.2 ms apart, at a slightly different position each time
        it.update(at(0.1 + step * 0.0002), [face(100 + 4 * step, 80)])
    (course,) = it.courses
    assert overlap(course.at(at(0.14)), face(108, 80).box) > 0.8


def test_a_prediction_with_a_large_velocity_is_limited() -> None:
    """Two frames are 0.1 ms apart, and the face is slightly larger in the second."""
    it = tracker()
    it.update(at(0.1), [face(100, 80, 100)])
    it.update(at(0.1001), [face(104, 80, 105)])
    (course,) = it.courses
    box = course.at(at(0.5))
    assert 50 < box.x2 - box.x1 < 200
    assert abs((box.x1 + box.x2) / 2 - 100) < 400
