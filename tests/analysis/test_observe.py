"""`Observer`: the same events as the service, also after an interruption."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import jpegs
import numpy as np
import pytest
from faults.service import STEADY

from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.analysis.observe import Observer
from fer_stream.errors import SourceError
from fer_stream.imaging import motion
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from beside import Beside
    from processes import Cli


@pytest.fixture(autouse=True)
def steady(cli: Cli) -> None:
    cli.environment |= STEADY


def settings(source: Path, **others: object) -> Settings:
    return Settings(cameras={"film": {"source": str(source)}}, **others)  # type: ignore[arg-type]


def texts(observer: Observer) -> list[str]:
    return [text for seen in observer for _, text in seen.events]


CASES: dict[str, tuple[int, dict[str, str]]] = {
    "emotions": (3, {}),
    "valence": (1, {"LABELS": "valence", "DEPTH": "5", "DETECTOR__MIN_FACE": "20"}),
}
"""Number of threads, and settings."""


@pytest.mark.parametrize("case", CASES)
def test_the_events_equal_the_services_byte_for_byte(cli: Cli, clip: Path, case: str) -> None:
    """With hints, depth and smoothing in effect."""
    same_events(cli, clip, *CASES[case])


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("head-pose-face-detection-female-and-male.gif", "emotions"),
        ("face-demographics-walking.gif", "valence"),
    ],
)
def test_on_real_clips_the_events_equal_the_services(cli: Cli, beside: Beside, name: str, case: str) -> None:
    """Faces that move, enter and turn away."""
    same_events(cli, beside.clip(name), *CASES[case])


def same_events(cli: Cli, film: Path, threads: int, how: dict[str, str]) -> None:
    """Assert that the service and the analysis give the same events."""
    how = {f"FER_STREAM_{key}": value for key, value in ({"CLASSIFIER__MODEL": "emotion-ferplus.onnx"} | how).items()}
    wait = ("--policy", "wait", "--format", "jsonl", "--journal", cli.folder / "events.db", "--workers", 2)
    service = cli.run("run", f"film={film}", *wait, **how)
    ours = cli.run("analyze", f"film={film}", "-o", cli.folder / "out", "--workers", threads, **how)
    assert (service.popen.returncode, ours.popen.returncode) == (0, 0)
    assert ".started" in service.out, "at least one interval; their number depends on the model"
    assert (cli.folder / "out/events.jsonl").read_text() == service.out


def test_a_video_of_jpegs_gives_the_same_events_passed_through_or_decoded(
    cli: Cli, clip: Path, tiny_model: Path
) -> None:
    """One picture is truncated (the capture rejects it), and one does not decode (a worker rejects it)."""
    read, packets = cv2.VideoCapture(str(clip)), []
    while len(packets) < 40 and (got := read.read())[0]:
        packets.append(cv2.imencode(".jpg", got[1])[1].tobytes())
    packets[20] = packets[20][:5000]
    film = jpegs.film(cli.folder / "film.avi", [*packets, jpegs.undecodable(packets[0])], 640, 480, 15)
    wait = ("--policy", "wait", "--format", "jsonl", "--journal", cli.folder / "events.db", "--workers", 1)
    service = cli.run("run", f"film={film}", *wait, "--summary", "summary.json")
    assert service.popen.returncode == 0
    assert '"face.entered"' in service.out
    ledger = json.loads((cli.folder / "summary.json").read_text())["cameras"]["film"]
    assert (ledger["captured"], ledger["done"], ledger["rejected"]) == (41, 39, 2)
    for encoding in ("auto", "raw"):
        cameras = {"film": {"source": str(film), "encoding": encoding}}
        observer = Observer(Settings(cameras=cameras, classifier={"model": tiny_model}), "film", 2)  # type: ignore[arg-type]
        assert texts(observer) == service.out.splitlines()
        assert observer.rejected == 2


def test_a_picture_that_does_not_decode_is_logged_once(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film = jpegs.film(tmp_path / "film.avi", [jpegs.jpeg(), jpegs.undecodable(jpegs.jpeg())])
    assert texts(Observer(settings(film, classifier={"model": tiny_model}), "film"))
    assert caplog.text.count("frame 2 is rejected: a picture that does not decode") == 1


def test_an_observation_holds_a_frame_and_its_tracks(clip: Path, tiny_model: Path) -> None:
    observer = Observer(settings(clip, classifier={"model": tiny_model}), "film")
    *frames, last = observer
    assert [seen.frame.number for seen in frames if seen.frame] == list(range(1, 61))
    assert last.frame is None
    assert [event.type for event, _ in last.events][-1] == "camera.offline"
    seen = frames[-1]
    assert seen.tracks
    assert {track.id for track in seen.tracks} == set(seen.estimates)
    assert all(any(track.face.box == box for box in seen.faces) for track in seen.tracks)
    assert observer.rejected == 0


def test_after_an_interruption_stored_answers_are_reused(
    clip: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = settings(clip, classifier={"model": tiny_model})
    whole = texts(Observer(how, "film"))
    first = Checkpoint(tmp_path / "checkpoint", "this")
    begun = iter(Observer(how, "film", 1, first))
    for _ in range(20):
        next(begun)
    begun.close()  # type: ignore[attr-defined]
    assert not _thumbnails(clip, (tmp_path / "checkpoint").read_bytes()), "the checkpoint holds no thumbnail"
    first.close(finished=False)
    with (tmp_path / "checkpoint").open("ab") as file:
        file.write(b"\x09\x00\x00\x00torn")  # a partial answer, as if the process was killed while writing
    looks, recognize = [], Recognizer.recognize
    monkeypatch.setattr(Recognizer, "recognize", lambda *given: looks.append(1) or recognize(*given))
    again = Checkpoint(tmp_path / "checkpoint", "this")
    observer = Observer(how, "film", 1, again)
    assert texts(observer) == whole
    assert (observer.recalled, len(looks)) == (20, 40)
    again.close(finished=True)
    assert not (tmp_path / "checkpoint").exists()


def test_answers_of_another_analysis_are_discarded(tmp_path: Path) -> None:
    for identity, expected in (("a", []), ("a", [b"x", b"", b"yz"]), ("b", [])):
        checkpoint = Checkpoint(tmp_path / "checkpoint", identity)
        found = []
        while (answer := checkpoint.recall()) is not None:
            found.append(answer)
        assert found == expected
        if not found:
            for answer in (b"x", b"", b"yz"):
                checkpoint.keep(answer)
        checkpoint.close(finished=False)


def test_a_frame_that_cannot_be_analysed_is_counted_and_the_others_continue(
    clip: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognize, calls = Recognizer.recognize, iter(range(1000))

    def break_once(self: Recognizer, image: np.ndarray, hints: object = None) -> object:
        if next(calls) in (5, 6):  # both attempts at one frame
            raise RuntimeError("a model that breaks")
        return recognize(self, image, hints)  # type: ignore[arg-type]

    monkeypatch.setattr(Recognizer, "recognize", break_once)
    observer = Observer(settings(clip, classifier={"model": tiny_model}), "film")
    frames = [seen for seen in observer if seen.frame]
    assert len(frames) == 60
    assert observer.rejected == 1


def test_a_source_that_breaks_off_raises_after_the_last_observation(tiny_model: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(_png())
    (tmp_path / "3.png").write_bytes(_png()[:-20])
    observer: Iterator[object] = iter(Observer(settings(tmp_path, classifier={"model": tiny_model}), "film"))
    for _ in range(4):  # three frames, and the closing events
        next(observer)
    with pytest.raises(SourceError, match=r"3\.png"):
        next(observer)


def _thumbnails(film: Path, content: bytes) -> int:
    """Return the number of frames of which ``content`` holds a row of the thumbnail."""
    video, found = cv2.VideoCapture(str(film)), 0
    while True:
        there, image = video.read()
        if not there:
            return found
        found += any(row.tobytes() in content for row in motion.thumbnail(image) if np.ptp(row) > 5)


def _png() -> bytes:
    return cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize("tail", [bytes(400), b"\x03\x00\x00\x00\x01\x02\x03\x04abc"])
def test_a_damaged_answer_is_discarded_with_all_after_it(tmp_path: Path, tail: bytes) -> None:
    """Zeros are what a power failure may leave on a disk."""
    checkpoint = Checkpoint(tmp_path / "checkpoint", "a")
    checkpoint.keep(b"x")
    checkpoint.close(finished=False)
    with (tmp_path / "checkpoint").open("ab") as file:
        file.write(tail)
    again = Checkpoint(tmp_path / "checkpoint", "a")
    assert again.left == 1
    assert (again.recall(), again.recall()) == (b"x", None)
    again.close(finished=True)
