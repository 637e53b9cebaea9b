"""The kafka sink of `fer-stream deliver`, with real clients of three brokers, and of one of another make."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from cloudevents.core.bindings import kafka as binding
from journals import event
from kafka_servers import (
    CLUSTER_FORBIDDEN,
    FEW_REPLICAS,
    INIT_PRODUCER_ID,
    INVALID_RECORD,
    OUT_OF_ORDER,
    PRODUCE,
    TOO_LARGE,
    TOPIC,
    TOPIC_FORBIDDEN,
    UNKNOWN_TOPIC,
    Gate,
    MockCluster,
    Tansu,
    read,
)
from processes import wait_for

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.journal.contents import gap
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.kafka import sink as kafka_sink
from fer_stream.sinks.kafka.sink import Kafka, open_sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kafka_servers import Message

    from fer_stream.types import Event

SOON = 0.5
"""Seconds for answers that do not come, in tests of that."""


def as_delivery(one: Event) -> Delivery:
    return Delivery(event_id(one), one, encode(one))


def resets(*frames: int, camera: str = "door") -> list[Delivery]:
    return [as_delivery(event("camera.reset", camera, frame)) for frame in frames]


def mixed(count: int, cameras: int = 8) -> list[Delivery]:
    return [resets(number + 1, camera=f"camera-{number % cameras}")[0] for number in range(count)]


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    cluster = MockCluster().topic()
    yield cluster
    cluster.kill()


@contextmanager
def soon(seconds: float = SOON) -> Iterator[None]:
    """Make the limits short, for calls that wait for what does not come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_sink, "ANSWERS", seconds)
        patch.setattr(kafka_sink, "CONNECT", seconds)
        yield


def opened(address: str, **options: Any) -> Kafka:
    return open_sink(address.removeprefix("kafka:"), DeliverSettings(sink="kafka:x", options=options))


def ids(messages: Iterable[Message]) -> list[str]:
    return [json.loads(one.value)["id"] for one in messages]


def of_camera(messages: Iterable[Message], camera: str) -> list[str]:
    return ids(one for one in messages if one.key == camera)


def test_each_camera_is_in_one_partition_in_order(cluster: MockCluster) -> None:
    sink, events = opened(cluster.address), mixed(1200)
    sink.write(events[:1000])
    sink.write(events[1000:])
    sink.close()
    sink.close()
    messages = cluster.read()
    assert {one.partition for one in messages} == {0, 1, 2}
    for camera in {one.event.camera for one in events}:
        assert of_camera(messages, camera) == [one.id for one in events if one.event.camera == camera]
        assert len({one.partition for one in messages if one.key == camera}) == 1


def test_a_message_is_a_structured_cloudevent(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    (one,) = resets(1)
    sink.write([one])
    sink.close()
    (message,) = cluster.read()
    assert message.value.decode() == one.text
    assert message.key == "door"
    assert message.headers == {"content-type": "application/cloudevents+json; charset=UTF-8"}


def test_in_binary_mode_the_attributes_are_headers(cluster: MockCluster) -> None:
    sink = opened(cluster.address, mode="binary")
    one = as_delivery(event("emotion.started", "Tür", track=3))
    sink.write([one])
    sink.close()
    (message,) = cluster.read()
    whole = json.loads(one.text)
    assert json.loads(message.value) == whole.pop("data")
    assert message.headers == {
        "content-type": whole.pop("datacontenttype"),
        **{f"ce_{name}": str(value) for name, value in whole.items()},
    }
    assert message.key == "Tür"


def test_the_sdk_of_cloudevents_reads_both_modes(cluster: MockCluster) -> None:
    one = as_delivery(event("emotion.started"))
    for mode in ("structured", "binary"):
        sink = opened(cluster.address, mode=mode)
        sink.write([one])
        sink.close()
    for message in cluster.read():
        headers = {name: value.encode() for name, value in message.headers.items()}
        found = binding.from_kafka_event(binding.KafkaMessage(headers, message.key, message.value))
        assert found.get_id() == one.id
        assert found.get_type() == "emotion.started"
        assert found.get_source() == "/cameras/door"
        assert found.get_data() == json.loads(one.text)["data"]


def test_a_gap_has_no_key(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    sink.write([as_delivery(gap(1, 2, "test"))])
    sink.close()
    assert [one.key for one in cluster.read()] == [None]


def test_one_of_three_brokers_is_taken_away(cluster: MockCluster) -> None:
    sink, events = opened(cluster.address), mixed(300)
    sink.write(events[:100])
    cluster.down(1)
    for partition in range(3):
        cluster.lead(partition, 2 + partition % 2)
    sink.write(events[100:200])
    cluster.up(1)
    sink.write(events[200:])
    sink.close()
    messages = cluster.read()
    assert len(messages) == 300
    for camera in {one.event.camera for one in events}:
        assert of_camera(messages, camera) == [one.id for one in events if one.event.camera == camera]


def test_only_what_is_missing_is_sent_again(cluster: MockCluster) -> None:
    """Two brokers take their part of a batch, and the third one takes its part later."""
    for partition in range(3):
        cluster.lead(partition, 1 + partition)
    sink, events = opened(cluster.address), mixed(60)
    sink.write(events[:30])
    cluster.down(3)
    with soon(2.0), pytest.raises(RetryError, match="do not store events within 2 s"):
        sink.write(events[30:])
    cluster.up(3)
    with_retries(sink, events[30:])
    sink.close()
    messages = cluster.read()
    assert sorted(ids(messages)) == sorted(one.id for one in events)
    for camera in {one.event.camera for one in events}:
        assert of_camera(messages, camera) == [one.id for one in events if one.event.camera == camera]


def with_retries(sink: Kafka, events: list[Delivery], most: int = 20) -> None:
    for _ in range(most):
        try:
            sink.write(events)
        except RetryError:
            continue
        return
    raise AssertionError("it is never written")


def test_nothing_of_a_failed_batch_arrives_later(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    sink.write(resets(1))
    cluster.down(1, 2, 3)
    with soon(), pytest.raises(RetryError, match="do not store events within"):
        sink.write(resets(2, 3))
    with (
        soon(),
        pytest.raises(RetryError, match=r"are not ready after [0-9.]+ s: Connect to .* failed: Connection refused"),
    ):
        sink.write(resets(2, 3))
    cluster.up(1, 2, 3)
    with_retries(sink, resets(4))  # as after `deliver skip`
    sink.close()
    assert ids(cluster.read()) == [one.id for one in resets(1, 4)]


def test_too_few_replicas(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    cluster.answer(PRODUCE, *[FEW_REPLICAS] * 100)
    with soon(2.0), pytest.raises(RetryError, match=r"within [0-9.]+ s: Broker: Not enough in-sync replicas$"):
        sink.write(resets(1, 2))
    cluster.answer_as_usual(PRODUCE)
    sink.write(resets(1, 2))
    sink.close()
    assert ids(cluster.read()) == [one.id for one in resets(1, 2)]


def test_a_fatal_error_of_the_producer_makes_a_new_one(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    sink.write(resets(1))
    cluster.answer(PRODUCE, OUT_OF_ORDER)
    with pytest.raises(RetryError, match="out of order sequence number"):
        sink.write(resets(2, 3))
    sink.write(resets(2, 3))
    sink.close()
    assert ids(cluster.read()) == [one.id for one in resets(1, 2, 3)]


@pytest.mark.parametrize(
    ("code", "reason"), [(TOO_LARGE, "does not take as many"), (INVALID_RECORD, "failed to validate record")]
)
def test_an_event_that_a_broker_refuses(cluster: MockCluster, code: int, reason: str) -> None:
    """The group is refused, and then one of its events: the others are stored, in order."""
    sink = opened(cluster.address)
    cluster.answer(PRODUCE, code, code)
    events = resets(1, 2, 3)
    with pytest.raises(RejectedError, match=reason) as caught:
        sink.write(events)
    assert list(caught.value.reasons) == [events[0].id]
    sink.write(events[1:])
    sink.close()
    assert ids(cluster.read()) == [one.id for one in events[1:]]


def test_a_group_that_is_too_large_as_a_whole(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    cluster.answer(PRODUCE, TOO_LARGE)
    sink.write(resets(1, 2, 3))
    sink.close()
    assert ids(cluster.read()) == [one.id for one in resets(1, 2, 3)]


def test_no_permission_to_write(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    cluster.answer(PRODUCE, TOPIC_FORBIDDEN)
    with pytest.raises(FatalError, match="do not let this process write the topic fer_stream: give its user"):
        sink.write(resets(1))
    cluster.refuse_topic(TOPIC_FORBIDDEN)
    with pytest.raises(FatalError, match="do not let this process write the topic fer_stream"):
        sink.check()
    sink.close()
    cluster.refuse_topic(0)
    assert cluster.read() == []


def test_no_permission_for_an_idempotent_producer(cluster: MockCluster) -> None:
    """As of brokers before Kafka 2.8, without the permission IdempotentWrite."""
    sink = opened(cluster.address)
    cluster.answer(INIT_PRODUCER_ID, *[CLUSTER_FORBIDDEN] * 5)
    with pytest.raises(FatalError, match="do not let this process write the topic fer_stream"):
        sink.write(resets(1))
    sink.close()


def test_no_topic(cluster: MockCluster) -> None:
    cluster.refuse_topic(UNKNOWN_TOPIC)
    sink = opened(cluster.address)
    with soon(2.0), pytest.raises(RetryError, match="there is no topic fer_stream, and they do not make it; make it"):
        sink.write(resets(1))
    cluster.refuse_topic(0)
    sink.write(resets(1))
    sink.close()
    assert ids(cluster.read()) == [one.id for one in resets(1)]


def test_brokers_that_make_topics(cluster: MockCluster, tmp_path: Path) -> None:
    sink = opened(f"kafka://{cluster.hosts}", topic="other")
    sink.write(resets(1))
    sink.close()
    assert ids(cluster.read("other")) == [one.id for one in resets(1)]
    tansu = Tansu(tmp_path)
    try:
        sink = opened(tansu.address)
        sink.write(mixed(500))
        sink.close()
        assert sorted(ids(read(tansu.hosts))) == sorted(one.id for one in mixed(500))
    finally:
        tansu.kill()


def test_a_topic_that_is_deleted(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    sink.write(resets(1))
    cluster.answer(PRODUCE, *[UNKNOWN_TOPIC] * 100)
    cluster.refuse_topic(UNKNOWN_TOPIC)
    with soon(2.0), pytest.raises(RetryError, match=r"Unknown (topic|partition)"):
        sink.write(resets(2))
    with soon(2.0), pytest.raises(RetryError, match="there is no topic"):
        sink.write(resets(2))
    sink.close()


def test_a_broker_that_never_answers(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    sink.write(resets(1))
    cluster.delay(60_000, 1, 2, 3)
    with soon(), pytest.raises(RetryError, match="do not store events within"):
        sink.write(resets(2))
    sink.close()


def test_a_slow_link(cluster: MockCluster) -> None:
    """Each answer takes longer than the shortest wait."""
    cluster.delay(500, 1, 2, 3)
    sink = opened(cluster.address)
    sink.write(resets(1, 2))
    sink.close()
    cluster.delay(0, 1, 2, 3)
    assert ids(cluster.read()) == [one.id for one in resets(1, 2)]


def test_a_broker_that_hangs_and_goes_on(tmp_path: Path) -> None:
    """It has the requests of failed attempts in its buffers: then events are there twice, but the order stays."""
    tansu = Tansu(tmp_path)
    try:
        sink, events = opened(tansu.address), resets(*range(1, 301))
        sink.write(events[:100])
        tansu.process.send_signal(signal.SIGSTOP)
        stopped = psutil.Process(tansu.process.pid)
        wait_for(lambda: stopped.status() == psutil.STATUS_STOPPED, "a broker that hangs")
        for _ in range(3):
            with soon(), pytest.raises(RetryError, match=r"do not store events within|are not ready after"):
                sink.write(events[100:200])
        tansu.process.send_signal(signal.SIGCONT)
        with_retries(sink, events[100:200])
        with_retries(sink, events[200:])
        sink.close()
        assert list(dict.fromkeys(ids(read(tansu.hosts)))) == [one.id for one in events]
    finally:
        tansu.kill()


def test_a_port_that_is_not_kafkas() -> None:
    """It answers every request with a page of HTML, as a proxy does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html></html>")
                client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        sink = opened(f"kafka://127.0.0.1:{listener.getsockname()[1]}/{TOPIC}")
        with soon(2.0), pytest.raises(RetryError, match=r"are not ready after [0-9.]+ s: .*"):
            sink.write(resets(1))
        sink.close()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_name_that_does_not_resolve() -> None:
    sink = opened(f"kafka://kafka.invalid/{TOPIC}")
    with (
        soon(2.0),
        pytest.raises(RetryError, match=r"not ready after [0-9.]+ s: Failed to resolve 'kafka.invalid:9092'"),
    ):
        sink.check()
    sink.close()


def test_check_writes_nothing(cluster: MockCluster) -> None:
    sink = opened(cluster.address)
    sink.check()
    sink.check()
    sink.write(resets(1))
    sink.check()
    sink.close()
    assert ids(cluster.read()) == [one.id for one in resets(1)]


def test_librdkafka_says_nothing_itself(cluster: MockCluster, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("fer_stream.sinks.kafka").setLevel(logging.INFO)
    sink = opened(cluster.address)
    sink.write(resets(1))
    cluster.down(1, 2, 3)
    for _ in range(2):
        with soon(), pytest.raises(RetryError):
            sink.write(resets(2))
    sink.close()
    assert capfd.readouterr() == ("", "")


# Encryption and passwords ---------------------------------------------------------------------------------------------


class Guarded:
    """Tansu behind a gate."""

    def __init__(self, folder: Path) -> None:
        self.ca, key = folder / "ca.pem", folder / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", self.ca),
            ],
            check=True,
            capture_output=True,
        )
        self.gate = Gate(self.ca, key)
        self.tansu = Tansu(folder, advertised=self.gate.port)
        self.gate.target = self.tansu.port

    def address(self, user: str = "fer:right", host: str = "localhost", scheme: str = "tls") -> str:
        return f"{scheme}://{user}@{host}:{self.gate.port}/{TOPIC}"

    def sink(self, address: str, **options: Any) -> Kafka:
        return opened(address, **{"ca": str(self.ca), "mechanism": "PLAIN"} | options)

    def read(self) -> list[Message]:
        return read(
            f"localhost:{self.gate.port}",
            security_protocol="SASL_SSL",
            ssl_cafile=str(self.ca),
            sasl_mechanism="PLAIN",
            sasl_plain_username="fer",
            sasl_plain_password="right",
        )


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.tansu.kill()
    guarded.gate.close()


def test_encrypted_and_with_a_password(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "right")
    sink = guarded.sink(guarded.address("fer:env:KAFKA_PASSWORD"))
    sink.write(resets(1, 2))
    sink.close()
    assert ids(guarded.read()) == [one.id for one in resets(1, 2)]
    sink = guarded.sink(guarded.address(f"fer:file:{tmp_path}/missing"))
    with pytest.raises(RetryError, match="missing cannot be read: No such file"):
        sink.write(resets(3))
    sink.close()


def test_a_wrong_password_is_for_the_operator(guarded: Guarded) -> None:
    sink = guarded.sink(guarded.address("fer:wrong"))
    with pytest.raises(
        FatalError, match=r"tls://fer:\*\*\*@localhost:\d+/fer_stream refuse this process: check"
    ) as caught:
        sink.write(resets(1))
    assert "wrong" not in str(caught.value)
    sink.close()


def test_a_mechanism_that_the_brokers_lack(guarded: Guarded) -> None:
    sink = guarded.sink(guarded.address(), mechanism="SCRAM-SHA-256")
    with pytest.raises(
        FatalError, match=r"mechanism .*Unsupported SASL mechanism: broker's supported mechanisms: PLAIN"
    ):
        sink.write(resets(1))
    sink.close()


def test_a_certificate_of_somebody_else(guarded: Guarded, tmp_path: Path) -> None:
    sink = opened(guarded.address(), mechanism="PLAIN")  # with the system's authorities
    with pytest.raises(FatalError, match=r"do not trust each other: check the options ca.*certificate verify failed"):
        sink.write(resets(1))
    sink.close()
    sink = guarded.sink(guarded.address(host="127.0.0.1"))  # not the certificate's name
    with pytest.raises(FatalError, match="do not trust each other"):
        sink.write(resets(1))
    sink.close()


def test_brokers_that_want_encryption(guarded: Guarded) -> None:
    sink = opened(guarded.address(scheme="kafka"), mechanism="PLAIN")
    with soon(2.0), pytest.raises(RetryError, match=r"are not ready after [0-9.]+ s: (SSL|Disconnected)"):
        sink.write(resets(1))
    sink.close()


def test_a_file_that_is_no_certificate(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate\n")
    sink = guarded.sink(guarded.address(), ca=str(tmp_path / "no.pem"))
    with pytest.raises(FatalError, match=r"cannot be used: .*ca\.location.*; check the options"):
        sink.write(resets(1))
    sink.close()


@pytest.mark.parametrize(
    "address",
    ["", "//", "127.0.0.1:9092/t", "http://127.0.0.1/t", "//h:x/t", "//h:0/t", "//h/a b", "//h,/t", "//h/a/b"],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of Kafka brokers"):
        open_sink(address, DeliverSettings(sink="kafka:x"))


def test_the_topic_is_named_once() -> None:
    with pytest.raises(ConfigError, match="names no topic: give it once"):
        opened("kafka://127.0.0.1")
    with pytest.raises(ConfigError, match="and the option topic both name a topic"):
        opened("kafka://127.0.0.1/a", topic="b")


def test_invalid_options() -> None:
    with pytest.raises(ConfigError, match="option mode"):
        opened("kafka://127.0.0.1/t", mode="avro")
