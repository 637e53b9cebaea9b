"""Smoother settings of a model's own: the same in the service and in analyze, and the user's settings win."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from foreign import measuring

import fer_stream
from fer_stream.errors import ConfigError, PluginError
from fer_stream.inference import models
from fer_stream.settings import tree
from fer_stream.settings.tree import Settings, SmootherSettings

if TYPE_CHECKING:
    from processes import Cli


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model that is always happy, whose labels start after a second."""
    path = measuring(tmp_path / "slow.onnx")
    sidecar = models.sidecar_of(path)
    sidecar.write_text(f"{sidecar.read_text()}\n[smoother]\ntau = 0.3\nmin_dwell = 1.0\n")
    return path


def online(events: list[dict[str, Any]]) -> dict[str, Any]:
    (data,) = (event["data"] for event in events if event["type"] == "camera.online")
    return dict(data)


def emotions(events: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(event["type"], event["data"]) for event in events if event["type"].startswith("emotion.")]


@pytest.mark.parametrize("given", [None, "0.0"], ids=["the model's", "the user's"])
def test_service_and_analyze_smooth_alike_and_say_how(
    cli: Cli, clip: Path, own: Path, short_folder: Path, given: str | None
) -> None:
    env = {"FER_STREAM_SMOOTHER__MIN_DWELL": given} if given else {}
    run = cli.run(
        *("run", f"film={clip}", "--policy", "wait", "--model", own, "--format", "jsonl", "--workers", 2),
        *("--journal", "m.db"), FER_STREAM_ADDRESS=f"ipc://{short_folder}", **env,
    )  # fmt: skip
    assert run.popen.returncode == 0, run.err
    dwell = float(given or 1.0)
    used = {**SmootherSettings().model_dump(), "tau": 0.3, "min_dwell": dwell}
    assert online(run.events)["smoother"] == used
    assert emotions(run.events)

    done = cli.run("analyze", clip, "-o", "out", "--model", own, **env)
    assert done.popen.returncode == 0, done.err
    events = [json.loads(line) for line in (cli.folder / "out/events.jsonl").read_text().splitlines()]
    assert online(events)["smoother"] == used
    assert emotions(events) == emotions(run.events)
    assert json.loads((cli.folder / "out/summary.json").read_text())["settings"]["smoother"] == used
    (first,) = {event["subject"] for event in events if event["type"] == "face.entered"} & {"tracks/1"}
    entered = next(e["data"]["start_time"] for e in events if e["type"] == "face.entered" and e["subject"] == first)
    started = next(e["time"] for e in events if e["type"] == "emotion.started" and e["subject"] == first)
    assert (started > entered.replace("00:00:00.", "00:00:01.")) == (dwell == 1.0)


def test_an_analysis_is_not_reused_for_a_setting_that_was_only_the_default(cli: Cli, clip: Path, own: Path) -> None:
    identities = []
    for env in ({}, {}, {"FER_STREAM_SMOOTHER__MIN_DWELL": str(SmootherSettings().min_dwell)}):
        assert cli.run("analyze", clip, "-o", "out", "--model", own, **env).popen.returncode == 0
        identities.append(json.loads((cli.folder / "out/summary.json").read_text())["identity"])
    assert identities[0] == identities[1] != identities[2]


def test_settings_that_do_not_fit_the_models_are_refused(cli: Cli, clip: Path, own: Path, short_folder: Path) -> None:
    text = models.sidecar_of(own).read_text()
    models.sidecar_of(own).write_text(f"{text}enter = 0.5\n")
    reason = (
        "the smoother settings leave = 0.6 do not fit the model's own smoother settings, tau = 0.3, enter = 0.5, "
        "min_dwell = 1.0: leave must be below enter, or labels flicker"
    )
    for command in (("analyze", clip, "-o", "out"), ("run", f"film={clip}", "--journal", "m.db")):
        done = cli.run(
            *command, "--model", own,
            FER_STREAM_SMOOTHER__LEAVE="0.6", FER_STREAM_ADDRESS=f"ipc://{short_folder}",
        )  # fmt: skip
        assert done.popen.returncode not in (0, None)
        assert reason in done.err
        assert "Traceback" not in done.err


def test_what_is_not_set_stays_unset_in_a_child() -> None:
    for given in ({}, {"tau": 0.25}, {"tau": 0.3, "leave": 0.1}, dict(SmootherSettings())):
        settings = Settings(smoother=SmootherSettings(**given))
        handover = tree.save(settings)
        found = tree.load(file=Path(handover.argument))
        handover.close()
        assert found == settings
        assert found.smoother.model_fields_set == given.keys()


def test_a_set_value_wins_and_the_model_wins_over_the_default() -> None:
    own = {"tau": 0.4, "enter": 0.7}
    assert SmootherSettings().with_model({}) == SmootherSettings()
    assert SmootherSettings().with_model(own) == SmootherSettings(tau=0.4, enter=0.7)
    assert SmootherSettings(tau=0.25).with_model(own) == SmootherSettings(tau=0.25, enter=0.7)
    with pytest.raises(ConfigError, match="leave must be below enter"):
        SmootherSettings(leave=0.6).with_model({"enter": 0.5})


class Happy:
    """A classifier as an object, which brings settings."""

    labels = ("happy", "sad")
    version = "happy 1"
    smoother: ClassVar = {"min_dwell": 100.0}

    def classify(self, image: Any, faces: Any) -> Any:
        import numpy as np  # noqa: PLC0415

        return np.tile(np.float32([1, 0]), (len(faces), 1))


def test_an_object_brings_settings_too(clip: Path) -> None:
    assert fer_stream.analyze(clip, classifier=Happy()).faces["label"].is_null().all()
    shorter = Settings(smoother=SmootherSettings(min_dwell=0.0))
    assert not fer_stream.analyze(clip, shorter, classifier=Happy()).faces["label"].is_null().all()


@pytest.mark.parametrize("own", [{"tau": "slow"}, {"tau": 0}, {"speed": 2.0}])
def test_an_object_with_invalid_settings_is_refused(clip: Path, own: dict[str, Any]) -> None:
    classifier = Happy()
    classifier.smoother = own  # type: ignore[misc]
    with pytest.raises(PluginError, match=f"the model's own smoother settings, {next(iter(own))} = .* are not valid: "):
        fer_stream.analyze(clip, classifier=classifier)
