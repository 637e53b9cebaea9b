"""Every figure of every kind of report is computed again from the tables, and none is left out."""

from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from figures import check_film, check_pictures, check_several_pictures, check_study, table
from foreign import measuring
from reported import falsified

import fer_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from beside import Beside
    from processes import Cli

PORTRAITS = Path(fer_stream.__file__).parent / "assets"

MODEL = {"FER_STREAM_CLASSIFIER__MODEL": "emotion-ferplus.onnx"}

TRIALS = [("first", 0.0, 1.0), ("second", 1.0, 2.2), ("first", 2.5, 2.8)]

PLACES = """
[cameras.portraits.zones]
left = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]
right = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]

[cameras.portraits.lines.door]
points = [[0.78, 0.0], [0.78, 1.0]]
to_right = "in"
to_left = "out"
"""


def _analyse(cli: Cli, films: list[Path]) -> Path:
    (cli.folder / "places.toml").write_text(PLACES)
    lines = ["start,end,name", *(f"{begin},{end},{name}" for name, begin, end in TRIALS)]
    (cli.folder / "trials.csv").write_text("\n".join(lines))
    options = ("--output", "study", "--markers", "trials.csv", "--config", "places.toml")
    done = cli.run("analyze", *films, *options, **MODEL)
    assert done.popen.returncode == 0, done.err
    return cli.folder / "study"


def _code(folder: Path, path: Path) -> None:
    """Write the labels that a coder might give track 1 of each film: other times than ours, and once another label."""
    events = table(folder / "events.csv")
    spans = events[(events["type"] == "emotion.ended") & (events["track"] == 1)].groupby("film").first()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["film", "start", "end", "label"])
        for film, span in spans.iterrows():
            late = span["start"] + 0.75 * (span["end"] - span["start"])
            writer.writerow([film, 0.0, span["start"] + 0.21, "sad"])
            writer.writerow([film, span["start"] + 0.21, round(late, 2), span["label"]])
            writer.writerow([film, round(late, 2), span["end"], "neutral" if span["label"] != "neutral" else "sad"])


def _page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def _complete(check: Callable[[Path, str], None], folder: Path) -> None:
    """Assert that a check passes, and fails if any number of the report is wrong."""
    page = _page(folder)
    check(folder, page)
    missed = []
    for what, wrong in falsified(page):
        try:
            check(folder, wrong)
        except (AssertionError, LookupError, ValueError):
            continue
        missed.append(what)
    assert not missed, "no check looks at these numbers"


def test_every_figure_of_the_demo_can_be_computed_again(cli: Cli, clip: Path) -> None:
    other = cli.folder / "again.avi"
    shutil.copy(clip, other)
    folder, coder = _analyse(cli, [clip, other]), cli.folder / "anna.csv"
    _code(folder, coder)
    done = cli.run("agree", "study", coder, "--track", "1", "--output", "study/agreement", **MODEL)
    assert done.popen.returncode == 0, done.err
    assert clip.stem == "portraits"
    _complete(partial(check_film, trials=TRIALS, places=True), folder / "portraits")
    check_film(folder / "again", _page(folder / "again"), TRIALS)
    _complete(partial(check_study, trials=TRIALS, coder=coder), folder)


def test_every_figure_of_real_films_can_be_computed_again(cli: Cli, beside: Beside) -> None:
    folder = _analyse(cli, beside.clips())
    for film in sorted(path.parent for path in folder.glob("*/report.html")):
        check_film(film, _page(film), TRIALS)
    check_study(folder, _page(folder), TRIALS)


def test_every_figure_of_measures_and_valence_can_be_computed_again(cli: Cli, clip: Path) -> None:
    model = measuring(cli.folder / "measuring.onnx")
    done = cli.run("analyze", clip, "--output", "out", "--model", model, FER_STREAM_LABELS="valence")
    assert done.popen.returncode == 0, done.err
    labels = ("negative", "neutral", "positive")
    _complete(partial(check_film, labels=labels, measures=("valence", "arousal")), cli.folder / "out")


@pytest.mark.parametrize("several", [False, True])
def test_every_figure_of_pictures_can_be_computed_again(cli: Cli, several: bool) -> None:
    album = cli.folder / "album"
    shutil.copytree(PORTRAITS, album, ignore=shutil.ignore_patterns("*.md", "models"))
    (album / "wall.png").write_bytes(cv2.imencode(".png", np.full((90, 90, 3), 80, np.uint8))[1].tobytes())
    inputs = sorted(album.iterdir()) if several else [album]
    done = cli.run("analyze", *inputs, "--output", "found", "--pictures", **MODEL)
    assert done.popen.returncode == 0, done.err
    _complete(check_several_pictures if several else check_pictures, cli.folder / "found")
