"""How frames are encoded, and when they are scaled down."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from fer_stream.capture.encoder import Encoder
from fer_stream.imaging.jpeg import Jpeg, header_size
from fer_stream.protocol import pace, shared
from fer_stream.protocol.messages import Encoding
from fer_stream.settings.tree import CameraSettings
from fer_stream.types import Frame, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

FAR, HERE, SHARED = "tcp://192.0.2.1:5550", "tcp://127.0.0.1:5550", "ipc:///run/x"
IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8), (5, 5), 0).astype(np.uint8)
OWN = Jpeg(cv2.imencode(".jpg", IMAGE)[1].tobytes())


def frame(content: Any = IMAGE) -> Frame:
    return Frame("door", 1, Nanoseconds(1), content)


@pytest.fixture
def made() -> Iterator[list[Encoder]]:
    found: list[Encoder] = []
    yield found
    for encoder in found:
        encoder.close()


def encoder(made: list[Encoder], address: str, **settings: Any) -> Encoder:
    made.append(Encoder("door", CameraSettings(source="demo", **settings), address, 4))
    return made[-1]


@pytest.mark.parametrize(
    ("address", "encoding", "expected"),
    [
        (FAR, "auto", Encoding.JPEG),
        (HERE, "auto", Encoding.RAW),
        (HERE, "jpeg", Encoding.JPEG),
        ("tcp://LOCALHOST:5550", "auto", Encoding.RAW),
        ("tcp://127.example.org:5550", "auto", Encoding.JPEG),
        (FAR, "raw", Encoding.RAW),
        (SHARED, "auto", Encoding.RAW),  # until the aggregator can open the shared memory
    ],
)
def test_the_aggregator_s_address_decides_the_encoding(
    made: list[Encoder], address: str, encoding: str, expected: Encoding
) -> None:
    got = encoder(made, address, encoding=encoding).encode(frame(), 1, 0)
    assert (got.encoding, got.size) == (expected, (160, 90))
    if expected is Encoding.RAW:
        assert bytes(got.payload) == IMAGE.tobytes()
    else:
        assert header_size(got.payload) == (160, 90)


def test_a_camera_s_jpeg_is_passed_on_unless_it_must_be_smaller(made: list[Encoder]) -> None:
    assert encoder(made, FAR).encode(frame(OWN), 1, 0).payload is OWN.data
    assert encoder(made, FAR, max_width=160).encode(frame(OWN), 1, 0).payload is OWN.data
    smaller = encoder(made, FAR, max_width=80).encode(frame(OWN), 1, 0)
    assert (smaller.encoding, smaller.size) == (Encoding.JPEG, (80, 45))
    assert header_size(smaller.payload) == (80, 45)


@pytest.mark.parametrize("address", [FAR, HERE, SHARED])
def test_pictures_are_scaled_down_to_a_width_and_never_up(made: list[Encoder], address: str) -> None:
    for width, size in ((64, (64, 36)), (1000, (160, 90))):
        tested = encoder(made, address, max_width=width)
        tested.shares = address == SHARED
        assert tested.encode(frame(), 1, 0).size == size


def test_memory_is_lent_only_for_pictures_sent_unscaled(made: list[Encoder]) -> None:
    tested = encoder(made, SHARED, max_width=160)
    assert tested.room((90, 160, 3)) is None, "the aggregator cannot open the memory"
    tested.shares = True
    room = tested.room((90, 160, 3))
    assert room is not None
    room[:] = IMAGE
    got = tested.encode(frame(room), 1, 0)
    assert (got.encoding, len(got.payload)) == (Encoding.SHARED, shared.DESCRIPTOR.size)
    assert tested.room((180, 320, 3)) is None, "it will be scaled down"


def test_jpegs_have_the_quality_that_is_set(made: list[Encoder]) -> None:
    sizes = [len(encoder(made, FAR, jpeg_quality=quality).encode(frame(), 1, 0).payload) for quality in (95, 60, 20)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_a_slow_link_is_logged_with_the_settings_to_change(
    made: list[Encoder], caplog: pytest.LogCaptureFixture
) -> None:
    tested = encoder(made, FAR)
    tested.encode(frame(), 1, 0)
    tested.record_transfer(0.2)
    assert not caplog.messages
    tested.record_transfer(4.0)
    tested.record_transfer(4.0)
    (message,) = caplog.messages
    assert "takes 4.0 s" in message
    assert "0.25 frames/s of camera door" in message
    for setting in ("jpeg_quality", "max_width", "transfer_time"):
        assert f"cameras.door.{setting}" in message
    caplog.clear()
    raw = encoder(made, HERE)
    raw.encode(frame(), 1, 0)
    raw.record_transfer(4.0)
    (message,) = caplog.messages
    assert 'set cameras.door.encoding = "jpeg"' in message


def test_with_a_transfer_time_frames_are_made_smaller_automatically(
    made: list[Encoder], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tested = encoder(made, FAR, transfer_time=0.5)
    sizes, payloads = [], []
    for _ in pace.LEVELS:
        got = tested.encode(frame(OWN), 1, 0)
        sizes.append(got.size)
        payloads.append(len(got.payload))
        tested.record_transfer(2.0)
    assert payloads[0] == len(OWN.data)
    assert payloads == sorted(payloads, reverse=True)
    assert sizes[0] == (160, 90)
    assert sizes[-1] == (40, 22)
    assert caplog.messages[0] == "frames of camera door are now sent at JPEG quality 50: the last one took 2.0 s"
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1, "once frames cannot be made smaller any more"
    assert "transfer_time" not in warned[0]
