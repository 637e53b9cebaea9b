"""Events are compared with the cues; the film shows them; the shipped model finds them."""

import itertools

import numpy as np
import pytest
from training_runs import command

from fer_stream.errors import ConfigError, SourceError
from fer_stream.inference import models
from training import acted, data
from training.acted import Cue

CUES = [Cue("1", "neutral", 2), Cue("2", "happy", 3), Cue("3", "neutral", 1.5), Cue("4", "happy", 2)]


def test_a_change_is_found_by_the_first_event_of_its_label():
    started = [(0.3, "neutral"), (2.4, "happy"), (3.0, "sad"), (4.0, "happy"), (6.5, "happy")]
    found = acted.judge(CUES, started, ["neutral", "happy", "happy", "neutral", "happy"])
    assert found.delays == pytest.approx((0.4, 0.0))
    assert found.missed == ("neutral at 5 s",)
    assert (found.events, found.frames) == (4, 3)
    nothing = acted.judge(CUES, [], [])
    assert (nothing.delays, nothing.events, nothing.frames) == ((), 0, 0)
    assert "nan" in acted.report(acted.CUES, nothing)


def test_the_film_shows_each_face_in_its_time():
    shown = [np.full((acted.HEAD, acted.HEAD), shade, np.uint8) for shade in (20, 60, 180, 240)]
    frames = list(acted.film(shown, CUES, rate=10))
    assert len(frames) == 85
    assert frames[10][0] == 1.0
    assert frames[0][1].shape == (acted.SIZE[1], acted.SIZE[0], 3)
    at = {time: frames[round(time * 10)][1][150:210, 210:270].mean() for time in (1.0, 2.1, 4.0, 6.0, 8.0)}
    assert at[1.0] == pytest.approx(20, abs=6)
    assert at[2.1] == pytest.approx(20 + 40 * 0.4, abs=6), "a change takes a quarter of a second"
    assert [at[time] for time in (4.0, 6.0, 8.0)] == pytest.approx([60, 180, 240], abs=10)
    again = list(acted.film(shown, CUES, rate=10))
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(frames, again, strict=True))


def test_our_cues_have_20_changes_and_a_short_pause_between_smiles():
    cues = acted.read()
    assert len(cues) == 21
    assert all(one.label != other.label for one, other in itertools.pairwise(cues))
    assert any(cue.seconds == 1.5 for cue in cues[1:-1])
    assert {cue.label for cue in cues} <= set(data.LABELS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("face,label,seconds\n1,happy,2\n", "needs at least two cues"),
        ("face,label,seconds\n1,happy,soon\n2,sad,3\n", "line 2: it must have a face, a label and seconds"),
        ("face,label,seconds\n1,happy,3\n2,sad,nan\n", "line 3: seconds must be above 0.25"),
        ("face,label\n1,happy\n", "line 2: it must have a face"),
    ],
)
def test_wrong_cues_are_reported(tmp_path, text, sentence):
    path = tmp_path / "cues.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        acted.read(path)
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        acted.read(tmp_path / "none.csv")


def test_a_face_that_is_not_there_is_reported(csv_file):
    faces = data.load(csv_file)
    with pytest.raises(SourceError, match="no row 4711"):
        acted.heads([Cue("4711", "happy", 1)], faces)
    with pytest.raises(SourceError, match=r"none\.jpg is not a picture"):
        acted.heads([Cue("none.jpg", "happy", 1)], faces)


def test_the_shipped_model_finds_two_portraits(csv_file, tmp_path):
    cues = tmp_path / "cues.csv"
    cues.write_text(
        "face,label,seconds\ngrace_hopper.jpg,neutral,3\neileen_collins.jpg,happy,3\ngrace_hopper.jpg,neutral,3\n"
    )
    model = models.folder() / "emotion-ferplus.onnx"
    done = command("acted", model, csv_file, "--cues", cues, "--film", tmp_path / "film.mp4")
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1]
    assert row.startswith("| emotion-ferplus.onnx | 2 of 2 | 2 of 2 |")
    assert row.endswith("| 2 | 2 |  |")
    assert (tmp_path / "film.mp4").stat().st_size > 10_000
