"""The commands about the installation: config, schema, version."""

from __future__ import annotations

import hashlib
import json
import tomllib
from typing import TYPE_CHECKING

import pytest
from cli.command import clean, fer_stream

from fer_stream import __version__
from fer_stream.cli.main import main
from fer_stream.events.schema import event_schema
from fer_stream.inference import models
from fer_stream.settings import tree

if TYPE_CHECKING:
    from pathlib import Path


def test_config_shows_where_a_setting_came_from(tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text("[cameras.door]\nsource = 'rtsp://u:secret@h/x'\npolicy = 'drop_oldest'\n")
    code, out, err = fer_stream(
        *("config", "--config", str(file), "--min-face", "20", "--policy", "wait"),
        environment=clean(FER_STREAM_DEPTH="7"),
    )
    assert (code, err) == (0, "")
    tree = tomllib.loads(out)
    assert tree["detector"]["min_face"] == 20
    assert tree["policy"] == tree["cameras"]["door"]["policy"] == "wait"
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert lines["detector.min_face"].endswith("# flag --min-face")
    assert lines["depth"].endswith("# env FER_STREAM_DEPTH")
    assert lines["cameras.door.source"].endswith(f"# file {file}")
    assert lines["workers"].endswith("# default")
    assert "secret" not in out
    assert "rtsp://u:***@h/x" in out


@pytest.mark.parametrize(("given", "seconds"), [("every-frame", 0), ("0.5", 0.5)])
def test_scan_sets_the_interval_of_searches_of_the_whole_picture(
    given: str, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "--scan", given]) == 0
    assert tomllib.loads(capsys.readouterr().out)["search"]["scan_interval"] == seconds


def test_the_template_is_a_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--template"]) == 0
    file = tmp_path / "cameras.toml"
    file.write_text(capsys.readouterr().out)
    assert tree.load(file=file) == tree.load()


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == event_schema()


def test_version_names_the_models_and_their_digests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"fer-stream {__version__}"
    assert len(lines) >= 3
    for line in lines:
        name, _, digest = line.partition("  sha256:")
        assert hashlib.sha256((models.folder() / name).read_bytes()).hexdigest() == digest
