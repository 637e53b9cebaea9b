from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from annotation_files import aligned, eaf, referring, tier

from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding


def _read(tmp_path: Path, text: str) -> list[Coding]:
    path = tmp_path / "anna.eaf"
    path.write_text(text, encoding="utf-8")
    return read_annotations(path)


@pytest.mark.parametrize("version", ["2.7", "2.8", "3.0"])
def test_annotations_with_times(version: str, tmp_path: Path) -> None:
    (found,) = _read(
        tmp_path,
        eaf(tier("face", aligned(1, 1, 2, "happy"), aligned(2, 3, 4, " sad ")), [1000, 2500, 2500, 4000], version),
    )
    assert (found.kind, found.film, found.coder, found.tracks) == ("ELAN", "talk", None, ("face",))
    assert found.annotations == (Annotation(1, 2.5, "happy", "face"), Annotation(2.5, 4, "sad", "face"))


def test_times_are_in_milliseconds_also_where_the_file_does_not_say_so(tmp_path: Path) -> None:
    text = eaf(tier("face", aligned(1, 1, 2, "happy")), [1000, 2500]).replace(' TIME_UNITS="milliseconds"', "")
    (found,) = _read(tmp_path, text)  # as pympi writes it
    assert found.annotations == (Annotation(1, 2.5, "happy", "face"),)


def test_the_offset_of_the_film_is_added(tmp_path: Path) -> None:
    media = 'MEDIA_URL="file:///films/a%20talk.mp4" TIME_ORIGIN="2000"'
    (found,) = _read(tmp_path, eaf(tier("face", aligned(1, 1, 2, "happy")), [1000, 2500], media=media))
    assert found.film == "a talk"
    assert found.annotations == (Annotation(3, 4.5, "happy", "face"),)


def test_slots_without_a_time_lie_at_equal_distances(tmp_path: Path) -> None:
    chain = [aligned(1, 1, 2, "a"), aligned(2, 2, 3, "b"), aligned(3, 3, 4, "c")]
    (found,) = _read(tmp_path, eaf(tier("words", *chain), [0, None, None, 3000]))
    assert [(one.start, one.end) for one in found.annotations] == [(0, 1), (1, 2), (2, 3)]


def test_annotations_that_refer_to_others(tmp_path: Path) -> None:
    tiers = (
        tier("valence", referring(6, 3, "good"))  # before its parent's tier, whose parent is further below
        + tier("parts", referring(4, 1, "second", 3), referring(3, 1, "first"))
        + tier("face", aligned(1, 1, 2, "happy"), aligned(2, 2, 3, ""))
        + tier("note", referring(5, 1, "whole"))
    )
    (found,) = _read(tmp_path, eaf(tiers, [1000, 3000, 4000]))
    assert {(one.label, one.start, one.end) for one in found.annotations} == {
        ("happy", 1, 3), ("face", 3, 4), ("first", 1, 2), ("second", 2, 3), ("good", 1, 2), ("whole", 1, 3),
    }  # fmt: skip


def test_each_annotator_is_a_coder(tmp_path: Path) -> None:
    tiers = tier("x", aligned(1, 1, 2, "happy"), annotator="Anna") + tier("y", aligned(2, 1, 2, "sad"), annotator="Ben")
    found = _read(tmp_path, eaf(tiers, [0, 1000], media=""))
    assert [(one.coder, one.film, one.annotations[0].label) for one in found] == [
        ("Anna", None, "happy"),
        ("Ben", None, "sad"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (eaf(tier("t", aligned(1, 1, 2, "a")), [0, 1])[:-30], "it may be incomplete"),
        (eaf(tier("t", aligned(1, 1, 9, "a")), [0, 1]), "annotation a1 refers to a time slot 'ts9'"),
        (eaf(tier("t", aligned(1, 1, 2, "a")), [0, None]), "annotation a1 has no time"),
        (eaf(tier("t", referring(1, 2, "a"), referring(2, 1, "b")), []), "refers to a2, which is missing or refers"),
        (eaf(tier("t", aligned(1, 1, 2, "a")), [0, 1]).replace("milliseconds", "NTSC-frames"), "are in NTSC-frames"),
        (eaf(tier("t"), []), "has no annotation with a duration"),
        (eaf("", []).replace('?>', '?><!DOCTYPE x [<!ENTITY a "b">]>'), "it defines entities"),
        ("<html></html>", "is XML, but not of ELAN: its first element is html"),
        (eaf("", []).replace("UTF-8", "no-such"), "cannot be read as a file of"),
    ],
)  # fmt: skip
def test_damaged_files(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        _read(tmp_path, text)
