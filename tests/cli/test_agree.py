"""The command agree, as users call it, and the sentences it answers with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli.command import fer_stream

if TYPE_CHECKING:
    from pathlib import Path

US = "film,start,end,label\na,0,10,happy\na,10,14,sad\nb,0,5,neutral\nb,6,12,happy\n"
ANNA = "film,start,end,label\na,0,10,joy\na,10,14,sad\nb,0,5,neutral\nb,6,12,joy\n"
FILES = ["agreement.csv", "agreement.html", "summary.json", "table.md", "table.tex"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "us.csv").write_text(US)
    (tmp_path / "anna.csv").write_text(ANNA)
    return tmp_path


def _error(*arguments: str) -> tuple[int, str]:
    code, out, err = fer_stream("agree", *arguments)
    assert out == ""
    (line,) = err.splitlines()
    return code, line.removeprefix("fer-stream: error: ")


def test_perfect_agreement() -> None:
    code, out, err = fer_stream("agree", "us.csv", "anna.csv", "--map", "joy=happy")
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == [
        "2 films: a, b",
        "us and anna, 2 films, 0.4 min",
        "  agreement        1.00 [1.00, 1.00]",
        "  Cohen's kappa    1.00 [1.00, 1.00]",
    ]


def test_a_label_is_replaced_by_one_label() -> None:
    assert _error("us.csv", "anna.csv", "--map", "joy=happy", "--map", "joy=sad") == (
        2, "--map replaces the label joy by two others: leave out one of them",
    )  # fmt: skip
    assert fer_stream("agree", "us.csv", "anna.csv", "--map", "joy=happy", "--map", "joy=happy")[0] == 0


def test_valence() -> None:
    code, out, _ = fer_stream("agree", "us.csv", "anna.csv", "--map", "joy=surprise", "--by", "valence")
    assert code == 0
    assert "  Cohen's kappa    1.00 [1.00, 1.00]" in out


def test_several_coders_and_their_folders(folder: Path) -> None:
    """Anna's tables are in a folder, a film each; Ben's file codes one of the films."""
    (folder / "anna").mkdir()
    for film in "ab":
        rows = [line.split(",", 1)[1] for line in ANNA.splitlines() if line[0] in ("f", film)]
        (folder / "anna" / f"{film}.csv").write_text("\n".join(rows))
    (folder / "a_ben.csv").write_text("start,end,label\n0,14,happy\n")
    code, out, err = fer_stream("agree", "us.csv", "anna", "a_ben.csv", "--map", "joy=happy")
    assert (code, err) == (0, "")
    heads = [line for line in out.splitlines() if " and " in line and "min" in line]
    assert heads == ["us and anna, 2 films, 0.4 min", "us and ben, 1 film, 0.2 min", "anna and ben, 1 film, 0.2 min"]
    assert [line.split()[:4] for line in out.splitlines() if line.startswith("alpha")] == [
        ["alpha", "of", "all", "time"], ["alpha", "of", "labelled", "time"],
    ]  # fmt: skip


def test_tracks_and_tiers(folder: Path) -> None:
    head = "film,start,end,label,track\n"
    (folder / "us.csv").write_text(head + "a,0,9,happy,1\na,1,9,sad,2\nb,0,9,sad,1\n")
    (folder / "anna.csv").write_text(head + "a,1,9,sad,left\na,0,9,happy,right\nb,0,9,sad,left\n")
    code, message = _error("us.csv", "anna.csv")
    assert (code, message) == (
        1, "us.csv, film a, has two labels at 1 s, on the tracks '1' and '2': choose one of '1', '2' with --track",
    )  # fmt: skip
    code, out, _ = fer_stream("agree", "us.csv", "anna.csv", "--track", "a=2", "--tier", "left")
    assert code == 0
    assert "  agreement        1.00 [1.00, 1.00]\n" in out
    code, out, _ = fer_stream("agree", "us.csv", "anna.csv", "--track", "longest", "--tier", "longest")
    assert code == 0
    assert "  agreement        1.00 [1.00, 1.00]\n" in out
    assert _error("us.csv", "anna.csv", "--track", "c=2", "--tier", "left") == (
        1, "--track: there is no film 'c'; ours are a, b",
    )  # fmt: skip
    assert _error("us.csv", "anna.csv", "--track", "7") == (
        1, "us.csv, film a, has no track '7' with labels: it has '1', '2'; choose with --track",
    )  # fmt: skip


def test_the_overlap_and_the_step(folder: Path) -> None:
    command = ("agree", "us.csv", "anna.csv", "--step", "0.5", "--overlap")
    (folder / "anna.csv").write_text("film,start,end,label\na,2,12,happy\na,12,14,sad\nb,0,5,neutral\nb,6,12,happy\n")
    loose, strict = (fer_stream(*command, share)[1] for share in ("0.5", "1"))
    assert "  event F1         1.00 [1.00, 1.00]" in loose
    assert "  event F1         0.50 " in strict
    code, _, err = fer_stream(*command, "0.9", "--output", "out")
    assert (code, err) == (0, "-> out/agreement.html\n")
    summary = json.loads((folder / "out/summary.json").read_text())
    assert (summary["step_s"], summary["overlap"]) == (0.5, 0.9)


def test_what_cannot_be_calibrated() -> None:
    command = ("us.csv", "anna.csv", "--map", "joy=happy", "--calibrate", "door")
    assert _error(*command) == (
        1, "--calibrate needs the scores of the model: give folders of fer-stream analyze as OURS",
    )  # fmt: skip
    assert _error(*command, "--by", "valence") == (
        2, "--calibrate needs labels, not their valence: leave out --by valence",
    )  # fmt: skip


def test_files_of_an_earlier_comparison_are_replaced_and_others_kept(folder: Path) -> None:
    command = ("agree", "us.csv", "anna.csv", "--map", "joy=happy", "--output", "out")
    code, _, err = fer_stream(*command)
    assert (code, err) == (0, "-> out/agreement.html\n")
    assert sorted(path.name for path in (folder / "out").iterdir()) == FILES
    assert json.loads((folder / "out/summary.json").read_text())["raters"] == ["us", "anna"]
    (folder / "out/notes.txt").write_text("mine")
    assert fer_stream(*command)[0] == 0
    assert (folder / "out/notes.txt").read_text() == "mine"
    (folder / "out/table.md").write_text("mine, too")
    code, _, err = fer_stream(*command)
    assert code == 2
    assert "table.md' was not written by fer-stream" in err
    assert (folder / "out/table.md").read_text() == "mine, too"
    assert fer_stream(*command, "--force")[0] == 0
    assert (folder / "out/table.md").read_text().startswith("**Agreement")


def test_an_analysis_is_not_replaced(folder: Path) -> None:
    (folder / "talk").mkdir()
    for name in ("summary.json", "events.jsonl"):
        (folder / "talk" / name).write_text("{}")
    code, out, err = fer_stream("agree", "us.csv", "anna.csv", "--map", "joy=happy", "--output", "talk")
    assert code == 2
    assert out
    assert "'talk' holds an analysis of a recording: choose another folder" in err


def test_errors(folder: Path) -> None:
    assert _error("us.csv", "anna.csv", "--force") == (
        2, "--force applies to the files in a folder: give --output, too",
    )  # fmt: skip
    assert _error("us.csv", "nobody.csv") == (1, "nobody.csv cannot be read: no such file or directory")
    (folder / "strange.csv").write_text("film,start,end,label\na,0,10,froh\n")
    assert _error("us.csv", "strange.csv") == (
        1,
        "no label of strange is one of ours: there are froh, ours are happy, neutral, sad; map them, such as "
        "--map froh=happy",
    )
    (folder / "blocked").write_text("")
    code, _, err = fer_stream("agree", "us.csv", "anna.csv", "--output", "blocked")
    assert (code, err.splitlines()[-1]) == (2, "fer-stream: error: 'blocked' is a file: give a folder to write into")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--map", "joy"), "'joy' is no mapping: give THEIRS=OURS, such as joy=happy"),
        (("--track", "=3"), "'=3' is no track: give a number, FILM=NUMBER, or longest"),
        (("--overlap", "0"), "'0' is not a number above 0 and up to 1"),
        (("--step", "inf"), "'inf' is not a time"),
        (("--calibrate", "a/b"), "'a/b' cannot be the name of a camera: give its name, or * for any"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = fer_stream("agree", "us.csv", "anna.csv", *arguments)
    assert code == 2
    assert message in err + capsys.readouterr().err
