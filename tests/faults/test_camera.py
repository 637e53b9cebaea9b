"""A camera that is disconnected, sends nothing, changes its resolution, or comes and goes; a capture that is killed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import psutil
import pytest
from camera_servers import Camera
from faults.service import descriptors, megabytes
from processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faults.service import Service
    from faults.table import Tell
    from scale import Scale


@pytest.fixture(scope="module")
def pictures(clip: Path) -> list[bytes]:
    """The clip as JPEGs."""
    film, found = cv2.VideoCapture(str(clip)), []
    while (read := film.read())[0]:
        found.append(cv2.imencode(".jpg", read[1])[1].tobytes())
    return found


@pytest.fixture
def camera(pictures: list[bytes]) -> Iterator[Camera]:
    found = Camera(pictures)
    yield found
    found.vanish()


def sizes(out: str) -> set[int]:
    """Return the widths in a camera's events."""
    events = map(json.loads, out.splitlines()[:-1])
    return {event["data"]["width"] for event in events if event["type"].startswith("camera.")}


def brief(folder: Path) -> tuple[str, str]:
    """Return options with limits far below the defaults, so that the test is fast."""
    limits = "open_timeout = 20.0\nread_timeout = 1.0\n"
    (folder / "brief.toml").write_text(f"[cameras.film]\n{limits}[dispatch]\noffline_after = 1.0\n")
    return "--config", "brief.toml"


def test_faults_of_a_camera(
    service: Callable[..., Service], camera: Camera, pictures: list[bytes], tmp_path: Path, scale: Scale, tell: Tell
) -> None:
    it = service(f"http://127.0.0.1:{camera.port}/", *(() if scale.share else brief(tmp_path)), workers=1)

    def count(kind: str) -> int:
        return [event["type"] for event in it.run.events].count(kind)

    def seen(kind: str, deed: Callable[[], object]) -> float:
        """Return the seconds from a deed to one more event of a kind."""
        before = count(kind)
        deed()
        return it.until(lambda: count(kind) > before, kind)

    it.run.until_event("emotion.started")
    limit, figures = 10.0 if scale.share else 60.0, []
    for fault, fail in (("cut off", camera.vanish), ("accepts and sends nothing", camera.hang)):
        begin = time.monotonic()
        gone = seen("camera.offline", fail)
        time.sleep(max(0, scale.of(2, 60) - (time.monotonic() - begin)))
        back = seen("camera.online", camera.serve)
        figures += [(gone, limit), (back, 5.0)]
        tell(
            f"camera {fault}" + (f" for {scale.of(2, 60)} s" if scale.share else ""),
            "camera.offline, then camera.online; open intervals are closed",
            f"offline within {gone:.1f} s, back within {back:.1f} s",
            *figures[-2:],
        )
    resets = count("camera.reset")
    camera.pictures = [
        cv2.imencode(".jpg", cv2.resize(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), (320, 240)))[
            1
        ].tobytes()
        for jpeg in pictures
    ]
    camera.cut()
    it.until(lambda: count("camera.reset") > resets or sizes(it.run.out) == {640, 320}, "another resolution")
    tell("camera changes its resolution", "reported by camera.reset or the next camera.online", "0 events missing")

    old = it.run.child("capture film").pid
    gone = seen("camera.offline", it.run.child("capture film").kill)
    it.until(lambda: it.run.events[-1]["epoch"] > 1, "another capture")
    assert it.run.child("capture film").pid != old
    ledger, events = it.end()
    assert ledger["done"] > 0
    assert {event["epoch"] for event in events} == {1, 2}
    again = next(at for at, event in enumerate(events) if event["epoch"] == 2)
    assert events[again - 1]["type"] == "camera.offline", "closed before anything new begins"
    tell("capture killed (-9)", "camera.offline, and a new epoch", f"offline within {gone:.1f} s", (gone, 10.0))


def test_a_camera_that_comes_and_goes(
    service: Callable[..., Service], camera: Camera, scale: Scale, tell: Tell
) -> None:
    it = service(f"http://127.0.0.1:{camera.port}/", workers=1)
    cycles, begun = scale.of(3, 1000), (0.0, 0)

    def parts() -> list[psutil.Process]:
        return [psutil.Process(it.run.pid), *it.run.children()]

    it.run.until_event("camera.online")
    for number in range(cycles):
        done = it.done()
        it.until(lambda at=done: it.done() > at, "pictures")
        if number == min(cycles // 4, 20):  # by now all permanent allocations have been made
            begun = megabytes(parts()), descriptors(parts())
            pids = {part.pid for part in parts()}
        camera.cut() if number % 2 else (camera.vanish(), camera.serve())
    done = it.done()
    it.until(lambda: it.done() > done, "pictures")
    grown = megabytes(parts()) - begun[0]
    wait_for(lambda: descriptors(parts()) <= begun[1], "file descriptors that are closed again")
    assert {part.pid for part in parts()} == pids, "no process died, and there is no additional one"
    assert grown < 50
    it.end()
    tries = it.run.err.count("trying again in")
    assert 2 * it.run.err.count("trying again in 1 s") > tries > 0, "the pause grows only after failures"
    tell(
        "camera comes and goes",
        f"{cycles} times; file descriptors +0, no process died or is left over",
        f"memory of all processes {grown:+.1f} MB",
        (grown, 50.0),
    )
