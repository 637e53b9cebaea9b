"""Two aggregators, and a camera that is moved between them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import homes
import pytest
from faults.service import sound, standing, stored
from processes import balanced, wait_for

from fer_stream.client import read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli, Process


class Pair:
    """Aggregators A and B with a worker each, and one camera. A file says where the camera belongs."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli, self._file = cli, cli.folder / "home.json"
        self.addresses = [f"ipc://{folder}/{name}" for name in "ab"]
        self.here = 0
        homes.write(self._file, self.addresses[0])
        self.aggregators = [
            cli.start_module("homes", self._file, address, f"{name}.db")
            for name, address in zip("ab", self.addresses, strict=True)
        ]
        self.list = ",".join(self.addresses)
        for aggregator in self.aggregators:
            aggregator.until_said("ready at")
        self.workers = [cli.start("worker", "--connect", address) for address in self.addresses]

    def capture(self, source: object, *more: object) -> Process:
        return self.cli.start("capture", source, "--camera", "film", "--connect", self.list, *more)

    def assign(self, number: int) -> None:
        self.here = number
        homes.write(self._file, self.addresses[number])

    def camera(self, number: int) -> dict[str, Any] | None:
        """Return the camera's status at an aggregator, after a look at its ledger."""
        found = standing(self.addresses[number]) or {"cameras": {}}
        camera: dict[str, Any] | None = found["cameras"].get("film")
        assert camera is None or balanced(camera["ledger"]), camera
        return camera

    def until_done(self, frames: int) -> None:
        """Wait until the aggregator to which the camera belongs has so many frames in its ledger."""

        def done() -> bool:
            camera = self.camera(self.here)
            return camera is not None and camera["ledger"]["done"] >= frames

        wait_for(done, f"{frames} frames", log=self.log)

    def worked(self) -> int:
        """Return how many frames the workers have processed."""
        found = [standing(address) for address in self.addresses]
        return sum(worker["frames"] for one in found if one for worker in one["workers"].values())

    def events(self, number: int) -> list[Any]:
        return [event for event, _ in read_journal(self.cli.folder / f"{'ab'[number]}.db")]

    def log(self) -> str:
        return "\n".join(process.err for process in self.cli.started)


@pytest.fixture
def pair(cli: Cli, short_folder: Path) -> Iterator[Pair]:
    for name in "ab":
        (short_folder / name).mkdir(mode=0o700)
    return Pair(cli, short_folder)


@pytest.mark.parametrize("policy", ["wait", "drop_oldest"])
def test_a_camera_moves_back_and_forth_and_each_frame_counts_once(policy: str, pair: Pair, clip: Path) -> None:
    if policy == "wait":
        capture, moves = pair.capture(clip, "--policy", "wait", "--rate", 20), 2
    else:
        capture, moves = pair.capture("demo", "--policy", "drop_oldest", "--rate", 30), 3
    for move in range(1, moves + 1):
        pair.until_done(8 * move)
        pair.assign(move % 2)
        wait_for(lambda: pair.camera(pair.here), "its arrival", log=pair.log)
        last = pair.events(1 - pair.here)[-1]
        assert (last.type, last.data.reason) == ("camera.offline", "camera moved"), "the old epoch is closed"
        assert pair.camera(1 - pair.here) is None, "one ledger has it"
    pair.until_done(8 * (moves + 1))
    if policy == "drop_oldest":
        capture.signal(signal.SIGTERM)
    assert capture.end() == 0, capture.err
    camera = pair.camera(pair.here)
    assert camera is not None
    ledger = camera["ledger"]
    assert ledger["done"] == pair.worked() == ledger["captured"] - ledger["superseded"]
    assert policy != "wait" or ledger["done"] == ledger["captured"] == 60
    for number in range(2):
        assert pair.aggregators[number].stop() == 0
        events = stored(pair.cli, f"{'ab'[number]}.db")
        sound(events)
        times = len({event["epoch"] for event in events if event["type"] == "camera.online"})
        assert times == (moves + 2 - number) // 2, "each stay is an epoch of its own"
