from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_stream import plugins
from fer_stream.errors import PluginError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources import open_source

PACKAGE = Path(__file__).parents[1] / "plugin"

BUILT_IN = {
    "sources": {"demo", "media"},
    "detectors": {"facenet", "mtcnn"},
    "classifiers": {"onnx"},
    "transports": {"memory", "zeromq"},
    "batch_sinks": {"file", "kafka", "mqtt", "mqtts", "nats", "postgres", "webhook"},
    "sinks": {"stdout"},
    "journals": {"nats", "sqlite"},
}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_built_in_plug_ins_are_registered_as_entry_points(kind):
    assert BUILT_IN[kind] <= set(plugins.available(kind))
    for name in BUILT_IN[kind]:
        assert callable(plugins.load(kind, name))


def test_the_error_for_an_unknown_name_lists_the_installed_ones():
    with pytest.raises(PluginError, match="there is no sink 'nix'; installed are: stdout"):
        plugins.load("sinks", "nix")


@pytest.fixture
def register(tmp_path, monkeypatch):
    """``register(kind, code)`` installs a module with that code as the plug-in ``broken``, for this process."""

    def install(kind, code):
        information = tmp_path / "broken-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[fer_stream.{kind}]\nbroken = broken_{kind}:factory\n")
        (tmp_path / f"broken_{kind}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_a_plug_in_with_missing_dependencies_is_reported(register):
    register("sinks", "import a_package_that_nobody_has\n")
    with pytest.raises(PluginError, match=r"the sink plug-in 'broken' cannot be imported: .*a_package_that_nobody_has"):
        plugins.load("sinks", "broken")


def test_a_plug_in_without_its_function_is_reported(register):
    register("sinks", "")
    with pytest.raises(PluginError, match=r"the sink plug-in 'broken' cannot be imported: .*factory"):
        plugins.load("sinks", "broken")


def test_a_plug_in_that_returns_no_source_is_reported(register):
    register("sources", "def factory(address, settings):\n    return iter([address])\n")
    with pytest.raises(PluginError, match="the source plug-in 'broken' returns an object without live, frames, read"):
        open_source(CameraSettings(source="broken:1"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Environment variables with which a process finds the example package of ``tests/plugin``."""
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(PACKAGE)]
    subprocess.run(command, check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))}


PROGRAM = """
import json
from fer_stream import plugins
from fer_stream.settings.tree import CameraSettings
from fer_stream.settings.tree import CameraSettings, ClassifierSettings
from fer_stream.errors import SourceError
from fer_stream.sources import open_source
from fer_stream.types import Box, Face

source = open_source(CameraSettings(source="sway:5"))
pictures = list(iter(source.read, None))
source.close()
classifier = plugins.load("classifiers", "brightness")(ClassifierSettings(name="brightness"))
face = Face(Box(100, 130, 240, 300), 0.99)
try:
    open_source(CameraSettings(source="sway:wildly"))
except SourceError as error:
    message = str(error)
print(json.dumps({
    "sources": plugins.available("sources"),
    "classifiers": plugins.available("classifiers"),
    "offsets": [picture.offset for picture in pictures],
    "labels": classifier.labels,
    "probabilities": classifier.classify(pictures[0].image, [face, face]).tolist(),
    "message": message,
}))
"""


def test_a_package_of_its_own_adds_a_source_and_a_classifier(installed):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=installed, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert {"sway", "demo", "media"} <= set(found["sources"])
    assert {"brightness", "onnx"} <= set(found["classifiers"])
    assert found["offsets"] == [n * 40_000_000 for n in range(5)]
    assert found["labels"] == ["dark", "bright"]
    assert [pytest.approx(1) == sum(row) for row in found["probabilities"]] == [True, True]
    assert found["probabilities"][0][1] > 0.5
    assert found["message"] == "sway needs a number of pictures, as in sway:150, not 'wildly'"
    assert "sway" not in plugins.available("sources"), "it is not installed in this process"


def test_a_run_uses_the_source_and_the_classifier(installed, tmp_path):
    command = [sys.executable, "-m", "fer_stream", "run", "sway:75", "--policy", "wait", "--workers", "1"]
    command += ["--format", "jsonl", "--journal", tmp_path / "events.db", "--summary", tmp_path / "summary.json"]
    command += ["--bind", f"ipc://{tmp_path}"]
    environment = {**installed, "FER_STREAM_CLASSIFIER__NAME": "brightness"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    (ledger,) = json.loads((tmp_path / "summary.json").read_text())["cameras"].values()
    assert {term: count for term, count in ledger.items() if count} == {"captured": 75, "done": 75}
    events = [json.loads(line) for line in result.stdout.splitlines()]
    labels = {event["data"]["label"] for event in events if event["type"].endswith("emotion.started")}
    assert labels == {"bright"}


def test_a_plug_in_s_code_has_a_digest(tmp_path, monkeypatch):
    (tmp_path / "of_others-1.dist-info").mkdir()
    (tmp_path / "of_others-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: of_others\nVersion: 1\n")
    (tmp_path / "of_others-1.dist-info/entry_points.txt").write_text("[fer_stream.sinks]\nof_others = of_others:load\n")
    (tmp_path / "of_others.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = plugins.code("sinks", "of_others")
    assert len(before) == 64
    (tmp_path / "of_others.py").write_text("one = 2\n")
    assert plugins.code("sinks", "of_others") != before
    assert plugins.code("sinks", "nosuch") == ""
    assert plugins.code("sinks", "stdout") == plugins.code("sources", "demo"), (
        "built-in plug-ins are in the same package"
    )


def test_the_example_of_a_test_in_the_how_to_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "plug-in.md").read_text()
    example = page.partition('title="test_transport.py"\n')[2].partition("```")[0]
    assert "Memory" in example
    exec(compile(example, "test_transport.py", "exec"), {})  # noqa: S102
