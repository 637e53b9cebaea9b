"""The whole pipeline, end to end: as threads of this process over memory, and as real processes over ipc and tcp."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import camera_servers
import pytest
from faults.service import STEADY, standing
from processes import PATIENCE, balanced, free_port, gapless, unclosed, wait_for
from prometheus_client.parser import text_string_to_metric_families

import fer_stream
from fer_stream import plugins
from fer_stream.aggregator import aggregator
from fer_stream.capture import process as capture
from fer_stream.client import Subscription, read_journal, status, subscribe
from fer_stream.events import cloudevents
from fer_stream.inference import worker
from fer_stream.operations.process import Stop
from fer_stream.settings import tree
from fer_stream.types import GapData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from beside import Beside
    from processes import Cli, Process

CLEAN = dict.fromkeys(("superseded", "rejected", "expired", "lost_worker", "lost_link", "in_flight"), 0)


def everything(frames: int) -> dict[str, int]:
    """The ledger of a run that lost nothing."""
    return {"captured": frames, "done": frames, **CLEAN}


def ledgers(path: Path) -> dict[str, dict[str, int]]:
    return json.loads(path.read_text())["cameras"]


# In one process


@pytest.fixture
def roles() -> Iterator[Callable[..., Callable[[], None]]]:
    """``roles(function, *arguments)`` runs a role in a thread and returns a function that ends it."""
    running: list[tuple[Stop, threading.Thread]] = []
    failures: list[BaseException] = []

    def start(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        stop = Stop()

        def run() -> None:
            try:
                function(*arguments, stop=stop)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        running.append((stop, thread))

        def end() -> None:
            stop.set()
            thread.join()

        return end

    yield start
    for stop, thread in reversed(running):
        stop.set()
        thread.join()
        stop.close()
    assert not failures


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_roles_in_threads(
    transport: str, roles: Callable[..., Any], tmp_path: Path, short_folder: Path, tiny_model: Path, clip: Path
) -> None:
    settings = tree.load(
        {
            "transport": transport,
            "address": f"memory://{tmp_path.name}" if transport == "memory" else f"ipc://{short_folder}",
            "policy": "wait",
            "classifier.model": tiny_model,
            "journal.path": tmp_path / "events.db",
            "cameras": {"film": {"source": str(clip)}},
            "dispatch.silence": 60,
        }
    )
    roles(aggregator.run, settings)
    roles(worker.run, settings, "1")
    roles(capture.run, settings, "film")
    with subscribe(after=0, settings=settings) as events:
        received = []
        for event in events:
            received.append(event)
            if event.type == "camera.offline":
                break
    assert [event.type for event in received].count("face.entered") == 2
    assert [event.type for event in received].count("emotion.started") == 2
    assert {event.data.label for event in received if event.type == "emotion.started"} == {"happy"}
    assert [event.sequence for event in received] == list(range(1, len(received) + 1))
    assert [event for event, _ in read_journal(tmp_path / "events.db")] == received
    assert received[-1].data.reason == "end of stream"
    state = status(settings, PATIENCE)
    assert state["cameras"]["film"]["ledger"] == everything(60)
    assert state["cameras"]["film"]["state"] == "ended"
    assert state["workers"]["1"]["frames"] == 60


def test_two_workers_with_the_same_process_id_and_host_have_different_names(
    roles: Callable[..., Any], tmp_path: Path, short_folder: Path, tiny_model: Path
) -> None:
    """As in containers on the host's network, where each is process 1."""
    changes = {"address": f"ipc://{short_folder}", "classifier.model": tiny_model, "journal.path": tmp_path / "e.db"}
    settings = tree.load(changes)
    roles(aggregator.run, settings)
    for _ in range(2):
        roles(worker.run, settings)
    workers = wait_for(lambda: len(found := status(settings, PATIENCE)["workers"]) == 2 and found, "two workers")
    assert len({worker["pid"] for worker in workers.values()}) == 1


def test_a_late_subscriber_to_observations_gets_the_current_tracks(
    roles: Callable[..., Any], tmp_path: Path, tiny_model: Path, clip: Path
) -> None:
    settings = tree.load(
        {
            "transport": "memory",
            "address": f"memory://{tmp_path.name}",
            "classifier.model": tiny_model,
            "journal.path": tmp_path / "events.db",
            "cameras": {"film": {"source": str(clip), "loop": True}},
        }
    )
    roles(aggregator.run, settings)
    roles(worker.run, settings, "1")
    roles(capture.run, settings, "film")
    with subscribe(after=0, types=["emotion.started"], settings=settings) as events:
        started = next(iter(events))
    listener = plugins.load("transports", "memory")().subscribe(settings.address, "observations", ["film/"])
    try:
        labelled: list[dict[str, Any]] = []
        while not labelled:  # the interval whose start was published may have ended
            topic, text = wait_for(lambda: listener.receive(0.5), "an observation")
            seen = json.loads(bytes(text))
            labelled = [track for track in seen["tracks"] if track["label"]]
    finally:
        listener.close()
    assert bytes(topic) == b"film/"
    assert seen["camera"] == "film"
    (track, *_) = labelled
    assert started.data.label == track["label"] == "happy"
    assert abs(sum(track["probabilities"].values()) - 1) < 0.01


# `run` on a recording


@pytest.fixture(autouse=True)
def steady(cli: Cli) -> None:
    cli.environment |= STEADY


def run_whole(cli: Cli, short_folder: Path, source: Path, name: str, *more: object) -> Process:
    arguments = ["--policy", "wait", "--format", "jsonl", "--bind", f"ipc://{short_folder}/{name}"]
    files = ["--journal", f"{name}.db", "--summary", f"{name}.json"]
    process = cli.run("run", f"film={source}", *arguments, *files, *more)
    assert process.popen.returncode == 0, process.err
    return process


def test_a_recording_gives_the_same_bytes_every_time(cli: Cli, short_folder: Path, clip: Path) -> None:
    same_bytes(cli, short_folder, clip, 60, {"two": 2, "again": 2, "one": 1})


def test_real_faces_give_the_same_bytes_every_time(cli: Cli, short_folder: Path, beside: Beside) -> None:
    same_bytes(cli, short_folder, beside.clip("facenet_video.mp4"), 105, {"two": 2, "one": 1})


def same_bytes(cli: Cli, short_folder: Path, path: Path, frames: int, runs: dict[str, int]) -> None:
    """Check that runs of a recording with different numbers of workers, and the journal, give the same events."""
    whole = [run_whole(cli, short_folder, path, name, "--workers", workers) for name, workers in runs.items()]
    for name in runs:
        assert ledgers(cli.folder / f"{name}.json") == {"film": everything(frames)}
    first = whole[0]
    assert [process.out == first.out for process in whole] == [True] * len(runs)
    events = first.events
    assert gapless(events)
    assert not unclosed(events)
    counted = json.loads((cli.folder / "two.json").read_text())["events"]
    assert counted["face.entered"] >= 2
    assert counted["emotion.started"] == counted["emotion.ended"] >= 2
    assert sum(counted.values()) == len(events)

    def replayed(*arguments: object) -> str:
        return cli.run("subscribe", "--journal", "two.db", "--format", "jsonl", *arguments).out

    assert replayed("--from", 0, "--until-now") == first.out
    assert replayed() == first.out
    lines = first.out.splitlines(keepends=True)
    assert replayed("--from", 3) == "".join(lines[3:])
    assert replayed("--from", len(lines)) == ""
    assert replayed("--camera", "other") == ""
    assert replayed("--type", "face") == "".join(line for line in lines if '"type":"face.' in line)


def test_a_second_run_on_a_journal_continues_its_numbers(cli: Cli, short_folder: Path, clip: Path) -> None:
    arguments = ["--policy", "wait", "--format", "jsonl", "--workers", "1", "--journal", "events.db"]
    runs = [cli.run("run", f"film={clip}", *arguments, "--bind", f"ipc://{short_folder}") for _ in range(2)]
    first, second = (process.events for process in runs)
    assert len(first) == len(second)
    assert gapless(first + second)
    assert not {event["id"] for event in first} & {event["id"] for event in second}
    everything_there = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").out
    assert everything_there == runs[0].out + runs[1].out


def test_masked_faces_are_never_found_and_each_camera_has_its_settings(
    cli: Cli, short_folder: Path, clip: Path
) -> None:
    # In the clip the first portrait is in the left half, the second one in the right half.
    (cli.folder / "cameras.toml").write_text(
        f'policy = "wait"\nworkers = 2\nlabels = "valence"\n'
        f'[cameras.open]\nsource = "{clip}"\n'
        f'[cameras.left-half]\nsource = "{clip}"\nmasks = [[0.5, 0.0, 1.0, 1.0]]\nrate = 60\nencoding = "jpeg"\n'
        f'[cameras.blind]\nsource = "{clip}"\nmasks = [[0, 0, 1, 1]]\nstart_time = "2026-01-01T00:00:00Z"\n'
    )
    process = cli.run(
        *("run", "--config", "cameras.toml", "--format", "jsonl", "--summary", "s.json"),
        *("--bind", f"ipc://{short_folder}", "--journal", "events.db"),
    )
    assert process.popen.returncode == 0, process.err
    assert ledgers(cli.folder / "s.json") == dict.fromkeys(("open", "left-half", "blind"), everything(60))
    assert gapless(process.events)
    assert not unclosed(process.events)
    faces: dict[str, list[float]] = {"open": [], "left-half": [], "blind": []}
    for event in process.events:
        if event["type"].startswith("face."):
            faces[event["source"].removeprefix("/cameras/")].append(event["data"]["box"][0])
    assert min(faces["open"]) < 320 < max(faces["open"])
    assert faces["left-half"]
    assert max(faces["left-half"]) < 320
    assert not faces["blind"]
    labels = {event["data"]["label"] for event in process.events if event["type"] == "valence.started"}
    assert labels == {"positive"}
    times = {event["source"]: event["time"] for event in process.events}  # the last of each
    assert times["/cameras/left-half"].startswith("1970-01-01T00:00:00.98333")  # 59 / 60 s
    assert times["/cameras/open"].startswith("1970-01-01T00:00:03.9333")  # 59 / 15 s
    assert times["/cameras/blind"].startswith("2026-01-01T00:00:03.9333")


# Live


def test_the_rate_of_a_live_source_is_limited(cli: Cli, short_folder: Path) -> None:
    with camera_servers.Server(camera_servers.mjpeg(50)) as server:
        source = f"door=http://127.0.0.1:{server.port}/"
        (cli.folder / "once.toml").write_text("[cameras.door]\nretry = false\n")
        cli.run(
            *("run", source, "--config", "once.toml", "--rate", 5, "--workers", 1, "--format", "jsonl"),
            *("--summary", "s.json", "--bind", f"ipc://{short_folder}", "--journal", "events.db"),
        )
    ledger = ledgers(cli.folder / "s.json")["door"]
    assert balanced(ledger)
    assert 0 < ledger["captured"] < 50


def test_a_frame_that_no_worker_took_is_lost_with_its_capture(cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    cli.start("aggregator", "--bind", address, "--journal", "events.db")
    film = cli.start("capture", clip, "--camera", "film", "--loop", "--connect", address)

    def ledger() -> dict[str, int]:
        cameras = (standing(address) or {"cameras": {}})["cameras"]
        found: dict[str, int] = cameras["film"]["ledger"] if "film" in cameras else {"in_flight": 0}
        return found

    film.until(lambda: ledger()["in_flight"] == 1, "a frame that is offered")
    assert film.stop() == 0
    found = wait_for(
        lambda: (found := ledger())["captured"] and not found["in_flight"] and found, "the end of the frame"
    )
    assert balanced(found)
    assert found["lost_link"] == 1


# Subscribers


def test_disconnected_subscribers_get_every_event_once(cli: Cli, short_folder: Path, clip: Path) -> None:
    address = f"ipc://{short_folder}"
    cli.start("aggregator", "--bind", address, "--journal", "events.db")
    cli.start("worker", "--connect", address)
    killed = cli.start("subscribe", "--connect", address, "--from", 0, "--format", "jsonl")
    follower = cli.start("subscribe", "--connect", address, "--from", 0, "--format", "jsonl")
    film = cli.start("capture", clip, "--camera", "film", "--policy", "wait", "--connect", address)
    killed.until(lambda: len(killed.events) >= 2, "two events")
    killed.signal(signal.SIGKILL)
    killed.popen.wait()
    assert film.end() == 0
    cli.run("capture", clip, "--camera", "film", "--policy", "wait", "--connect", address)
    stored = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").out
    lines = stored.splitlines(keepends=True)
    assert gapless([json.loads(line) for line in lines])
    follower.until(lambda: follower.out == stored, "all events")
    seen = killed.events
    wait_for(lambda: standing(address), "an aggregator that answers")
    resumed = cli.run(
        *("subscribe", "--connect", address, "--from", seen[-1]["cursor"], "--until-now", "--format", "jsonl")
    )
    assert lines[: len(seen)] + resumed.out.splitlines(keepends=True) == lines

    # Both iterators of the library, ended after every few events, and resumed by a new subscription.
    texts = [cloudevents.encode(event) + "\n" for event in in_pieces(address, 3)]
    assert texts == lines
    texts = [cloudevents.encode(event) + "\n" for event in asyncio.run(in_pieces_async(address, 2))]
    assert texts == lines
    with fer_stream.subscribe(address, after=0, until_now=True, types=["face.entered"], camera="film") as entered:
        assert {event.type for event in entered} == {"face.entered"}
    with fer_stream.subscribe(address, after=0, until_now=True, camera="other") as others:
        assert list(others) == []
    # Without ``after`` no old event is shown; a cursor of another, longer journal starts from the beginning.
    with fer_stream.subscribe(address, until_now=True) as now:
        assert list(now) == []
        assert int(now.cursor) == len(lines)
    with fer_stream.subscribe(address, after="10000", until_now=True) as foreign:
        gap, *others = foreign
        assert gap.data == GapData("10000", "0", "another journal")
        assert len(others) == len(lines)


def in_pieces(address: str, size: int) -> list[fer_stream.Event]:
    found: list[fer_stream.Event] = []
    while True:
        with Subscription(address, after=found[-1].cursor if found else 0, until_now=True) as events:
            piece = [event for event, _ in zip(events, range(size), strict=False)]
        if not piece:
            return found
        found += piece


async def in_pieces_async(address: str, size: int) -> list[fer_stream.Event]:
    found: list[fer_stream.Event] = []
    while True:
        piece: list[fer_stream.Event] = []
        with Subscription(address, after=found[-1].cursor if found else 0, until_now=True) as events:
            async for event in events:
                piece.append(event)
                if len(piece) == size:
                    break
        if not piece:
            return found
        found += piece


# Five commands, in any order: tests/faults/test_orders.py


def test_frames_of_several_cameras_are_computed_together(cli: Cli, short_folder: Path, clip: Path) -> None:
    address, port = f"ipc://{short_folder}", free_port()
    every = {"FER_STREAM_SEARCH__SCAN_INTERVAL": "0"}  # searches take so long that frames wait for the worker
    aggregator = cli.start("aggregator", "--bind", address, "--journal", "events.db", **every)
    worker = cli.start("worker", "--batch", 4, "--connect", address, "--metrics", f"127.0.0.1:{port}")
    films = [
        cli.start("capture", clip, "--camera", f"film-{number}", "--loop", "--rate", 30, "--connect", address)
        for number in range(4)
    ]

    def computed(least: int) -> float:
        """Return how often at least so many frames were computed together."""
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            buckets = {
                sample.labels["le"]: sample.value
                for family in text_string_to_metric_families(page.read().decode())
                for sample in family.samples
                if sample.name == "fer_stream_batch_frames_bucket"
            }
            return buckets["+Inf"] - buckets[f"{least - 1:.1f}"]
        return 0.0

    worker.until(lambda: computed(3) > 5, "several frames together")
    assert all(film.stop() == 0 for film in films)
    assert worker.stop() == aggregator.stop() == 0, aggregator.err
    events = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").events
    assert {event["source"] for event in events if event["type"] == "face.entered"} == {
        f"/cameras/film-{number}" for number in range(4)
    }


def test_jpeg_over_tcp(cli: Cli, clip: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    (cli.folder / "jpeg.toml").write_text('[cameras.film]\nencoding = "jpeg"\njpeg_quality = 80\n')
    process = cli.run(
        *("run", f"film={clip}", "--config", "jpeg.toml", "--policy", "wait", "--format", "jsonl"),
        *("--workers", 2, "--bind", address, "--journal", "events.db", "--summary", "s.json"),
    )
    assert process.popen.returncode == 0, process.err
    assert ledgers(cli.folder / "s.json")["film"] == everything(60)
    assert process.out.count('"face.entered"') == 2


# The demo


def test_the_demo_shows_both_portraits(cli: Cli, short_folder: Path) -> None:
    cli.environment.pop("FER_STREAM_CLASSIFIER__MODEL")  # use the shipped model
    process = cli.start(
        *("run", "--workers", 2, "--format", "jsonl", "--summary", "s.json"),
        *("--bind", f"ipc://{short_folder}", "--journal", "events.db"),
    )

    def apart() -> bool:
        entered = [event for event in process.events if event["type"] == "face.entered"]
        middles = [(event["data"]["box"][0] + event["data"]["box"][2]) / 2 for event in entered]
        return any(abs(a - b) > 100 for a, b in pairwise(middles))

    process.until(apart, "both portraits")
    process.signal(signal.SIGINT)
    assert process.end() == 0
    assert gapless(process.events)
    assert not unclosed(process.events)
    assert balanced(ledgers(cli.folder / "s.json")["demo"])
    assert "demo: " in process.err  # the readable summary


def test_roles_with_keys(cli: Cli, clip: Path) -> None:
    """As on several machines: each role has a key of its role, and one capture has no key."""
    address = f"tcp://127.0.0.1:{free_port()}"
    for name, role in (("door", "capture"), ("gpu", "worker"), ("desk", "client")):
        made = cli.run("keys", "new", name, "--role", role, "--keys", "keys")
        assert made.out == f"keys/{name}.key\n", made.err
    listed = [line.split()[:2] for line in cli.run("keys", "list", "--keys", "keys").out.splitlines()]
    assert listed == [["local", "all"], ["door", "capture"], ["gpu", "worker"], ["desk", "client"]]
    cli.start("aggregator", "--bind", address, "--keys", "keys", "--journal", "events.db")
    stranger = cli.start("capture", clip, "--camera", "stranger", "--connect", address)
    cli.start("worker", "--connect", address, "--key", "keys/gpu.key")
    subscriber = cli.start(
        *("subscribe", "--connect", address, "--key", "keys/desk.key", "--from", 0, "--format", "jsonl")
    )
    cli.run("capture", clip, "--camera", "door", "--policy", "wait", "--connect", address, "--key", "keys/door.key")
    subscriber.until_event("camera.offline")
    assert gapless(subscriber.events)
    assert {event["source"] for event in subscriber.events} == {"/cameras/door"}
    assert stranger.end() == 1
    assert "accepts only peers with a key" in stranger.errors[0]
    state = cli.run("status", "--connect", address, "--key", "keys/desk.key", "--format", "jsonl").out
    assert set(json.loads(state)["cameras"]) == {"door"}
