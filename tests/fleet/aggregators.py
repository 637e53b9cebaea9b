"""Aggregators of a fleet as real processes, as far as they exist: a `Driver`, and events of one camera a partition.

As a program it is one such process. It prints what happens to it as JSON, a line each, with the monotonic time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journals import event
from nats_servers import ask
from processes import wait_for

from fer_stream.errors import RivalError
from fer_stream.events.cloudevents import decode
from fer_stream.fleet import records
from fer_stream.fleet.driver import Driver
from fer_stream.fleet.member import Member
from fer_stream.fleet.partitions import partition
from fer_stream.fleet.records import Done, Mark, Place, Unknown
from fer_stream.fleet.values import decode_mark
from fer_stream.journal.nats.engine import NATSEngine
from fer_stream.settings.sections import FleetSettings, JournalSettings
from fer_stream.types import CameraData, EventType

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from fer_stream.fleet.records import Command
    from fer_stream.plugins import JournalWriter, Stored
    from fer_stream.types import Event

TURN = 0.05
FLUSH = 1.5


# One process


def camera_of(number: int, count_: int) -> str:
    """Return the name of a camera of a partition."""
    return next(name for name in (f"cam-{n}" for n in count()) if partition(name, count_) == number)


class Feed:
    """A camera: it begins an epoch, comes online, and has an event in each turn; one append is in flight."""

    def __init__(self, me: str, camera: str, journal: JournalWriter) -> None:
        self.camera, self.journal = camera, journal
        self.serving = True
        self._me, self._epoch = me, journal.epoch(camera)
        self._append: Future[list[Stored]] | None = None
        self._frames = count(1)

    @property
    def idle(self) -> bool:
        return self._append is None

    def turn(self) -> list[Event]:
        """Return what was stored since the last time. Raises `RivalError`."""
        self.journal.check()
        stored: list[Event] = []
        if self._append is not None and self._append.done():
            stored, self._append = [event for event, _ in self._append.result()], None
        if self._epoch.done() and self._epoch.exception() is not None:
            self._epoch = self.journal.epoch(self.camera)
        elif self._epoch.done() and self._append is None and self.serving:
            frame = next(self._frames)
            kind = "camera.online" if frame == 1 else "camera.reset"
            made = event(kind, self.camera, frame, epoch=self._epoch.result())
            self._append = self.journal.append([replace(made, data=CameraData(self._me, 640, 480))])
        return stored


class Aggregator:
    """See the module docstring."""

    def __init__(self, address: str, partitions: int, me: str, former: str) -> None:
        self.me, self.partitions = me, partitions
        self.woken = threading.Event()
        settings = FleetSettings(cell="test", partitions=partitions)
        self.engine = NATSEngine(JournalSettings(path=address), settings, me, self.woken.set)
        self.member = Member(me, Place(f"tcp://{me}"), partitions, former)
        self.driver = Driver(self.member, self.engine)
        self.feeds: dict[int, Feed] = {}
        self.flushing: dict[int, tuple[int, float]] = {}
        self.say("joined")

    def run(self, leaving: threading.Event) -> None:
        while True:
            self.woken.wait(TURN)
            self.woken.clear()
            if leaving.is_set():
                self.member.leave()
            self.do(self.driver.turn())
            self.feed()

    def say(self, what: str, **more: Any) -> None:
        sys.stdout.write(json.dumps({"time": time.monotonic(), "me": self.me, "what": what, **more}) + "\n")
        sys.stdout.flush()

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case records.Serve(number):
                    if number not in self.feeds:
                        journal = self.engine.journal(number)
                        self.feeds[number] = Feed(self.me, camera_of(number, self.partitions), journal)
                    self.feeds[number].serving = True
                    self.say("serve", partition=number, fence=self.member.partitions[number].part.fence)
                case records.Flush(call, number):
                    self.feeds[number].serving = False
                    self.say("give", partition=number)
                    self.flushing[number] = call, time.monotonic() + FLUSH
                case records.Move(number, place):
                    self.say("move", partition=number, place=place.address)
                    if number in self.feeds:
                        self.feeds.pop(number).journal.close()
                case records.End(reason):
                    self.end("end", 3, reason)
                case records.Left():
                    self.end("left", 0)

    def end(self, what: str, code: int, reason: str = "") -> None:
        self.say(what, reason=reason)
        self.engine.close()
        raise SystemExit(code)

    def feed(self) -> None:
        for number, feed in list(self.feeds.items()):
            if self.member.partitions[number].state not in ("owned", "flushing"):
                continue
            try:
                for stored in feed.turn():
                    self.say("stored", partition=number, cursor=int(stored.cursor), sequence=stored.sequence)
            except RivalError as error:
                self.say("fenced", partition=number, reason=str(error))
                self.do(self.driver.fenced(number))
        for number, (call, until) in list(self.flushing.items()):
            if self.feeds[number].idle or time.monotonic() > until:
                del self.flushing[number]
                self.do(self.driver.answer(call, Done() if self.feeds[number].idle else Unknown()))


def main() -> None:
    address, partitions, me, former = sys.argv[1:]
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    Aggregator(address, int(partitions), me, former).run(leaving)


# What a test uses


class Running:
    """One such process."""

    def __init__(self, address: str, partitions: int, me: str, former: str = "", under: tuple[str, ...] = ()) -> None:
        self.me = me
        self.lines: list[dict[str, Any]] = []
        helpers = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [*under, sys.executable, __file__, address, str(partitions), me, former],
            env=os.environ | {"PYTHONPATH": helpers},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._errors = ""
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):  # a killed process may leave half a line
                self.lines.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors += line

    @property
    def errors(self) -> str:
        return self._errors

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def serves(self) -> set[int]:
        """The partitions that it serves, by what it said last of each."""
        held: dict[int, bool] = {}
        for line in list(self.lines):
            if line["what"] in ("serve", "move"):
                held[line["partition"]] = line["what"] == "serve"
        return {number for number, yes in held.items() if yes}

    def said(self, what: str) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line["what"] == what]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        wait_for(lambda: not self.runs, f"the end of {self.me}", log=lambda: self._errors)
        self.close()
        return self.process.returncode

    def close(self) -> None:
        if self.runs:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Fleet:
    """The aggregators of one test, and what must hold of their streams."""

    def __init__(self, address: str, partitions: int) -> None:
        self.address, self.partitions = address, partitions
        self.all: list[Running] = []

    def start(self, *names: str, former: str = "", under: tuple[str, ...] = ()) -> None:
        self.all += [Running(self.address, self.partitions, name, former, under) for name in names]

    def owners(self) -> dict[int, str]:
        """Return who serves which partition at present, by what the running processes said last."""
        last: dict[int, tuple[float, str]] = {}
        for one in self.all:
            if not one.runs:
                continue
            held: dict[int, float] = {}
            for line in list(one.lines):
                if line["what"] == "serve":
                    held[line["partition"]] = line["time"]
                elif line["what"] == "move":
                    held.pop(line["partition"], None)
            for number, time_ in held.items():
                last[number] = max(last.get(number, (0.0, "")), (time_, one.me))
        return {number: me for number, (_, me) in last.items()}

    def until(self, condition: Callable[[dict[int, str]], bool], what: str) -> dict[int, str]:
        """Wait until the owners are so, and return them."""

        def met() -> dict[int, str] | None:
            owners = self.owners()
            return owners if len(owners) == self.partitions and condition(owners) else None

        found: dict[int, str] = wait_for(met, what, log=self.log)
        return found

    def log(self) -> str:
        texts = [
            f"{one.me} {'runs' if one.runs else 'ended'} {one.lines[-3:]} {one.errors[-2000:]}" for one in self.all
        ]
        return "\n".join([str(self.owners()), *texts])

    def stored_since(self, numbers: set[int], time_: float) -> Callable[[], bool]:
        """Return whether events of all these partitions were acknowledged after a time."""

        def stored() -> bool:
            found = {line["partition"] for one in self.all for line in one.said("stored") if line["time"] > time_}
            return numbers <= found

        return stored

    def takeovers(self) -> set[tuple[str, str]]:
        """Return the former and the new owner of each partition that was not given away."""
        lines = [line for one in self.all for line in list(one.lines) if line["what"] in ("serve", "give")]
        owners: dict[int, str] = {}
        given: set[int] = set()
        found: set[tuple[str, str]] = set()
        for line in sorted(lines, key=lambda line: line["time"]):
            number, me = line["partition"], line["me"]
            if line["what"] == "give":
                given.add(number)
                continue
            if number in owners and owners[number] != me and number not in given:
                found.add((owners[number], me))
            owners[number] = me
            given.discard(number)
        return found

    def takes(self, number: int, after: float) -> tuple[float, str]:
        """Return when and by whom a partition was served first after a time."""
        serves = [line for one in self.all for line in one.said("serve") if line["partition"] == number]
        return min((line["time"], line["me"]) for line in serves if line["time"] > after)

    def close(self) -> None:
        for one in self.all:
            one.close()

    # What must hold

    def check(self) -> None:
        """Read all streams: terms rise, only the last fence's owner stores, each event once, all numbers follow."""
        acknowledged: dict[int, set[int]] = defaultdict(set)
        for one in self.all:
            for line in one.said("stored"):
                acknowledged[line["partition"]].add(line["cursor"])
        for number in range(self.partitions):
            self._check(number, acknowledged[number])

    def _check(self, number: int, acknowledged: set[int]) -> None:
        mark = Mark("", 0)
        sequences: dict[str, int] = {}
        seen: set[str] = set()
        cursors: set[int] = set()
        for cursor, (subject, identity, text) in enumerate(self.messages(number), 1):
            if subject.endswith(".fence"):
                new = decode_mark(text)
                assert new is not None
                assert new.term > mark.term, f"{new} after {mark} in partition {number}"
                mark = new
                continue
            found = decode(text)
            assert isinstance(found.data, CameraData)
            assert found.type == EventType.CAMERA_OFFLINE or found.data.reason == mark.owner, (
                f"{found} is stored in partition {number} of {mark}"
            )
            assert identity not in seen, f"{identity} is stored twice"
            seen.add(identity)
            cursors.add(cursor)
            assert int(found.cursor) == cursor
            assert found.sequence == sequences.get(found.camera, 0) + 1
            sequences[found.camera] = found.sequence
        assert acknowledged <= cursors, f"lost in partition {number}: {sorted(acknowledged - cursors)}"

    def messages(self, number: int) -> list[tuple[str, str, str]]:
        """Return the subject, the id and the text of each message of a partition's stream."""

        async def read(client: Any) -> list[tuple[str, str, str]]:
            stream = client.jetstream()
            subscription = await stream.subscribe(f"fer.test.ev.{number:02x}.>", ordered_consumer=True)
            found = []
            info = await stream.stream_info(f"FER_EV_{number:02x}")
            while len(found) < info.state.messages:
                message = await subscription.next_msg(timeout=5)
                identity = (message.headers or {}).get("Nats-Msg-Id", "")
                found.append((message.subject, identity, message.data.decode()))
            return found

        return list(ask(self.address, read))


if __name__ == "__main__":
    main()
