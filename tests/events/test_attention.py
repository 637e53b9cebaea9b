"""When pictures are searched and faces scored: driven by simulated times, without pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_stream.events.attention import HORIZON, Attention
from fer_stream.events.tracker import Course
from fer_stream.settings.tree import SearchSettings
from fer_stream.types import THUMBNAIL, Searched

if TYPE_CHECKING:
    from fer_stream.settings.kinds import Policy
    from fer_stream.types import Hints

MS = 1_000_000
SIZE = (1280, 720)
FRAME = 40 * MS


def attention(policy: Policy = "drop_oldest", depth: int = 4, **settings: float) -> Attention:
    chosen = {"scan_interval": 2.0, "motion_interval": 0.2, "look_interval": 0.15} | settings
    return Attention(SearchSettings(**chosen), policy, depth)  # type: ignore[arg-type]


def course(
    key: int = 1, track: int = 0, seen: int = 0, scored: int = 0, x: float = 100.0, speed: float = 0.0
) -> Course:
    size = 4.0  # exp(4) = 55 pixels
    return Course(key, track, (x, 100.0, size, size), (speed, 0.0, 0.0, 0.0), seen, scored)


def everywhere(level: int = 0) -> Searched:
    return Searched(np.ones(THUMBNAIL, np.bool_), np.full(THUMBNAIL, level, np.uint8))


def kind(hints: Hints | None) -> str:
    assert hints is not None
    return "whole" if hints.whole else "changed" if hints.seen is not None else "faces"


def live(which: Attention, frames: int, courses: tuple[Course, ...] = ()) -> list[str]:
    """Return the kind of hints of each frame, if every frame has its result before the next one is captured."""
    kinds = []
    for seq in range(1, frames + 1):
        hints = which.hints(seq, seq * FRAME, SIZE)
        kinds.append(kind(hints))
        assert hints is not None
        which.take(seq, seq * FRAME, courses, everywhere() if kinds[-1] != "faces" else None)
    return kinds


def test_the_whole_picture_is_searched_at_first_and_every_scan_interval() -> None:
    kinds = live(attention(), 101)
    assert [seq for seq, what in enumerate(kinds, 1) if what == "whole"] == [1, 51, 101]


def test_changed_regions_are_searched_every_motion_interval_in_between() -> None:
    kinds = live(attention(), 16)
    assert [seq for seq, what in enumerate(kinds, 1) if what == "changed"] == [6, 11, 16]


@pytest.mark.parametrize(("policy", "step", "whole", "changed"), [
    ("drop_oldest", 1, [1, 6, 11, 16], [2, 3, 4, 5]),  # a slow camera: no frame is superseded
    ("drop_oldest", 10, [1, 11], [3, 5, 7, 9]),  # the same interval, because other frames were superseded
    ("wait", 10, [1, 6, 11, 16], [2, 3, 4, 5]),
])  # fmt: skip
def test_searches_are_rarer_while_frames_are_superseded(
    policy: Policy, step: int, whole: list[int], changed: list[int]
) -> None:
    which, kinds = attention(policy, depth=1), []
    for number in range(1, 17):
        seq, time = 1 + (number - 1) * step, number * 400 * MS
        kinds.append(kind(which.hints(seq, time, SIZE)))
        which.take(seq, time, (), everywhere())
    assert [number for number, what in enumerate(kinds, 1) if what == "whole"] == whole
    assert [number for number, what in enumerate(kinds[:10], 1) if what == "changed"][:4] == changed


def test_without_a_scan_interval_every_frame_is_searched_whole() -> None:
    assert attention(scan_interval=0).hints(1, FRAME, SIZE) is None


def test_a_known_face_is_expected_at_its_predicted_position() -> None:
    which = attention()
    which.hints(1, 0, SIZE)
    which.take(1, 0, [course(x=100, speed=50)], everywhere())
    hints = which.hints(2, 400 * MS, SIZE)
    assert hints is not None
    (face,) = hints.faces
    assert (face.box.x1 + face.box.x2) / 2 == pytest.approx(120)


def test_a_face_is_due_every_look_interval() -> None:
    which, scored, due = attention(), 0, []
    for seq in range(1, 14):
        now = seq * FRAME
        hints = which.hints(seq, now, SIZE)
        assert hints is not None
        for face in hints.faces:
            if face.due:
                due.append(seq)
                scored = now
        scored = scored or now  # found in the first frame, and scored there
        which.take(seq, now, [course(seen=now, scored=scored)], everywhere())
    assert due == [5, 9, 13]


def test_a_face_that_may_have_changed_is_due_sooner() -> None:
    """It is due twice at intervals of 0.15 s, then four times as often while its track is unsettled."""
    which, scored, due = attention(), [0, 0], list[tuple[int, int]]()
    for seq in range(1, 18):
        now = seq * FRAME
        hints = which.hints(seq, now, SIZE)
        assert hints is not None
        for i, face in enumerate(hints.faces):
            if face.due:
                due.append((seq, i))
                scored[i] = now
        scored = [at or now for at in scored]
        courses = [course(key, track=key, seen=now, scored=scored[key - 1]) for key in (1, 2)]
        which.take(seq, now, courses, everywhere(), unsettled=[2] if seq >= 9 else [])
    assert [seq for seq, i in due if i == 0] == [5, 9, 13, 17]
    assert [seq for seq, i in due if i == 1] == [5, 9, 10, 11, 12, 13, 14, 15, 16, 17]


def test_a_score_that_is_under_way_is_not_ordered_again() -> None:
    which = attention("wait", depth=4)
    due = []
    for seq in range(1, 12):
        hints = which.hints(seq, seq * FRAME, SIZE)
        assert hints is not None
        due += [seq for face in hints.faces if face.due]
        if seq >= 4:  # results arrive three frames late
            which.take(seq - 3, (seq - 3) * FRAME, [course(seen=(seq - 3) * FRAME, scored=FRAME)], everywhere())
    assert due == [5, 9]


def test_a_face_that_is_not_found_is_expected_until_the_horizon() -> None:
    which = attention()
    which.hints(1, 0, SIZE)
    which.take(1, 0, [course(seen=0)], everywhere())
    which.take(2, HORIZON, [course(seen=0)], None)
    near = which.hints(3, HORIZON, SIZE)
    which.take(3, HORIZON + 1, [course(seen=0)], None)
    far = which.hints(4, HORIZON + 1, SIZE)
    assert near is not None
    assert far is not None
    assert (len(near.faces), len(far.faces)) == (1, 0)


def test_the_searched_picture_is_kept_for_each_cell() -> None:
    which = attention()
    which.hints(1, 0, SIZE)
    which.take(1, 0, [], everywhere(10))
    part = np.zeros(THUMBNAIL, np.bool_)
    part[:, :32] = True
    which.hints(2, 200 * MS, SIZE)
    which.take(2, 200 * MS, [], Searched(part, np.full(THUMBNAIL, 90, np.uint8)))
    hints = which.hints(3, 400 * MS, SIZE)
    assert hints is not None
    assert hints.seen is not None
    assert (hints.seen == np.where(part, 90, 10)).all()


def test_under_drop_oldest_a_lost_search_is_ordered_again() -> None:
    which = attention()
    assert kind(which.hints(1, 0, SIZE)) == "whole"
    which.take(1, 1900 * MS, [], everywhere())
    assert kind(which.hints(2, 2000 * MS, SIZE)) == "whole"
    assert kind(which.hints(3, 2040 * MS, SIZE)) == "faces"
    which.miss(2)
    assert kind(which.hints(4, 2080 * MS, SIZE)) == "whole"
    which.take(4, 2080 * MS, [], everywhere())
    assert kind(which.hints(5, 2300 * MS, SIZE)) == "changed"
    which.miss(5)
    assert kind(which.hints(6, 2340 * MS, SIZE)) == "changed"


def test_a_frame_that_is_sent_again_has_the_same_hints() -> None:
    which = attention()
    assert which.hints(1, 0, SIZE) is which.hints(1, 0, SIZE)


def test_time_that_goes_back_starts_a_search() -> None:
    which = attention()
    which.hints(1, 5000 * MS, SIZE)
    which.take(1, 0, [], everywhere())
    assert kind(which.hints(2, 0, SIZE)) == "whole"


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_under_wait_hints_depend_only_on_results_depth_frames_before(depth: int) -> None:
    """With early results, each frame's hints are the same as with the latest possible results."""

    def run(early: int) -> list[tuple[str, tuple[object, ...]]]:
        which = attention("wait", depth)
        given: list[tuple[str, tuple[object, ...]]] = []
        answered = 0
        for seq in range(1, 60):
            while answered < seq - depth or (answered < seq - 1 and (seq * 7 + answered) % 5 < early):
                answered += 1
                seen = tuple(course(key, answered * FRAME, x=answered + 9.0 * key) for key in range(answered % 3 + 1))
                what = given[answered - 1][0]
                which.take(answered, answered * FRAME, seen, everywhere(answered) if what != "faces" else None)
            hints = which.hints(seq, seq * FRAME, SIZE)
            assert hints is not None
            given.append((kind(hints), (*hints.faces, None if hints.seen is None else int(hints.seen[0, 0]))))
        return given

    late = run(0)
    assert run(2) == late
    assert run(5) == late


def test_slow_films_are_followed_too() -> None:
    """At two frames a second and a depth of 3, the newest result is 1.5 s old."""
    which, expected = attention("wait", depth=3), []
    for seq in range(1, 20):
        hints = which.hints(seq, seq * 500 * MS, SIZE)
        assert hints is not None
        expected.append(len(hints.faces) or hints.whole)
        if seq >= 3:
            done = seq - 2
            which.take(done, done * 500 * MS, [course(seen=done * 500 * MS)], everywhere())
    assert all(expected)


def test_after_a_stall_the_whole_picture_is_searched() -> None:
    which = attention()
    which.hints(1, 0, SIZE)
    which.take(1, 0, [course()], everywhere())
    assert kind(which.hints(2, 900 * MS, SIZE)) == "changed"
    assert kind(which.hints(3, 1100 * MS, SIZE)) == "whole"


def test_results_of_another_frame_size_are_not_used() -> None:
    which = attention("wait", depth=2)
    given = []
    for seq in range(1, 13):
        hints = which.hints(seq, seq * FRAME, SIZE if seq < 6 else (640, 360))
        assert hints is not None
        given.append((hints.whole, len(hints.faces)))
        if seq >= 2:
            which.take(seq - 1, (seq - 1) * FRAME, [course(seen=(seq - 1) * FRAME)], everywhere())
    assert given[2:5] == [(False, 1)] * 3
    assert given[5:7] == [(True, 0)] * 2, "until there is a result of the new size"
    assert all(faces == 1 and not whole for whole, faces in given[7:])
