"""Which pictures the reader keeps, rejects and masks, and when it reopens a source."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jpegs import exif, film, inserted, jpeg
from processes import wait_for

from fer_stream import Frame, Jpeg, Picture
from fer_stream.capture import reader as reading
from fer_stream.capture.reader import Reader
from fer_stream.capture.slot import Slot
from fer_stream.errors import SourceError
from fer_stream.protocol.messages import Totals
from fer_stream.settings.tree import CameraSettings

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = [jpeg(seed=seed) for seed in range(3)]
SPOILT = jpeg()[:700], b"no JPEG", jpeg(64, 0x4000).replace(b"\x40\x00\x00\x40", b"\x40\x01\x00\x40")
"""A truncated JPEG, bytes that are no JPEG, and a JPEG whose header exceeds the size limit."""


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


def test_jpegs_are_kept_unchanged(tmp_path: Path) -> None:
    frames, totals = kept(film(tmp_path / "film.avi", PICTURES))
    assert [frame.content.data for frame in frames if isinstance(frame.content, Jpeg)] == PICTURES
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert totals == Totals(captured=3, sent=3)


def test_masks_are_applied_to_frames(tmp_path: Path) -> None:
    frames, _ = kept(film(tmp_path / "film.avi", PICTURES), masks=[(0, 0, 0.5, 1)])
    for frame, data in zip(frames, PICTURES, strict=True):
        assert isinstance(frame.content, np.ndarray)
        assert not frame.image[:, :32].any()
        np.testing.assert_array_equal(frame.image[:, 32:], Jpeg(data).decode()[:, 32:])


def test_raw_pixels_equal_a_worker_s_decoding(tmp_path: Path) -> None:
    frames, _ = kept(film(tmp_path / "film.avi", PICTURES), encoding="raw")
    for frame, data in zip(frames, PICTURES, strict=True):
        assert isinstance(frame.content, np.ndarray)
        np.testing.assert_array_equal(frame.image, Jpeg(data).decode())


def test_damaged_pictures_are_rejected_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames, totals = kept(film(tmp_path / "film.avi", [PICTURES[0], *SPOILT, PICTURES[1]]))
    assert [frame.content.data for frame in frames if isinstance(frame.content, Jpeg)] == PICTURES[:2]
    assert [frame.number for frame in frames] == [1, 2]
    assert totals == Totals(captured=5, rejected=3, sent=2)
    assert len(caplog.records) == 1, "one warning for all, as every frame of a camera may be damaged"
    (message,) = (record.getMessage() for record in caplog.records)
    assert any(why in message for why in ("a JPEG that is cut short", "not a JPEG", "64x16385 is over the limit"))


@pytest.mark.parametrize(
    ("spoilt", "why"),
    list(zip(SPOILT, ("a JPEG that is cut short", "not a JPEG", "64x16385 is over the limit"), strict=True)),
)
def test_the_warning_gives_the_cause(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoilt: bytes, why: str) -> None:
    kept(film(tmp_path / "film.avi", [PICTURES[0], spoilt]))
    assert why in caplog.text


@pytest.mark.parametrize(
    "spoilt", [SPOILT[0], inserted(jpeg(), exif(6))[:900], jpeg().replace(b"\xff\xdb", b"\xff\xe9")]
)
def test_damaged_pictures_are_rejected_with_masks_too(tmp_path: Path, spoilt: bytes) -> None:
    _, totals = kept(film(tmp_path / "film.avi", [PICTURES[0], spoilt, PICTURES[1]]), masks=[(0, 0, 0.5, 1)])
    assert totals == Totals(captured=3, rejected=1, sent=2)


def test_a_rotated_jpeg_within_a_video_is_decoded(tmp_path: Path) -> None:
    """It is decoded upright, as from a folder: a worker would not know its size."""
    turned = inserted(jpeg(), exif(6))
    (_, frame), totals = kept(film(tmp_path / "film.avi", [PICTURES[0], turned]))
    assert isinstance(frame.content, np.ndarray)
    assert frame.size == (48, 64)
    assert totals.sent == 2


def test_a_failed_source_keeps_no_picture_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture would occupy its shared memory until the next failure."""
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
    monkeypatch.setattr(reading, "open_source", lambda _: sources.pop(0))
    monkeypatch.setattr(reading, "PAUSES", (0.01, 0.01))
    slot = Slot("drop_oldest")
    reader = Reader("door", CameraSettings(source="rtsp://192.0.2.1/"), "drop_oldest", slot, lambda: None)
    reader.start()
    assert again.wait(10)
    assert slot.take() is not None
    assert pictures[0]() is None
    reader.stop()
    reader.join()


def test_a_camera_is_stuck_if_it_delivers_nothing_but_not_while_the_slot_is_full(
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

    monkeypatch.setattr(reading, "open_source", lambda _: Stalling())
    slot = Slot("wait")
    camera = CameraSettings(source="rtsp://192.0.2.1/", open_timeout=0.1, read_timeout=0.1)
    reader = Reader("door", camera, "wait", slot, lambda: None)
    reader.start()
    assert asked.acquire(timeout=10)
    assert asked.acquire(timeout=10)
    time.sleep(0.5)
    assert not reader.stuck(), "the second picture waits for the slot"
    slot.take()
    assert asked.acquire(timeout=10)
    time.sleep(0.5)
    assert not reader.stuck(), "the third picture waits, too"
    slot.take()
    assert asked.acquire(timeout=10)
    slot.take()
    wait_for(reader.stuck, "the camera to count as stuck")
    stalled.set()
    reader.stop()
    reader.join()


def test_a_picture_holds_a_jpeg_or_pixels() -> None:
    assert Picture(Jpeg(PICTURES[0])).size == Picture(Jpeg(PICTURES[0]).decode()).size == (64, 48)


def test_a_file_url_is_read_once_to_its_end(tmp_path: Path) -> None:
    frames, totals = kept(f"file://{film(tmp_path / 'film.avi', PICTURES)}")
    assert len(frames) == 3
    assert totals == Totals(captured=3, sent=3)


@pytest.mark.parametrize(("transient", "tries"), [(True, 2), (False, 1)])
def test_opening_is_retried_only_after_a_transient_error(
    transient: bool, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(settings: CameraSettings) -> None:
        tried.append(settings)
        raise SourceError("no camera yet", transient=transient and len(tried) == 1)

    monkeypatch.setattr(reading, "open_source", fail)
    monkeypatch.setattr(reading, "PAUSES", (0.01, 0.01))
    reader = Reader("door", CameraSettings(source="0"), "wait", Slot("wait"), lambda: None)
    reader.start()
    reader.join(10)
    assert len(tried) == tries
    assert isinstance(reader.error, SourceError)


def test_analysis_does_not_import_the_capture_s_protocol() -> None:
    code = "import sys, fer_stream.analysis.observe; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unused = {"session", "process", "encoder"}
    assert not {f"fer_stream.capture.{name}" for name in unused} & set(done.stdout.split())
