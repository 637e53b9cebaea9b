"""Measure the frames and events per second that one aggregator can process, on one core.

    python tests/bench/capacity.py

- dispatch: frames per second through the dispatcher alone: offered, requested, assigned, done, released and counted
- frames: frames per second through a whole aggregator (protocol, dispatch, tracks) over the memory transport, without
  faces; each frame is one of two that its capture offered
- events: events per second from scores to publication: tracked, smoothed, journaled with SQLite's full synchronous
  mode, published. A turn of the aggregator writes the events of all available results in one transaction: here the
  events of one frame, which is the most expensive case, and of four frames, as many as there are workers
- commits: transactions per second with one row each: the cost of SQLite and the disk

Figures are per CPU second of this process; medians of several rounds, with their range.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.aggregator.aggregator import Aggregator
from fer_stream.aggregator.dispatcher import Ask, Assign, Dispatcher
from fer_stream.aggregator.frames import Arrival
from fer_stream.aggregator.membership import Alone
from fer_stream.aggregator.publisher import Publisher
from fer_stream.events.attention import Attention
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.protocol import messages, results
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals
from fer_stream.settings.tree import DispatchSettings, JournalSettings, Settings, SmootherSettings
from fer_stream.types import EMOTIONS, Box, Face, Nanoseconds, Probabilities

if TYPE_CHECKING:
    from collections.abc import Callable

CAMERAS, WORKERS = 8, 4


def dispatch(frames: int = 20_000, cameras: int = CAMERAS, repeated: bool = True) -> tuple[int, float]:
    """Drive the dispatcher as captures and workers would.

    Args:
        frames: number of frames to process.
        cameras: number of cameras, which always have a frame.
        repeated: whether each camera offers its frame again in each turn. A capture offers it once. With repeated
            offers, the offers per processed frame grow with the number of cameras.
    """
    it, now = Dispatcher(DispatchSettings(), 3), 0.0
    sent = dict.fromkeys((f"camera {i}" for i in range(cameras)), 0)
    free = list(sent)  # cameras that have not offered their frame
    busy: list[tuple[str, int]] = []
    before = time.process_time()
    for camera in sent:
        it.joined(camera, "drop_oldest", Totals(), {}, now)
    for worker in range(WORKERS):
        it.ready(f"worker {worker}", now)
    done, commands = 0, []
    while done < frames:
        now += 0.0001
        for camera in sent if repeated else free:
            commands += it.offer(camera, Totals(sent[camera] + 1, 0, 0, sent[camera]), True, now)
        free = []
        while commands:
            command = commands.pop(0)
            match command:
                case Ask(camera):
                    sent[camera] += 1
                    free.append(camera)
                    totals = Totals(sent[camera], 0, 0, sent[camera])
                    commands += it.frame(
                        camera, Arrival(1, sent[camera], Nanoseconds(0), now, (640, 480)), b"", totals, now
                    )
                case Assign(worker, ticket, _):
                    busy.append((worker, ticket))
        for worker, ticket in busy:
            commands += it.done(worker, ticket, "done", "", None, now)
            done += 1
        busy.clear()
    took = time.process_time() - before
    for camera in sent:
        if not it.cameras[camera].ledger().balanced():
            raise AssertionError(f"the ledger of {camera} does not add up")
    return done, took


def frames(
    count: int = 4000, cameras: int = CAMERAS, workers: int = WORKERS, repeated: bool = True
) -> tuple[int, float]:
    """Drive a whole aggregator with simulated captures and workers, whose time is not counted.

    Args:
        count: number of frames to process.
        cameras: number of cameras, which always have a frame.
        workers: number of workers, which answer at once.
        repeated: as for `dispatch`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, address = Path(folder) / "events.db", "memory://capacity"
        settings = Settings(transport="memory", address=address, journal=JournalSettings(path=path))
        transport, journal = plugins.load("transports", "memory")(), plugins.journal(settings.journal).writer()
        hub = transport.bind(address)
        it = Aggregator(settings, hub, Alone(journal))
        captures = [transport.connect(address, "frames") for _ in range(cameras)]
        pool = [transport.connect(address, "work") for _ in range(workers)]
        about: dict[str, Any] = {
            "incarnation": "a",
            "reported": {},
            "frames": None,
            "rate": None,
            "policy": "drop_oldest",
            "pid": 1,
        }
        for number, capture in enumerate(captures):
            hello = about | {"camera": f"camera-{number}", "live": True}
            capture.send(messages.json_message(Kind.HELLO, hello))
        for number, worker in enumerate(pool):
            ready = {"labels": EMOTIONS, "name": str(number), "host": "here", "pid": 1, "model": "m", "detector": "d"}
            worker.send(messages.json_message(Kind.READY, ready))
        it.turn(0)
        sent, offered, done = [0] * cameras, [False] * cameras, 0
        answer = results.pack_faces(results.Result(()), EMOTIONS)
        took, warm = 0.0, 2 * cameras  # a camera's first frames also create an event and metrics
        while done < count + warm:
            if done < warm:
                took = 0.0
            for number, capture in enumerate(captures):
                offer = Totals(sent[number] + 1, 0, 0, sent[number])
                asked = False
                while (parts := capture.receive(0)) is not None:
                    asked |= messages.unpack(parts).kind is Kind.NEXT
                if asked:
                    sent[number] += 1
                    header = {"seq": sent[number], "time": sent[number] * 10**8, "width": 1, "height": 1}
                    totals = Totals(sent[number], 0, 0, sent[number])
                    message = Message(Kind.FRAME, bytes(3), encoding=Encoding.RAW, totals=totals, **header)  # type: ignore[arg-type]
                    capture.send(messages.pack(message))
                    offered[number] = False
                elif repeated or not offered[number]:
                    offered[number] = True
                    capture.send(messages.json_message(Kind.OFFER, {"full": True}, totals=offer))
            for worker in pool:
                while (parts := worker.receive(0)) is not None:
                    message = messages.unpack(parts[:2])
                    if message.kind is Kind.FRAME:
                        worker.send(messages.pack(Message(Kind.DONE, answer, ticket=message.ticket)))
                        done += 1
            before = time.process_time()
            it.turn(0)
            took += time.process_time() - before
        hub.close()
        journal.close()
    return done - warm, took


def events(cameras: int = 20, faces: int = 10, frames: int = 40, turn: int = 1) -> tuple[int, float]:
    """Process faces that change their expression in every frame; ``turn`` frames are journaled together."""
    with tempfile.TemporaryDirectory() as folder:
        journal = plugins.journal(JournalSettings(path=Path(folder) / "events.db")).writer()
        hub = plugins.load("transports", "memory")().bind("memory://events")
        publisher = Publisher(hub)
        publisher.open(0, journal)
        settings = Settings(smoother=SmootherSettings(tau=0.01, min_dwell=0))
        labels = LabelSet("emotions", EMOTIONS, settings.valence)
        lines = [
            Timeline(
                f"camera-{number}", 1, labels, settings.tracker, settings.smoother,
                Attention(settings.search, "wait", 1),
            )
            for number in range(cameras)
        ]  # fmt: skip
        rows = [tuple(0.94 if i == k else 0.01 for i in range(len(EMOTIONS))) for k in range(len(EMOTIONS))]
        before = time.process_time()
        for number in range(1, frames + 1):
            found = [
                Face(
                    Box(100.0 * i, 0, 100.0 * i + 80, 90),
                    0.99,
                    (),
                    Probabilities(EMOTIONS, rows[(number + i) % len(rows)]),
                )
                for i in range(faces)
            ]
            for place, line in enumerate(lines, start=1):
                publisher.record(line.observe(number, Nanoseconds(number * 10**8), (100 * faces, 100), found))
                if place % turn == 0:
                    publisher.flush()
        took = time.process_time() - before
        count = sum(publisher.counted.values())
        hub.close()
        journal.close()
    return count, took


def commits(count: int = 500) -> tuple[int, float]:
    """Write single rows with the same durability as a journal."""
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "commits.db", isolation_level=None)
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (n INTEGER PRIMARY KEY)")
        before = time.process_time()
        for _ in range(count):
            db.execute("INSERT INTO t DEFAULT VALUES")
        took = time.process_time() - before
        db.close()
    return count, took


def main() -> None:
    """Measure each in turn, several times."""
    ways: dict[str, Callable[[], tuple[int, float]]] = {
        "dispatch": dispatch,
        "frames": frames,
        "events": events,
        "events, four frames a turn": partial(events, turn=WORKERS),
        "commits": commits,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            count, took = way()
            rates[name].append(count / took)
    for name, values in rates.items():
        print(f"{name:26} {statistics.median(values):8,.0f} a second ({min(values):,.0f} to {max(values):,.0f})")


if __name__ == "__main__":
    main()
