"""`fer-stream deliver` and `fer-stream run` with the mqtt sink, as processes, and a real mosquitto."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from brokers import Mosquitto
from deliveries import Bench, ids, without_repeats
from journals import event
from processes import wait_for
from single_runs import start

from fer_stream.journal.sqlite import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Cli


@pytest.fixture
def bench(cli: Cli) -> Bench:
    return Bench(cli)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.close()


def states(broker: Mosquitto) -> dict[str, Any]:
    found = broker.retained("fer_stream/+/state")
    return {one["camera"]: one for one in map(json.loads, found.values())}


def status(broker: Mosquitto) -> str | None:
    return broker.retained("fer_stream/status").get("fer_stream/status")


def test_a_run_shows_the_present_state_and_takes_it_back(
    bench: Bench, broker: Mosquitto, short_folder: Path, clip: Path
) -> None:
    bench.settings(home={"sink": broker.address, "begin": "now", "options": {"home_assistant": True}})
    reader = broker.read("fer_stream/#", "homeassistant/#")
    run = start(bench.cli, "film", clip, "--bind", f"ipc://{short_folder}", "--config", "s.toml")
    run.until_event("emotion.ended", 2)
    run.until(lambda: status(broker) == "online", "online")
    assert run.stop() == 0
    assert status(broker) == "offline"
    assert states(broker)["film"]["online"] is False
    assert len(broker.retained("homeassistant/#")) == 3
    messages = reader.until_marked()
    got = [json.loads(one["payload"]) for one in messages if one["topic"].startswith("fer_stream/film/")]
    got = [one for one in got if "specversion" in one]
    assert without_repeats(got) == run.events
    shown = [json.loads(one["payload"]) for one in messages if one["topic"] == "fer_stream/film/state"]
    assert {1} <= {one["faces"] for one in shown}
    assert all(one["faces"] is not None for one in shown)
    assert "happy" in {one["expression"] for one in shown}


def test_without_events_the_status_is_online_while_the_service_answers(
    bench: Bench, broker: Mosquitto, short_folder: Path
) -> None:
    """A service that is killed cannot say that its cameras are gone."""
    service = bench.cli.start("aggregator", "--bind", f"ipc://{short_folder}", "--journal", "e.db")
    deliver = bench.cli.start("deliver", "--sink", broker.address, "--connect", f"ipc://{short_folder}")
    deliver.until(lambda: status(broker) == "online", "online")
    service.kill()
    deliver.until(lambda: status(broker) == "offline", "offline")
    again = bench.cli.start("aggregator", "--bind", f"ipc://{short_folder}", "--journal", "e.db")
    deliver.until(lambda: status(broker) == "online", "online again")
    deliver.signal(signal.SIGKILL)
    wait_for(lambda: status(broker) == "offline", "the will")
    again.stop()


def test_events_of_a_long_outage_end_in_the_present_state(bench: Bench, broker: Mosquitto) -> None:
    stay = ("face.entered", "emotion.started", "emotion.ended", "face.left")
    hour = [event(kind, frame=number, track=number) for number in range(2, 800) for kind in stay]
    now = [event("camera.reset", frame=950), event("face.entered", frame=950, track=2000)]
    story = [event("camera.online"), *hour, *now, event("emotion.started", frame=951, track=2000, label="sad")]
    writer = Writer(bench.folder / "e.db")
    for first in range(0, len(story), 500):
        writer.append(story[first : first + 500])
    writer.close()
    broker.kill()
    bench.settings(home={"sink": broker.address})
    deliver = bench.deliver()
    deliver.until_said("cannot be reached: Connection refused")
    broker.start()
    reader = broker.read("fer_stream/#")
    deliver.until(lambda: status(broker) == "online", "online")
    assert states(broker)["door"] | {"labels": []} == {
        "camera": "door", "online": True, "faces": 1, "expression": "sad", "labels": [], "tracks": {"2000": "sad"},
        "sequence": f"{len(story):020d}", "time": "1970-01-01T00:15:51.000000Z", "discovery": None,
    }  # fmt: skip
    messages = reader.until_marked()
    online = next(n for n, one in enumerate(messages) if one["payload"] == "online")
    assert not [one for one in messages[online:] if one["topic"] == "fer_stream/door/state"]
    events = [json.loads(one["payload"]) for one in messages if len(one["topic"].split("/")) == 4]
    assert ids(without_repeats(events)) == ids(bench.journaled())
    assert deliver.stop() == 0
    assert status(broker) == "offline"


def test_a_refusal_is_told_without_any_event(bench: Bench, tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    broker.configure(broker.passwords(fer="right"))
    broker.start()
    bench.journal(events=1)
    bench.settings(home={"sink": broker.address, "begin": "now"})
    deliver = bench.deliver()
    deliver.until_said("the sink home has stopped; nothing is lost: the MQTT broker")
    broker.kill()
    broker.configure()
    broker.start()
    assert bench.manage("retry", "home").end() == 0
    deliver.until(lambda: status(broker) == "online", "online")
    assert deliver.stop() == 0
    broker.kill()


def test_a_broker_that_goes_and_comes_back_while_no_event_comes(bench: Bench, broker: Mosquitto) -> None:
    bench.journal(events=1)
    bench.settings(home={"sink": broker.address, "begin": "now"})
    deliver = bench.deliver()
    deliver.until(lambda: status(broker) == "online", "online")
    broker.kill()
    deliver.until(lambda: bench.states()["home"]["state"] == "failing", "a failing sink")
    assert "cannot be reached: Connection refused" in bench.states()["home"]["error"]
    assert bench.states()["home"]["state"] == "failing"
    assert "takes events again" not in deliver.err
    broker.start()
    deliver.until(lambda: status(broker) == "online", "online again")
    deliver.until(lambda: bench.states()["home"]["state"] == "ok", "a sink that works")
    assert deliver.stop() == 0
