"""The summary of observations made by hand, and its drawings and report."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from fer_stream.analysis import columns, plots, report
from fer_stream.analysis.observe import Observation
from fer_stream.analysis.summary import Summary
from fer_stream.errors import ModelError
from fer_stream.settings.tree import Settings
from fer_stream.types import (
    Box,
    Estimate,
    Event,
    EventType,
    ExpressionData,
    Face,
    FaceData,
    Frame,
    Measures,
    Milliseconds,
    Nanoseconds,
    Probabilities,
    Probability,
    Track,
)

START, SECOND = 5 * 10**9, 10**9
FACE = Face(Box(0, 0, 10, 10), 0.9)
LABELS = ("happy", "sad", "neutral")
ABOUT = {"version": "1", "model": "<m>", "settings": Settings().model_dump(mode="json")}


def at(seconds: float) -> Nanoseconds:
    return Nanoseconds(round(START + seconds * SECOND))


def seen(number: int, *faces: tuple[int, str | None, tuple[float, ...]], events: tuple[Event, ...] = ()) -> Observation:
    """Return the observation of frame ``number``, one frame a second: ``(track, label, values)`` for each face."""
    frame = Frame("film", number, at(number), np.zeros((1, 1, 3), np.uint8))
    tracks = tuple(Track(track, FACE, at(0), at(number)) for track, _, _ in faces)
    estimates = {
        track: Estimate(track, Probabilities(LABELS, values), label) for track, label, values in faces if values
    }
    return Observation(frame, tracks, estimates, [(event, "") for event in events])


def stretch(track: int, label: str, begin: float, end: float) -> Event:
    span = (at(begin), at(end), Milliseconds(round(1000 * (end - begin))))
    data = ExpressionData(*span, label, None, Probability(0.8, 0.9), {}, FACE.box, 0.9)
    return Event(EventType.EMOTION_ENDED, "film", 1, 1, track, at(end), data)


def stay(track: int, begin: float, end: float) -> Event:
    data = FaceData(at(begin), at(end), Milliseconds(round(1000 * (end - begin))), FACE.box, 0.9)
    return Event(EventType.FACE_LEFT, "film", 1, 1, track, at(end), data)


@pytest.fixture
def summary() -> Summary:
    """Six seconds: one face is happy for 3.5 s, then uncertain between two labels; another never has a sure label."""
    made = Summary(START, Settings().valence)
    made.add(seen(0, (1, None, ())), 1)
    for number in range(1, 5):
        made.add(seen(number, (1, "happy", (0.9, 0.05, 0.05))), 1)
    made.add(seen(5, (1, None, (0.0, 0.5, 0.5)), (2, None, (0.1, 0.45, 0.45))), 2)
    made.add(seen(6), 0)
    closing = (stretch(1, "happy", 1, 4.5), stay(1, 0, 5), stay(2, 5, 5.5))
    made.add(Observation(None, (), {}, [(event, "") for event in closing]), 0)
    return made


def test_counts_shares_and_the_valence_curve(summary: Summary) -> None:
    found = summary.as_dict()
    assert (found["frames"], found["duration_s"], found["faces"], found["tracks"]) == (7, 6.0, 7, 2)
    assert found["face_seconds"] == 5.5
    assert found["share"] == {"happy": 0.6364, "uncertain": 0.3636}, "3.5 s of 5.5 s"
    assert found["uncertain_between_s"] == {"neutral or sad": 2.0}
    assert found["events"] == {"emotion.ended": 1, "face.left": 2}
    assert [(i.track, i.start, i.end, i.label) for i in summary.intervals] == [(1, 1.0, 4.5, "happy")]
    curve = dict(summary.valence)
    assert curve[1.25] == pytest.approx(0.85)
    assert curve[5.25] == pytest.approx((-0.5 + 0.1 - 0.45) / 2)
    assert max(curve) < 6, "no point where no face is in view"


def test_valence_groups_as_labels() -> None:
    made = Summary(START, {"happy": "positive"})
    made.add(seen(0), 0)
    scores = Probabilities(("positive", "negative"), (0.2, 0.7))
    frame = Frame("film", 1, at(1), np.zeros((1, 1, 3), np.uint8))
    made.add(Observation(frame, (Track(1, FACE, at(0), at(1)),), {1: Estimate(1, scores, "negative")}, []), 0)
    assert made.valence == [(1.0, pytest.approx(-0.5))]
    ended = replace(stretch(1, "negative", 0, 1), type=EventType.VALENCE_ENDED)
    made.add(Observation(None, (), {}, [(ended, ""), (stay(1, 0, 1), "")]), 0)
    assert made.shares == {"negative": 1.0}


def test_groups_with_other_names_give_no_curve_and_any_label_is_drawn_literally() -> None:
    made = Summary(START, {"happy": "good"})
    made.add(seen(0, (1, "happy", (0.9, 0.05, 0.05))), 0)
    made.add(seen(6), 0)
    stretches = (stretch(1, "$a_{$", 0, 5), stay(1, 0, 5))
    made.add(Observation(None, (), {}, [(event, "") for event in stretches]), 0)
    drawings = plots.draw(made)
    assert "valence" not in drawings
    for name in ("timeline", "shares"):
        assert "$a_{$" in set(ElementTree.fromstring(drawings[name]).itertext())  # noqa: S314 (ours)
    assert "Valence" not in report.page("film", made, drawings, ABOUT)


@pytest.mark.parametrize("labels", [("happy", "quality"), ("happy", "scored_happy"), ("frame", "x")])
def test_a_label_with_the_name_of_a_column_is_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=r"the model's label or measure '.*' is also the name of a column"):
        columns.Layout(labels, labels).faces  # noqa: B018


def test_drawings_are_valid_and_labelled(summary: Summary) -> None:
    drawings = plots.draw(summary)
    texts = {name: set(ElementTree.fromstring(svg).itertext()) for name, svg in drawings.items()}  # noqa: S314 (ours)
    assert {"happy", "uncertain", "seconds", "1", "2"} <= texts["timeline"]
    assert {"63.6 %", "36.4 %", "happy", "uncertain"} <= texts["shares"]
    assert {"positive", "neutral", "negative"} <= texts["valence"]
    assert {"neutral or sad", "2.0 s"} <= texts["uncertain"]
    assert drawings == plots.draw(summary), "the same summary gives the same bytes"
    summary.duration = 600.0
    assert {"0:00", "10:00", "minutes:seconds"} <= set(ElementTree.fromstring(plots.valence(summary)).itertext())  # noqa: S314
    for svg in drawings.values():
        assert not re.search(r"<(script|image|foreignObject)|@import", svg)


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def test_the_report_makes_no_requests_and_is_accessible(summary: Summary) -> None:
    text = report.page("a & <b>.mp4", summary, plots.draw(summary), ABOUT)
    page = Page(text)
    assert "a &amp; &lt;b&gt;.mp4" in text
    assert "&lt;m&gt;" in text
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    addresses += [attributes["xlink:href"] for attributes in page.all("use")]
    assert addresses
    assert all(address and address.startswith("#") for address in addresses)
    assert not page.all("script", "img", "link", "iframe", "object", "base")
    assert not re.search(r"@import|url\((?!#)", text)
    (policy,) = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")
    assert page.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")] == ["h1"] + ["h2"] * 5
    figures = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert len(figures) == len(page.all("details")) == 4, "every drawing is also given as a table"
    assert all(figure["aria-label"] for figure in figures)
    assert "happy 63.6%" in (figures[1]["aria-label"] or "")
    assert '<th scope="row">happy</th><td class="number">63.6</td>' in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert ids
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(|href=")#([^")]+)', text)
    assert set(used) <= set(ids)
    assert plots.INK not in text, "drawings use the page's text colour"


def test_measures_are_drawn_by_track_and_given_as_a_table() -> None:
    made = Summary(START, Settings().valence)
    names = ("arousal", "$valence")
    for number in range(8):
        one = seen(number, *((track, None, (0.9, 0.05, 0.05)) for track in (1, 2) if track == 1 or number < 3))
        estimates = {
            track: replace(estimate, measures=Measures(names, (number / 10, -0.1 * track)))
            for track, estimate in one.estimates.items()
        }
        made.add(replace(one, estimates=estimates), 1)
    made.add(Observation(None, (), {}, [(stay(1, 0, 7), ""), (stay(2, 0, 2), "")]), 0)
    assert made.measures["arousal"][2] == [(0.25, 0.0), (1.25, 0.1), (2.25, 0.2)]
    assert [value for _, value in made.measures["$valence"][1]] == pytest.approx([-0.1] * 8)
    drawings = plots.draw(made)
    assert {"arousal", "$valence", "1", "2", "seconds"} <= set(ElementTree.fromstring(drawings["measures"]).itertext())  # noqa: S314
    text = report.page("film", made, drawings, ABOUT)
    assert "Measures over time" in text
    numbers = "".join(f'<td class="number">{value}</td>' for value in (0.1, 0.0, 0.2))
    assert f'<th scope="row">2</th><td>arousal</td>{numbers}' in text


def test_a_recording_without_faces_has_a_report() -> None:
    made = Summary(START, Settings().valence)
    made.add(seen(0), 0)
    about = {"version": "1", "model": "m", "settings": Settings().model_dump(mode="json"), "error": "it broke"}
    text = report.page("empty", made, plots.draw(made), about)
    assert "it broke" in text
    assert "Measures" not in text
    assert "NaN" not in text
    assert made.as_dict()["share"] == {}


def test_a_long_name_leaves_room_for_its_bar() -> None:
    """Its beginning and its end stay: the end may be what distinguishes it."""
    name = "participant 017, " + "a long session " * 10 + "second camera"
    drawing = plots.stacked("films", {name: {"happy": 1.0}, "b": {}}, ["happy"], "%")
    (shown,) = (text for text in ElementTree.fromstring(drawing).itertext() if text.startswith("participant 017"))  # noqa: S314
    assert shown.endswith("second camera")
    assert "\N{HORIZONTAL ELLIPSIS}" in shown
    assert len(shown) == plots.LONGEST
