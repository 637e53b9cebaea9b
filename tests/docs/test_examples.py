"""The examples in the documents work: Python is run, commands and settings are checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import reference
import report
from documents import ALL, PAGES, ROOT, SHELL, Block, blocks, commands, inline, without_redirection
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from processes import Cli

from fer_stream.cli import main
from fer_stream.events.schema import event_schema
from fer_stream.inference.classifiers.contract import valid
from fer_stream.settings import tree
from fer_stream.settings.layers import variable
from fer_stream.settings.schema import leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {".".join(path) for path in leaves(tree.Settings.model_json_schema())}
SECTIONS = {path.rpartition(".")[0] for path in SETTINGS} - {""}
OURS = [(block, words) for block in SHELL for words in commands(block.text)]


def of_program(*names: str) -> list[tuple[Block, list[str]]]:
    return [(block, without_redirection(words)) for block, words in OURS if Path(words[0]).name in names]


def named(pairs: list[tuple[Block, list[str]]]) -> list[object]:
    return [pytest.param(words, id=f"{block} {' '.join(words)[:60]}") for block, words in pairs]


def test_examples_are_found() -> None:
    """Without this, the other tests would pass if no examples were found."""
    assert len(of_program("fer-stream")) > 40
    assert {"tutorial.md", "README.md", "CONTRIBUTING.md"} <= {block.page.name for block in SHELL}
    assert sum(block.language == "python" for block in ALL) > 6


@pytest.mark.parametrize("words", named(of_program("fer-stream")))
def test_the_command_line_accepts_the_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        main.parser().parse_args(words[1:])
    assert not capsys.readouterr().err


@pytest.mark.parametrize("words", named(of_program("make")))
def test_the_target_exists(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words[1:]:
        assert "=" in word or word in targets


@pytest.mark.parametrize("words", named(of_program("python", "python3", "pytest")))
def test_python_files_and_modules_exist(words: list[str]) -> None:
    arguments = [word for word in words[1:] if not word.startswith("-") or word == "-m"]
    if arguments[:1] == ["-m"] and arguments[1].startswith("training."):
        assert (ROOT / f"{arguments[1].replace('.', '/')}.py").is_file()
    for word in arguments:
        if word.startswith(("tests/", "training/")):
            assert (ROOT / word).exists()


@pytest.mark.parametrize("words", named(of_program("pip")))
def test_the_extras_exist(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for names in re.findall(r"^(?:fer-stream|\.)\[([\w,]+)\]", word):
            assert set(names.split(",")) <= set(extras)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "toml"], ids=str)
def test_the_settings_file_loads(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.title.endswith("pyproject.toml"):
        assert tomllib.loads(block.text)["project"]
        return
    if "sidecar" in block.info:
        assert valid(tomllib.loads(block.text))[1] == []
        return
    for name in [name for name in os.environ if name.startswith("FER_STREAM_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "settings.toml"
    path.write_text(block.text)
    tree.load(file=path)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "json" and '"specversion"' in b.text], ids=str)
def test_the_event_keeps_the_schema(block: Block) -> None:
    Draft202012Validator(event_schema()).validate(json.loads(block.text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_the_text_exist(page: Path) -> None:
    """Settings, variables, commands and metrics."""
    series = {*_series(), *NO_METRICS}
    variables = {variable(tuple(path.split("."))) for path in SETTINGS if "NAME" not in path}
    for text in inline(page):
        if re.fullmatch(
            r"(cameras|detector|classifier|dispatch|tracker|smoother|journal|deployment)(\.(?!py\b)[\w*]+)+", text
        ):
            path = re.sub(r"^cameras\.[\w*]+", "cameras.NAME", text)
            assert path in SETTINGS | SECTIONS, f"there is no setting {text}"
        if words := re.match(r"fer-stream ([a-z]+)", text):
            assert words[1] in {command.name for command in main.COMMANDS}, f"there is no command {text}"
        for name in re.findall(r"\bfer_stream_[a-z_]+(?=[\s{\[(]|$)", text):
            assert name in series, f"there is no metric {name}"
    for name in re.findall(r"\bFER_STREAM_[A-Z0-9_]+", page.read_text()):
        assert name in variables or name == "FER_STREAM_", f"no setting is set by {name}"


NO_METRICS = {"fer_stream_example", "fer_stream_csv", "fer_stream_table"}


def _series() -> Iterator[str]:
    """Yield the names of the series of all metrics in Prometheus."""
    for collector in reference.collectors():
        (family,) = collector.describe()
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count", "")}.get(family.type, ("",))
        yield from (family.name + suffix for suffix in suffixes)


# Python: each block is run separately, with a running service, its journal, a recording and a picture. ----------------

PYTHON = [b for b in ALL if b.language == "python" and "notest" not in b.info]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, clip: Path, tiny_model: Path) -> Iterator[Cli]:
    """A folder with ``events.db``, ``talk.mp4``, its analysis ``talk`` and ``portrait.jpg``, and a service.

    The service shows camera ``door``.
    """
    folder = tmp_path_factory.mktemp("stage")
    commands = Cli(folder, tiny_model)
    shutil.copy(clip, folder / "talk.mp4")
    shutil.copy(ROOT / "fer_stream/assets/grace_hopper.jpg", folder / "portrait.jpg")
    commands.environment |= {"FER_STREAM_ADDRESS": f"ipc://{tmp_path_factory.mktemp('s')}", "MPLBACKEND": "agg"}
    commands.run("run", "door=talk.mp4", "--policy", "wait", "--journal", "events.db")
    commands.run("analyze", "talk.mp4", "--output", "talk")
    service = commands.start("run", "door=talk.mp4", "--loop", "--rate", 15, "--workers", 1, "--format", "jsonl")
    service.until_event("face.left")
    yield commands
    commands.close()


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_the_python_example_runs(block: Block, stage: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=stage.folder,
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "print(" in block.text:
        assert done.stdout
    if "savefig(" in block.text:
        assert (stage.folder / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "r"], ids=str)
def test_the_example_in_r_runs(block: Block, stage: Cli) -> None:
    command = ["Rscript", "--vanilla", "-e", f"options(warn = 2)\n{block.text}"]
    done = subprocess.run(command, cwd=stage.folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "happy" in done.stdout


def installed(package: str, folder: Path) -> Path:
    """Install an example package of the page on plug-ins, and return the folder of modules."""
    for block in blocks(ROOT / "docs/how-to/plug-in.md"):
        if block.title.startswith(f"{package}/"):
            path = folder / block.title
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    site = folder / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, folder / package], check=True)
    return site


def test_the_example_of_a_batch_sink_works(tmp_path: Path, stage: Cli) -> None:
    site, rows = installed("table-sink", tmp_path), tmp_path / "rows.db"
    (tmp_path / "s.toml").write_text(f'[deliver.rows]\nsink = "table:{rows}"\nbegin = "beginning"\n')
    command = ("--config", tmp_path / "s.toml", "--journal", "events.db")
    environment = {"PYTHONPATH": str(site), "FER_STREAM_DELIVERIES": str(tmp_path / "deliveries.db")}
    events = stage.run("subscribe", "--journal", "events.db", "--format", "jsonl").events
    run = stage.start("deliver", *command, **environment)

    def found() -> list[str]:
        if not rows.exists():
            return []
        with closing(sqlite3.connect(rows)) as db, suppress(sqlite3.OperationalError):
            return [text for (text,) in db.execute("SELECT text FROM events ORDER BY rowid")]
        return []

    run.until(lambda: len(found()) >= len(events), "all events")
    assert [json.loads(text) for text in found()[: len(events)]] == events
    assert run.stop() == 0
    rows.write_bytes(b"x" * 5000)
    (tmp_path / "deliveries.db").unlink()
    run = stage.start("deliver", *command, **environment)
    run.until_said("the sink rows has stopped; nothing is lost: ")
    assert run.stop() == 0


def test_the_example_sink_works(tmp_path: Path, stage: Cli) -> None:
    site = installed("csv-sink", tmp_path)
    rows = tmp_path / "events.csv"
    arguments = ("run", "talk.mp4", "--policy", "wait", "--sink", f"csv:{rows}", "--journal", tmp_path / "new.db")
    address = {"FER_STREAM_ADDRESS": f"ipc://{tmp_path}"}
    ran = stage.run(*arguments, "--format", "jsonl", PYTHONPATH=str(site), **address)
    assert [line.split(",")[0] for line in rows.read_text().splitlines()] == [e["cursor"] for e in ran.events]
    assert any(line.endswith("emotion.started,happy") for line in rows.read_text().splitlines())


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    (block,) = (b for b in ALL if b.title == "prometheus.yml")
    path = tmp_path / "prometheus.yml"
    path.write_text(block.text)
    subprocess.run(["promtool", "check", "config", path], check=True, capture_output=True)


def test_the_summary_quotes_the_benchmarks() -> None:
    """Each number in a `tests/bench` row of the summary is in the benchmarks' output."""
    page = ROOT / "docs/benchmarks.md"
    summary = report.kept(page)
    measured = page.read_text().replace(summary, "")
    rows = re.findall(r"^\| .+? \| (.+?) \| `python tests/bench/.+\|$", summary, re.MULTILINE)
    assert rows
    for row in rows:
        for number in re.findall(r"\d[\d,]*(?:\.\d+)?", row):
            assert number in measured, f"{number} is not in docs/benchmarks.md"


def test_each_figure_of_the_summary_has_a_command() -> None:
    rows = [line for line in report.kept(ROOT / "docs/benchmarks.md").splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        assert re.search(r"\| `[^`]+` \|$", row), row


def test_make_bench_keeps_what_is_written_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks are replaced by a command that prints one line."""
    page = tmp_path / "benchmarks.md"
    page.write_text("# Old\n\n<!-- written by hand: kept -->\n\nmine\n\n<!-- end -->\n\nold output\n")
    (tmp_path / "facenet_video.mp4").touch()
    done = subprocess.CompletedProcess([], 0, "new output\n", "")
    monkeypatch.setattr("report.subprocess.run", lambda *_, **__: done)
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--output", str(page)])
    report.main()
    text = page.read_text()
    assert text.count("<!-- written by hand: kept -->\n\nmine\n\n<!-- end -->") == 1
    assert "new output" in text
    assert "old output" not in text
