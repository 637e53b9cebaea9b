"""Agreement on small films whose values are computed here by hand, moment by moment."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest

from fer_stream.analysis.agreement import report
from fer_stream.analysis.agreement.compare import Agreement, compare
from fer_stream.analysis.agreement.films import Choices, gather
from fer_stream.analysis.agreement.lines import NONE
from fer_stream.analysis.agreement.measures import cohen, observed
from fer_stream.errors import AnnotationError
from fer_stream.events.cloudevents import encode
from fer_stream.types import (
    Box,
    CameraData,
    Event,
    EventType,
    ExpressionData,
    Milliseconds,
    Nanoseconds,
    Probability,
)

if TYPE_CHECKING:
    from pathlib import Path

OURS = {
    "a": [(0, 10, "happy"), (10, 14, "sad"), (16, 20, "happy")],
    "b": [(0, 5, "neutral"), (6, 12, "happy")],
    "c": [(0, 20, "sad")],
}
ANNA = {
    "a": [(1, 9, "joy"), (10, 16, "sad"), (16, 20, "joy")],
    "b": [(0, 5, "neutral"), (5, 12, "joy")],
    "c": [(0, 10, "sad"), (10, 20, "neutral")],
}
BEN = {"a": [(0, 20, "happy")], "b": [(0, 6, "Neutral"), (6, 11, "happy")]}


def _write(path: Path, films: dict[str, list[tuple[float, float, str]]]) -> Path:
    rows = [f"{film}.mp4,{start},{end},{label}" for film, spans in films.items() for start, end, label in spans]
    path.write_text("\n".join(["film,start,end,label", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def agreement(tmp_path: Path) -> Agreement:
    paths = [_write(tmp_path / f"{name}.csv", films) for name, films in (("us", OURS), ("anna", ANNA), ("ben", BEN))]
    return compare(gather(paths[0], paths[1:], Choices({"joy": "happy"})), step=0.5)


def _moments(films: dict[str, list[tuple[float, float, str]]], film: str) -> dict[float, str]:
    """Return the label at each quarter of a second past a half, from the first span's start to the last one's end."""
    spans = films[film]
    first, last = min(start for start, _, _ in spans), max(end for _, end, _ in spans)
    times = np.arange(first + 0.25, last, 0.5)
    return {
        float(at): next(
            (label.replace("joy", "happy").lower() for start, end, label in spans if start <= at < end), NONE
        )
        for at in times
    }


def _pairs(theirs: dict[str, list[tuple[float, float, str]]]) -> list[tuple[str, str]]:
    found = []
    for film in set(OURS) & set(theirs):
        ours, others = _moments(OURS, film), _moments(theirs, film)
        found += [(ours[at], others[at]) for at in ours.keys() & others.keys()]
    return found


def _kappa(pairs: list[tuple[str, str]]) -> float:
    n, labels = len(pairs), {label for pair in pairs for label in pair}
    agreed = sum(a == b for a, b in pairs) / n
    chance = sum(sum(a == x for a, _ in pairs) * sum(b == x for _, b in pairs) for x in labels) / n**2
    return (agreed - chance) / (1 - chance)


@pytest.mark.parametrize(("at", "theirs"), [(0, ANNA), (1, BEN)])
def test_every_moment_counts(agreement: Agreement, at: int, theirs: dict[str, list[tuple[float, float, str]]]) -> None:
    pair, pairs = agreement.pairs[at], _pairs(theirs)
    assert (pair.first, pair.second) == ("us", ("anna", "ben")[at])
    assert pair.films == tuple(theirs)
    assert pair.all_time.seconds == 0.5 * len(pairs)
    assert pair.all_time.figure(observed).value == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert pair.all_time.figure(cohen).value == pytest.approx(_kappa(pairs))
    both = [(a, b) for a, b in pairs if NONE not in (a, b)]
    assert pair.labelled.seconds == 0.5 * len(both)
    assert pair.labelled.figure(cohen).value == pytest.approx(_kappa(both))
    precision, recall, f1 = pair.all_time.per_label("happy")
    hits = sum(a == b == "happy" for a, b in pairs)
    assert precision.value == pytest.approx(hits / sum(a == "happy" for a, _ in pairs))
    assert recall.value == pytest.approx(hits / sum(b == "happy" for _, b in pairs))
    assert f1.value == pytest.approx(2 * hits / sum((a == "happy") + (b == "happy") for a, b in pairs))


def test_events_of_anna(agreement: Agreement) -> None:
    """Of ours, in a: happy (IoU .8), sad (.67), happy (1); in b: neutral (1), happy (.86); in c: sad (.5)."""
    events = agreement.pairs[0].events
    assert events.hits.sum(1).tolist() == [3, 2, 1]
    assert (events.first.sum(), events.second.sum()) == (6, 7)
    precision, recall, f1 = events.figures(None)
    assert (precision.value, recall.value, f1.value) == (pytest.approx(1), pytest.approx(6 / 7), pytest.approx(12 / 13))
    # In a, anna's coding begins at 1 s, within our first happy span: its onset is not known.
    assert sorted(events.onsets["happy"]) == [0, 1]
    assert events.onset("happy") == (0.25, 0.5, 0.75)
    assert events.onset("sad") == (0, 0, 0)
    assert events.figures("neutral")[1].value == 0.5
    assert math.isnan(events.onset("nothing")[1])


def test_all_raters_together(agreement: Agreement) -> None:
    """Alpha from its definition, over pairs of values in a moment; units with one value do not count."""
    labels = ["happy", "neutral", "sad", NONE]
    for together in agreement.together:
        units = []
        for film in OURS:
            lines = [_moments(films, film) for films in (OURS, ANNA, BEN) if film in films]
            for at in set().union(*lines):
                values = [line[at] for line in lines if at in line]
                values = [value for value in values if not (together.labelled and value == NONE)]
                if len(values) > 1:
                    units.append(values)
        n = sum(map(len, units))
        within = sum(
            sum(a != b for i, a in enumerate(u) for j, b in enumerate(u) if i != j) / (len(u) - 1) for u in units
        )
        counts = [sum(value == label for unit in units for value in unit) for label in labels]
        expected = 1 - (within / n) / ((n * n - sum(c * c for c in counts)) / (n * (n - 1)))
        assert together.alpha.value == pytest.approx(expected)
        low, high = together.alpha.interval
        assert low <= together.alpha.value <= high
        assert -1 < together.fleiss < 1


def test_the_files_have_the_computed_values(agreement: Agreement) -> None:
    rows = list(csv.DictReader(io.StringIO(report.table(agreement))))
    kappas = [row for row in rows if row["measure"] == "kappa" and row["scope"] == "all time"]
    assert [row["second"] for row in kappas] == ["anna", "ben", "ben"]
    assert float(kappas[0]["value"]) == pytest.approx(_kappa(_pairs(ANNA)), abs=1e-5)
    assert float(kappas[0]["low"]) <= float(kappas[0]["value"]) <= float(kappas[0]["high"])
    assert kappas[0]["films"] == "3"
    seconds = {
        (row["label"], row["measure"]): float(row["value"])
        for row in rows
        if row["measure"].startswith("seconds while anna says") and row["scope"] == "all time" and row["first"] == "us"
    }
    assert seconds["sad", "seconds while anna says neutral"] == 10
    markdown, latex, text = report.markdown(agreement), report.latex(agreement), report.terminal(agreement)
    kappa = f"{float(kappas[0]['value']):.2f} ["
    assert all(kappa in each for each in (markdown, latex, text))
    assert "us / anna" in markdown
    assert latex.count(r"\begin{tabular}") == markdown.count("\n\n|") == 5


def test_the_page_is_complete(agreement: Agreement) -> None:
    page = report.page(agreement, "a & b")
    assert "<h1>a &amp; b</h1>" in page
    assert not re.search(r"(src|href)=", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2 * len(agreement.pairs)
    for drawing in drawings:
        ElementTree.fromstring(drawing)  # noqa: S314  (our own)
    cells = re.findall(r'text-anchor="middle">(\d+%|-)</text>', drawings[0])
    assert len(cells) == 16
    assert "too narrow" in page


def _gather(tmp_path: Path, ours: str, theirs: str, choices: Choices | None = None) -> Agreement:
    (tmp_path / "us.csv").write_text(ours)
    (tmp_path / "anna.csv").write_text(theirs)
    return compare(gather(tmp_path / "us.csv", [tmp_path / "anna.csv"], choices or Choices()))


def test_one_label_has_no_kappa(tmp_path: Path) -> None:
    found = _gather(tmp_path, "start,end,label\n0,10,happy\n", "start,end,label\n0,10,happy\n")
    text = report.terminal(found)
    assert "Cohen's kappa    undefined: both raters use one label only" in text
    assert found.pairs[0].all_time.figure(observed).value == 1
    row = next(row for row in csv.DictReader(io.StringIO(report.table(found))) if row["measure"] == "kappa")
    assert row["value"] == row["low"] == ""
    assert "With one film there are no intervals." in report.method(found)


def test_labels_that_never_meet(tmp_path: Path) -> None:
    found = _gather(
        tmp_path, "start,end,label\n0,1,happy\n5,6,sad\n", "start,end,label\n0,0.5,sad\n2,3,happy\n5.5,6,sad\n"
    )
    assert found.pairs[0].labelled.seconds == pytest.approx(1.0)
    found = _gather(tmp_path, "start,end,label\n0,1,happy\n5,6,sad\n", "start,end,label\n1,5,sad\n")
    assert "undefined: at no time do both us and anna give a label" in report.terminal(found)
    report.page(found, "no drawing of an empty confusion")


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ("start,end,label\n0,9,happy\n", "start,end,label\n60,90,happy\n", "no time in common: in us, us has 0 to 9 s"),
        ("start,end,label\n0,9,happy\n", "start,end,label\n0,9,joy\n", "no label of anna is one of ours: .* joy"),
        (
            "start,end,label,film\n0,9,happy,a\n0,9,happy,b\n", "start,end,label,film\n0,9,happy,c\n",
            "no film of .*anna.csv is one of ours: there it is c, ours are a, b",
        ),
        (
            "start,end,label,film\n0,9,happy,a\n0,9,happy,b\n", "start,end,label\n0,9,happy\n",
            "no film of .*anna.csv is one of ours: there it is anna",
        ),
        ("start,end,label,track\n0,9,happy,1\n0,9,sad,2\n", "start,end,label\n0,9,happy\n", "tracks '1' and '2'"),
        (
            "start,end,label\n0,9,happy\n", "start,end,label,tier\n0,9,happy,x\n0,9,sad,y\n",
            "on the tracks 'x' and 'y': choose one of 'x', 'y' with --tier",
        ),
        (
            "start,end,label,film,coder\n0,9,happy,a,x\n0,9,sad,a,y\n", "start,end,label\n0,9,happy\n",
            "has the film a twice, by x and y: OURS is one rater's",
        ),
        (
            "start,end,label\n0,9,happy\n",
            "camera,start,end,label,annotator\nus,2026-01-31T08:00:00Z,2026-01-31T08:00:10Z,happy,x\n",
            "has times of day, but the times of our film begin at 0",
        ),
        ("start,end,label\n0,9000000,happy\n", "start,end,label\n0,9,happy\n", "lasts 2,500 h, too long for steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(ours: str, theirs: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        _gather(tmp_path, ours, theirs)


def test_annotations_of_the_history_page(tmp_path: Path) -> None:
    """Events of a journal, of which a person has marked two seconds, one of them as wrong; nothing else counts."""
    at = 1769846400 * 10**9
    online = Event(
        EventType.CAMERA_ONLINE, "door", 1, 1, Nanoseconds(at), Nanoseconds(at), CameraData("first frame", 64, 64)
    )
    events = [online]
    for start, end, label in ((2, 6, "happy"), (8, 12, "sad")):
        span = Nanoseconds(at + start * 10**9), Nanoseconds(at + end * 10**9), Milliseconds((end - start) * 1000)
        even = {"happy": 0.5, "sad": 0.5}
        data = ExpressionData(*span, label, None, Probability(0.9, 0.9), even, Box(0, 0, 9, 9), 1.0)
        events.append(replace(online, type=EventType.EMOTION_ENDED, track=7, time=span[1], data=data))
    (tmp_path / "events.jsonl").write_text("\n".join(map(encode, events)))
    rows = ["camera,track,start,end,label,previous,annotator,note,made"]
    rows += [
        f"door,7,2026-01-31T08:00:0{start}Z,2026-01-31T08:00:0{start + 1}Z,{label},happy,Anna,,2026-02-01T08:00:00Z"
        for start, label in ((4, "sad"), (8, "sad"))
    ]
    (tmp_path / "marks.csv").write_text("\n".join(rows))
    found = compare(gather(tmp_path / "events.jsonl", [tmp_path / "marks.csv"], Choices()))
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.films) == ("fer-stream", "Anna", ("door, face 7",))
    assert pair.all_time.seconds == pytest.approx(2)
    assert pair.all_time.figure(observed).value == pytest.approx(0.5)


def test_remarks(tmp_path: Path) -> None:
    found = _gather(
        tmp_path,
        "start,end,label,film\n0,9,happy,a\n0,9,happy,b\n",
        "start,end,label,film\n0,5,happy,A.mp4\n5,9,confused,A.mp4\n0,9,happy,c\n",
        Choices({"joi": "happy", "HAPPY": "happy"}),
    )
    assert found.material.labels == ("happy", "confused")
    assert list(found.material.remarks) == [
        f"{tmp_path / 'anna.csv'}: c left out: not among our films",
        "--map: no coder gives the label joi",
        "b left out: no coder has coded it",
        "anna: confused is no label of ours",
    ]
    assert "note: b left out" in report.terminal(found)
    with pytest.raises(AnnotationError, match="anna gives no label, after --map"):
        _gather(tmp_path, "start,end,label\n0,9,happy\n", "start,end,label\n0,9,joy\n", Choices({"joy": ""}))


def test_films_are_found_by_the_names_of_files(tmp_path: Path) -> None:
    ours = _write(tmp_path / "us.csv", OURS)
    folder = tmp_path / "carla"
    folder.mkdir()
    for film in "abc":
        _write(folder / f"{film}_coded.csv", {film: ANNA[film]}).write_text(
            "start,end,label\n" + "".join(f"{start},{end},{label}\n" for start, end, label in ANNA[film])
        )
    found = gather(ours, [folder], Choices({"joy": "happy"}))
    assert found.raters == ("us", "carla")
    assert [film.name for film in found.films] == ["a", "b", "c"]
    single = gather(ours, [folder / "a_coded.csv", folder / "b_coded.csv"], Choices({"joy": "happy"}))
    assert single.raters == ("us", "coded")
    with pytest.raises(AnnotationError, match="coded codes the film a twice"):
        gather(ours, [folder / "a_coded.csv"] * 2, Choices({"joy": "happy"}))


def test_tracks_by_film(tmp_path: Path) -> None:
    text = "start,end,label,film,track\n0,9,happy,a,1\n0,8,sad,a,2\n0,9,happy,b,1\n"
    theirs = "start,end,label,film\n0,8,sad,a\n0,9,happy,b\n"
    found = _gather(tmp_path, text, theirs, Choices(tracks={"a": "2"}))
    assert found.pairs[0].all_time.figure(observed).value == 1
    longest = _gather(tmp_path, text, theirs, Choices(tracks={"": "longest"}))
    assert longest.pairs[0].all_time.figure(observed).value == pytest.approx(9 / 17, abs=0.01)
    with pytest.raises(AnnotationError, match="--track: there is no film 'x'; ours are a, b"):
        _gather(tmp_path, text, theirs, Choices(tracks={"x": "2"}))


def test_valence(tmp_path: Path) -> None:
    groups = {"happy": "positive", "surprise": "positive", "sad": "negative"}
    found = _gather(
        tmp_path,
        "start,end,label\n0,5,happy\n5,9,sad\n",
        "start,end,label\n0,5,surprise\n5,9,sad\n",
        Choices(groups=groups),
    )
    assert found.material.labels == ("positive", "negative")
    assert found.pairs[0].all_time.figure(cohen).value == 1


def test_steps_longer_than_the_film(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("us.csv", "anna.csv")]
    for path in paths:
        path.write_text("start,end,label\n0,9,happy\n")
    material = gather(paths[0], paths[1:], Choices())
    with pytest.raises(AnnotationError, match="both code too little of us for steps of 100 s"):
        compare(material, step=100)


def test_words_are_no_labels(tmp_path: Path) -> None:
    words = "".join(f"{at},{at + 1},word {at}\n" for at in range(300))
    with pytest.raises(AnnotationError, match=r"there are 301 different labels, more than 200: happy, word 0, .* tier"):
        _gather(tmp_path, "start,end,label\n0,400,happy\n", f"start,end,label\n300,400,happy\n{words}")
