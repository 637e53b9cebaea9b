"""`fer-stream deliver` is killed at random instants: nothing is missing at the receiver, and a repeat has the same id.

The short form kills it a few times; ``--soak 1`` a hundred times a sink.
"""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING, Any

from brokers import Mosquitto
from deliveries import Bench, ids, without_repeats
from kafka_servers import MockCluster, ends
from nats_servers import NatsServer, api, ask
from postgres_servers import PostgresServer
from webhook_receiver import SECRET, Receiver

from fer_stream.sinks.kafka import sink as kafka_sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scale import Scale

SHORT, FULL = 4, 100

EVENTS = 1500
"""Events for each kill, so that there is always something to deliver."""

FAST = 4
"""Times as many for a sink that delivers them in a moment, if it is killed only a few times."""

MOST = 20
"""Events in a batch for the receiver."""


def kill_often(bench: Bench, times: int, count: Callable[[], int], total: int) -> int:
    """Kill a process that delivers, each time at a random moment after it has delivered something; then let it end.

    Returns:
        How often it was killed before everything was delivered.
    """
    in_time = 0
    for _ in range(times):
        before = count()
        run = bench.deliver()
        run.until(lambda before=before: count() > before or before >= total, "progress")  # type: ignore[misc]
        time.sleep(random.uniform(0.0, 0.1))
        run.signal(signal.SIGKILL)
        run.end()
        in_time += count() < total
    last = bench.deliver()
    while (before := count()) < total:
        last.until(lambda before=before: count() > before, "progress")  # type: ignore[misc]
    last.until(lambda: bench.states()["main"]["cursor"] == str(total), "the end")
    assert last.stop() == 0
    return in_time


def plenty(times: int) -> int:
    """Return the events of each of two cameras for a fast sink."""
    return EVENTS * max(times, FAST * SHORT) // 2


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_receiver_misses_nothing(bench: Bench, scale: Scale) -> None:
    times = scale.of(SHORT, FULL)
    events = bench.journal("door", "yard", events=EVENTS * times // 2)
    bench.settings(main={"sink": f"receiver:{bench.port}", "options": {"most": MOST}})
    bench.receive()
    assert kill_often(bench, times, lambda: lines(bench.folder / "got.jsonl"), len(events))
    got = bench.got()
    assert without_repeats(got) == events
    assert len(got) - len(events) <= times * MOST


def test_a_file_misses_and_repeats_nothing_and_has_no_torn_line(bench: Bench, scale: Scale) -> None:
    times = scale.of(SHORT, FULL)
    events = bench.journal("door", "yard", events=plenty(times))
    size = sum(len(str(event)) for event in events)
    bench.settings(main={"sink": "file:out.jsonl", "options": {"max_mib": round(size / 5 / 1_048_576, 3)}})

    def files() -> list[Path]:
        return [*sorted(bench.folder.glob("out-*.jsonl")), bench.folder / "out.jsonl"]

    assert kill_often(bench, times, lambda: sum(map(lines, files())), len(events))
    assert len(files()) > 2
    assert [event for file in files() for event in bench.got(file.name)] == events
    assert all(file.read_bytes().endswith(b"\n") for file in files())


def test_jetstream_stores_each_event_once(bench: Bench, scale: Scale, tmp_path: Path) -> None:
    times = scale.of(SHORT, FULL)
    events = bench.journal("door", "yard", events=plenty(times))
    server = NatsServer(tmp_path).start()
    bench.settings(main={"sink": server.address})

    def count() -> int:
        state: dict[str, Any] = api(server.address, "STREAM.INFO.fer_stream").get("state", {})
        return int(state.get("messages", 0))

    async def stored(client: Any) -> list[str]:
        subscription = await client.jetstream().subscribe("fer_stream.>", ordered_consumer=True)
        found = [await subscription.next_msg(timeout=30) for _ in range(count_now)]
        return [message.headers["Nats-Msg-Id"] for message in found]

    try:
        assert kill_often(bench, times, count, len(events))
        count_now = count()
        assert ask(server.address, stored) == ids(events)
    finally:
        server.kill()


def test_a_webhook_misses_nothing(bench: Bench, scale: Scale) -> None:
    times = scale.of(SHORT, FULL)
    events = bench.journal("door", "yard", events=EVENTS * times // 2)
    secret = bench.folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    receiver = Receiver(bench.folder).start()
    receiver.order(secret=SECRET)
    options = {"most": MOST, "secret": f"file:{secret}"}
    bench.settings(main={"sink": f"webhook:{receiver.address}", "options": options})
    try:
        assert kill_often(bench, times, lambda: lines(receiver.file) * MOST, len(events))
    finally:
        receiver.kill()
    assert all(request["taken"] for request in receiver.requests())
    got = receiver.taken()
    assert list(dict.fromkeys(got)) == ids(events)
    assert len(got) - len(events) <= times * MOST


def test_postgres_stores_each_event_once(bench: Bench, scale: Scale) -> None:
    times = scale.of(SHORT, FULL)
    events = bench.journal("door", "yard", events=plenty(times))
    server = PostgresServer()
    try:
        server.start()
        bench.settings(main={"sink": server.address()})

        def count() -> int:
            made = server.psql("SELECT to_regclass('fer_stream.events') IS NOT NULL") == [["t"]]
            return int(server.psql("SELECT count(*) FROM fer_stream.events")[0][0]) if made else 0

        assert kill_often(bench, times, count, len(events))
        rows = server.psql("SELECT id FROM fer_stream.events ORDER BY cursor::bigint")
        assert [one for (one,) in rows] == ids(events)
    finally:
        server.close()


def test_a_broker_misses_nothing_and_shows_the_last_state(bench: Bench, scale: Scale, tmp_path: Path) -> None:
    times = scale.of(SHORT, FULL)
    events = bench.journal("door", "yard", events=EVENTS * times // 2)
    broker = Mosquitto(tmp_path, "max_queued_messages 0").start()
    bench.settings(main={"sink": broker.address, "options": {"home_assistant": True}})
    reader = broker.read("fer_stream/+/camera/reset")
    try:
        assert kill_often(bench, times, lambda: len(reader.messages), len(events))
        got = [json.loads(one["payload"]) for one in reader.until_marked()]
        for camera in ("/cameras/door", "/cameras/yard"):  # each in its own order; a batch may have come again
            sent = [one for one in events if one["source"] == camera]
            assert without_repeats([one for one in got if one["source"] == camera]) == sent
        shown = {topic: json.loads(text) for topic, text in broker.retained("fer_stream/+/state").items()}
        assert {one["sequence"] for one in shown.values()} == {events[-1]["sequence"]}
        assert {one["online"] for one in shown.values()} == {True}
        assert broker.retained("fer_stream/status") == {"fer_stream/status": "offline"}
    finally:
        broker.close()


def test_kafka_misses_nothing_and_keeps_each_cameras_order(bench: Bench, scale: Scale) -> None:
    times = scale.of(SHORT, FULL)
    cameras = ("door", "yard", "hall", "gate")
    events = bench.journal(*cameras, events=EVENTS * 8 // 4)  # librdkafka's brokers keep 5 MB a partition
    cluster = MockCluster().topic()
    bench.settings(main={"sink": cluster.address})
    try:
        assert kill_often(bench, times, lambda: sum(ends(cluster.hosts)), len(events))
        messages = cluster.read()
        for camera in cameras:
            got = [json.loads(one.value) for one in messages if one.key == camera]
            assert without_repeats(got) == [one for one in events if one["source"] == f"/cameras/{camera}"]
        assert len(messages) - len(events) <= times * kafka_sink.MOST
    finally:
        cluster.kill()
