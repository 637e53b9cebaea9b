"""Common fixtures: a tiny classifier, a short clip of the demo scene, short paths, and processes that are ended."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest
import theirs  # noqa: F401  (provides a stand-in for torchvision, which facenet-pytorch imports)
from faults import table
from hypothesis import HealthCheck, settings
from processes import Cli
from scale import Scale
from tiny import write_model

from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.demo import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIP_FRAMES = 60

pytest_plugins = ["beside"]

settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")  # a slow machine must not fail a test


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for longer tests than those of ``make test``."""
    parser.addoption("--strangers", type=int, default=400, help="number of strangers' connections (default: 400)")
    parser.addoption("--provider", default="cpu", help="what runs the models in tests/inference (default: cpu)")
    parser.addoption(
        "--soak", type=float, default=0.0, metavar="SHARE", help="share of the full numbers; 0: the short form"
    )


def pytest_configure() -> None:
    """Handle signals that this process ignores, as under ``nohup`` and ``&`` in scripts, so that children get them.

    A child inherits that a signal is ignored, but not that a function handles it.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


LONG = (
    "analysis/test_analysis.py", "analysis/test_figures.py", "bench/test_long_film.py", "faults",
    "service/test_run_sinks.py", "service/test_supervisor.py",
    "service/test_commands.py", "service/test_node.py", "client/test_subscription_slow.py", "client/test_whole_cell.py",
    "training/test_campaign.py", "training/test_chain.py", "training/test_crop.py", "training/test_steadiness.py",
    "training/test_whole_way.py", "portable", "browser", "fuzz",
    "docs/test_fleet.py", "docs/test_study.py", "docs/test_notebook.py", "docs/test_processors.py",
    "docs/test_cameras.py", "docs/test_agreement.py", "docs/test_exports.py", "journal/test_service.py",
    "delivery/test_deliver.py", "delivery/test_run.py", "delivery/test_killed.py", "delivery/test_cell.py",
    "live/test_cell.py", "live/test_contract.py", "deploy/test_alerts.py", "deploy/test_container.py",
    "sinks/mqtt/test_delivery.py", "sinks/test_kafka.py", "service/test_run.py", "journal/test_nats.py",
    "journal/test_rivals.py", "deploy/test_lock.py", "analysis/exports/test_programs.py",
    "cli/test_analyze.py",
)  # fmt: skip
"""Tests that take minutes of processor time, the longest first: whole services, faults, browsers, trainings.

``make test`` leaves them to ``make test-long``.
"""

FIRST = (
    "test_pipeline.py",
    "cli/test_strangers.py", "inference/detectors/test_mtcnn.py", "sinks/test_postgres.py", "cli/test_doctor.py",
    "live/test_api.py", "live/test_server.py", "cli/test_pipeline.py", "analysis/test_observe.py",
    "test_own_smoother.py",
)  # fmt: skip
"""The longest others. What is long begins first, so that no process is left with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tests, and put what is long first."""
    tests, order = Path(__file__).parent, (*LONG, *FIRST)

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(tests).as_posix()
        return next((at for at, name in enumerate(order) if path == name or path.startswith(f"{name}/")), len(order))

    for item in items:
        if place(item) < len(LONG):
            item.add_marker("long")
    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of faults. It is here because with xdist only this conftest is loaded at the end."""
    rows = table.told(report for how in ("passed", "failed") for report in terminalreporter.getreports(how))
    if rows:
        terminalreporter.write_sep("-", "faults")
        terminalreporter.write_line(table.text(rows))
        if page := config.getoption("faults_table", None):
            table.write(page, rows)


@pytest.fixture
def scale(pytestconfig: pytest.Config) -> Scale:
    return Scale(pytestconfig.getoption("soak"))


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[None]:
    """Give these tests their own default address, separate from other services and tests of this user."""
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the seven emotions that takes microseconds: every face is happy with 0.72 to 0.82."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of the demo scene, 640x480 at 15 frames/s: one portrait is in view, and a second one enters."""
    path = tmp_path_factory.mktemp("clips") / "portraits.avi"
    scene = open_source("demo", CameraSettings())
    codec = cv2.VideoWriter.fourcc(*"mp4v")  # not MJPEG: JPEGs are not passed in shared memory
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 15, (640, 480))
    for number in range(45 + CLIP_FRAMES):
        picture = scene.read()
        if number >= 45 and picture is not None:
            writer.write(picture.image)
    writer.release()
    return path


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cli(tmp_path: Path, tiny_model: Path) -> Iterator[Cli]:
    """``fer-stream`` commands with the tiny model; processes that still run at the end of the test are killed."""
    commands = Cli(tmp_path, tiny_model)
    yield commands
    commands.close()
