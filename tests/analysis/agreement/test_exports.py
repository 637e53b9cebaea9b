"""What we write for other programs is read again as it was: agreement with ourselves is perfect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.analysis import exports
from fer_stream.analysis.agreement.compare import compare
from fer_stream.analysis.agreement.films import Choices, gather
from fer_stream.analysis.exports import Recording, Span
from fer_stream.errors import AnnotationError
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

STAYS = (Span(1, 0.4, 9.2, None, None), Span(2, 10.0, 12.0, None, None))
LABELS = (
    *(Span(1, 0.6, 3.0, "happy", 0.9), Span(1, 3.0, 5.125, "sad", 0.7), Span(1, 6.0, 9.0, "happy", 0.8)),
    Span(2, 10.2, 11.9, "neutral", 0.6),
)
FILES = ["talk.eaf", "talk.boris", "talk_events.tsv"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spans = tuple(sorted((*STAYS, *LABELS), key=lambda span: (span.track, span.start)))
    recording = Recording("talk", "talk.mp4", "talk.mp4", 12.0, 300, "1", "tiny 1", ("happy", "sad"), spans)
    exports.write(["eaf", "boris", "bids"], recording, tmp_path)
    rows = "".join(f"{span.start},{span.end},{span.label},talk\n" for span in LABELS)
    (tmp_path / "talk.csv").write_text("start,end,label,film\n" + rows)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_an_export_agrees_with_the_intervals(folder: Path, name: str) -> None:
    found = compare(gather(folder / "talk.csv", [folder / name], Choices()), 0.04, 0.5)
    (pair,) = found.pairs
    assert [scope.kappa.value for scope in pair.scopes] == pytest.approx([1, 1])
    assert [each.f1.value for each in pair.labels] == [1, 1, 1]
    assert pair.onset.mean == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", FILES)
def test_stays_are_no_labels_but_say_what_was_coded(folder: Path, name: str) -> None:
    (found,) = read_annotations(folder / name)
    assert [one.label for one in found.annotations] == ["happy", "sad", "happy", "neutral"]
    assert found.spans == ((0.4, 12.0),)


def test_the_spreadsheet_for_boris_is_named_as_one(folder: Path) -> None:
    with pytest.raises(AnnotationError, match=r"talk_boris\.xlsx is a spreadsheet or an archive: save the table as"):
        read_annotations(folder / "talk_boris.xlsx")
