"""Which rows a face has: from the frame where it was first seen, not where the tracker confirmed it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_stream.analysis.columns import Column, Layout, PictureLayout, join
from fer_stream.analysis.observe import Observation
from fer_stream.analysis.rows import TRACK, Rows
from fer_stream.errors import ModelError
from fer_stream.types import (
    Box,
    CameraData,
    Estimate,
    Event,
    EventType,
    ExpressionData,
    Face,
    FaceData,
    Frame,
    Level,
    LineData,
    MeasureData,
    Measures,
    Milliseconds,
    Nanoseconds,
    Probabilities,
    Probability,
    Track,
    ZoneData,
)

if TYPE_CHECKING:
    from fer_stream.analysis.rows import FrameRows

PICTURE = np.zeros((48, 64, 3), np.uint8)
RESET = Event(EventType.CAMERA_RESET, "film", 1, 3, 0, Nanoseconds(0), CameraData("resolution changed", 64, 48))


def seen(
    number: int, tracks: dict[int, float] | None = None, candidates: dict[int, float] | None = None, **how: Any
) -> Observation:
    """Return frame ``number``, at ``number`` seconds: the left edge of each face, by track number or key."""

    def face(x: float) -> Face:
        return Face(Box(x, 0, x + 10, 10), 1.0)

    frame = Frame("film", number, Nanoseconds(number * 10**9), PICTURE)
    found = tuple(Track(key, face(x), Nanoseconds(0), Nanoseconds(0)) for key, x in (tracks or {}).items())
    early = {key: face(x) for key, x in (candidates or {}).items()}
    events = how.pop("events", [])
    return Observation(frame, found, how.pop("estimates", {}), events, candidates=early, **how)


def end() -> Observation:
    return Observation(None, (), {}, [])


def rows_of_a_film() -> Rows:
    return Rows(0, Layout((), ()))


def short(frames: list[FrameRows]) -> list[tuple[Any, ...]]:
    """Return frame, track, left edge, and what the row is, of each face."""
    names = list(Layout((), ()).faces)
    found = []
    for frame in frames:
        for face in frame.faces:
            cell = dict(zip(names, face.row, strict=True))
            kind = ("provisional " if cell["provisional"] else "") + ("found" if cell["found"] else "missed")
            found.append((cell["frame"], cell["track"], cell["x"], kind))
    return found


def test_a_face_that_becomes_a_track_has_rows_from_its_first_frame() -> None:
    rows = rows_of_a_film()
    assert rows.of(seen(1, candidates={7: 10.0}, fates={7: 0})) == []
    assert rows.of(seen(2, fates={7: 0})) == []
    assert rows.of(seen(3, candidates={7: 30.0}, fates={7: 0})) == []
    found = rows.of(seen(4, {2: 40.0}, fates={7: 2}))
    assert short(found) == [
        (1, 2, 10.0, "provisional found"),
        (2, 2, 10.0, "provisional missed"),
        (3, 2, 30.0, "provisional found"),
        (4, 2, 40.0, "found"),
    ]
    assert [frame.row[:2] for frame in found] == [[1, 1.0], [2, 2.0], [3, 3.0], [4, 4.0]]
    assert [frame.found for frame in found] == [1, 0, 1, 1] == [frame.row[4] for frame in found]
    assert short(rows.of(seen(5, {2: 50.0}, fates={7: 2}))) == [(5, 2, 50.0, "found")]
    assert rows.of(end()) == []


def test_a_face_that_was_given_up_has_no_rows_and_delays_others_only_until_then() -> None:
    rows = rows_of_a_film()
    assert short(rows.of(seen(1, {1: 5.0}, fates={1: 1}))) == [(1, 1, 5.0, "found")]
    assert rows.of(seen(2, {1: 5.0}, {2: 90.0}, fates={1: 1, 2: 0})) == []
    assert rows.of(seen(3, {1: 5.0}, fates={1: 1, 2: 0})) == []
    assert short(rows.of(seen(4, {1: 5.0}, fates={1: 1}))) == [(n, 1, 5.0, "found") for n in (2, 3, 4)]
    assert rows.of(end()) == []


def test_a_track_that_is_missed_and_found_again_has_rows_in_between() -> None:
    rows = rows_of_a_film()
    sure = Estimate(1, Probabilities((), ()), "happy")
    rows.of(seen(1, {1: 5.0}, fates={1: 1}, estimates={1: sure}))
    assert rows.of(seen(2, fates={1: 1})) == []
    assert rows.of(seen(3, fates={1: 1})) == []
    found = rows.of(seen(4, {1: 8.0}, fates={1: 1}))
    assert short(found) == [(2, 1, 5.0, "missed"), (3, 1, 5.0, "missed"), (4, 1, 8.0, "found")]
    names = list(Layout((), ()).faces)
    missed = dict(zip(names, found[0].faces[0].row, strict=True))
    assert missed["label"] == "happy", "as when it was last found"
    assert missed["detection"] is None
    assert missed["quality"] is None
    assert missed["scored"] is False


def test_a_track_that_leaves_has_rows_until_it_was_last_seen() -> None:
    rows = rows_of_a_film()
    rows.of(seen(1, {1: 5.0}, fates={1: 1}))
    assert rows.of(seen(2, fates={1: 1})) == []
    gone = rows.of(seen(3))
    assert [frame.row[0] for frame in gone] == [2, 3]
    assert short(gone) == []
    rows.of(seen(4, {2: 6.0}, fates={2: 2}))
    rows.of(seen(5, fates={2: 2}))
    assert short(rows.of(end())) == []


def test_the_end_of_the_film_keeps_faces_that_were_not_given_up() -> None:
    """A film of one frame, and one that ends while the face is missed."""
    rows = rows_of_a_film()
    assert rows.of(seen(1, candidates={1: 1.0, 2: 2.0}, fates={1: 0, 2: 0})) == []
    assert short(rows.of(end())) == [(1, None, 1.0, "provisional found"), (1, None, 2.0, "provisional found")]
    rows = rows_of_a_film()
    rows.of(seen(1, {1: 5.0}, {2: 90.0}, fates={1: 1, 2: 0}))
    rows.of(seen(2, {1: 5.0}, fates={1: 1, 2: 0}))
    found = short(rows.of(end()))
    assert found == [(1, 1, 5.0, "found"), (1, None, 90.0, "provisional found"), (2, 1, 5.0, "found")]


def test_a_change_of_size_keeps_faces_that_were_not_given_up() -> None:
    rows = rows_of_a_film()
    rows.of(seen(1, candidates={1: 1.0}, fates={1: 0}))
    found = rows.of(seen(2, candidates={2: 2.0}, fates={2: 0}, events=[(RESET, "")]))
    assert short(found) == [(1, None, 1.0, "provisional found")]
    assert short(rows.of(end())) == [(2, None, 2.0, "provisional found")]


def test_a_frame_that_could_not_be_analysed_decides_about_no_face() -> None:
    rows = rows_of_a_film()
    assert rows.of(seen(1, candidates={1: 1.0}, fates={1: 0})) == []
    assert rows.of(seen(2, processed=False)) == []
    found = rows.of(seen(3, {1: 3.0}, fates={1: 1}, searched="part"))
    assert short(found) == [(1, 1, 1.0, "provisional found"), (3, 1, 3.0, "found")]
    assert found[1].row == [2, 2.0, 64, 48, None, False, None]
    assert found[2].row == [3, 3.0, 64, 48, 1, True, "part"]


def test_rows_of_a_frame_are_in_the_order_of_their_tracks() -> None:
    rows = rows_of_a_film()
    rows.of(seen(1, {3: 3.0}, {8: 8.0, 5: 5.0, 9: 9.0}, fates={0: 3, 8: 0, 5: 0, 9: 0}))
    rows.of(seen(2, {3: 3.0, 4: 8.0}, {5: 5.0}, fates={0: 3, 8: 4, 5: 0, 9: 0}))
    found = rows.of(seen(3, {3: 3.0, 4: 8.0, 5: 5.0}, fates={0: 3, 8: 4, 5: 5, 9: 0}))
    found += rows.of(end())
    assert [[face.row[TRACK] for face in frame.faces] for frame in found] == [[3, 4, 5, None], [3, 4, 5], [3, 4, 5]]


def test_a_row_of_events_has_what_the_event_has() -> None:
    layout = Layout(("happy", "sad"), (), ("valence",))
    rows = Rows(10**9, layout)
    level = {"valence": MeasureData(Level(0.5), Level(-0.25), Level(1.0))}
    box = Box(1.0, 2.0, 11.0, 32.0)
    data = ExpressionData(
        Nanoseconds(2 * 10**9), Nanoseconds(5 * 10**9), Milliseconds(3000), "happy", "sad",
        Probability(0.81234567, 0.9), {"happy": 0.7, "sad": 0.2}, box, 0.99, level,
    )  # fmt: skip
    event = Event(EventType.EMOTION_ENDED, "film", 1, 75, 4, Nanoseconds(6 * 10**9), data, 12)
    found = dict(zip(layout.events, rows.event(event), strict=True))
    assert found == {
        "sequence": 12, "type": "emotion.ended", "frame": 75, "time": 5.0, "track": 4, "label": "happy",
        "previous": "sad", "start": 1.0, "end": 4.0, "duration": 3.0, "mean_probability": 0.8123,
        "peak_probability": 0.9, "x": 1.0, "y": 2.0, "width": 10.0, "height": 30.0, "detection": 0.99, "reason": None,
        "zone": None, "line": None, "direction": None,
        "probability_happy": 0.7, "probability_sad": 0.2, "mean_valence": 0.5, "lowest_valence": -0.25,
        "highest_valence": 1.0,
    }  # fmt: skip
    stay = FaceData(Nanoseconds(2 * 10**9), None, Milliseconds(200), box, 0.5)
    found = dict(
        zip(
            layout.events,
            rows.event(Event(EventType.FACE_ENTERED, "film", 1, 3, 4, Nanoseconds(2 * 10**9), stay)),
            strict=True,
        )
    )
    assert (found["start"], found["end"], found["duration"], found["label"]) == (1.0, None, 0.2, None)
    assert found["probability_happy"] is found["mean_valence"] is None
    found = dict(zip(layout.events, rows.event(RESET), strict=True))
    assert (found["track"], found["reason"], found["x"]) == (None, "resolution changed", None)


def test_rows_of_zones_and_lines() -> None:
    """A visit has its times and its zone; a line is crossed at one moment."""
    layout = Layout(("happy",), ())
    rows, box = Rows(10**9, layout), Box(1.0, 2.0, 11.0, 32.0)
    visit = ZoneData("desk", Nanoseconds(2 * 10**9), Nanoseconds(5 * 10**9), Milliseconds(3000), box, 0.99)
    crossing = LineData("door", "in", box, 0.98)
    found = [
        dict(
            zip(layout.events, rows.event(Event(kind, "film", 1, 75, 4, Nanoseconds(6 * 10**9), data, 12)), strict=True)
        )
        for kind, data in ((EventType.ZONE_LEFT, visit), (EventType.LINE_CROSSED, crossing))
    ]
    common = {"sequence": 12, "frame": 75, "time": 5.0, "track": 4, "x": 1.0, "y": 2.0, "width": 10.0, "height": 30.0}
    left = common | {"type": "zone.left", "zone": "desk", "start": 1.0, "end": 4.0, "duration": 3.0, "detection": 0.99}
    crossed = common | {"type": "line.crossed", "line": "door", "direction": "in", "detection": 0.98}
    assert [{name: value for name, value in row.items() if value is not None} for row in found] == [left, crossed]


def test_a_row_of_openface_has_its_units() -> None:
    layout = Layout(("happy",), ("happy",), ("valence",))
    rows = Rows(0, layout)
    points = ((30.0, 40.0), (70.0, 44.0), (50.0, 62.0), (36.0, 84.0), (66.0, 86.0))
    score = Probabilities(("happy",), (0.6,))
    face = Face(Box(10, 20, 90, 100), 0.98, points, score, 0.7, Measures(("valence",), (0.3,)))
    track = Track(3, face, Nanoseconds(0), Nanoseconds(0))
    smooth = Estimate(3, Probabilities(("happy",), (0.5,)), "happy", Measures(("valence",), (0.2,)))
    frame = Frame("film", 9, Nanoseconds(2 * 10**9), PICTURE)
    (ready,) = rows.of(Observation(frame, (track,), {3: smooth}, [], fates={1: 3}))
    ours = dict(zip(layout.faces, ready.faces[0].row, strict=True))
    theirs = dict(zip(layout.openface, rows.openface(ready.faces[0]), strict=True))
    assert ours["approx_roll"] > 1
    assert theirs.pop("pose_Rx") == pytest.approx(math.radians(ours["approx_pitch"]), abs=1e-4)
    assert theirs.pop("pose_Ry") == pytest.approx(math.radians(ours["approx_yaw"]), abs=1e-4)
    assert theirs.pop("pose_Rz") == pytest.approx(math.radians(ours["approx_roll"]), abs=1e-4)
    assert theirs == {
        "frame": 9, "face_id": 3, "timestamp": 2.0, "confidence": 0.98, "success": 1, "x_30": 50.0, "y_30": 62.0,
        "x_48": 36.0, "y_48": 84.0, "x_54": 66.0, "y_54": 86.0, "left_eye_x": 30.0, "left_eye_y": 40.0,
        "right_eye_x": 70.0, "right_eye_y": 44.0, "emotion": "happy", "emotion_happy": 0.5, "measure_valence": 0.2,
    }  # fmt: skip
    assert (ours["scored"], ours["quality"], ours["scored_happy"], ours["scored_valence"]) == (True, 0.7, 0.6, 0.3)


def test_a_label_with_the_name_of_a_column_is_refused() -> None:
    assert list(Layout(["happy"], ["happy"]).faces)[-3:] == ["scored", "quality", "scored_happy"]
    with pytest.raises(ModelError, match="'frame' is also the name of a column"):
        Layout(["frame"], []).faces  # noqa: B018
    with pytest.raises(ModelError, match="'image' is also the name of a column"):
        PictureLayout(["image"]).faces  # noqa: B018
    one, other = Column(int, "a"), Column(str, "b")
    assert join({"a": one}, {"b": other}) == {"a": one, "b": other}
