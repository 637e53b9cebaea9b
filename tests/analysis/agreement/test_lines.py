from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.analysis.agreement.lines import LONGEST, Line, common, joined, line, matched, overlap, relabelling
from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation, Coding

ANY = relabelling({}, (), None)


def _coding(*annotations: Annotation, spans: tuple[tuple[float, float], ...] = ()) -> Coding:
    return Coding(Path("anna.csv"), "table", annotations, "talk", "anna", spans)


def test_a_line_is_in_order_and_has_no_overlaps() -> None:
    coding = _coding(Annotation(5, 8, "sad"), Annotation(1, 5.05, "happy"), Annotation(9, 9, "angry"))
    assert line(coding, None, "--tier", ANY, 1.0) == Line(
        (Annotation(0, 4, "happy"), Annotation(4, 7, "sad")), ((0.0, 8.0),)
    )
    within = line(coding, None, "--tier", ANY, 0.0).within([(0, 2), (6, 7)])
    assert within == [Annotation(1, 2, "happy"), Annotation(6, 7, "sad")]


def test_what_was_coded_may_be_known() -> None:
    coding = _coding(Annotation(5, 8, "sad"), spans=((0, 4), (5, 20)))
    assert line(coding, None, "--tier", ANY, 0.0).spans == ((0, 4), (5, 20))
    assert line(_coding(spans=((0, 4),)), None, "--tier", ANY, 0.0) == Line((), ((0, 4),))


def test_between_annotations_of_the_history_page_nothing_was_coded() -> None:
    annotations = (Annotation(5, 8, "sad", "1"), Annotation(8, 9, "wrong", "1"), Annotation(20, 21, "happy", "2"))
    coding = Coding(Path("annotations.csv"), "history", annotations, "door", "anna", absolute=True, sparse=True)
    known = relabelling({"wrong": ""}, ("sad", "happy"), None)
    assert line(coding, None, "--tier", known, 0.0).spans == ((5, 9), (20, 21))
    assert line(coding, "1", "--tier", known, 0.0) == Line((annotations[0],), ((5, 9),))


def test_two_labels_at_once_are_refused() -> None:
    with pytest.raises(AnnotationError, match="film talk, has two labels at 2 s, 'happy' and 'sad', on one track"):
        line(_coding(Annotation(1, 3, "happy"), Annotation(2, 4, "sad")), None, "--tier", ANY, 0.0)
    assert line(_coding(Annotation(1, 3, "happy"), Annotation(2, 4, "happy")), None, "--tier", ANY, 0.0).labels == (
        Annotation(1, 4, "happy"),
    )


def test_a_short_label_within_another_is_refused() -> None:
    whole, short = Annotation(0, 9, "happy"), Annotation(2, 2.05, "sad")
    with pytest.raises(AnnotationError, match="has two labels at 2 s"):
        line(_coding(whole, short), None, "--tier", ANY, 0.0)
    last = Annotation(8.95, 8.99, "sad")
    assert line(_coding(whole, last), None, "--tier", ANY, 0.0).labels == (Annotation(0, 8.95, "happy"), last)


def test_several_tracks() -> None:
    first, second, third = Annotation(1, 3, "happy", "1"), Annotation(2, 6, "happy", "2"), Annotation(7, 8, "sad", "1")
    with pytest.raises(AnnotationError, match="on the tracks '1' and '2': choose one of '1', '2' with --track"):
        line(_coding(first, second, third), None, "--track", ANY, 0.0)
    assert line(_coding(first, second, third), "1", "--track", ANY, 0.0).labels == (first, third)
    assert line(_coding(first, second, third), LONGEST, "--track", ANY, 0.0).labels == (second,)
    assert line(_coding(first, third), None, "--track", ANY, 0.0).labels == (first, third)
    with pytest.raises(AnnotationError, match="has no track '3' with labels: it has '1', '2'; choose with --track"):
        line(_coding(first, second), "3", "--track", ANY, 0.0)


def test_labels_are_mapped_and_grouped() -> None:
    relabel = relabelling({"Joy": "happy", "x": ""}, ["happy", "Sad"], None)
    assert [relabel(each) for each in ("joy", "HAPPY", " sad ", "X", "other")] == [
        "happy",
        "happy",
        "Sad",
        None,
        "other",
    ]
    assert relabel("two\n words") == "two words"
    assert relabel("(no label)") is None
    grouped = relabelling({"joy": "happy"}, ["positive"], {"happy": "positive", "surprise": "positive"})
    coding = _coding(Annotation(0, 1, "joy"), Annotation(1, 2, "surprise"), Annotation(3, 4, "Positive"))
    assert line(coding, None, "", grouped, 0.0).labels == (
        Annotation(0, 2, "positive"),
        Annotation(3, 4, "positive"),
    )
    assert joined([]) == []


def test_common_parts() -> None:
    assert common([(0, 5), (8, 10)], [(3, 9)]) == [(3, 5), (8, 9)]
    assert common([(0, 1)], [(1, 2)]) == []


def test_matched_spans() -> None:
    ours = [Annotation(0, 4, "a"), Annotation(5, 6, "a"), Annotation(8, 10, "b")]
    theirs = [Annotation(1, 4, "a"), Annotation(4, 9, "a"), Annotation(9, 10, "b")]
    assert overlap(ours[0], theirs[0]) == 0.75
    assert matched(ours, theirs, 0.5) == [(0, 0), (2, 2)]
    assert matched(ours, theirs, 0.1) == [(0, 0), (1, 1), (2, 2)]
    assert matched(ours, theirs, 0.8) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from("ab")), max_size=8), st.data())
def test_matching_above_one_half_is_the_only_one(parts: list[tuple[int, int, str]], data: st.DataObject) -> None:
    def spans(of: list[tuple[int, int, str]]) -> list[Annotation]:
        at, found = 0, []
        for length, gap, label in of:
            found.append(Annotation(at + gap, at + gap + length, label))
            at += gap + length
        return found

    ours = spans(parts)
    theirs = spans(
        data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from("ab")), max_size=8))
    )
    expected = [
        (i, j)
        for i, one in enumerate(ours)
        for j, other in enumerate(theirs)
        if one.label == other.label and overlap(one, other) > 0.5
    ]
    assert matched(ours, theirs, 0.5 + 1e-9) == expected
