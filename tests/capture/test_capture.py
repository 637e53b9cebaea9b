"""What leaves the capture: the camera's own JPEGs where nothing has to be done to them, and what is counted else."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from camera_servers import Camera
from jpegs import exif, film, inserted, jpeg
from processes import free_port, wait_for

from fer_stream import Frame, Jpeg, Picture, plugins
from fer_stream.capture import capture
from fer_stream.capture.capture import Capture, Reader, Slot
from fer_stream.errors import SourceError
from fer_stream.protocol import shared, wire
from fer_stream.protocol.wire import Encoding, Kind, Message, Totals
from fer_stream.settings.tree import CameraSettings, Settings
from fer_stream.types import Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PICTURES = [jpeg(seed=seed) for seed in range(3)]
SPOILT = jpeg()[:700], b"no JPEG", jpeg(64, 0x4000).replace(b"\x40\x00\x00\x40", b"\x40\x01\x00\x40")
"""Cut short, none at all, and one that says it is taller than a picture may be."""


def kept(source: object, **settings: Any) -> tuple[list[Frame], Totals]:
    """Return the frames that a recording leaves in the slot, and the totals."""
    slot, news = Slot("wait"), threading.Event()
    reader = Reader("door", CameraSettings(source=str(source), **settings), "wait", slot, news.set)
    reader.start()
    found = []
    while True:
        ended = reader.ended
        if (held := slot.take()) is not None:
            found.append(held[0])
        elif ended:
            assert reader.error is None
            return found, slot.state()[0]
        else:
            news.wait(1)
            news.clear()


def test_jpegs_are_kept_as_they_came(tmp_path: Path) -> None:
    frames, totals = kept(film(tmp_path / "film.avi", PICTURES))
    assert [frame.content.data for frame in frames if isinstance(frame.content, Jpeg)] == PICTURES
    assert [frame.seq for frame in frames] == [1, 2, 3]
    assert totals == Totals(captured=3, sent=3)


def test_a_mask_lies_on_what_leaves(tmp_path: Path) -> None:
    frames, _ = kept(film(tmp_path / "film.avi", PICTURES), masks=[(0, 0, 0.5, 1)])
    for frame, data in zip(frames, PICTURES, strict=True):
        assert isinstance(frame.content, np.ndarray)
        assert not frame.image[:, :32].any()
        np.testing.assert_array_equal(frame.image[:, 32:], Jpeg(data).decode()[:, 32:])


def test_raw_pixels_are_those_that_a_worker_would_see(tmp_path: Path) -> None:
    frames, _ = kept(film(tmp_path / "film.avi", PICTURES), encoding="raw")
    for frame, data in zip(frames, PICTURES, strict=True):
        assert isinstance(frame.content, np.ndarray)
        np.testing.assert_array_equal(frame.image, Jpeg(data).decode())


def test_what_is_broken_is_rejected_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames, totals = kept(film(tmp_path / "film.avi", [PICTURES[0], *SPOILT, PICTURES[1]]))
    assert [frame.content.data for frame in frames if isinstance(frame.content, Jpeg)] == PICTURES[:2]
    assert [frame.seq for frame in frames] == [1, 2]
    assert totals == Totals(captured=5, rejected=3, sent=2)
    assert len(caplog.records) == 1, "one word for all of them: each frame of a camera may be so"
    (told,) = (record.getMessage() for record in caplog.records)
    assert any(why in told for why in ("a JPEG that is cut short", "not a JPEG", "64x16385 is over the limit"))


@pytest.mark.parametrize(
    ("spoilt", "why"),
    list(zip(SPOILT, ("a JPEG that is cut short", "not a JPEG", "64x16385 is over the limit"), strict=True)),
)
def test_it_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoilt: bytes, why: str) -> None:
    kept(film(tmp_path / "film.avi", [PICTURES[0], spoilt]))
    assert why in caplog.text


def test_a_closed_slot_counts_nothing() -> None:
    slot = Slot("drop_oldest")
    slot.reject()
    slot.close()
    slot.reject()
    assert slot.state() == (Totals(captured=1, rejected=1), False)


@pytest.mark.parametrize(
    "spoilt", [SPOILT[0], inserted(jpeg(), exif(6))[:900], jpeg().replace(b"\xff\xdb", b"\xff\xe9")]
)
def test_a_mask_does_not_hide_what_is_broken(tmp_path: Path, spoilt: bytes) -> None:
    _, totals = kept(film(tmp_path / "film.avi", [PICTURES[0], spoilt, PICTURES[1]]), masks=[(0, 0, 0.5, 1)])
    assert totals == Totals(captured=3, rejected=1, sent=2)


def test_one_that_is_turned_within_a_film_is_decoded(tmp_path: Path) -> None:
    """It comes the right way up, as from a folder; a worker would not know its size."""
    turned = inserted(jpeg(), exif(6))
    (_, frame), totals = kept(film(tmp_path / "film.avi", [PICTURES[0], turned]))
    assert isinstance(frame.content, np.ndarray)
    assert frame.size == (48, 64)
    assert totals.sent == 2


class Aggregator:
    """The other side of one capture's link."""

    def __init__(self, transport: str, address: str, **camera: Any) -> None:
        self._hub = plugins.load("transports", transport)().bind(address)
        self._peer = plugins.load("transports", transport)().connect(address, "frames")
        self._from = b""
        settings = Settings(transport=transport, address=address, cameras={"door": CameraSettings(**camera)})
        self.capture = Capture(settings, "door", self._peer)
        self.capture.reader.start()

    def hear(self, kind: Kind) -> Message:
        """Return the next message of a kind."""

        def heard() -> list[Message]:
            self.capture.step(0.02)
            came = self._hub.receive(0.02)
            self._from = next((peer for _, peer, _ in came), self._from)
            found = [wire.unpack(parts) for _, _, parts in came]
            return [message for message in found if message.kind is kind]

        return wait_for(heard, kind.name)[0]

    def welcome(self) -> None:
        """Know the capture, and share memory with it; return once it has a frame."""
        self.hear(Kind.HELLO)
        self.say(Kind.WELCOME, {"memory": True})
        while not self.hear(Kind.OFFER).body()["full"]:
            pass

    def say(self, kind: Kind, body: dict[str, Any]) -> None:
        self._hub.send("frames", self._from, wire.json_message(kind, body))

    def close(self) -> None:
        self.capture.reader.stop()
        self.capture.reader.join()
        self.capture.close()
        self._peer.close()
        self._hub.close()


@pytest.fixture
def clip_of_noise(tmp_path: Path) -> Path:
    """A film that FFmpeg decodes."""
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 20, (64, 48))
    for seed in range(24):
        writer.write(Jpeg(jpeg(seed=seed)).decode())
    writer.release()
    return tmp_path / "film.mp4"


@pytest.fixture
def camera() -> Iterator[Camera]:
    found = Camera(PICTURES[:1], rate=100)
    yield found
    found.vanish()


@pytest.mark.parametrize("link", ["memory", "ipc", "tcp", "raw"])
def test_a_camera_s_picture_goes_to_the_aggregator_as_it_came(
    link: str, camera: Camera, tmp_path: Path, short_folder: Path
) -> None:
    address = {"ipc": f"ipc://{short_folder}", "tcp": f"tcp://127.0.0.1:{free_port()}"}.get(
        link, f"memory://{tmp_path.name}"
    )
    encoding = {"tcp": "jpeg", "raw": "raw"}.get(link, "auto")
    it = Aggregator(
        "memory" if link in ("memory", "raw") else "zeromq",
        address,
        source=f"http://127.0.0.1:{camera.port}/",
        encoding=encoding,
    )
    try:
        it.welcome()
        it.say(Kind.NEXT, {})
        message = it.hear(Kind.FRAME)
    finally:
        it.close()
    assert (message.width, message.height) == (64, 48)
    assert message.encoding is (Encoding.RAW if link == "raw" else Encoding.JPEG)
    pixels = Jpeg(PICTURES[0]).decode()
    assert bytes(message.payload) == (pixels.tobytes() if link == "raw" else PICTURES[0])
    np.testing.assert_array_equal(shared.Reader().picture(message), pixels)


@pytest.mark.parametrize("masks", [[], [(0, 0, 0.5, 1)]])
def test_a_film_is_decoded_into_the_memory_that_is_shared(
    masks: list[tuple[float, ...]], clip_of_noise: Path, short_folder: Path
) -> None:
    it = Aggregator("zeromq", f"ipc://{short_folder}", source=str(clip_of_noise), policy="wait", masks=masks)
    reader, seen = shared.Reader(), cv2.VideoCapture(str(clip_of_noise))
    try:
        it.welcome()
        for number in range(20):
            waiting = wait_for(lambda: it.capture.slot._held, "a frame")
            rings = it.capture._encoder._memory._rings
            # The first ones were read before it was known whether there is anybody to share with.
            assert number < 3 or rings[-1].holding(waiting[0].image) is not None
            del waiting
            it.say(Kind.NEXT, {"done": number})
            message = it.hear(Kind.FRAME)
            assert message.encoding is Encoding.SHARED
            image = seen.read()[1]
            image[:, : 32 if masks else 0] = 0
            np.testing.assert_array_equal(reader.picture(message), image)
    finally:
        it.close()


def test_what_is_superseded_is_never_decoded() -> None:
    slot, jpegs = Slot("drop_oldest"), [Jpeg(data) for data in PICTURES]
    for seq, content in enumerate(jpegs, 1):
        slot.put(Frame("door", seq, Nanoseconds(seq), content), time.monotonic())
    assert slot.state()[0] == Totals(captured=3, superseded=2)
    held = slot.take()
    assert held is not None
    assert held[0].content is jpegs[-1]
    assert [content._image for content in jpegs] == [None] * 3


def test_a_source_that_has_failed_leaves_no_picture_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place would be taken until it fails again, and all of a ring whose size is another one by then."""
    pictures, again = [], threading.Event()

    class Failing:
        live, frames = True, None

        def read(self) -> Picture:
            if pictures:
                raise SourceError("the camera has gone")
            image = np.zeros((48, 64, 3), np.uint8)
            pictures.append(weakref.ref(image))
            return Picture(image)

        def close(self) -> None:
            pass

    class Waiting(Failing):
        def read(self) -> None:  # type: ignore[override]
            again.set()
            time.sleep(0.5)

    sources = [Failing(), Waiting()]
    monkeypatch.setattr(capture, "open_source", lambda _: sources.pop(0))
    monkeypatch.setattr(capture, "PAUSES", (0.01, 0.01))
    slot = Slot("drop_oldest")
    reader = Reader("door", CameraSettings(source="rtsp://192.0.2.1/"), "drop_oldest", slot, lambda: None)
    reader.start()
    assert again.wait(10)
    assert slot.take() is not None
    assert pictures[0]() is None
    reader.stop()
    reader.join()


def test_a_camera_is_stuck_that_gives_nothing_and_not_one_whose_pictures_nobody_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, stalled = threading.Semaphore(0), threading.Event()

    class Stalling:
        live, frames = True, None
        given = 0

        def read(self) -> Picture:
            self.given += 1
            asked.release()
            if self.given == 4:
                stalled.wait()
            return Picture(np.zeros((48, 64, 3), np.uint8))

        def close(self) -> None:
            pass

    monkeypatch.setattr(capture, "open_source", lambda _: Stalling())
    slot = Slot("wait")
    camera = CameraSettings(source="rtsp://192.0.2.1/", open_timeout=0.1, read_timeout=0.1)
    reader = Reader("door", camera, "wait", slot, lambda: None)
    reader.start()
    assert asked.acquire(timeout=10)
    assert asked.acquire(timeout=10)
    time.sleep(0.5)
    assert not reader.stuck(), "the second picture waits for room"
    slot.take()
    assert asked.acquire(timeout=10)
    time.sleep(0.5)
    assert not reader.stuck(), "as the third does then"
    slot.take()
    assert asked.acquire(timeout=10)
    slot.take()
    wait_for(reader.stuck, "word that the camera gives nothing")
    stalled.set()
    reader.stop()
    reader.join()


def test_a_plug_in_gives_what_its_camera_sends() -> None:
    assert Picture(Jpeg(PICTURES[0])).size == Picture(Jpeg(PICTURES[0]).decode()).size == (64, 48)
