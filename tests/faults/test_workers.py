"""Workers that are killed, frozen, crash on a frame, or may not open the capture's shared memory."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from faults.service import SLOWLY, STEADY, sound, standing, stored
from processes import balanced, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.service import Service
    from faults.table import Tell
    from processes import Cli
    from scale import Scale


def test_killed_every_two_seconds(service: Callable[..., Service], clip: Path, scale: Scale, tell: Tell) -> None:
    it = service(clip, "--loop", "--rate", 30, workers=4)
    it.until_workers(4)
    kills, waiting, back = scale.of(3, 300), dict[str, tuple[int, float]](), list[float]()
    for number in range(kills):
        begin = time.monotonic()
        name = str(number % 4 + 1)
        if name not in waiting and (pid := it.pid(name)):
            it.run.child(f"worker {name}").kill()
            waiting[name] = pid, begin
        last = number == kills - 1
        while time.monotonic() < begin + 2 or (last and waiting):
            for other, (old, since) in list(waiting.items()):
                if it.pid(other) not in (0, old):
                    back.append(time.monotonic() - since - it.pause(f"worker {other}"))
                    del waiting[other]
            time.sleep(0.05)
    done = it.done()
    it.until(lambda: it.done() > done + 3, "frames that go on")
    ledger, _ = it.end()
    died = it.run.err.count("is started again in")
    assert died > 0
    assert ledger["lost_worker"] <= died, "at most the frame that it processed"
    assert ledger["lost_link"] == ledger["rejected"] == 0
    late = max(back, default=0.0)
    tell(
        "worker killed (-9) every 2 s, 4 workers",
        f"{died} kills; ledger adds up exactly, {ledger['captured']} frames",
        f"{ledger['lost_worker']} frames lost; replaced within {late:.1f} s and the pause",
        (ledger["lost_worker"], died), (late, 3.0),
    )  # fmt: skip


def test_killed_under_wait_the_events_are_the_same(
    service: Callable[..., Service], clip: Path, undisturbed: str, tell: Tell
) -> None:
    it = service(clip, *SLOWLY, **STEADY)
    it.run.until_event("camera.online")
    killed = it.run.child("worker 1")
    killed.kill()
    it.run.until_said("worker 1 is started again in")
    ledger, _ = it.end(stop=False)
    assert it.run.out == undisturbed
    assert ledger["captured"] == ledger["done"] == 60
    tell("worker killed under `wait`", "no event differs from an undisturbed run", "0 frames lost")


def test_frozen_and_continued(cli: Cli, short_folder: Path, clip: Path, scale: Scale, tell: Tell) -> None:
    address = f"ipc://{short_folder}"
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db")
    worker = cli.start("worker", "--name", "1", "--connect", address)
    cli.start("worker", "--name", "2", "--connect", address)
    capture = cli.start("capture", clip, "--camera", "film", "--loop", "--rate", 60, "--connect", address)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = wait_for(lambda: standing(address), "an answer")
        return found

    def ledger() -> dict[str, int]:
        found: dict[str, int] = status()["cameras"]["film"]["ledger"]
        return found

    def frozen_with_a_frame() -> bool:
        worker.signal(signal.SIGSTOP)
        if status()["workers"].get("1", {}).get("state") == "busy":
            return True
        worker.signal(signal.SIGCONT)
        return False

    times, noticed = scale.of(2, 30), list[float]()
    for number in range(1, times + 1):
        wait_for(lambda: {"1", "2"} <= status()["workers"].keys(), "both workers")
        done = status()["workers"]["1"]["frames"]
        wait_for(lambda at=done: status()["workers"]["1"]["frames"] > at, "a worker that works")
        wait_for(frozen_with_a_frame, "a busy worker")
        begin = time.monotonic()
        wait_for(lambda: "1" not in status()["workers"], "the removal of the frozen worker")
        noticed.append(time.monotonic() - begin)
        assert ledger()["lost_worker"] == number
        worker.signal(signal.SIGCONT)
        wait_for(lambda n=number: aggregator.err.count('"worker 1 is here"') == n + 1, "the return of the worker")
        assert ledger()["lost_worker"] == number, "the frame stays lost: the late result is dropped"
        assert balanced(ledger())
    assert capture.stop() == aggregator.stop() == 0, aggregator.err
    assert aggregator.err.count("is given up: silent") == times
    sound(stored(cli))
    tell(
        "worker frozen (SIGSTOP) with a frame, then continued",
        f"{times} times; each frame counted as lost_worker once, late results accepted: 0",
        f"noticed within {max(noticed):.2f} s",
        (max(noticed), 2.5),
    )  # fmt: skip


def test_a_worker_that_takes_several_frames_loses_no_more_than_it_holds(
    cli: Cli, short_folder: Path, clip: Path, tell: Tell
) -> None:
    address, cameras = f"ipc://{short_folder}", [f"camera-{number}" for number in range(6)]
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db")
    worker = cli.start("worker", "--name", "1", "--batch", 4, "--connect", address)
    captures = [
        cli.start("capture", clip, "--camera", name, "--loop", "--rate", 10, "--connect", address) for name in cameras
    ]

    def ledgers() -> list[dict[str, int]]:
        found: dict[str, Any] = wait_for(lambda: standing(address), "an answer")
        return [camera["ledger"] for camera in found["cameras"].values()]

    def total(term: str) -> int:
        return sum(ledger[term] for ledger in ledgers())

    wait_for(lambda: len(ledgers()) == 6 and all(ledger["done"] > 2 for ledger in ledgers()), "frames of all cameras")
    worker.signal(signal.SIGSTOP)  # it gets frames until it has as many as it takes
    aggregator.until_said("worker 1 is given up: silent")
    assert total("lost_worker") == 4
    worker.signal(signal.SIGCONT)
    done = total("done")
    wait_for(lambda: total("done") > done + 6, "frames after the return of the worker")
    assert total("lost_worker") == 4, "late answers are dropped"
    assert all(capture.stop() == 0 for capture in captures)
    assert all(balanced(ledger) for ledger in ledgers())
    assert aggregator.stop() == 0
    sound(stored(cli))
    tell("worker frozen with four frames in hand", "each frame counted as lost_worker once", "4 frames lost")


CRASHING = '''
"""MTCNN, except that the process dies on a white picture, as with a fault in a native library."""
import os, signal
from fer_stream.inference.detectors import mtcnn

class Crashing:
    def __init__(self, settings):
        self._it = mtcnn.load(settings)

    concurrent = True

    def detect(self, image):
        if image.min() > 240 and not os.path.exists("harmless"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return self._it.detect(image)

def load(settings):
    return Crashing(settings)
'''


@pytest.fixture
def crashing(tmp_path: Path) -> dict[str, str]:
    """An environment in which the plug-in ``--detector crashing`` is installed."""
    folder = tmp_path / "plug-in"
    about = folder / "crashing-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "crashing.py").write_text(CRASHING)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[fer_stream.detectors]\ncrashing = crashing:load\n")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def poisoned(tmp_path: Path, clip: Path) -> Path:
    """The clip's first 30 frames, the 20th of them white."""
    path, film = tmp_path / "poisoned.avi", cv2.VideoCapture(str(clip))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    for number in range(1, 31):
        image = film.read()[1]
        writer.write(np.full_like(image, 255) if number == 20 else image)
    writer.release()
    return path


@pytest.mark.parametrize("batch", [1, 8])
def test_poisoned_under_wait(
    service: Callable[..., Service], crashing: dict[str, str], poisoned: Path, batch: int, tell: Tell
) -> None:
    more = ("--policy", "wait", "--detector", "crashing", "--batch", batch)
    it = service(poisoned, *more, **crashing, **STEADY)
    ledger, events = it.end(stop=False)
    assert (ledger["captured"], ledger["done"], ledger["rejected_poisoned"]) == (30, 29, 1)
    assert it.run.err.count("is started again in") == 2, "at once, or after a pause if it was not ready yet"
    assert [event["type"] for event in events].count("face.entered") >= 1
    tell("model crashes on one frame, `wait`", "rejected as poisoned after two tries; the pool lives", "29 of 30 done")


def test_poisoned_live(
    service: Callable[..., Service], crashing: dict[str, str], poisoned: Path, scale: Scale, tell: Tell
) -> None:
    it = service(poisoned, "--loop", "--rate", 5, "--detector", "crashing", **crashing)
    times = scale.of(1, 20)
    it.until(lambda: it.ledger().get("lost_worker", 0) >= times, "a frame that crashes a worker")
    done = it.done()
    it.until(lambda: it.done() > done + 10, "a working pool")
    (it.cli.folder / "harmless").touch()
    it.until(lambda: it.ledger()["lost_worker"] == it.run.err.count("is started again in"), "each death in the ledger")
    ledger, _ = it.end()
    died = it.run.err.count("is started again in")
    assert ledger["lost_worker"] == died
    assert ledger["rejected"] == 0
    tell("model crashes on one frame, live", f"{died} times: lost after one try; the pool lives", f"{died} frames lost")


CLOSED = """
import ctypes
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE 0: no other process of this user may access this one
"""


def test_memory_that_may_not_be_opened(cli: Cli, short_folder: Path, tmp_path: Path, clip: Path, tell: Tell) -> None:
    address = f"ipc://{short_folder}"
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "sitecustomize.py").write_text(CLOSED)
    capture = cli.start(
        *("capture", clip, "--camera", "film", "--policy", "wait", "--connect", address),
        PYTHONPATH=str(tmp_path / "closed"),
    )
    if os.geteuid() == 0:  # root may access every process, unless this capability is dropped
        cli.under = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    cli.start("worker", "--name", "1", "--connect", address)
    aggregator.until_said("worker 1 may not open captures' memory and gets copies")
    assert capture.end() == 0
    found = wait_for(lambda: standing(address), "an answer")
    assert found["cameras"]["film"]["ledger"]["done"] == 60, "the worker had the pixels of every frame"
    tell("worker that may not open shared memory", "every frame comes again with its pixels", "60 of 60 done")
