"""All functions that take pictures accept the same arrays, and raise the same errors for other values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image

import fer_stream
from fer_stream.capture.reader import Reader
from fer_stream.capture.slot import Slot
from fer_stream.cli.doctor import examine
from fer_stream.imaging.pixels import pixels
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from fer_stream.inference.recognizer import Recognizer, _default
from fer_stream.settings.tree import CameraSettings, Settings
from fer_stream.types import Box, Face, Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORTRAIT = Path(fer_stream.__file__).parent / "assets/grace_hopper.jpg"
PICTURE = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
HEIGHT, WIDTH = PICTURE.shape[:2]
GREY = cv2.cvtColor(PICTURE, cv2.COLOR_BGR2GRAY)
FIRST = PICTURE.transpose(2, 0, 1)

WRONG: dict[str, tuple[Any, str]] = {
    "float": (
        PICTURE / 255,
        r"not float64 \[\d+, \d+, 3\]: it looks like a float image in 0..1; give \(image \* 255\)",
    ),
    "float 32": ((PICTURE / 255).astype(np.float32), "a float image in 0..1"),
    "float 16": ((PICTURE / 255).astype(np.float16), "a float image in 0..1"),
    "float around 0": (PICTURE / 127.5 - 1, "a float image in -1..1"),
    "float to 255": (PICTURE.astype(np.float32), r"a float image in 0..255; give image.round\(\)"),
    "normalised": ((PICTURE / 255 - 0.4) / 0.2, "its values are from -2 to 3"),
    "not a number": (np.full((9, 9, 3), np.nan), "not finite"),
    "16 bits": (PICTURE.astype(np.uint16) * 257, r"a picture of 16 bits; give \(image >> 8\)"),
    "12 bits": (PICTURE.astype(np.uint16) * 16, r"a picture of 12 bits; give \(image >> 4\)"),
    "integers": (PICTURE.astype(np.int64), r"fit 8 bits; give image.astype\(numpy.uint8\)"),
    "signed": (PICTURE.astype(np.int8), "its values are from -128 to 127"),
    "32 bits": (PICTURE.astype(np.uint32) << 20, "scale them to 0..255"),
    "bool": (PICTURE > 128, "a mask of truth values"),
    "complex": (PICTURE.astype(complex), "values of type complex128"),
    "times": (np.zeros((9, 9, 3), "datetime64[s]"), "values of type datetime64"),
    "records": (np.zeros((9, 9, 3), [("b", "u1")]), "a picture has no values of type"),
    "texts": (np.full((9, 9, 3), "a"), "values of type <U1"),
    "grey": (GREY, "it looks grey; give cv2.cvtColor"),
    "grey of a size that OpenCV could misread": (np.zeros((302, 299), np.uint8), "it looks grey"),
    "grey with an axis": (GREY[:, :, None], "it looks grey"),
    "BGRA": (cv2.cvtColor(PICTURE, cv2.COLOR_BGR2BGRA), "it looks like BGRA; give cv2.cvtColor"),
    "BGRA of such a size": (np.zeros((302, 299, 4), np.uint8), "it looks like BGRA"),
    "two channels": (PICTURE[:, :, :2], "it has 2 channels, not 3"),
    "channels first": (FIRST, rf"not uint8 \[3, {HEIGHT}, {WIDTH}\]: .* transpose it to \[{HEIGHT}, {WIDTH}, 3\]"),
    "float, channels first": (FIRST / 255, r"channels first; transpose it to .*; it looks like a float image in 0..1"),
    "one channel first": (GREY[None], "channels first, and grey"),
    "four channels first": (np.concatenate([FIRST, GREY[None]]), "channels first, and BGRA"),
    "a batch": (np.stack([PICTURE] * 4), "a batch of 4 pictures; give one at a time"),
    "a batch of one": (PICTURE[None], r"a batch of one picture; give image\[0\]"),
    "five dimensions": (PICTURE[None, None], "5 dimensions"),
    "no dimension": (np.array(3, np.uint8), "0 dimensions"),
    "a file": (np.fromfile(PORTRAIT, np.uint8), "it has one dimension, as a file's bytes do"),
    "empty": (PICTURE[900:], "it is empty"),
    "nothing": (np.array([]), "it is empty"),
    "objects": (PICTURE.astype(object), "an array of objects"),
    "several": ([PICTURE, PICTURE], "a list of 2 pictures: give one at a time"),
    "a list": (PICTURE.tolist(), r"a list: give numpy.asarray\(image, numpy.uint8\)"),
    "a tuple": (tuple(PICTURE[:2]), "a tuple"),
    "none": (None, "None, which cv2.imread returns for a file that it cannot read"),
    "a text": (str(PORTRAIT), r"a path, '.*grace_hopper.jpg': give cv2.imread\(path\)"),
    "a path": (PORTRAIT, "a path, .*grace_hopper.jpg"),
    "bytes": (PORTRAIT.read_bytes(), r"encoded bytes: give fer_stream.Jpeg\(data\).decode\(\)"),
    "PIL": (Image.open(PORTRAIT), r"a PIL image: give numpy.asarray\(image.convert\('RGB'\)\)\[:, :, ::-1\]"),
    "UMat": (cv2.UMat(PICTURE), r"OpenCV's UMat: give image.get\(\)"),
    "a Jpeg": (fer_stream.Jpeg(PORTRAIT.read_bytes()), r"a Jpeg: give its decode\(\)"),
    "a Picture": (Picture(PICTURE), "a Picture: give its image"),
    "masked": (np.ma.masked_equal(PICTURE, 0), "a masked array"),
    "something": (object(), "of type builtins.object"),
}

RIGHT: dict[str, np.ndarray[Any, Any]] = {
    "another order in memory": np.asfortranarray(PICTURE),
    "not contiguous": np.repeat(PICTURE, 2, 1)[:, ::2],
    "negative strides": np.ascontiguousarray(PICTURE[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "transposed": np.ascontiguousarray(FIRST).transpose(1, 2, 0),
    "read-only": np.frombuffer(PICTURE.tobytes(), np.uint8).reshape(PICTURE.shape),
    "a part": np.pad(PICTURE, ((5, 5), (7, 7), (0, 0)))[5:-5, 7:-7],
    "big-endian": PICTURE.astype(">u1"),
    "a subclass": PICTURE.view(type("Own", (np.ndarray,), {})),
}


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """Clear the cached recognizer, so that other tests do not use it."""
    yield
    _default.cache_clear()


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_settings(Settings())


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[object], CameraSettings]:
    """Return a function that makes a camera whose source plug-in returns the given value as its only picture."""
    (tmp_path / "anything-1.dist-info").mkdir()
    (tmp_path / "anything-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: anything\nVersion: 1\n")
    (tmp_path / "anything-1.dist-info/entry_points.txt").write_text("[fer_stream.sources]\nanything = anything:Given\n")
    (tmp_path / "anything.py").write_text(
        "from fer_stream.types import Picture\n"
        "class Given:\n"
        "    live, frames, given = False, 1, []\n"
        "    def __init__(self, address, settings): self.left = list(self.given)\n"
        "    def read(self): return Picture(self.left.pop(), 0) if self.left else None\n"
        "    def close(self): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "anything", raising=False)

    def give(content: object) -> CameraSettings:
        import anything  # noqa: PLC0415

        anything.Given.given = [content]
        return CameraSettings(source="anything")

    return give


@pytest.mark.parametrize(("image", "message"), WRONG.values(), ids=WRONG)
def test_every_function_raises_the_same_error_for_a_wrong_value(
    image: Any, message: str, recognizer: Recognizer
) -> None:
    detector, face = recognizer.detector, Face(Box(1, 1, 5, 5), 1.0)
    assert isinstance(detector, MTCNN)
    assert isinstance(recognizer.classifier, OnnxClassifier)
    calls: list[Callable[[], object]] = [
        lambda: recognizer.recognize(image),
        lambda: fer_stream.recognize(image),
        lambda: detector.detect(image),
        lambda: detector.look(image, [], []),
        lambda: recognizer.classifier.classify(image, [face]),
    ]
    messages = set()
    for call in calls:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
        messages.add(str(error.value))
    assert len(messages) == 1


def test_the_error_for_a_torch_tensor(recognizer: Recognizer) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"a torch tensor: give tensor.cpu\(\).numpy\(\)"):
        recognizer.recognize(torch.zeros(3, 40, 40))


@pytest.mark.parametrize("image", RIGHT.values(), ids=RIGHT)
def test_any_memory_layout_gives_the_same_result(image: np.ndarray[Any, Any], recognizer: Recognizer) -> None:
    before = image.copy()
    expected = recognizer.recognize(PICTURE).faces
    assert len(expected) == 1
    assert recognizer.recognize(image).faces == expected
    assert fer_stream.recognize(image) == fer_stream.recognize(PICTURE)
    assert MTCNN().detect(image) == MTCNN().detect(PICTURE)
    np.testing.assert_array_equal(image, before)
    assert type(pixels(image)) is np.ndarray


def test_a_contiguous_picture_is_not_copied() -> None:
    assert pixels(PICTURE) is PICTURE


@pytest.mark.parametrize("name", ["float", "grey", "channels first", "objects", "a path", "PIL", "none"])
def test_a_wrong_value_from_a_source_is_rejected_and_reported(
    name: str, sources: Callable[[object], CameraSettings], caplog: pytest.LogCaptureFixture
) -> None:
    image, _ = WRONG[name]
    with pytest.raises(ValueError, match="a picture is a numpy array") as error:
        pixels(image)
    camera, slot = sources(image), Slot("wait")
    reader = Reader("door", camera, "wait", slot, lambda: None)
    reader.start()
    reader.join()
    assert slot.state()[0].rejected == 1
    assert reader.error is None
    assert f"a frame of camera door is rejected: {error.value}" in caplog.text
    findings = [finding.text for finding in examine(Settings(cameras={"door": camera}))]
    assert any(text.startswith("camera door: ") and str(error.value) in text for text in findings)


@pytest.mark.parametrize("name", ["negative strides", "read-only", "not contiguous"])
def test_a_source_may_return_any_memory_layout(name: str, sources: Callable[[object], CameraSettings]) -> None:
    slot = Slot("wait")
    masked = sources(RIGHT[name]).model_copy(update={"masks": [(0.0, 0.0, 0.5, 1.0)]})
    reader = Reader("door", masked, "wait", slot, lambda: None)
    reader.start()
    reader.join()
    held = slot.take()
    assert held is not None
    image = held[0].image
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image[:, WIDTH // 2 + 1 :], PICTURE[:, WIDTH // 2 + 1 :])
    assert not image[:, : WIDTH // 2].any()


@pytest.mark.parametrize("name", ["float", "objects", "a list", "PIL", "none", "bytes"])
def test_analyze_takes_paths_only(name: str) -> None:
    with pytest.raises(ValueError, match=r"analyze takes the path of a recording, not .*: .* fer_stream.recognize"):
        fer_stream.analyze(WRONG[name][0])
