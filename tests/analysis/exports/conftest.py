"""A recording with all that is hard to write: names that are markup, spans of one frame, tracks at the same time."""

from __future__ import annotations

import pytest

from fer_stream.analysis.exports import Recording, Span

LABELS = ("happy", 'sad <&"> tired', "a, b | c", "naïve 😀", "x --> y", "two\nlines")
"""The labels of a model; each has what is a delimiter of some format."""


@pytest.fixture
def recording() -> Recording:
    """Two tracks over more than one hour, in view at the same time; one span lasts one frame, two follow each other."""
    return Recording(
        name="talk",
        title='talk <&"> é.mp4',
        media='../films/talk <&"> é.mp4',
        duration=3725.5,
        frames=93138,
        version="1.0",
        model='tiny <&"> --> 1',
        labels=LABELS,
        spans=(
            Span(1, 0.0, 3725.5),
            Span(1, 0.04, 10.0, "happy", 0.75),
            Span(2, 5.0, 5.0),
            Span(2, 5.0, 5.0, "x --> y", 0.5),
            Span(1, 10.0, 20.1239, 'sad <&"> tired', 0.8),
            Span(1, 20.1239, 20.1239, "a, b | c", 0.6),
            Span(1, 20.1241, 30.0, "naïve 😀", 0.7),
            Span(1, 3661.001, 3725.5, "two\nlines", 0.9),
            Span(3, 12.0, 14.0),
        ),
    )


@pytest.fixture
def empty() -> Recording:
    """A recording without a face, from an address that no player opens."""
    return Recording("door", "door", None, 0.0, 1, "1.0", "tiny 1", LABELS, ())
