"""What we write for other programs is read again as it was: agreement with ourselves is perfect."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING

import pytest

from fer_stream.analysis import exports
from fer_stream.analysis.agreement import measures
from fer_stream.analysis.agreement.compare import compare
from fer_stream.analysis.agreement.films import Choices, gather
from fer_stream.analysis.exports import Recording, Span
from fer_stream.errors import AnnotationError
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

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
    assert [scope.figure(measures.cohen).value for scope in (pair.all_time, pair.labelled)] == pytest.approx([1, 1])
    assert pair.events.labels == ("happy", "neutral", "sad")
    assert [pair.events.figures(label)[2].value for label in pair.events.labels] == [1, 1, 1]
    assert pair.events.onset(None) == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("name", FILES)
def test_stays_are_not_labels_but_give_the_coded_part(folder: Path, name: str) -> None:
    (found,) = read_annotations(folder / name)
    assert [one.label for one in found.annotations] == ["happy", "sad", "happy", "neutral"]
    assert found.spans == ((0.4, 12.0),)


def test_a_study_agrees_with_its_exports(cli: Cli, clip: Path) -> None:
    """Two films, analysed and exported by the command, against the files as a coder would give them back."""
    for name in ("monday", "tuesday"):
        shutil.copy(clip, cli.folder / f"{name}.avi")
    done = cli.run("analyze", "monday.avi", "tuesday.avi", "--output", "films", "--export", "eaf,boris,bids")
    assert done.popen.returncode == 0, done.err
    for suffix in (".eaf", ".boris", "_events.tsv"):
        coder = cli.folder / f"coder{suffix}"
        coder.mkdir()
        for name in ("monday", "tuesday"):
            (path,) = (cli.folder / "films" / name).glob(f"{name}{suffix}")
            shutil.copy(path, coder)
        done = cli.run("agree", "films", coder.name, "--track", "longest", "--tier", "longest", "--output", "agreed")
        assert done.popen.returncode == 0, done.err
        with (cli.folder / "agreed/agreement.csv").open(newline="") as file:
            rows = {
                row["measure"]: float(row["value"])
                for row in csv.DictReader(file)
                if row["first"] == "fer-stream" and row["scope"] in ("all time", "events") and not row["label"]
            }
        assert (rows["kappa"], rows["agreement"], rows["f1"]) == (1, 1, 1)
        assert rows["onset_error_s"] == pytest.approx(0, abs=1e-3)
        assert "2 films: monday, tuesday" in done.out


def test_the_spreadsheet_for_boris_is_named_as_one(folder: Path) -> None:
    with pytest.raises(AnnotationError, match=r"talk_boris\.xlsx is a spreadsheet or an archive: save the table as"):
        read_annotations(folder / "talk_boris.xlsx")
