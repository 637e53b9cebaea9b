"""One camera's observations give its events: always the same, and complete."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.events.attention import Attention
from fer_stream.events.cloudevents import decode, encode, event_id
from fer_stream.events.schema import event_schema
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline, closing
from fer_stream.settings.tree import SearchSettings, Settings, SmootherSettings, TrackerSettings
from fer_stream.types import (
    EMOTIONS,
    THUMBNAIL,
    Box,
    CameraData,
    Event,
    ExpressionData,
    Face,
    FaceData,
    Nanoseconds,
    Probabilities,
    Searched,
    ZoneData,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

profile = settings(deadline=None, max_examples=100)

VALENCE = Settings.model_fields["valence"].get_default(call_default_factory=True)
SCHEMA = jsonschema.Draft202012Validator(event_schema(), format_checker=jsonschema.FormatChecker())
SIZE = (640, 480)
SECOND = 1_000_000_000


def at(seconds: float) -> Nanoseconds:
    return Nanoseconds(round(seconds * SECOND))


SMOOTHER = {"tau": 0.4, "enter": 0.5, "leave": 0.35, "min_dwell": 0.4}
"""The settings on which the expected values are based; they do not depend on the defaults."""


def timeline(choice: str = "emotions", epoch: int = 1, **smoother: float) -> Timeline:
    labels = LabelSet(choice, EMOTIONS, VALENCE)
    how = TrackerSettings(), SmootherSettings(**(SMOOTHER | smoother)), Attention(SearchSettings(), "drop_oldest", 4)
    return Timeline("door", epoch, labels, *how)


def face(x: float = 100, label: str | None = "happy", probability: float = 0.9) -> Face:
    rest = (1 - probability) / (len(EMOTIONS) - 1)
    values = tuple(probability if name == label else rest for name in EMOTIONS)
    return Face(Box(x, 50, x + 80, 130), 0.99, (), Probabilities(EMOTIONS, values) if label else None)


def watch(
    line: Timeline, start: float, end: float, faces: Iterable[Face] = (), size: tuple[int, int] = SIZE
) -> list[Event]:
    """Observe the same faces ten times a second."""
    events = []
    seen = list(faces)
    for tick in range(round(start * 10), round(end * 10)):
        events += line.observe(tick + 1, at(tick / 10), size, seen)
    return events


def told(events: Iterable[Event]) -> list[str]:
    return [f"{e.type} {getattr(e.data, 'label', '')}".strip() for e in events]


def check_books(events: list[Event]) -> None:
    """Check the invariants of a camera's events, if it is offline at the end."""
    open_: dict[tuple[int, str], ExpressionData | FaceData | CameraData | ZoneData] = {}
    ended: dict[int, Nanoseconds] = {}
    left: set[int] = set()
    for event in events:
        SCHEMA.validate(json.loads(encode(event)))
        assert decode(encode(event)).type is event.type
        family, _, what = event.type.partition(".")
        key, data = (event.track, family), event.data
        if isinstance(data, ZoneData):  # a face may be in several
            key = event.track, f"zone {data.zone}"
        if what in ("online", "entered", "started"):
            assert key not in open_, event
            open_[key] = data  # type: ignore[assignment]
        elif what in ("offline", "left", "ended"):
            assert key in open_, event
            begun = open_.pop(key)
            if isinstance(begun, ExpressionData | FaceData | ZoneData):
                assert isinstance(data, ExpressionData | FaceData | ZoneData)
                assert data.start_time == begun.start_time
                assert data.end_time is not None
                assert data.duration_ms == (data.end_time - data.start_time) // 1_000_000 >= 0
                assert data.end_time <= event.time
        else:
            assert what in ("reset", "crossed") or key in open_, event
        if family == "camera":
            assert event.track == 0
            assert not [track for track, _ in open_ if track], "all faces are closed before the camera"
        elif family == "face" and what == "left":
            left.add(event.track)
            assert not [key for key in open_ if key[0] == event.track]
        else:
            assert (0, "camera") in open_
            assert event.track not in left
        if isinstance(data, ExpressionData):
            assert data.probability.mean <= data.probability.peak + 1e-9
            assert data.label in data.probabilities
            assert sum(data.probabilities.values()) <= 1 + 1e-6
            assert (data.end_time is None) == (what != "ended")
            if what == "started":
                assert data.start_time >= ended.get(event.track, data.start_time)
            if what == "ended":
                ended[event.track] = data.end_time or data.start_time
    assert not open_
    twice = [identity for identity, count in Counter(map(event_id, events)).items() if count > 1]
    assert not twice, [e for e in events if event_id(e) in twice]


# A plain visit


def test_at_one_frame_a_second_faces_and_emotions_are_reported() -> None:
    line = timeline()
    events = [event for second in range(8) for event in line.observe(second + 1, at(second), SIZE, [face()])]
    events += line.offline("end of stream")
    assert told(events) == [
        "camera.online", "face.entered", "emotion.started happy", "emotion.ended happy", "face.left", "camera.offline"
    ]  # fmt: skip
    check_books(events)


def test_a_visit() -> None:
    line = timeline()
    events = watch(line, 0, 1) + watch(line, 1, 3, [face()]) + watch(line, 3, 6)
    assert told(events) == [
        "camera.online",
        "face.entered",
        "emotion.started happy",
        "emotion.ended happy",
        "face.left",
    ]
    online, entered, started, ended, left = (event.data for event in events)
    assert online == CameraData("first frame", *SIZE, SmootherSettings(**SMOOTHER).model_dump())
    assert isinstance(entered, FaceData)
    assert (entered.start_time, entered.end_time, entered.duration_ms) == (at(1), None, 200)
    assert isinstance(started, ExpressionData)
    # A face is scored from its entering on, and the emotion must last for min_dwell.
    assert (started.start_time, started.end_time, started.duration_ms) == (at(1.2), None, 400)
    assert (started.previous, started.box) == (None, face().box)
    assert isinstance(ended, ExpressionData)
    assert (ended.end_time, ended.duration_ms) == (at(2.9), 1700)
    assert isinstance(left, FaceData)
    assert (left.start_time, left.end_time, left.duration_ms) == (at(1), at(2.9), 1900)
    assert [e.frame for e in events] == [1, 13, 17, 41, 41]
    assert {e.track for e in events} == {0, 1}
    check_books(events + line.offline("test"))


def test_offline_closes_everything_at_its_last_seen_time() -> None:
    line = timeline()
    events = watch(line, 0, 2, [face(100), face(400, "sad")])
    assert line.online
    assert len(line.tracks) == 2
    closed = line.offline("end of stream")
    assert told(closed) == ["emotion.ended happy", "face.left", "emotion.ended sad", "face.left", "camera.offline"]
    assert {e.data.end_time for e in closed if isinstance(e.data, FaceData | ExpressionData)} == {at(1.9)}
    assert closed[-1].data == CameraData("end of stream", *SIZE)
    assert line.offline("again") == []
    assert (line.online, line.tracks, line.estimates(), line.open_intervals()) == (False, (), [], [])
    check_books(events + closed)


def test_before_the_first_frame_nothing_is_closed() -> None:
    line = timeline()
    assert line.offline("never seen") == []
    assert line.tick(at(99), 5) == []


def test_a_face_that_returns_is_a_new_track() -> None:
    line = timeline()
    events = watch(line, 0, 2, [face()]) + watch(line, 2, 5) + watch(line, 5, 7, [face()]) + line.offline("test")
    assert {e.track for e in events if e.type == "face.entered"} == {1, 2}
    check_books(events)


def test_another_resolution_resets_the_camera() -> None:
    line = timeline()
    events = watch(line, 0, 2, [face()]) + watch(line, 2, 4, [face()], (1280, 720))
    assert told(events) == [
        "camera.online",
        "face.entered",
        "emotion.started happy",
        "emotion.ended happy",
        "face.left",
        "camera.reset",
        "face.entered",
        "emotion.started happy",
    ]
    assert events[5].data == CameraData("resolution changed", 1280, 720)
    assert events[4].data.end_time == at(1.9)  # type: ignore[union-attr]
    check_books(events + line.offline("test"))


def test_two_cameras_tracks_and_label_sets() -> None:
    assert told(watch(timeline("valence"), 0, 2, [face()]))[-1] == "valence.started positive"
    assert told(watch(timeline("sad,neutral"), 0, 2, [face()])) == ["camera.online", "face.entered"]
    assert told(watch(timeline("happy,neutral"), 0, 2, [face()]))[-1] == "emotion.started happy"


def test_faces_without_scores_are_followed_too() -> None:
    line = timeline()
    assert told(watch(line, 0, 2, [face(label=None)])) == ["camera.online", "face.entered"]
    assert line.estimates() == []


def test_a_face_whose_label_may_be_changing_is_scored_again_soon() -> None:
    line, searched = timeline(), Searched(np.ones(THUMBNAIL, np.bool_), np.zeros(THUMBNAIL, np.uint8))
    looks, events = Counter[str](), list[Event]()
    for seq in range(1, 126):  # happy for two seconds of 25 frames, then sad for three
        hints = line.hints(seq, at(seq / 25), SIZE)
        assert hints is not None
        label = "happy" if seq <= 50 else "sad"
        due = seq == 1 or any(face.due for face in hints.faces)
        changed = any(event.type == "emotion.started" and event.data.label == "sad" for event in events)
        looks["settled" if changed else label] += due
        events += line.observe(seq, at(seq / 25), SIZE, [face(label=label if due else None)], searched)
    assert looks["settled"] < 20, "every fourth of more than 50 frames"
    assert looks["sad"] > 10, "every frame after the first sad one, until the change is reported"


def test_the_current_estimates_and_open_intervals() -> None:
    line = timeline()
    watch(line, 0, 0.5, [face()])
    (estimate,) = line.estimates()
    assert (estimate.track, estimate.label) == (1, None), "uncertain, until min_dwell"
    watch(line, 0.5, 1, [face()])
    (estimate,) = line.estimates()
    assert estimate.label == "happy"
    assert estimate.probabilities.as_dict()["happy"] == pytest.approx(0.9)
    assert line.open_intervals() == [(1, "happy", at(0.2))]
    watch(line, 1, 1.2)
    assert line.estimates() == []
    assert line.open_intervals() == [(1, "happy", at(0.2))], "not seen, but not given up"


# Time without frames


def test_without_frames_faces_leave_and_then_the_camera_is_offline() -> None:
    line = timeline()
    events = watch(line, 0, 2, [face()])
    assert line.tick(at(2.8), 5) == []
    assert told(line.tick(at(3.0), 5)) == ["emotion.ended happy", "face.left"]
    assert line.tick(at(6.9), 5) == []
    assert told(line.tick(at(7.0), 5)) == ["camera.offline"]
    assert line.tick(at(8.0), 5) == []
    again = watch(line, 9, 11, [face()])
    assert told(again) == ["camera.online", "face.entered", "emotion.started happy"]
    assert {e.track for e in again} == {0, 2}
    assert events[-1].track == 1


def test_a_tick_of_the_past_changes_nothing() -> None:
    line = timeline()
    watch(line, 0, 2, [face()])
    assert line.tick(at(0.5), 5) == []
    assert line.time == at(1.9)


def test_a_clock_that_goes_back_does_not_make_negative_durations() -> None:
    line = timeline()
    events = watch(line, 0, 2, [face()])
    for number, moment in enumerate((0.5, 3.0, 1.0, 0.0)):
        events += line.observe(21 + number, at(moment), SIZE, [face()])
    assert line.time == at(3.0)
    check_books(events + line.offline("test"))


# Any observations

sights = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.04, 0.1, 0.1, 0.1, 0.3, 1.5, 7.0]),
        st.lists(
            st.builds(
                face,
                st.sampled_from([100.0, 105.0, 300.0, 310.0, 500.0]),
                st.sampled_from(["happy", "sad", "neutral", None]),
                st.sampled_from([0.4, 0.6, 0.95]),
            ),
            max_size=3,
        ),
        st.sampled_from(["frame"] * 12 + ["tick", "resize", "offline"]),
    ),
    min_size=1,
    max_size=60,
)


def play(seen: list[tuple[float, list[Face], str]], choice: str) -> list[Event]:
    line = timeline(choice, min_dwell=0.1, tau=0.1, update_interval=2.0)
    events: list[Event] = []
    now, seq, size = 0.0, 0, SIZE
    for gap, faces, what in seen:
        now += gap
        if what == "tick":
            events += line.tick(at(now), 5.0)
            continue
        if what == "offline":
            events += line.offline("no frames")
            continue
        if what == "resize":
            size = (size[1], size[0])
        seq += 1
        events += line.observe(seq, at(now), size, faces)
    return events + line.offline("end of stream")


@profile
@given(sights, st.sampled_from(["emotions", "valence", "happy,neutral"]))
def test_for_any_observations_everything_ends_and_ids_are_unique(
    seen: list[tuple[float, list[Face], str]], choice: str
) -> None:
    events = play(seen, choice)
    check_books(events)
    assert [encode(e) for e in events] == [encode(e) for e in play(seen, choice)], "the same bytes"


def test_a_change_of_label_at_the_last_frame_has_two_ends_with_different_ids() -> None:
    """The last frame ends happy and starts sad; the end of the stream then closes sad."""
    line = timeline(min_dwell=0, tau=0.01)
    events = watch(line, 0, 2, [face()]) + watch(line, 2, 2.1, [face(label="sad")]) + line.offline("end of stream")
    assert told(events)[-5:] == [
        "emotion.ended happy",
        "emotion.started sad",
        "emotion.ended sad",
        "face.left",
        "camera.offline",
    ]
    check_books(events)


# After a crash


def test_closing_ends_open_intervals_at_the_time_of_their_last_event() -> None:
    events = watch(timeline(update_interval=1), 0, 3, [face()])
    online, entered, updated = events[0], events[1], events[-1]
    assert updated.type == "emotion.updated"
    ends = [closing(replace(e, sequence=7, cursor="9")) for e in (updated, entered, online)]
    assert told(ends) == ["emotion.ended happy", "face.left", "camera.offline"]
    assert {(e.sequence, e.cursor, e.epoch, e.camera) for e in ends} == {(0, "0", 1, "door")}
    assert [e.time for e in ends] == [updated.time, entered.time, online.time]
    ended, left, offline = (e.data for e in ends)
    assert isinstance(ended, ExpressionData)
    assert (ended.end_time, ended.duration_ms) == (updated.time, (updated.time - ended.start_time) // 1_000_000)
    assert isinstance(left, FaceData)
    assert left.end_time == entered.time
    assert offline == CameraData("aggregator restarted", *SIZE)
    check_books([online, entered, events[2], *ends])


def test_closing_a_valence_interval_gives_a_valence_event() -> None:
    started = watch(timeline("valence"), 0, 2, [face()])[-1]
    assert told([closing(started)]) == ["valence.ended positive"]


def test_places_has_found_and_predicted_faces_and_searched_reports_searches() -> None:
    line = timeline()
    everywhere = Searched(np.ones(THUMBNAIL, np.bool_), np.zeros(THUMBNAIL, np.uint8))
    line.observe(1, at(0.0), SIZE, [face(100)])
    assert line.searched, "before the first `Searched`, frames count as searched"
    assert (line.frame, line.size, line.face_regions) == (1, SIZE, (face(100).box,)), "although it is not confirmed yet"
    line.observe(2, at(0.1), SIZE, [face(110)], everywhere)
    assert line.searched
    line.observe(3, at(0.2), SIZE, [face(120)])
    assert not line.searched, "only known faces were checked"
    line.observe(4, at(0.3), SIZE, [], everywhere)
    assert line.tracks == ()
    (box,) = line.face_regions
    assert 120 < box.x1 < 140, "its motion continues"


def test_a_missed_face_has_a_predicted_box_also_if_the_clock_stands_still() -> None:
    """A plug-in's clock may stand still; the face must still be blurred in the picture."""
    line = timeline()
    for seq in range(1, 4):
        line.observe(seq, at(0.1 * seq), SIZE, [face(100)])
    line.observe(4, at(0.3), SIZE, [])
    (box,) = line.face_regions
    assert (box.x1, box.y1) == pytest.approx((100, 50), abs=5)
