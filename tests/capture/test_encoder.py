"""What frames are sent as, and how much smaller."""

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
        (SHARED, "auto", Encoding.RAW),  # as long as nobody can open our memory
    ],
)
def test_where_the_aggregator_is_decides(made: list[Encoder], address: str, encoding: str, expected: Encoding) -> None:
    got = encoder(made, address, encoding=encoding).encode(frame(), 1, 0)
    assert (got.encoding, got.size) == (expected, (160, 90))
    if expected is Encoding.RAW:
        assert bytes(got.payload) == IMAGE.tobytes()
    else:
        assert header_size(got.payload) == (160, 90)


def test_a_camera_s_own_jpeg_passes_unless_it_is_to_be_smaller(made: list[Encoder]) -> None:
    assert encoder(made, FAR).encode(frame(OWN), 1, 0).payload is OWN.data
    assert encoder(made, FAR, max_width=160).encode(frame(OWN), 1, 0).payload is OWN.data
    smaller = encoder(made, FAR, max_width=80).encode(frame(OWN), 1, 0)
    assert (smaller.encoding, smaller.size) == (Encoding.JPEG, (80, 45))
    assert header_size(smaller.payload) == (80, 45)


@pytest.mark.parametrize("address", [FAR, HERE, SHARED])
def test_pictures_are_scaled_down_to_a_width_and_never_up(made: list[Encoder], address: str) -> None:
    for width, size in ((64, (64, 36)), (1000, (160, 90))):
        it = encoder(made, address, max_width=width)
        it.shares = address == SHARED
        assert it.encode(frame(), 1, 0).size == size


def test_memory_is_lent_only_to_pictures_that_are_sent_as_they_lie(made: list[Encoder]) -> None:
    it = encoder(made, SHARED, max_width=160)
    assert it.room((90, 160, 3)) is None, "nobody shares it"
    it.shares = True
    place = it.room((90, 160, 3))
    assert place is not None
    place[:] = IMAGE
    got = it.encode(frame(place), 1, 0)
    assert (got.encoding, len(got.payload)) == (Encoding.SHARED, shared.DESCRIPTOR.size)
    assert it.room((180, 320, 3)) is None, "it will be scaled down"


def test_jpegs_have_the_quality_that_is_set(made: list[Encoder]) -> None:
    sizes = [len(encoder(made, FAR, jpeg_quality=quality).encode(frame(), 1, 0).payload) for quality in (95, 60, 20)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_a_slow_link_is_told_of_with_what_to_set(made: list[Encoder], caplog: pytest.LogCaptureFixture) -> None:
    it = encoder(made, FAR)
    it.encode(frame(), 1, 0)
    it.came(0.2)
    assert not caplog.messages
    it.came(4.0)
    it.came(4.0)
    (said,) = caplog.messages
    assert "takes 4.0 s" in said
    assert "0.25 frames/s of camera door" in said
    for setting in ("jpeg_quality", "max_width", "transfer_time"):
        assert f"cameras.door.{setting}" in said
    caplog.clear()
    raw = encoder(made, HERE)
    raw.encode(frame(), 1, 0)
    raw.came(4.0)
    (said,) = caplog.messages
    assert 'set cameras.door.encoding = "jpeg"' in said


def test_with_a_time_that_frames_may_take_they_become_smaller_by_themselves(
    made: list[Encoder], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    it = encoder(made, FAR, transfer_time=0.5)
    sizes, payloads = [], []
    for _ in pace.LEVELS:
        got = it.encode(frame(OWN), 1, 0)
        sizes.append(got.size)
        payloads.append(len(got.payload))
        it.came(2.0)
    assert payloads[0] == len(OWN.data)
    assert payloads == sorted(payloads, reverse=True)
    assert sizes[0] == (160, 90)
    assert sizes[-1] == (40, 22)
    assert caplog.messages[0] == "frames of camera door are now sent at JPEG quality 50: the last one took 2.0 s"
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1, "when nothing can be made smaller any more"
    assert "transfer_time" not in warned[0]
