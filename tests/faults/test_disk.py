"""A disk that is full for a while, and a deleted journal: live frames continue; under ``wait`` the capture pauses.

The tests lower and restore the aggregator's limit on file sizes from outside.
"""

from __future__ import annotations

import re
import resource
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from faults.player import Player
from faults.service import SLOWLY, STEADY, standing, stored
from processes import wait_for

from fer_stream.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.service import Service
    from faults.table import Tell
    from processes import Cli
    from scale import Scale


class Disk:
    """The disk as an aggregator sees it."""

    def __init__(self, pid: int) -> None:
        self._aggregator = psutil.Process(pid)
        self._before = self._aggregator.rlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """Limit files to 4 KiB: enough for a last log line, too little for a journal page."""
        self._aggregator.rlimit(resource.RLIMIT_FSIZE, (4096, self._before[1]))

    def free(self) -> None:
        self._aggregator.rlimit(resource.RLIMIT_FSIZE, self._before)


def test_live_frames_go_on_and_events_are_held(
    service: Callable[..., Service], clip: Path, scale: Scale, tell: Tell
) -> None:
    it = service(clip, "--loop", "--rate", 30, workers=1)
    it.run.until_event("emotion.started")
    disk, seconds = Disk(it.run.child("aggregator").pid), scale.of(0, 300)
    disk.fill()
    begin = time.monotonic()
    it.until(lambda: it.status()["events_held"] > 3, "events that are held")
    published, done = int(it.status()["cursor"]), it.done()
    it.until(lambda: len(it.run.events) == published, "what was journaled before")
    it.until(lambda: it.done() > done + 20 and time.monotonic() > begin + seconds, "frames that go on")
    assert len(it.run.events) == published, "what is not journaled is not published"
    held = it.status()["events_held"]
    disk.free()
    back = it.until(lambda: it.status()["events_held"] == 0, "a journal that is written again")
    it.until(lambda: len(it.run.events) > published + 3, "events that come again")
    # Then the journal is deleted.
    for part in it.cli.folder.glob("events.db*"):
        part.unlink()
    it.until(lambda: "events.db was taken away: a new one begins" in it.run.err, "another journal")
    seen = len(it.run.events)
    it.until(lambda: len(it.run.events) > seen, "events in it")
    ledger, events = it.end()
    assert ledger["lost_link"] == ledger["lost_worker"] == 0
    gap, *rest = stored(it.cli)
    assert gap["type"] == "stream.gap"
    assert events[-len(rest) :] == rest
    tell(
        "disk full" + (f" for {seconds} s" if scale.share else "") + ", live",
        f"frames go on, {held} events were held, and came in order on its return",
        f"0 lost; written again within {back:.1f} s",
    )
    tell("journal deleted", "another one begins and continues the numbers; a stream.gap has the lost cursors", "0 lost")


def test_a_disk_full_until_the_end_reports_lost_events_and_fails_the_run(
    service: Callable[..., Service], clip: Path
) -> None:
    it = service(clip, "--loop", workers=1)
    it.run.until_event("camera.online")
    Disk(it.run.child("aggregator").pid).fill()
    it.until(lambda: it.status()["events_held"] > 0, "events that are held")
    it.run.child("capture film").terminate()  # only the capture, so that the aggregator has time to report
    assert it.run.end() == JournalError.exit_code, it.run.err
    (sentence,) = it.run.errors
    assert "events are lost: the journal could not be written until the end" in sentence


def test_a_run_whose_aggregator_is_killed_at_the_end_fails(service: Callable[..., Service], clip: Path) -> None:
    it = service(clip, "--loop", workers=1)
    it.run.until_event("camera.online")
    aggregator = it.run.child("aggregator")
    Disk(aggregator.pid).fill()
    it.until(lambda: it.status()["events_held"] > 0, "events that are held")
    it.run.child("worker 1").suspend()
    it.run.until_said("worker 1 does not answer and is replaced")  # the run reads this from a later status
    aggregator.suspend()
    capture = it.run.child("capture film")
    it.run.signal(signal.SIGTERM)
    wait_for(lambda: capture not in it.run.children(), "the end to begin")
    aggregator.kill()
    assert it.run.end() == 1, it.run.err
    (sentence,) = it.run.errors
    assert re.search(r"the aggregator was killed before it had ended: \d+ events that it held are lost", sentence)


@pytest.mark.soak  # `make test` has this with a limit of ten: tests/aggregator/test_publisher.py
def test_beyond_what_can_be_held(cli: Cli, short_folder: Path, tell: Tell) -> None:
    address = f"ipc://{short_folder}"
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db")
    far = cli.start("subscribe", "--connect", address, "--from", 0, "--format", "jsonl")
    with Player(address, policy="drop_oldest") as player:
        wait_for(lambda: player.frames > 100 and far.out, "events")
        disk = Disk(aggregator.pid)
        disk.fill()
        wait_for(lambda: (standing(address) or {}).get("events_held") == 10_000, "no more that is held")
        more = player.frames + 500
        wait_for(lambda: player.frames > more, "frames that go on")
        disk.free()
        wait_for(lambda: (standing(address) or {}).get("events_held") == 0, "a journal that is written again")
        more = player.frames + 100
        wait_for(lambda: player.frames > more, "frames that go on")
    assert aggregator.stop() == 0, aggregator.err
    (gap,) = (event for event in stored(cli) if event["type"] == "stream.gap")
    lost = gap["data"]["to"] - gap["data"]["from"]
    assert gap["data"]["reason"] == "journal full"
    assert lost >= 500
    far.until(lambda: far.out.count("\n") == len(stored(cli)), "every event that there is")
    assert far.events == stored(cli), "including the gap, as it is journaled"
    tell("disk full, more events than can be held", f"10,000 held; {lost} beyond them are reported as one stream.gap",
         f"{lost} lost and reported")  # fmt: skip


def test_under_wait_the_capture_pauses_and_nothing_is_lost(
    service: Callable[..., Service], clip: Path, undisturbed: str, tell: Tell
) -> None:
    it = service(clip, *SLOWLY, workers=1, **STEADY)
    it.run.until_event("camera.online")  # by now the metrics' files exist; a full disk has no room for them either
    disk = Disk(it.run.child("aggregator").pid)
    disk.fill()
    it.until(lambda: it.status()["events_held"] > 0, "events that are held")

    def still() -> bool:
        done = it.done()
        time.sleep(1.0)  # time for ten frames
        return done == it.done()

    it.until(still, "a capture that pauses")
    assert it.done() < 60
    disk.free()
    it.end(stop=False)
    assert it.run.out == undisturbed
    tell("disk full under `wait`", "the capture pauses; then no event differs from an undisturbed run", "0 lost")
