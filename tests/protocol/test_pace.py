"""Sentences about slow links, and pictures that follow them."""

from __future__ import annotations

from fer_stream.protocol.pace import LEVELS, QUICK_FRAMES, REPEAT, SLOW, SLOW_FRAMES, FrameSizeControl, SlowLinkWarning


def test_a_slow_link_is_told_of_now_and_then() -> None:
    pace = SlowLinkWarning()
    pace.size = 450_000
    assert pace.slow(SLOW / 2, 0) == ""
    assert pace.slow(2.4, 1) == "a frame of 450 kB takes 2.4 s (1.5 Mbit/s)"
    assert pace.slow(2.4, 2) == ""
    assert pace.slow(2.4, REPEAT) == ""
    pace.size = 6_220_800
    assert pace.slow(33.2, 1 + REPEAT) == "a frame of 6.2 MB takes 33.2 s (1.5 Mbit/s)"


def test_without_a_limit_pictures_stay_as_they_are() -> None:
    fit = FrameSizeControl(None)
    assert not any(fit.took(seconds) for seconds in (0.1, 10.0, 100.0))
    assert (fit.quality, fit.scale, fit.full) == (100, 1.0, True)


def shrunk(fit: FrameSizeControl) -> list[tuple[int, float]]:
    """Have all frames take a little too long, and return the levels that come of it."""
    seen = []
    while not fit.ends:
        if fit.took(0.6):
            seen.append((fit.quality, fit.scale))
    return seen


def test_quality_goes_before_size() -> None:
    fit = FrameSizeControl(0.5)
    assert tuple(shrunk(fit)) == LEVELS[1:]
    assert not fit.took(0.6)


def test_one_late_frame_changes_nothing() -> None:
    fit = FrameSizeControl(0.5)
    for _ in range(50):
        assert not any(fit.took(seconds) for seconds in (0.6, 0.6, 0.4))


def test_what_is_far_too_slow_makes_larger_steps_at_once() -> None:
    fit = FrameSizeControl(0.5)
    assert fit.took(5.0)
    assert (fit.quality, fit.scale) == LEVELS[2]


def test_pictures_grow_again_slowly_and_only_where_there_is_room() -> None:
    fit = FrameSizeControl(0.5)
    shrunk(fit)
    assert not any(fit.took(0.3) for _ in range(10 * QUICK_FRAMES)), "twice as large they would take too long"
    for _ in LEVELS[1:]:
        assert not any(fit.took(0.1) for _ in range(QUICK_FRAMES - 1))
        assert not fit.took(0.3), "they must be quick in a row"
        assert not any(fit.took(0.1) for _ in range(QUICK_FRAMES - 1))
        assert fit.took(0.1)
    assert fit.full
    assert not any(fit.took(0.1) for _ in range(2 * QUICK_FRAMES)), "there is nothing larger"


def test_what_was_too_much_is_tried_again_more_and_more_rarely() -> None:
    fit, tries = FrameSizeControl(0.5), []
    shrunk(fit)
    since = 0
    for _ in range(20 * QUICK_FRAMES):
        since += 1
        if fit.took(0.1):
            tries.append(since)
            assert [fit.took(0.6) for _ in range(SLOW_FRAMES)] == [False] * (SLOW_FRAMES - 1) + [True]
            since = 0
    assert tries == [QUICK_FRAMES, 2 * QUICK_FRAMES, 4 * QUICK_FRAMES, 8 * QUICK_FRAMES]


def test_a_link_of_a_steady_rate_is_found_and_kept() -> None:
    """A frame's kilobytes at each level as measured, on a link that carries 53 in the time that they may take."""
    fit = FrameSizeControl(0.5)
    size = dict(zip(LEVELS, (110, 78, 60, 52, 26, 15, 8.5, 5), strict=True))
    changes = sum(fit.took(0.5 * size[fit.quality, fit.scale] / 53) for _ in range(1000))
    assert (fit.quality, fit.scale) == LEVELS[3]
    assert changes == 3
