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
    "analysis/test_analysis.py", "faults/test_slow_links.py", "service/test_run_sinks.py", "service/test_supervisor.py",
    "client/test_subscription_slow.py", "training/test_campaign.py", "service/test_run.py", "training/test_chain.py",
    "service/test_commands.py", "portable",
    "faults/test_far_aggregator.py", "faults/test_fleet.py", "docs/test_fleet.py",
    "test_pipeline.py", "journal/test_rivals.py", "journal/test_nats.py", "browser",
    "faults", "journal/test_service.py",
    "cli/test_strangers.py", "inference/detectors/test_mtcnn.py", "cli/test_pipeline.py", "live/test_server.py",
    "docs/test_examples.py", "training",
)  # fmt: skip
"""Files and folders that take longest; the suite starts them first, so that none of them runs alone at the end.

Files that compute and files that wait (for slow links, time-outs, pauses before a restart) alternate.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    paths = [Path(__file__).parent / name for name in LONG]

    def rank(item: pytest.Item) -> int:
        return next((n for n, path in enumerate(paths) if item.path.is_relative_to(path)), len(LONG))

    items.sort(key=rank)


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
