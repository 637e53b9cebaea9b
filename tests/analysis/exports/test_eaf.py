"""ELAN's files are read back by pympi-ling, by our own reader, and as XML."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

import pympi

from fer_stream.analysis import exports
from fer_stream.analysis.exports import Span
from fer_stream.interchange.annotations import Annotation
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.analysis.exports import Recording

ORDER = [
    "HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LANGUAGE", "CONSTRAINT", "CONTROLLED_VOCABULARY",
]  # fmt: skip
"""The order of the elements in the schema."""


def _write(recording: Recording, folder: Path) -> Path:
    assert exports.write(["eaf"], recording, folder) == [f"{recording.name}.eaf"]
    return folder / f"{recording.name}.eaf"


def test_pympi_reads_all_tiers(recording: Recording, tmp_path: Path) -> None:
    found = pympi.Elan.Eaf(str(_write(recording, tmp_path)))
    assert list(found.get_tier_names()) == [
        "track 1 in view", "track 1", "track 2 in view", "track 2", "track 3 in view",
    ]  # fmt: skip
    assert found.get_annotation_data_for_tier("track 1 in view") == [(0, 3725500, "in view")]
    assert found.get_annotation_data_for_tier("track 1") == [
        (40, 10000, "happy"),
        (10000, 20124, 'sad <&"> tired'),
        (20124, 20125, "a, b | c"),  # one frame: ELAN's annotations last at least 1 ms
        (20125, 30000, "naïve 😀"),
        (3661001, 3725500, "two\nlines"),
    ]
    assert found.get_annotation_data_for_tier("track 2") == [(5000, 5001, "x --> y")]
    assert found.get_parameters_for_tier("track 1")["LINGUISTIC_TYPE_REF"] == "label"
    assert found.get_parameters_for_tier("track 1 in view")["LINGUISTIC_TYPE_REF"] == "stay"
    (media,) = found.media_descriptors
    assert media["MIME_TYPE"] == "video/mp4"
    assert media["RELATIVE_MEDIA_URL"] == "../films/talk%20%3C%26%22%3E%20%C3%A9.mp4"
    assert [entry[0][0][0] for entry in found.get_cv_entries("labels").values()] == list(recording.labels)


def test_it_keeps_the_rules_of_the_schema(recording: Recording, tmp_path: Path) -> None:
    root = Xml.parse(_write(recording, tmp_path)).getroot()  # noqa: S314  (our own file)
    assert list(dict.fromkeys(child.tag for child in root)) == ORDER
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE", "")) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    annotations = list(root.iter("ALIGNABLE_ANNOTATION"))
    used = [annotation.get(key) for annotation in annotations for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")]
    assert sorted(map(str, used)) == sorted(map(str, slots)), "each slot belongs to one end of one annotation"
    ids = [annotation.get("ANNOTATION_ID") for annotation in annotations]
    assert len(set(ids)) == len(ids)
    (last,) = (each.text for each in root.iter("PROPERTY") if each.get("NAME") == "lastUsedAnnotationId")
    assert last == str(len(ids))
    for tier in root.iter("TIER"):
        end = 0
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            begin, stop = slots[annotation.get("TIME_SLOT_REF1")], slots[annotation.get("TIME_SLOT_REF2")]
            assert end <= begin < stop
            end = stop


def test_a_recording_without_a_face(empty: Recording, tmp_path: Path) -> None:
    path = _write(empty, tmp_path)
    found = pympi.Elan.Eaf(str(path))
    assert not list(found.get_tier_names())
    assert not found.media_descriptors
    assert [entry[0][0][0] for entry in found.get_cv_entries("labels").values()] == list(empty.labels)


def test_labels_that_xml_cannot_contain_or_that_mean_a_stay(recording: Recording, tmp_path: Path) -> None:
    labels = ("a\x01b", "in view")
    spans = (Span(1, 0, 9), Span(1, 0, 1, labels[0], 0.5), Span(1, 1, 2, labels[1], 0.5))
    path = _write(replace(recording, labels=labels, spans=spans, version="1\x02"), tmp_path)
    found = pympi.Elan.Eaf(str(path))
    assert found.get_annotation_data_for_tier("track 1") == [(0, 1000, "a\ufffdb"), (1000, 2000, "'in view'")]
    (coding,) = read_annotations(path)
    assert [one.label for one in coding.annotations] == ["a\ufffdb", "'in view'"]


def test_agree_reads_it(recording: Recording, tmp_path: Path) -> None:
    (coding,) = read_annotations(_write(recording, tmp_path))
    assert Annotation(0.04, 10.0, "happy", "track 1") in coding.annotations
    assert Annotation(5.0, 5.001, "x --> y", "track 2") in coding.annotations
