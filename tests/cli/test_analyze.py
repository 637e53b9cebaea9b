"""`fer-stream analyze` with exports, trials, several films, and photographs: what strangers' files do."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import polars
import pytest
import webvtt

import fer_stream
from fer_stream.analysis import study
from fer_stream.cli import main
from fer_stream.cli.analyze import analyze
from fer_stream.interchange.formats import read_annotations
from fer_stream.operations.process import INTERRUPTED

if TYPE_CHECKING:
    from processes import Cli

PORTRAITS = Path(fer_stream.__file__).parent / "assets"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--export", "srt"], 2, "--export 'srt' is unknown: give one or more of eaf, boris, bids, vtt, with commas"),
        (["--export", ""], 2, "--export '' is unknown"),
        (["--export", "eaf,,vtt"], 2, "--export '' is unknown"),
        (["--export", "eaf", "--pictures"], 2, "--export does not work with --pictures, which are unrelated images"),
        (["--markers", "m.csv", "--pictures"], 2, "--markers does not work with --pictures"),
        (["--markers", "nothing.csv"], 1, "nothing.csv"),
        (["--markers", "m.csv"], 1, "m.csv has a heading, but no markers below it"),
        (["--markers", "unknown.csv"], 1, "a trial's film 'other.mp4' is none of those to analyse (talk.mp4)"),
        (["--markers", "overlap.csv"], 1, "the trials 'a' and 'b' of talk.mp4 overlap"),
        (["--markers", "talk.mp4"], 1, "talk.mp4"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_film_is_read(
    options: list[str], code: int, message: str, cli: Cli, clip: Path
) -> None:
    shutil.copy(clip, cli.folder / "talk.mp4")
    (cli.folder / "m.csv").write_text("start,end,name\n")
    (cli.folder / "unknown.csv").write_text("start,end,name,film\n0,1,a,other.mp4\n")
    (cli.folder / "overlap.csv").write_text("start,end,name\n0,2,a\n1,3,b\n")
    done = cli.run("analyze", "talk.mp4", "--output", "out", *options)
    assert done.popen.returncode == code
    (error,) = done.errors
    assert message in error
    assert "Traceback" not in done.err
    assert not (cli.folder / "out").exists()


def _black(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 15, (320, 240))
    for _ in range(30):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()


def test_a_folder_of_films_of_all_kinds(cli: Cli, clip: Path) -> None:
    hostile = 'sad <&"> é, two.avi'
    for folder in ("films", "more"):
        (cli.folder / folder).mkdir()
    shutil.copy(clip, cli.folder / "films" / hostile)
    shutil.copy(clip, cli.folder / "more" / "black.avi")
    _black(cli.folder / "films/black.avi")
    (cli.folder / "films/broken.mp4").write_bytes(b"no film")
    (cli.folder / "films/cut.avi").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    shutil.copy(PORTRAITS / "grace_hopper.jpg", cli.folder / "face.jpg")
    quoted = hostile.replace('"', '""')
    rows = ["Film;Name;Start;End", f'"{quoted}";Grüße, <&>;0,0;1,5', "black-2;late;1;3", "cut;never;3,8;4", ""]
    table = "\r\n".join(rows)
    (cli.folder / "trials.csv").write_bytes(table.encode("cp1252"))
    words = ["analyze", "films", "more/black.avi", "face.jpg", "--output", "out"]
    words += ["--markers", "trials.csv"]
    done = cli.run(*words)
    assert done.popen.returncode == 1, done.err
    about_broken, about_end, about_trial = done.errors
    assert "broken.mp4" in about_broken
    assert "cut.avi" in about_end
    assert "the trial 'never' starts at 3.8 s, but the last frame of cut.avi is at " in about_trial
    assert "2 of 6 not complete: see the errors above" in done.err
    assert "5 of 6 films in common tables" in done.err
    out = cli.folder / "out"
    frames = polars.read_parquet(out / "frames.parquet").group_by("film", "trial").len()
    counts = {(film, trial): count for film, trial, count in frames.iter_rows()}
    assert counts["sad-two", "Grüße, <&>"] == 23
    assert counts["black-2", "late"] == 30
    assert {film for film, _ in counts} == {"sad-two", "black", "black-2", "cut", "face"}
    with (out / "faces.csv").open(newline="", encoding="utf-8") as file:
        assert {row["film"] for row in csv.DictReader(file)} == {"sad-two", "black-2", "cut", "face"}
    summary = json.loads((out / "summary.json").read_text())
    assert {film["film"]: "error" in film for film in summary["films"]} == {
        "black": False, "broken": True, "cut": True, "sad-two": False, "black-2": False, "face": False,
    }  # fmt: skip

    done = cli.run(*words[:3], *words[4:6], "--export", "eaf,boris,bids,vtt")
    assert done.popen.returncode == 1, "the broken films are still broken"
    assert done.err.count("done already") == 4
    assert [cue.text for cue in webvtt.read(str(out / "sad-two/sad-two.vtt"))]
    assert not [cue.text for cue in webvtt.read(str(out / "black/black.vtt"))]
    assert {one.label for one in read_annotations(out / "cut/cut.eaf")[0].annotations} == {"happy"}
    assert polars.read_parquet(out / "sad-two/faces.parquet")["trial"].n_unique() == 2, "trials stay"


def test_an_interruption_while_it_starts_and_while_the_common_tables_are_written(
    clip: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("FER_STREAM_CLASSIFIER__MODEL", str(tiny_model))
    shutil.copy(clip, tmp_path / "other.avi")
    words = ["analyze", str(clip), str(tmp_path / "other.avi"), "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr("fer_stream.cli.analyze.begin", interrupted)
        assert analyze(main.parser().parse_args(words)) == INTERRUPTED, "also while it starts"
    with monkeypatch.context() as patch:
        patch.setattr(study, "_join_parquet", interrupted)
        assert analyze(main.parser().parse_args(words)) == INTERRUPTED
    assert "nothing half-written is in" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other", "portraits"]
    assert analyze(main.parser().parse_args(words)) == 0
    assert (tmp_path / "out/faces.parquet").exists()


def test_a_message_lists_what_a_repeated_analysis_lacks(cli: Cli, clip: Path) -> None:
    (cli.folder / "trials.csv").write_text("start,end,name\n0,2,a\n")
    words = ["analyze", clip, "--output", "out"]
    added = ["--export", "vtt,eaf", "--markers", "trials.csv"]
    assert "give" not in cli.run(*words, *added).err
    assert "give" not in cli.run(*words).err, "they stay"
    done = cli.run(*words, "--min-face", "50")
    assert "analysed again, without exports and trials: give --export and --markers again" in done.err
    assert not (cli.folder / "out/portraits.eaf").exists(), "it would be of another analysis"
    assert "trial" not in (cli.folder / "out/faces.csv").read_text().partition("\n")[0]
    cli.run(*words, "--min-face", "50", *added)
    assert (cli.folder / "out/portraits.eaf").exists()


def test_photographs_get_a_hint_although_they_have_no_track(cli: Cli) -> None:
    (album := cli.folder / "album").mkdir()
    for picture in PORTRAITS.glob("*.jpg"):
        shutil.copy(picture, album)
    (album / "notes.txt").write_text("not an image")
    done = cli.run("analyze", "album", "--output", "out")
    assert done.popen.returncode == 0
    assert done.err.count("seem to be unrelated pictures") == 1
    assert done.err.count("notes.txt") == 1
    summary = json.loads((cli.folder / "out/summary.json").read_text())
    assert (summary["tracks"], summary["faces"]) == (0, 2)
    assert "the images in 'album' seem to be unrelated pictures" in summary["hint"]
    assert "analyze --pictures" in (cli.folder / "out/report.html").read_text()
    done = cli.run("analyze", "album", "--output", "out", "--pictures")
    assert done.popen.returncode == 0
    assert "unrelated" not in done.err
    assert "hint" not in json.loads((cli.folder / "out/summary.json").read_text())


def test_the_frames_of_a_film_get_no_hint(cli: Cli, clip: Path) -> None:
    (folder := cli.folder / "frames").mkdir()
    film = cv2.VideoCapture(str(clip))
    for number in range(20):
        assert cv2.imwrite(str(folder / f"{number}.png"), film.read()[1])
    done = cli.run("analyze", "frames", "--output", "out")
    assert done.popen.returncode == 0
    assert "unrelated" not in done.err
    assert "hint" not in json.loads((cli.folder / "out/summary.json").read_text())


def test_a_film_without_trials_among_others(cli: Cli, clip: Path) -> None:
    _black(cli.folder / "black.avi")
    trials = cli.folder / "trials.csv"
    trials.write_text("start,end,name\n0,1,a\n")
    words = ["analyze", clip, "black.avi", "--output", "out", "--markers", "trials.csv"]
    cli.run(*words)
    trials.write_text("film,start,end,name\nportraits.avi,0,1,a\n")
    done = cli.run(*words)
    assert done.popen.returncode == 0
    assert "black.avi: 0 trials in its tables" in done.err
    assert "analysed again" not in done.err, "nothing was"
    with (cli.folder / "out/statistics.csv").open(newline="") as file:
        film, black = sorted(csv.DictReader(file), key=lambda row: row["film"], reverse=True)
    columns = list(film)
    assert columns.index("trial") < columns.index("uncertain_s"), "only labels follow"
    assert (film["trial"], black["trial"]) == ("a", "")
    labels = columns[columns.index("uncertain_s") + 1 :]
    assert labels == ["angry_s", "disgust_s", "fear_s", "happy_s", "neutral_s", "sad_s", "surprise_s"]
    assert {float(black[label]) for label in labels} == {0.0}, "seen for no time, which is known"
    told = cli.run("stats", "--events", "out", "--format", "csv").out
    assert [row["film"] for row in csv.DictReader(told.splitlines())] == ["black", "portraits"], "as in the tables"
