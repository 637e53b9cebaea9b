"""What a worker answers to frames that are no pictures, and to plug-ins that break."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from processes import PATIENCE

from fer_stream import plugins
from fer_stream.errors import ConfigError
from fer_stream.fleet.link import Link
from fer_stream.inference import worker
from fer_stream.inference.recognizer import Recognizer
from fer_stream.inference.worker import answer
from fer_stream.protocol import messages, results, shared
from fer_stream.protocol.messages import Encoding, Kind, Message
from fer_stream.settings.tree import load
from fer_stream.types import Box, Face

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LABELS = ("dark", "bright")


class Detector:
    """A plug-in that finds what it was told to."""

    def __init__(self, *faces: Face) -> None:
        self._faces = faces

    def detect(self, image: np.ndarray) -> list[Face]:
        return list(self._faces)


class Classifier:
    """A plug-in that is half sure of everything, or fails."""

    labels = LABELS
    version = "half 1"

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure

    def classify(self, image: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
        if self._failure:
            raise self._failure
        return np.full((len(faces), 2), 0.5, np.float32)


FACE = Face(Box(2, 2, 20, 20), 0.9)
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def frame(payload: bytes, encoding: Encoding = Encoding.JPEG, **changes: int) -> list[messages.Buffer]:
    fields = {"width": 32, "height": 24, "ticket": 7} | changes
    return messages.pack(Message(Kind.FRAME, payload, encoding=encoding, **fields))  # type: ignore[arg-type]


def jpeg(image: np.ndarray = IMAGE, *flags: int) -> bytes:
    return cv2.imencode(".jpg", image, flags)[1].tobytes()


def say(parts: list[messages.Buffer], *faces: Face, failure: Exception | None = None) -> Message:
    message, hints = messages.unpack(parts[:2], verify=False), parts[2] if len(parts) > 2 else None
    recognizer = Recognizer(Detector(*faces), Classifier(failure))
    return messages.unpack(answer(message, hints, recognizer, shared.MappedFrames()))


def test_a_picture_is_answered_with_its_faces() -> None:
    for parts in (frame(jpeg()), frame(IMAGE.tobytes(), Encoding.RAW)):
        said = say(parts, FACE)
        assert (said.kind, said.ticket) == (Kind.DONE, 7)
        found = results.unpack_faces(said.payload, LABELS)
        (face,), stages = found.faces, found.stages
        assert face.box == FACE.box
        assert face.probabilities is not None
        assert face.probabilities.values == (0.5, 0.5)
        assert stages.detect > 0


def test_raw_pixels_are_looked_at_where_they_are() -> None:
    payload = bytearray(IMAGE.tobytes())
    image = shared.MappedFrames().picture(messages.unpack(frame(bytes(payload), Encoding.RAW)))
    np.testing.assert_array_equal(image, IMAGE)


def damaged() -> list[messages.Buffer]:
    head, payload = frame(jpeg())
    broken = bytearray(payload)
    broken[100] ^= 1
    return [head, bytes(broken)]


@pytest.mark.parametrize(
    "parts",
    [
        frame(b"no picture"),
        frame(jpeg()[:40]),
        frame(jpeg(), width=31),
        frame(jpeg(), width=24, height=32),
        frame(jpeg(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),  # a few bytes a scan, each of which costs a whole look
        damaged(),
    ],
    ids=["text", "cut", "narrower", "turned", "scans", "damaged"],
)
def test_what_is_no_picture_is_rejected_as_corrupt(parts: list[messages.Buffer]) -> None:
    said = say(parts, FACE)
    assert (said.kind, said.ticket, said.body()) == (Kind.REJECT, 7, {"reason": "corrupt"})


@pytest.mark.parametrize(
    ("face", "failure"),
    [
        (Face(Box(2, 2, 2, 20), 0.9), None),
        (Face(Box(2, math.nan, 20, 20), 0.9), None),
        (Face(Box(2, 2, 20, 20), 7.0), None),
        (FACE, ValueError("the plug-in is broken")),
        (FACE, MemoryError()),
    ],
)
def test_what_a_plug_in_makes_of_a_frame_must_make_sense(face: Face, failure: Exception | None) -> None:
    said = say(frame(jpeg()), face, failure=failure)
    assert (said.kind, said.ticket) == (Kind.REJECT, 7)
    assert said.body()["reason"] in {"corrupt", "poisoned"}


class Concurrent(Detector):
    concurrent = True


class ConcurrentClassifier(Classifier):
    concurrent = True


@pytest.mark.parametrize(
    ("flags", "frames"),
    [
        ({}, 1),
        ({"batch": 3}, 3),
        ({"detector.provider": "cuda"}, 1),
        ({"detector.provider": "openvino", "classifier.provider": "openvino"}, 1),
        ({"detector.provider": "cuda", "classifier.provider": "cuda"}, 8),
        ({"detector.provider": "cuda", "classifier.provider": "cuda", "batch": 1}, 1),
    ],
)
def test_a_worker_takes_several_frames_if_told_to_or_on_an_accelerator(flags: dict[str, Any], frames: int) -> None:
    recognizer = Recognizer(Concurrent(), ConcurrentClassifier())
    assert worker.frames_at_a_time(recognizer, load(flags)) == frames


@pytest.mark.parametrize(
    ("detector", "classifier"), [(Concurrent(), Classifier()), (Detector(), ConcurrentClassifier())]
)
def test_a_plug_in_that_takes_one_frame_at_a_time_gets_no_more(detector: Detector, classifier: Classifier) -> None:
    recognizer = Recognizer(detector, classifier)
    cuda = {"detector.provider": "cuda", "classifier.provider": "cuda"}
    assert worker.frames_at_a_time(recognizer, load(cuda)) == 1
    with pytest.raises(ConfigError, match="batch = 2, but the detector mtcnn or the classifier onnx takes one frame"):
        worker.frames_at_a_time(recognizer, load({"batch": 2}))


@pytest.mark.parametrize("networked", [True, False])
def test_a_frame_from_a_network_is_confirmed_at_once(networked: bool, short_folder: Path) -> None:
    """On one machine, the confirmation would be a message more for each frame; a heartbeat does it."""
    transport = plugins.load("transports", "memory" if networked else "zeromq")()
    address = f"{'memory' if networked else 'ipc'}://{short_folder}"
    hub, link = transport.bind(address), Link(transport, [address], "work")
    recognizer = Recognizer(Detector(), Classifier(None))
    session = worker.Session(link, {}, worker._Computer(recognizer, link.wake), patience=1.0)
    session.step(0.0)
    ((_, name, ready),) = hub.receive(1.0)
    assert messages.unpack(ready).kind is Kind.READY
    hub.send("work", name, frame(bytes(12), Encoding.RAW, width=2, height=2, ticket=7))
    session.step(1.0)
    assert session.busy
    answers = [messages.unpack(parts) for _, _, parts in hub.receive(0.1)]
    assert [(one.kind, one.ticket) for one in answers] == ([(Kind.PING, 7)] if networked else [])
    link.close()
    hub.close()


def test_frames_beyond_the_credit_and_of_an_aggregator_that_was_left_are_not_taken(short_folder: Path) -> None:
    transport, address = plugins.load("transports", "memory")(), f"memory://{short_folder}"
    hub, link = transport.bind(address), Link(transport, [address], "work")
    recognizer = Recognizer(Concurrent(), ConcurrentClassifier())
    session = worker.Session(link, {}, worker._Computer(recognizer, link.wake, most=2), patience=1.0)
    session.step(0.0)
    ((_, name, _),) = hub.receive(1.0)

    def send(ticket: int) -> int:
        hub.send("work", name, frame(bytes(12), Encoding.RAW, width=2, height=2, ticket=ticket))
        session.step(1.0)
        return session.held

    assert [send(1), send(2), send(3)] == [1, 2, 2]
    session.held, session.outdated = 1, True
    assert send(4) == 1
    link.close()
    hub.close()


def test_a_computer_answers_together_what_has_arrived_and_ends_when_it_is_told_to() -> None:
    woken: list[int] = []
    computer = worker._Computer(Recognizer(Concurrent(FACE), ConcurrentClassifier()), lambda: woken.append(1), most=8)
    for ticket in (1, 2, 3):
        computer.give(messages.unpack(frame(jpeg(), ticket=ticket), verify=False), None)
    computer.end()
    computer.start()
    computer.join(PATIENCE)
    assert not computer.is_alive()
    assert [messages.unpack(parts).ticket for parts in computer.answers] == [1, 2, 3]
    assert len(woken) == 1
