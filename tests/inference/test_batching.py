"""Frames that are computed together have the answers that they have alone."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from fer_stream.inference import batching, models
from fer_stream.inference.batching import joint, together
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from fer_stream.inference.recognizer import Recognizer
from fer_stream.protocol import results
from fer_stream.types import Expected, Hints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


ASSETS = Path(batching.__file__).parents[1] / "assets"


class Net:
    """Doubles numbers, counts its runs, and fails if a row contains a negative number."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        self.rows.append(len(inputs[0]))
        if (inputs[0] < 0).any():
            raise ValueError("a negative number")
        return [2 * inputs[0], inputs[0].sum(axis=1)]


def test_runs_of_one_net_with_rows_of_one_size_are_combined_and_each_gets_its_rows() -> None:
    net = Net()
    items = [np.full((rows, 3), rows, np.float32) for rows in (1, 4, 2)]
    answers = together(lambda item: joint("net", net, [item]), items)
    assert net.rows == [7]
    for item, (doubled, sums) in zip(items, answers, strict=True):
        np.testing.assert_array_equal(doubled, 2 * item)
        np.testing.assert_array_equal(sums, item.sum(axis=1))


def test_other_nets_other_sizes_and_other_types_run_apart() -> None:
    net, other = Net(), Net()
    runs: list[tuple[str, Net, np.ndarray]] = [
        ("net", net, np.ones((1, 3), np.float32)),
        ("net", net, np.ones((2, 4), np.float32)),
        ("net", net, np.ones((3, 3), np.float64)),
        ("other", other, np.ones((4, 3), np.float32)),
        ("net", net, np.ones((5, 3), np.float32)),
    ]
    together(lambda run: joint(run[0], run[1], [run[2]]), runs)
    assert (sorted(net.rows), other.rows) == ([2, 3, 6], [4])


def test_a_frame_that_needs_fewer_runs_does_not_hold_the_others_up() -> None:
    net = Net()

    def compute(runs: int) -> int:
        return int(sum(joint("net", net, [np.ones((1, 1))])[0].sum() for _ in range(runs)))

    assert together(compute, [0, 1, 5, 3]) == [0, 2, 10, 6]
    assert net.rows == [3, 2, 2, 1, 1]


def test_only_the_frame_whose_run_fails_fails() -> None:
    net = Net()

    def compute(value: float) -> str:
        try:
            return str(float(joint("net", net, [np.full((1, 1), value)])[0][0, 0]))
        except ValueError as error:
            return str(error)

    assert together(compute, [1, -1, 2]) == ["2.0", "a negative number", "4.0"]
    assert net.rows == [3, 1, 1, 1]


def test_an_output_with_other_rows_is_never_split() -> None:
    def mean(values: np.ndarray) -> list[np.ndarray]:
        return [values.mean(axis=0, keepdims=True)]

    answers = together(lambda value: joint("mean", mean, [np.full((2, 1), value)]), [1.0, 3.0])
    assert [float(answer[0][0, 0]) for answer in answers] == [1.0, 3.0]


def test_a_failure_outside_a_run_is_raised_after_the_others_ended() -> None:
    net, ended = Net(), []

    def compute(number: int) -> None:
        if number == 1:
            raise LookupError("frame 1")
        joint("net", net, [np.ones((1, 1))])
        ended.append(number)

    with pytest.raises(LookupError, match="frame 1"):
        together(compute, [0, 1, 2])
    assert sorted(ended) == [0, 2]
    assert joint("net", net, [np.ones((1, 1))])[0] == 2, "the calling thread is in no group"


def test_one_frame_needs_no_thread() -> None:
    assert together(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


@pytest.mark.parametrize("interval", [1e-6, 0.005])
def test_no_thread_waits_for_ever(interval: float) -> None:
    """Frames of random lengths, with the interpreter's switches at other places each time."""
    numbers, before = np.random.default_rng(0), sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        for _ in range(50):
            net, lengths = Net(), numbers.integers(0, 6, 8).tolist()

            def compute(runs: int, net: Net = net) -> int:
                for number in range(runs):
                    joint("net", net, [np.ones((1, 1 + number % 2))])
                return runs

            assert together(compute, lengths) == lengths
            assert sum(net.rows) == sum(lengths)
    finally:
        sys.setswitchinterval(before)


# Real nets


def read(name: str) -> np.ndarray:
    image = cv2.imread(str(ASSETS / f"{name}.jpg"))
    assert image is not None
    return np.asarray(image, np.uint8)


def pair_of_portraits() -> np.ndarray:
    left, right = read("eileen_collins"), read("grace_hopper")
    height = min(len(left), len(right))
    return np.hstack([left[:height], right[:height]])


def pictures() -> list[np.ndarray]:
    """Pictures of several sizes, with no face, one and two."""
    pair, one = pair_of_portraits(), read("eileen_collins")
    blurred = np.asarray(cv2.GaussianBlur(pair, (0, 0), 2), np.uint8)
    return [pair, one, np.ascontiguousarray(pair[:, ::-1]), np.zeros_like(pair), blurred, pair, pair // 2, one]


@pytest.fixture(scope="module", params=["emotion-ferplus.onnx", "emotion-tiny.onnx"])
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    return Recognizer(MTCNN(), OnnxClassifier(models.folder() / request.param))


def packed(recognizer: Recognizer, hints: Sequence[Hints | None]) -> Callable[[tuple[int, np.ndarray]], bytes]:
    """Return a function that gives the bytes of a worker's answer to a picture, without the seconds it took."""

    def compute(item: tuple[int, np.ndarray]) -> bytes:
        found = recognizer.recognize(item[1], hints[item[0]])
        result = results.Result(found.faces, results.Stages(0, 0, 0), found.searched)
        return bytes(results.pack_faces(result, recognizer.labels, recognizer.measures))

    return compute


def test_a_frame_s_answer_is_the_same_in_every_company_byte_for_byte(recognizer: Recognizer) -> None:
    shown = list(enumerate(pictures()))
    compute = packed(recognizer, [None] * len(shown))
    alone = [compute(item) for item in shown]
    assert len(set(alone)) > 4
    for company in (shown, shown[::-1], shown[:2], shown[2:5], [shown[1], shown[6]]):
        assert together(compute, company) == [alone[number] for number, _ in company]


def test_with_hints_too(recognizer: Recognizer) -> None:
    shown = list(enumerate(pictures()))
    hints: list[Hints | None] = []
    for number, image in shown:
        faces = recognizer.recognize(image).faces
        expected = tuple(Expected(face.box, due=number % 2 == 0) for face in faces)
        hints.append(Hints(expected, whole=number % 3 == 0, seen=None))
    compute = packed(recognizer, hints)
    alone = [compute(item) for item in shown]
    assert together(compute, shown) == alone


def test_the_nets_of_equal_pictures_run_once_for_all_of_them(recognizer: Recognizer, monkeypatch) -> None:
    runs: dict[str, set[int]] = {}
    plain = batching._combine

    def combine(kind: list[batching._Run]) -> bool:
        runs.setdefault(kind[0].key[0][0].path.stem, set()).add(len(kind))  # type: ignore[index]
        return plain(kind)

    monkeypatch.setattr(batching, "_combine", combine)
    together(recognizer.recognize, [pair_of_portraits()] * 4)
    nets = {"mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet", "emotion-ferplus", "emotion-tiny"}
    assert runs.items() <= {net: {4} for net in nets}.items()
    assert len(runs) == 4
