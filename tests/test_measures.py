"""Measures of a model, from its file to the events, the tables and the API: of real processes."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import polars
import pytest
from api_client import ask
from foreign import measuring
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from processes import free_port, wait_for
from served import get

import fer_stream
from fer_stream.cli.reading import _expression
from fer_stream.events.cloudevents import decode, encode
from fer_stream.events.schema import event_schema
from fer_stream.inference import models
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.live.api.contract import PREFIX
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli


@pytest.fixture(name="measuring")
def measuring_model(tmp_path: Path) -> Path:
    return measuring(tmp_path / "measuring.onnx")


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
        assert ("measures" in event["data"]) == event["type"].startswith(("emotion.", "face.left"))
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
    stays = [event for event in events if event["type"] == "face.left"]
    assert stays
    for event in stays:
        track = table.filter(polars.col("track") == int(event["subject"].removeprefix("tracks/")))
        for name, level in event["data"]["measures"].items():
            looks = track.filter(polars.col(f"scored_{name}").is_not_null())[name]
            found = (level["lowest"], level["mean"], level["highest"])
            assert found == pytest.approx((looks.min(), looks.mean(), looks.max()), abs=2e-4)
    assert "Measures over time" in (cli.folder / "out/report.html").read_text()
    assert (cli.folder / "out/measures.svg").read_text().startswith("<svg")
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
    named = fer_stream.analyze(clip, settings, threads=2).faces
    given = fer_stream.analyze(clip, threads=2, classifier=OnnxClassifier(measuring)).faces
    assert named.equals(given)
    assert given.columns[-4:] == ["valence", "arousal", "scored_valence", "scored_arousal"]
    assert given["valence"].null_count() < len(given)


class Nowhere:
    """A detector that finds no face."""

    def detect(self, image: Any) -> list[Any]:
        return []


def test_analyze_takes_a_detector_as_an_object(clip: Path, tiny_model: Path) -> None:
    settings = Settings(classifier={"model": tiny_model})  # type: ignore[arg-type]
    assert len(fer_stream.analyze(clip, settings).faces) > 0
    assert len(fer_stream.analyze(clip, settings, detector=Nowhere()).faces) == 0


def test_measures_are_in_the_api_and_in_the_metrics(cli: Cli, clip: Path, measuring: Path, short_folder: Path) -> None:
    address, ports = f"ipc://{short_folder}", [free_port(), free_port()]
    run = cli.start(
        *("run", f"film={clip}", "--loop", "--model", measuring, "--workers", 1, "--journal", "m.db"),
        *("--metrics", f"127.0.0.1:{ports[0]}"), FER_STREAM_ADDRESS=address,
    )  # fmt: skip
    live = cli.start(
        "live", "--page", f"127.0.0.1:{ports[1]}", "--connect", address, FER_STREAM_CLASSIFIER__MODEL=measuring
    )
    live.until(lambda: "the live page is at" in live.out, "the page")
    url = f"http://127.0.0.1:{ports[1]}/"

    def faces() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ask(url, "/cameras/film")["faces"]
        return [face for face in found if "measures" in face]

    wait_for(lambda: get(url, f"{PREFIX}/cameras/film").status == 200, "the camera", log=lambda: run.err)  # type: ignore[attr-defined]
    face = wait_for(faces, "a face with measures", log=lambda: run.err)[0]
    assert list(face["measures"]) == ["valence", "arousal"]
    assert all(-1 <= value <= 1 for value in face["measures"].values())

    def levels() -> dict[str, float]:
        text = get(f"http://127.0.0.1:{ports[0]}/", "/metrics").body.decode()  # type: ignore[attr-defined]
        found = re.findall(r'fer_stream_measure\{camera="film",measure="(\w+)"\} (\S+)', text)
        return {name: float(value) for name, value in found if value != "NaN"}

    found = wait_for(levels, "measures in the metrics", log=lambda: run.err)
    assert found.keys() == {"valence", "arousal"}
    assert all(-1 <= value <= 1 for value in found.values())

    picture = (files("fer_stream") / "assets/grace_hopper.jpg").read_bytes()
    request = urllib.request.Request(f"{url.rstrip('/')}{PREFIX}/recognize", picture, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        (told,) = json.load(answer)["faces"]
    assert list(told["measures"]) == ["valence", "arousal"]


def test_a_model_without_labels_gives_measures_and_invents_no_label(
    cli: Cli, clip: Path, measuring: Path, short_folder: Path
) -> None:
    sidecar = models.sidecar_of(measuring)
    text = re.sub(r"(?s)\[labels\].*?\n\n", "[labels]\nnames = []\n\n", sidecar.read_text())
    sidecar.write_text(text)
    run = cli.run(
        *("run", f"film={clip}", "--policy", "wait", "--model", measuring, "--format", "jsonl", "--workers", 2),
        *("--journal", "m.db"), FER_STREAM_ADDRESS=f"ipc://{short_folder}",
    )  # fmt: skip
    assert run.popen.returncode == 0, run.err
    assert {event["type"] for event in run.events} == {"camera.online", "camera.offline", "face.entered", "face.left"}
    assert all(list(event["data"]["measures"]) == ["valence", "arousal"] for event in run.events
               if event["type"] == "face.left")  # fmt: skip

    done = cli.run("analyze", clip, "-o", "out", "--model", measuring)
    assert done.popen.returncode == 0, done.err
    events = [json.loads(line) for line in (cli.folder / "out/events.jsonl").read_text().splitlines()]
    assert [(event["type"], event["data"]) for event in events] == [(e["type"], e["data"]) for e in run.events]
    table = polars.read_parquet(cli.folder / "out/faces.parquet")
    assert table.columns[-5:] == ["quality", "valence", "arousal", "scored_valence", "scored_arousal"]
    assert table["label"].null_count() == len(table)
    assert table["valence"].null_count() < len(table)
    report = (cli.folder / "out/report.html").read_text()
    assert "Measures over time" in report
    assert "Share of each label" not in report
    assert json.loads((cli.folder / "out/summary.json").read_text())["share"] == {}

    portrait = f"{fer_stream.__path__[0]}/assets/eileen_collins.jpg"
    (face,) = json.loads(cli.run("recognize", portrait, "--model", measuring).out)["faces"]
    assert face["probabilities"] == {}
    assert list(face["measures"]) == ["valence", "arousal"]
    shutil.copy(portrait, cli.folder)
    assert (
        cli.run("analyze", "eileen_collins.jpg", "-o", "one", "--pictures", "--model", measuring).popen.returncode == 0
    )
    checked = cli.run("model", "check", measuring)
    assert "labels    none: there are no intervals and no shares, only measures" in checked.out
    refused = cli.run("analyze", clip, "-o", "two", "--model", measuring, "--labels", "happy")
    assert refused.errors == ["fer-stream: error: the model has only measures, no labels: leave out the labels happy"]


def test_the_status_of_a_face_without_labels_has_its_measures() -> None:
    def shown(**track: Any) -> str:
        return _expression({"track": 1, "label": None, "probabilities": {}} | track)

    assert shown() == "uncertain"
    assert shown(measures={"valence": 0.125, "arousal": -0.5}) == "valence 0.12, arousal -0.50"
    assert shown(probabilities={"happy": 0.4}, measures={"valence": 0.125}) == "uncertain, valence 0.12"
    assert shown(probabilities={"happy": 0.9}, label="happy") == "happy 90%"
