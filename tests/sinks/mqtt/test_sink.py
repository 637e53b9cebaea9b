"""The mqtt sink of `fer-stream deliver`, with a real mosquitto, and `mosquitto_sub` as the reader."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from brokers import Certificates, Mosquitto
from journals import event
from processes import free_port, wait_for

from fer_stream.errors import ConfigError, DeliveryError, FatalError, RejectedError, RetryError
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.journal.contents import gap
from fer_stream.plugins import Delivery, FollowingSink
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.mqtt import connection
from fer_stream.sinks.mqtt.sink import Mqtt, open_sink, open_tls_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream.types import Event

    Opened = Callable[..., Mqtt]


def as_delivery(one: Event) -> Delivery:
    return Delivery(event_id(one), one, encode(one))


def story(*kinds: str, camera: str = "door", first: int = 1) -> list[Delivery]:
    """Return events of a camera, with their sequence; a track is 1."""
    return [
        as_delivery(replace(event(kind, camera, number, 0 if kind.startswith("camera") else 1), sequence=number))
        for number, kind in enumerate(kinds, first)
    ]


HAPPY = ("camera.online", "face.entered", "emotion.started")


def resets(count: int, first: int = 1) -> list[Delivery]:
    return story(*["camera.reset"] * count, first=first)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Mqtt]]:
    """A function that opens a sink, which is closed at the end."""
    sinks = []

    def make(address: str, cameras: tuple[str, ...] = (), **options: Any) -> Mqtt:
        settings = DeliverSettings(sink="mqtt:x", cameras=list(cameras), options=options)
        scheme, _, argument = address.partition(":")
        sinks.append({"mqtt": open_sink, "mqtts": open_tls_sink}[scheme](argument, settings))
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.close()


def state(broker: Mosquitto, camera: str = "door") -> dict[str, Any]:
    return dict(json.loads(broker.retained(f"fer_stream/{camera}/state")[f"fer_stream/{camera}/state"]))


# Events ---------------------------------------------------------------------------------------------------------------


def test_events_arrive_in_order_with_their_attributes(broker: Mosquitto, opened: Opened) -> None:
    reader = broker.read("fer_stream/+/+/+")
    batch = story(*HAPPY)
    sink = opened(broker.address)
    sink.write(batch)
    sink.close()
    sink.close()
    got = reader.until_marked()
    assert [one["payload"] for one in got] == [one.text for one in batch]
    assert [one["topic"] for one in got] == [
        *("fer_stream/door/camera/online", "fer_stream/door/face/entered", "fer_stream/door/emotion/started")
    ]
    assert {(one["qos"], one["retain"]) for one in got} == {(1, 0)}
    last, said = got[-1]["properties"], json.loads(batch[-1].text)
    assert last["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert last["user-properties"] == {
        key: said[key] for key in ("specversion", "id", "source", "type", "time", "subject", "sequence")
    }


def test_a_gap_has_no_camera(broker: Mosquitto, opened: Opened) -> None:
    reader = broker.read("a/b/+/+/+")
    opened(broker.address, topic="a/b").write([as_delivery(gap(1, 2, "test"))])
    assert [one["topic"] for one in reader.until_marked()] == ["a/b/_/stream/gap"]


@pytest.mark.parametrize("name", ["front.door", "a-b_c", "plus+hash#/slash", "höf"])
def test_names_of_cameras_are_one_level_of_a_topic(broker: Mosquitto, opened: Opened, name: str) -> None:
    reader = broker.read("fer_stream/+/camera/online", "fer_stream/+/state")
    opened(broker.address, home_assistant=True).write(story("camera.online", camera=name))
    one, other = reader.until_marked()
    assert json.loads(one["payload"])["source"] == f"/cameras/{name}"
    assert json.loads(other["payload"])["camera"] == name


def test_a_large_batch_keeps_the_brokers_receive_maximum(tmp_path: Path, opened: Opened) -> None:
    broker = Mosquitto(tmp_path, "max_inflight_messages 3", "max_queued_messages 0").start()
    try:
        reader = broker.read("fer_stream/+/+/+")
        batch = resets(500)
        with counting(broker.port) as (address, most):
            opened(address).write(batch)
        assert [one["payload"] for one in reader.until_marked()] == [one.text for one in batch]
        assert 0 < max(most) <= 3
    finally:
        broker.close()


# The state ------------------------------------------------------------------------------------------------------------


def test_the_state_is_retained(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address)
    sink.write(story(*HAPPY))
    assert state(broker) == {
        "camera": "door", "online": True, "faces": 1, "expression": "happy", "labels": ["happy"],
        "tracks": {"1": "happy"}, "sequence": f"{3:020d}", "time": "1970-01-01T00:00:03.000000Z", "discovery": None,
    }  # fmt: skip
    sink.write(story("emotion.ended", "face.left", "camera.offline", first=4))
    assert state(broker)["online"] is False
    assert "homeassistant" not in str(broker.retained())


def test_the_status_is_online_while_the_events_are_current(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address)
    assert isinstance(sink, FollowingSink)
    sink.follow(None, continued=True)
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "offline"}
    sink.write(resets(1))
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "offline"}
    sink.follow(0.0, continued=True)
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "online"}
    sink.follow(None, continued=True)  # for a moment only
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "online"}
    sink.close()
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "offline"}


def test_an_old_backlog_is_not_current(broker: Mosquitto, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.sinks.mqtt.sink.LATE", 0.0)
    reader = broker.read("fer_stream/status")
    sink = opened(broker.address)
    sink.follow(3600.0, continued=True)
    sink.write(story(*HAPPY))
    sink.write(story("camera.offline", first=4))
    assert {one["payload"] for one in reader.until_marked()} == {"offline"}
    monkeypatch.setattr("fer_stream.sinks.mqtt.sink.LATE", 10.0)
    sink.follow(0.0, continued=True)
    assert reader.until_marked()[-1]["payload"] == "online"
    assert state(broker)["online"] is False


def test_a_new_sink_continues_the_retained_state(broker: Mosquitto, opened: Opened) -> None:
    first = opened(broker.address)
    first.write(story(*HAPPY))
    first.close()
    second = opened(broker.address)
    second.follow(0.0, continued=True)
    assert state(broker)["faces"] == 1
    second.write([*story(*HAPPY)[1:], *story("emotion.ended", "face.left", first=4)])  # two come again
    assert (state(broker)["faces"], state(broker)["sequence"]) == (0, f"{5:020d}")


def test_a_sink_without_a_past_does_not_believe_what_is_retained(broker: Mosquitto, opened: Opened) -> None:
    first = opened(broker.address)
    first.write(story(*HAPPY))
    first.close()
    second = opened(broker.address)
    second.follow(0.0, continued=False)
    found = state(broker)
    assert (found["online"], found["faces"], found["expression"], found["tracks"]) == (None, None, None, {})


def test_events_that_a_sink_did_not_get_make_the_state_unknown(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address)
    sink.write(story(*HAPPY))
    sink.write(story("emotion.updated", first=9))
    assert (state(broker)["online"], state(broker)["faces"]) == (True, None)


@pytest.mark.parametrize(
    "payload", ['{"camera":"door"}', "x", '{"camera":"yard","online":true}'], ids=["part", "text", "other"]
)
def test_what_others_write_as_a_state_is_not_believed(broker: Mosquitto, opened: Opened, payload: str) -> None:
    broker.publish("fer_stream/door/state", payload, "-r")
    sink = opened(broker.address)
    sink.follow(0.0, continued=True)
    sink.write(story("face.entered", first=7))
    assert state(broker)["faces"] is None


def test_a_state_of_another_camera_is_not_believed(broker: Mosquitto, opened: Opened) -> None:
    first = opened(broker.address)
    first.write(story(*HAPPY))
    first.close()
    broker.publish("fer_stream/yard/state", json.dumps(state(broker)), "-r")
    broker.publish("fer_stream/door/state", "", "-r")
    second = opened(broker.address)
    second.follow(0.0, continued=True)
    second.write(story("face.entered", camera="yard", first=4))
    assert state(broker, "yard")["faces"] is None
    assert "fer_stream/door/state" not in broker.retained()


def test_filters_that_leave_events_out_leave_the_state_out(broker: Mosquitto) -> None:
    settings = DeliverSettings(sink="mqtt:x", types=["emotion"])
    sink = open_sink(broker.address, settings)
    sink.write(story(*HAPPY)[2:])
    assert list(broker.retained()) == ["fer_stream/status"]
    sink.close()
    for options in ({"state": True}, {"home_assistant": True}):
        with pytest.raises(ConfigError, match="remove types, or the options"):
            open_sink(broker.address, settings.model_copy(update={"options": options}))


def test_cameras_that_are_gone_are_removed(broker: Mosquitto, opened: Opened) -> None:
    first = opened(broker.address, home_assistant=True)
    for name in ("door", "yard", "hall"):
        first.write(story(*HAPPY, camera=name))
    first.close()
    assert len(broker.retained("homeassistant/#")) == 9
    second = opened(broker.address, home_assistant=True, forget="yard, attic", cameras=("door", "yard"))
    second.follow(0.0, continued=True)
    assert {topic.split("/")[2] for topic in broker.retained("homeassistant/#")} == {"fer_stream_door"}
    assert set(broker.retained("fer_stream/#")) == {"fer_stream/door/state", "fer_stream/status"}
    second.write(story("camera.online", camera="yard", first=4))  # its events are delivered all the same
    assert "fer_stream/yard/state" not in broker.retained()


# Home Assistant -------------------------------------------------------------------------------------------------------


def configurations(broker: Mosquitto, prefix: str = "homeassistant") -> dict[str, dict[str, Any]]:
    return {topic: json.loads(text) for topic, text in broker.retained(f"{prefix}/#").items()}


def test_home_assistant_is_told_about_each_camera(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address, home_assistant=True)
    sink.write(story("camera.online"))
    assert set(configurations(broker)) == {
        *(
            "homeassistant/binary_sensor/fer_stream_door/online/config",
            "homeassistant/sensor/fer_stream_door/faces/config",
        )
    }
    sink.write(story("face.entered", "emotion.started", first=2))
    sink.write(story("camera.online", camera="yard"))  # a new camera
    found = configurations(broker)
    assert len(found) == 5
    expression = found["homeassistant/sensor/fer_stream_door/expression/config"]
    assert (expression["device_class"], expression["options"]) == ("enum", ["happy", "none"])
    assert len({one["unique_id"] for one in found.values()}) == 5
    assert {one["device"]["name"] for one in found.values()} == {"door", "yard"}
    assert all(one["origin"]["name"] == "fer_stream" for one in found.values())
    assert all(one["availability"][0]["topic"] == "fer_stream/status" for one in found.values())


def test_names_that_home_assistant_does_not_allow_stay_different(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address, home_assistant=True)
    for name in ("a.b", "a_b", "a-b"):
        sink.write(story("camera.online", camera=name))
    nodes = {topic.split("/")[2] for topic in configurations(broker)}
    assert len(nodes) == 3
    assert all(node.replace("_", "").replace("-", "").isalnum() for node in nodes)


def test_home_assistants_start_brings_everything_again(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address, home_assistant=True)
    sink.follow(0.0, continued=True)
    sink.write(story(*HAPPY))
    reader = broker.read("homeassistant/+/+/+/config", "fer_stream/+/state")
    again = len(reader.messages)  # what is retained comes to every new reader
    sink.follow(0.0, continued=True)
    assert len(reader.until_marked()) == again
    broker.publish("homeassistant/status", "online")
    sink.follow(0.0, continued=True)
    assert len(reader.until_marked()) == again + 4


def test_home_assistant_forgets_if_the_option_is_removed_or_its_prefix_changes(
    broker: Mosquitto, opened: Opened
) -> None:
    for options, prefixes in (
        ({"home_assistant": True}, {"homeassistant"}),
        ({"home_assistant": True, "discovery_prefix": "ha"}, {"ha"}),
        ({}, set()),
        ({"home_assistant": True}, {"homeassistant"}),
        ({"state": False}, set()),
    ):
        sink = opened(broker.address, **options)
        sink.follow(0.0, continued=True)
        sink.write(story(*HAPPY))
        sink.close()
        retained = broker.retained()
        assert {topic.split("/")[0] for topic in retained} - {"fer_stream"} == prefixes, options
    assert list(retained) == ["fer_stream/status"]


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_killed_and_has_forgotten_everything_gets_it_again(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address, home_assistant=True)
    sink.follow(0.0, continued=True)
    sink.write(story(*HAPPY))
    broker.kill()
    wait_for(lambda: sink._connection and sink._connection.error, "the end of the connection")
    for what in (lambda: sink.write(resets(1, 4)), lambda: sink.follow(0.0, continued=True)):
        with pytest.raises(
            RetryError, match=r"the MQTT broker mqtt://127.0.0.1:\d+ cannot be reached: Connection refused"
        ):
            what()
    broker.start()
    assert broker.retained() == {}
    sink.follow(0.0, continued=True)
    assert state(broker)["faces"] == 1
    assert len(configurations(broker)) == 3
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "online"}
    sink.write(story("face.left", first=4))
    assert state(broker)["faces"] == 0


def test_a_broker_that_stops_in_the_middle_of_a_batch(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address)
    sink.write(resets(1))
    timer = threading.Timer(0.01, broker.kill)
    timer.start()
    with pytest.raises(RetryError, match=r"has ended the connection|the connection to .* broke|cannot be reached"):
        _write_on(sink)
    timer.join()


def _write_on(sink: Mqtt) -> None:
    for number in range(2, 1000):
        sink.write(resets(500, number * 500))


def test_a_broker_that_hangs(broker: Mosquitto, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(broker.address)
    sink.write(resets(1))
    broker.tell(signal.SIGSTOP)
    monkeypatch.setattr(connection.Connection.publish, "__defaults__", (0.5,))
    with pytest.raises(RetryError, match=r"does not acknowledge within 0\.5 s"):
        sink.write(resets(1, 2))
    monkeypatch.setattr(connection, "CONNECT", 0.5)
    with pytest.raises(RetryError, match=r"has not greeted within 0\.5 s: is it an MQTT broker\?"):
        sink.write(resets(1, 2))
    broker.tell(signal.SIGCONT)
    sink.write(resets(1, 2))


def test_a_broker_that_falls_silent_is_noticed_without_any_event(
    broker: Mosquitto, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE", 1)
    monkeypatch.setattr(connection, "CONNECT", 0.5)
    sink = opened(broker.address)
    sink.follow(0.0, continued=True)
    broker.tell(signal.SIGSTOP)
    wait_for(lambda: sink._connection and sink._connection.error, "the end of the connection")
    with pytest.raises(RetryError, match="has not greeted"):
        sink.follow(0.0, continued=True)
    broker.tell(signal.SIGCONT)
    sink.follow(0.0, continued=True)
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "online"}


def test_the_will_says_that_the_service_is_gone(broker: Mosquitto, tmp_path: Path) -> None:
    """A process that is killed cannot say so itself."""
    program = (
        "import sys, time\n"
        "from fer_stream.settings.tree import DeliverSettings\n"
        "from fer_stream.sinks.mqtt.sink import open_sink\n"
        f"sink = open_sink({broker.address!r}, DeliverSettings(sink='mqtt:x'))\n"
        "sink.follow(0.0, continued=True)\nprint('up', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert broker.retained("fer_stream/status") == {"fer_stream/status": "online"}
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: broker.retained("fer_stream/status") == {"fer_stream/status": "offline"}, "the will")


def test_a_client_with_the_same_id_takes_the_session_over(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address, client_id="mine")
    sink.write(resets(1))
    broker.publish("x", "y", "-i", "mine")
    wait_for(lambda: sink._connection and sink._connection.error, "the end of the connection")
    assert sink._connection is not None
    assert "or another client has the client id mine" in str(sink._connection.error)  # mosquitto 2.0.11 gives no reason
    sink.write(resets(1, 2))


def test_a_status_that_somebody_else_has_overwritten_is_put_right(broker: Mosquitto, opened: Opened) -> None:
    """Such as the will of a connection that broke, which comes late."""
    sink = opened(broker.address)
    sink.follow(0.0, continued=True)
    broker.publish("fer_stream/status", "offline", "-r")

    def again() -> bool:
        sink.follow(0.0, continued=True)
        return broker.retained("fer_stream/status") == {"fer_stream/status": "online"}

    wait_for(again, "the status")


def test_passwords(tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Mosquitto(tmp_path)
    broker.configure(broker.passwords(fer="right"))
    broker.start()
    try:
        where = f"127.0.0.1:{broker.port}"
        for who in ("", "fer:wrong@"):
            with pytest.raises(
                FatalError, match=r"refuses this client: check the user, the password|refuses the user"
            ) as no:
                opened(f"mqtt://{who}{where}").write(resets(1))
            assert "wrong" not in str(no.value)
        monkeypatch.setenv("BROKER_PASSWORD", "right")
        opened(f"mqtt://fer:env:BROKER_PASSWORD@{where}").write(resets(1))
        sink = opened(f"mqtt://fer:file:{tmp_path}/missing@{where}")
        with pytest.raises(RetryError, match="missing cannot be read: No such file"):
            sink.write(resets(1))
        (tmp_path / "missing").touch(0o600)
        (tmp_path / "missing").write_text("right\n")
        sink.write(resets(1, 2))
    finally:
        broker.close()


def test_access_lists(tmp_path: Path, opened: Opened) -> None:
    broker = Mosquitto(tmp_path)
    users = broker.passwords(all="p", other="p", deaf="p")
    broker.configure(
        users,
        broker.access(
            *("user all", "topic readwrite #"),
            *("user other", "topic readwrite fer_stream/#", "topic deny fer_stream/yard/camera/#"),
            *("user deaf", "topic write fer_stream/#"),
        ),
    )
    broker.start()
    try:
        where = f"127.0.0.1:{broker.port}"
        sink = opened(f"mqtt://other:p@{where}")
        sink.write(resets(1))
        with pytest.raises(
            FatalError, match="does not let this client publish to fer_stream/yard/camera/online: allow it"
        ):
            sink.write(story("camera.online", camera="yard"))
        with pytest.raises(FatalError, match=r"publish to homeassistant/binary_sensor/.*/config: allow it"):
            opened(f"mqtt://other:p@{where}", home_assistant=True).write(resets(1))
        with pytest.raises(DeliveryError, match=r"let this client read fer_stream/#|does not let this client read"):
            opened(f"mqtt://deaf:p@{where}").write(resets(1))
    finally:
        broker.close()


@pytest.mark.parametrize("limit", ["message_size_limit 450", "max_packet_size 700"])
def test_events_that_are_too_large_are_refused(tmp_path: Path, opened: Opened, limit: str) -> None:
    broker = Mosquitto(tmp_path, limit).start()
    try:
        sink = opened(broker.address)
        small, large = resets(1)[0], story("emotion.started", first=2)[0]
        reader = broker.read("fer_stream/+/+/+")
        assert len(large.text) > 450 > len(small.text)
        with pytest.raises(RejectedError) as caught:
            sink.write([small, large])
        assert list(caught.value.reasons) == [large.id]
        assert "bytes" in caught.value.reasons[large.id]
        sink.write([small])
        assert {one["payload"] for one in reader.until_marked()} == {small.text}
        assert state(broker)["faces"] is None or state(broker)["expression"] == "happy"
    finally:
        broker.close()


def test_a_broker_that_keeps_nothing(tmp_path: Path, opened: Opened) -> None:
    broker = Mosquitto(tmp_path, "retain_available false").start()
    try:
        with pytest.raises(FatalError, match="keeps no retained messages, which this sink needs"):
            opened(broker.address).write(resets(1))
    finally:
        broker.close()


def test_tls(tmp_path: Path, opened: Opened) -> None:
    ours, other = Certificates(tmp_path), Certificates(tmp_path, "other")
    broker = Mosquitto(tmp_path, tls=ours).start()
    try:
        opened(broker.address, ca=str(ours.ca)).write(resets(1))
        for options in ({"ca": str(other.ca)}, {}):
            with pytest.raises(FatalError, match=r"certificate of the MQTT broker mqtts://.* is not to be trusted: "):
                opened(broker.address, **options).write(resets(1))
        with pytest.raises(FatalError, match=r"Hostname mismatch|doesn't match|not valid for 'localhost'"):
            opened(broker.address.replace("127.0.0.1", "localhost"), ca=str(ours.ca)).write(resets(1))
        with pytest.raises(RetryError, match=r"ended the connection without a greeting|has not greeted"):
            opened(broker.address.replace("mqtts", "mqtt")).write(resets(1))
        with pytest.raises(FatalError, match=f"{tmp_path}/none.pem cannot be used .*: No such file"):
            opened(broker.address, ca=f"{tmp_path}/none.pem").write(resets(1))
    finally:
        broker.close()


def test_client_certificates(tmp_path: Path, opened: Opened) -> None:
    ours = Certificates(tmp_path)
    broker = Mosquitto(tmp_path, "require_certificate true", tls=ours).start()
    try:
        with pytest.raises(RetryError, match="requires a client certificate"):
            opened(broker.address, ca=str(ours.ca)).write(resets(1))
        files = {"certificate": str(ours.certificate), "key": str(ours.key)}
        opened(broker.address, ca=str(ours.ca), **files).write(resets(1))
        with pytest.raises(FatalError, match="cannot be used for the connection to the MQTT broker"):
            opened(broker.address, ca=str(ours.ca), certificate=str(ours.key)).write(resets(1))
    finally:
        broker.close()


def test_tls_to_a_broker_without(broker: Mosquitto, opened: Opened) -> None:
    with pytest.raises(RetryError, match=r"does not speak TLS as it should|cannot be reached"):
        opened(broker.address.replace("mqtt", "mqtts")).write(resets(1))


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that answers a client's successive messages with these bytes, and ends the connection after them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        for answer in answers:
                            sock.recv(65_536)
                            sock.sendall(answer)
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65_536):
                            pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def greeting(code: int, properties: bytes = b"") -> bytes:
    return bytes([0x20, 3 + len(properties), 0, code, len(properties)]) + properties


SUBSCRIBED = bytes([0x90, 4, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("answers", "kind", "says"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>"], RetryError, "MQTT"),
        ([bytes([0x20, 2, 0, 1])], FatalError, "does not speak MQTT 5"),
        ([greeting(0x86)], FatalError, "refuses the user or the password: check both"),
        ([greeting(0x87)], FatalError, "refuses this client: check the user, the password and its access list"),
        ([greeting(0x85)], FatalError, "refuses the client id fer_stream-[0-9a-f]{12}: give another one"),
        ([greeting(0x8A)], FatalError, "has banned this client"),
        ([greeting(0x9D, b"\x1c\x00\x03b:1")], FatalError, r"has moved \(b:1\): change the address"),
        ([greeting(0x88)], RetryError, r"takes nothing now: server unavailable \(0x88\)"),
        ([greeting(0x89)], RetryError, r"takes nothing now: server busy \(0x89\)"),
        ([greeting(0x97)], RetryError, r"takes nothing now: quota exceeded \(0x97\)"),
        ([greeting(0, b"\x25\x00")], FatalError, "keeps no retained messages"),
        ([greeting(0, b"\x24\x00")], FatalError, "does not take messages with QoS 1"),
        ([greeting(0), bytes([0x90, 4, 0, 1, 0, 0x87])], FatalError, "does not let this client read fer_stream/status"),
        ([greeting(0), bytes([0xE0, 2, 0x8B, 0])], RetryError, r"takes nothing now: server shutting down \(0x8b\)"),
        ([greeting(0), bytes([0xE0, 2, 0x8E, 0])], FatalError, "another client took the client id"),
        ([greeting(0), b""], RetryError, "has ended the connection"),
    ],
)
def test_what_a_broker_may_say(
    answers: list[bytes], kind: type[DeliveryError], says: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT", 2.0)
    with answering(*answers) as address, pytest.raises(kind, match=says):
        opened(address).write(resets(1))


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (0x97, RetryError, r"takes nothing now: quota exceeded \(0x97\)"),
        (0x80, RetryError, r"takes nothing now: unspecified error \(0x80\)"),
        (0x90, FatalError, "refuses the topic fer_stream/door/camera/reset: give another prefix"),
        (0x87, FatalError, "publish to fer_stream/door/camera/reset: allow it there"),
        (0x99, RejectedError, "the broker does not take this content"),
        (0x95, RejectedError, "more than the broker takes"),
    ],
)
def test_what_a_broker_may_say_to_a_message(
    code: int, kind: type[DeliveryError], says: str, broker: Mosquitto, opened: Opened
) -> None:
    """A proxy replaces the broker's acknowledgement of an event."""
    with refusing(broker.port, code) as address, pytest.raises(kind, match=says):
        opened(address).write(resets(1))


def test_a_message_for_which_the_broker_ends_the_connection_is_found(broker: Mosquitto, opened: Opened) -> None:
    batch = [*resets(5), *story("emotion.started", first=6), *resets(5, 7)]
    reader = broker.read("fer_stream/+/+/+")
    with ending(broker.port, b"emotion/started") as address:
        sink = opened(address)
        with pytest.raises(RetryError, match="packet too large"):
            sink.write(batch)
        with pytest.raises(RejectedError) as caught:
            sink.write(batch)
        assert list(caught.value.reasons) == [batch[5].id]
        rest = batch[:5] + batch[6:]
        sink.write(rest)
        sink.close()
    assert {one["payload"] for one in reader.until_marked()} == {one.text for one in rest}


def packets(sock: socket.socket) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the type of each MQTT packet that comes, its head, and its body."""
    with contextlib.suppress(OSError), sock.makefile("rb") as stream:
        while first := stream.read(1):
            head, length, shift = first, 0, 0
            while not shift or head[-1] >= 0x80:
                head += stream.read(1)
                length |= (head[-1] & 0x7F) << shift
                shift += 7
            yield head[0] & 0xF0, head, stream.read(length)


@contextlib.contextmanager
def proxy(port: int, change: Callable[[bool, int, bytes, bytes], bytes | None]) -> Iterator[str]:
    """A proxy before a broker. ``change`` returns what to send for a packet; ``None`` ends the connection.

    Its arguments are whether the packet is the broker's, its type, its head and its body.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_: list[socket.socket] = []

        def pump(near: socket.socket, far: socket.socket, brokers: bool) -> None:
            with contextlib.suppress(OSError):
                for kind, head, body in packets(near):
                    sent = change(brokers, kind, head, body)
                    if sent is None:
                        near.sendall(GOODBYE)
                        break
                    far.sendall(sent)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(("127.0.0.1", port))
                    open_.extend([near, far])
                    for one, other, brokers in ((near, far, False), (far, near, True)):
                        threading.Thread(target=pump, args=(one, other, brokers), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        for sock in (listener, *open_):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        for sock in open_:
            sock.close()


GOODBYE = bytes([0xE0, 2, 0x95, 0])
"""A broker's DISCONNECT, because a packet is too large."""

PUBLISH, PUBACK = 0x30, 0x40


@contextlib.contextmanager
def refusing(port: int, code: int) -> Iterator[str]:
    """A proxy that gives the acknowledgement of the second message this code; the first one is the sink's own."""
    seen = 0

    def change(brokers: bool, kind: int, head: bytes, body: bytes) -> bytes:
        nonlocal seen
        seen += brokers and kind == PUBACK
        if brokers and kind == PUBACK and seen == 2:
            return bytes([0x40, 3]) + body[:2] + bytes([code])
        return head + body

    with proxy(port, change) as address:
        yield address


@contextlib.contextmanager
def ending(port: int, part: bytes) -> Iterator[str]:
    """A proxy that ends the connection as soon as the sink publishes a message with these bytes in it."""

    def change(brokers: bool, kind: int, head: bytes, body: bytes) -> bytes | None:
        return None if not brokers and kind == PUBLISH and part in body else head + body

    with proxy(port, change) as address:
        yield address


@contextlib.contextmanager
def counting(port: int) -> Iterator[tuple[str, list[int]]]:
    """A proxy that notes how many messages of the sink are on their way after each of them."""
    lock, on_their_way, notes = threading.Lock(), 0, [0]

    def change(brokers: bool, kind: int, head: bytes, body: bytes) -> bytes:
        nonlocal on_their_way
        with lock:
            on_their_way += (not brokers and kind == PUBLISH) - (brokers and kind == PUBACK)
            notes.append(on_their_way)
        return head + body

    with proxy(port, change) as address:
        yield address, notes


# The address, the options, and `check` --------------------------------------------------------------------------------


def test_a_broker_that_cannot_be_found(opened: Opened) -> None:
    with pytest.raises(
        RetryError, match=r"cannot be reached: Name or service not known|cannot be reached: .*resolution"
    ):
        opened("mqtt://no-such-broker.invalid").write(resets(1))


def test_check_connects_beside_the_sink_and_publishes_nothing(broker: Mosquitto, opened: Opened) -> None:
    sink = opened(broker.address)
    sink.follow(0.0, continued=True)
    reader = broker.read()
    before = len(reader.messages)
    opened(broker.address).check()
    assert len(reader.until_marked()) == before
    sink.write(resets(1))  # its session is still its own
    with pytest.raises(RetryError, match="cannot be reached"):
        opened(f"mqtt://127.0.0.1:{free_port()}").check()


@pytest.mark.parametrize(
    "argument",
    ["", "//", "127.0.0.1:1883", "http://127.0.0.1", "//127.0.0.1:x", "//h/topic", "//h:0", "//h?x=1", "//[::1"],
)
def test_addresses_that_are_none(argument: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of an MQTT broker: give mqtt://HOST:PORT"):
        open_sink(argument, DeliverSettings(sink="mqtt:x"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"topic": "a//b"}, "option topic"),
        ({"topic": "$SYS"}, "option topic"),
        ({"ca": "/ca.pem"}, "option ca is for an encrypted connection: give mqtts://HOST"),
        ({"state": False, "home_assistant": True}, "option home_assistant needs the states of cameras"),
        ({"client_id": ""}, "option client_id"),
        ({"nothing": 1}, "there is no option nothing"),
        ({"topic": "a/#"}, 'option topic = "a/#" is not allowed: it must be text of the form'),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_sink("//127.0.0.1", DeliverSettings(sink="mqtt:x", options=options))


def test_the_client_id_is_stable_and_differs_between_sinks() -> None:
    def identity(**given: Any) -> str:
        return open_sink("//127.0.0.1", DeliverSettings(**({"sink": "mqtt://127.0.0.1"} | given)))._client_id

    assert identity() == identity()
    others = [{"sink": "mqtt://127.0.0.2"}, {"cameras": ["door"]}, {"options": {"topic": "other"}}]
    assert len({identity(), *(identity(**given) for given in others)}) == 4
    assert identity(options={"client_id": "mine"}) == "mine"
