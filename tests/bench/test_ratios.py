"""Short versions of benchmarks: they detect when an advantage over the reference is halved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest
from delivery import file, fill, measured, reference
from growth import cost
from processes import Cli
from scan import timed

from fer_stream.inference.detectors import facenet, mtcnn
from fer_stream.settings.tree import DetectorSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Limit OpenCV to one thread, as in fer-stream's processes; the test limits torch itself."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def test_a_search_costs_much_less_than_facenet_pytorchs() -> None:
    """docs/benchmarks.md has a factor of four."""
    import torch  # noqa: PLC0415

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    image = cv2.imread(str(next(iter(sorted((Path(__file__).parents[2] / "fer_stream/assets").glob("*.jpg"))))))
    assert image is not None
    image = cv2.resize(image, (1280, 1280))
    try:
        ours, theirs = mtcnn.load(DetectorSettings()), facenet.load(DetectorSettings())
        rounds = [(timed(ours, image)[0], timed(theirs, image)[0]) for _ in range(4)][1:]  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    assert min(b for _, b in rounds) >= 2 * min(a for a, _ in rounds)


def test_following_faces_costs_much_less_than_searching_every_frame() -> None:
    """docs/benchmarks.md has a factor of eight."""
    following, searching = cost(faces=5, width=1920, height=1080, count=55)
    assert searching >= 4 * following


def test_delivering_costs_a_few_times_the_plainest_copy(tmp_path: Path) -> None:
    """docs/benchmarks.md has a factor of four."""
    fill(tmp_path / "e.db", 20_000)
    commands = Cli(tmp_path, Path("none"))
    try:
        with file(tmp_path) as sink:
            pairs = [
                (
                    reference(tmp_path / "e.db", tmp_path / "plain.jsonl").of_cpu,
                    measured(commands, tmp_path / "e.db", sink, "--journal", "e.db").of_cpu,
                )
                for _ in range(3)
            ]
    finally:
        commands.close()
    assert max(plain for plain, _ in pairs) <= 8 * max(ours for _, ours in pairs)
