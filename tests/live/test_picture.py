"""A picture is shown with its own faces, and nobody can be recognised on it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from fer_stream.live.picture import WAITING, Pairing, Shown, render
from fer_stream.protocol import shared
from fer_stream.protocol.messages import Encoding, Kind, Message


def frame(seq: int, epoch: int = 1, **fields: Any) -> Message:
    return Message(Kind.FRAME, b"", epoch=epoch, seq=seq, **fields)


def seen(seq: int, epoch: int = 1, searched: bool = True, places: Any = ()) -> dict[str, Any]:
    return {"camera": "door", "epoch": epoch, "frame": seq, "searched": searched, "places": places}


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


def test_a_frame_waits_for_what_was_seen_in_it() -> None:
    pairing = Pairing(show_faces=False)
    assert [pairing.frame(frame(seq)) for seq in (1, 2, 3)] == [None] * 3
    shown = pairing.observe(seen(2))
    assert shown is not None
    assert (shown.message.seq, shown.seen["frame"]) == (2, 2)
    assert pairing.observe(seen(1)) is None, "older ones are passed over"
    assert pairing.observe(seen(3)) is not None


def test_what_was_seen_may_come_before_its_frame() -> None:
    pairing = Pairing(show_faces=False)
    assert pairing.observe(seen(2)) is None
    assert pairing.frame(frame(1)) is None
    shown = pairing.frame(frame(2))
    assert shown is not None
    assert shown.message.seq == 2


def test_frames_of_another_epoch_are_others() -> None:
    pairing = Pairing(show_faces=False)
    pairing.frame(frame(1, epoch=1))
    assert pairing.observe(seen(1, epoch=2)) is None
    assert pairing.frame(frame(1, epoch=2)) is not None


def test_frames_without_an_answer_do_not_pile_up() -> None:
    pairing = Pairing(show_faces=False)
    for seq in range(1, WAITING + 2):
        pairing.frame(frame(seq))
    assert pairing.observe(seen(1)) is None
    assert pairing.observe(seen(2)) is not None


def test_a_frame_in_which_no_new_faces_were_looked_for_is_shown_only_with_faces() -> None:
    for show_faces in (False, True):
        pairing = Pairing(show_faces)
        pairing.frame(frame(1))
        assert (pairing.observe(seen(1, searched=False)) is not None) == show_faces


# Rendering


def detail(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


def test_a_picture_is_made_as_small_as_it_is_shown_and_boxes_shrink_with_it() -> None:
    image = cv2.GaussianBlur(noise(), (0, 0), 3)
    whole = opened(render(Shown(raw(image), seen(1)), 640, shared.MappedFrames(), show_faces=False))
    assert whole.shape == (240, 320, 3), "never enlarged"
    assert np.abs(whole.astype(int) - image).mean() < 8
    message, places = raw(noise(480, 640)), [(200, 120, 400, 360)]
    small = opened(render(Shown(message, seen(1, places=places)), 320, shared.MappedFrames(), show_faces=False))
    assert small.shape == (240, 320, 3)
    assert detail(small[60:180, 100:200]) < 0.1 * detail(small[:, 250:])
    open_ = opened(render(Shown(message, seen(1, places=places)), 320, shared.MappedFrames(), show_faces=True))
    assert detail(open_[60:180, 100:200]) > 0.8 * detail(open_[:, 250:])


def test_shared_pixels_are_shown_while_they_are_there() -> None:
    ring = shared.Ring(1, 240 * 320 * 3)
    image = noise()
    message = Message(Kind.FRAME, ring.put(image, 0, 1), width=320, height=240, encoding=Encoding.SHARED)
    reader = shared.MappedFrames()
    assert render(Shown(message, seen(1)), 320, reader, show_faces=True) is not None
    ring.put(image, 0, 1)
    assert render(Shown(message, seen(1)), 320, reader, show_faces=True) is None, "it is another frame by now"
    ring.close()


def test_what_does_not_decode_is_no_picture() -> None:
    message = Message(Kind.FRAME, b"\xff\xd8 no JPEG", width=4, height=4, encoding=Encoding.JPEG)
    assert render(Shown(message, seen(1)), 320, shared.MappedFrames(), show_faces=True) is None
