"""A picture is shown with the faces of the same frame, and they are blurred beyond recognition."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fer_stream.live.picture import WAITING, Pairing, Shown, render
from fer_stream.protocol import shared
from fer_stream.protocol.messages import Encoding, Kind, Message


def frame(seq: int, epoch: int = 1, **fields: Any) -> Message:
    return Message(Kind.FRAME, b"", epoch=epoch, seq=seq, **fields)


def seen(seq: int, epoch: int = 1, searched: bool = True, regions: Any = ()) -> dict[str, Any]:
    return {"camera": "door", "epoch": epoch, "frame": seq, "searched": searched, "face_regions": regions}


def noise(height: int = 240, width: int = 320) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def raw(image: np.ndarray) -> Message:
    height, width = image.shape[:2]
    return Message(Kind.FRAME, image.tobytes(), width=width, height=height, encoding=Encoding.RAW)


def opened(jpeg: bytes | None) -> np.ndarray:
    assert jpeg is not None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


# Pairing


def test_a_frame_waits_for_its_observation() -> None:
    pairing = Pairing(show_faces=False)
    assert [pairing.frame(frame(seq)) for seq in (1, 2, 3)] == [None] * 3
    shown = pairing.observe(seen(2))
    assert shown is not None
    assert (shown.message.seq, shown.seen["frame"]) == (2, 2)
    assert pairing.observe(seen(1)) is None, "older frames are skipped"
    assert pairing.observe(seen(3)) is not None


def test_an_observation_may_come_before_its_frame() -> None:
    pairing = Pairing(show_faces=False)
    assert pairing.observe(seen(2)) is None
    assert pairing.frame(frame(1)) is None
    shown = pairing.frame(frame(2))
    assert shown is not None
    assert shown.message.seq == 2


def test_frames_of_different_epochs_are_not_confused() -> None:
    pairing = Pairing(show_faces=False)
    pairing.frame(frame(1, epoch=1))
    assert pairing.observe(seen(1, epoch=2)) is None
    assert pairing.frame(frame(1, epoch=2)) is not None


def test_the_number_of_waiting_frames_is_limited() -> None:
    pairing = Pairing(show_faces=False)
    for seq in range(1, WAITING + 2):
        pairing.frame(frame(seq))
    assert pairing.observe(seen(1)) is None
    assert pairing.observe(seen(2)) is not None


def test_a_frame_not_searched_for_new_faces_is_shown_only_if_faces_may_be_shown() -> None:
    for show_faces in (False, True):
        pairing = Pairing(show_faces)
        pairing.frame(frame(1))
        assert (pairing.observe(seen(1, searched=False)) is not None) == show_faces


# Rendering


def detail(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


def test_a_picture_is_scaled_to_the_width_in_which_it_is_shown_and_so_are_the_boxes() -> None:
    image = cv2.GaussianBlur(noise(), (0, 0), 3)
    whole = opened(render(Shown(raw(image), seen(1)), 640, shared.MappedFrames(), show_faces=False))
    assert whole.shape == (240, 320, 3), "never enlarged"
    assert np.abs(whole.astype(int) - image).mean() < 8
    message, regions = raw(noise(480, 640)), [(200, 120, 400, 360)]
    small = opened(render(Shown(message, seen(1, regions=regions)), 320, shared.MappedFrames(), show_faces=False))
    assert small.shape == (240, 320, 3)
    assert detail(small[60:180, 100:200]) < 0.1 * detail(small[:, 250:])
    open_ = opened(render(Shown(message, seen(1, regions=regions)), 320, shared.MappedFrames(), show_faces=True))
    assert detail(open_[60:180, 100:200]) > 0.8 * detail(open_[:, 250:])


def test_shared_pixels_are_shown_until_they_are_overwritten() -> None:
    ring = shared.Ring(1, 240 * 320 * 3)
    image = noise()
    message = Message(Kind.FRAME, ring.put(image, 0, 1), width=320, height=240, encoding=Encoding.SHARED)
    reader = shared.MappedFrames()
    assert render(Shown(message, seen(1)), 320, reader, show_faces=True) is not None
    ring.put(image, 0, 1)
    assert render(Shown(message, seen(1)), 320, reader, show_faces=True) is None, "another frame has overwritten it"
    ring.close()


def test_a_payload_that_does_not_decode_gives_no_picture() -> None:
    message = Message(Kind.FRAME, b"\xff\xd8 no JPEG", width=4, height=4, encoding=Encoding.JPEG)
    assert render(Shown(message, seen(1)), 320, shared.MappedFrames(), show_faces=True) is None


@pytest.mark.parametrize("width", [320, 640])
def test_a_planar_frame_is_shown(width: int) -> None:
    image = cv2.resize(noise(12, 16), (640, 480), interpolation=cv2.INTER_CUBIC)
    data = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    message = Message(Kind.FRAME, data.tobytes(), width=640, height=480, encoding=Encoding.YUV)
    found = opened(render(Shown(message, seen(1)), width, shared.MappedFrames(), show_faces=True))
    assert found.shape == (width * 3 // 4, width, 3)
    expected = cv2.resize(cv2.cvtColor(data, cv2.COLOR_YUV2BGR_I420), (width, width * 3 // 4))
    assert np.abs(found.astype(int) - expected).mean() < 4
