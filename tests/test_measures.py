"""Measures of a model, from its file to the events, the tables and the API: of real processes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import polars
import pytest
from foreign import EMOTIEFF
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

import fer_stream
from fer_stream.events.cloudevents import decode, encode
from fer_stream.events.schema import event_schema
from fer_stream.inference import models
from fer_stream.inference.classifiers import adoption
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli

ANSWERS = {
    "channels": "RGB",
    "pixels": "imagenet",
    "labels": "angry,contempt,disgust,fear,happy,neutral,sad,surprise",
    "measure": "valence=8; arousal=9",
    "crop": "box",
    "license": "MIT",
    "trained-on": "nothing",
}


@pytest.fixture
def measuring(tmp_path: Path) -> Path:
    """A model of eight labels, which is always happy, and two measures."""
    path = EMOTIEFF.write(tmp_path / "measuring.onnx")
    models.sidecar_of(path).write_text(adoption.adopt(models.load(path), ANSWERS, None))
    return path


def test_measures_are_in_events_and_tables(cli: Cli, clip: Path, measuring: Path, short_folder: Path) -> None:
    address = {"FER_STREAM_ADDRESS": f"ipc://{short_folder}"}
    run = cli.run(
        *("run", f"film={clip}", "--policy", "wait", "--model", measuring, "--format", "jsonl", "--workers", 2),
        *("--journal", "m.db"), **address,
    )  # fmt: skip
    assert run.popen.returncode == 0, run.err
    about = [event for event in run.events if event["type"].startswith("emotion.")]
    assert {event["type"] for event in about} == {"emotion.started", "emotion.ended"}
    for event, line in zip(run.events, run.out.splitlines(), strict=True):
        Draft202012Validator(event_schema()).validate(event)
        assert encode(decode(line)) == line
        assert ("measures" in event["data"]) == event["type"].startswith("emotion.")
    for event in about:
        assert list(event["data"]["measures"]) == ["valence", "arousal"]
        for level in event["data"]["measures"].values():
            assert -1 <= level["lowest"] <= level["mean"] <= level["highest"] <= 1

    done = cli.run("analyze", clip, "-o", "out", "--model", measuring)
    assert done.popen.returncode == 0, done.err
    events = [json.loads(line) for line in (cli.folder / "out/events.jsonl").read_text().splitlines()]
    ours = [(event["type"], event["data"]) for event in run.events if event["type"].startswith("emotion.")]
    assert [(event["type"], event["data"]) for event in events if event["type"].startswith("emotion.")] == ours
    table = polars.read_parquet(cli.folder / "out/faces.parquet")
    assert table.columns[-4:] == ["valence", "arousal", "scored_valence", "scored_arousal"]
    scored = table.filter(polars.col("quality").is_not_null())
    assert scored["scored_valence"].null_count() == 0
    assert scored["scored_valence"].n_unique() > 3
    for event in (event for event in events if event["type"] == "emotion.ended"):
        track = table.filter(polars.col("track") == int(event["subject"].removeprefix("tracks/")))
        level = event["data"]["measures"]["valence"]
        assert track["valence"].max() >= level["mean"] >= track["valence"].min()
    digests = json.loads((cli.folder / "out/summary.json").read_text())["models"]
    assert digests["measuring.toml"] == models.files(measuring)["measuring.toml"]


def test_a_picture_has_measures(cli: Cli, measuring: Path) -> None:
    portraits = [f"{fer_stream.__path__[0]}/assets/{name}.jpg" for name in ("eileen_collins", "grace_hopper")]
    told = [json.loads(line) for line in cli.run("recognize", *portraits, "--model", measuring).out.splitlines()]
    found: list[dict[str, Any]] = [face for line in told for face in line["faces"]]
    assert len(found) >= 2
    assert all(list(face["measures"]) == ["valence", "arousal"] for face in found)
    assert found[0]["measures"] != found[-1]["measures"]
    for portrait in portraits:
        shutil.copy(portrait, cli.folder)
    done = cli.run("analyze", "eileen_collins.jpg", "-o", "out", "--pictures", "--model", measuring)
    assert done.popen.returncode == 0, done.err
    row = polars.read_csv(cli.folder / "out/faces.csv").to_dicts()[0]
    assert row["valence"] == pytest.approx(found[0]["measures"]["valence"], abs=1e-3)


def test_a_label_named_as_a_measure_is_refused_by_analyze(cli: Cli, clip: Path, measuring: Path) -> None:
    text = models.sidecar_of(measuring).read_text()
    models.sidecar_of(measuring).write_text(text.replace('"angry"', '"valence"'))
    done = cli.run("analyze", clip, "-o", "out", "--model", measuring)
    assert done.popen.returncode == 1
    (error,) = done.errors
    assert "the model's label or measure 'valence' is also the name of a column" in error


def test_a_recognizer_names_its_measures(measuring: Path) -> None:
    from fer_stream.inference.recognizer import Recognizer  # noqa: PLC0415

    with_measures = Recognizer.from_settings(Settings(classifier={"model": measuring}))  # type: ignore[arg-type]
    assert [measure.name for measure in with_measures.measures] == ["valence", "arousal"]
    assert Recognizer.from_settings(Settings()).measures == ()


def test_analyze_takes_a_model_as_an_object(clip: Path, measuring: Path) -> None:
    settings = Settings(classifier={"model": measuring})  # type: ignore[arg-type]
    named = fer_stream.analyze(clip, settings, threads=2)
    given = fer_stream.analyze(clip, threads=2, classifier=OnnxClassifier(measuring))
    assert named.equals(given)
    assert given.columns[-4:] == ["valence", "arousal", "scored_valence", "scored_arousal"]
    assert given["valence"].null_count() < len(given)


class Nowhere:
    """A detector that finds no face."""

    def detect(self, image: Any) -> list[Any]:
        return []


def test_analyze_takes_a_detector_as_an_object(clip: Path, tiny_model: Path) -> None:
    settings = Settings(classifier={"model": tiny_model})  # type: ignore[arg-type]
    assert len(fer_stream.analyze(clip, settings)) > 0
    assert len(fer_stream.analyze(clip, settings, detector=Nowhere())) == 0
