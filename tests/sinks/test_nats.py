"""The nats sink of `fer-stream deliver`, with a real nats-server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from journals import event
from nats_servers import NatsServer, api, ask

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.journal.contents import gap
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.nats import JetStream, open_sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.types import Event


def as_delivery(one: Event) -> Delivery:
    return Delivery(event_id(one), one, encode(one))


def resets(*frames: int, camera: str = "door") -> list[Delivery]:
    return [as_delivery(event("camera.reset", camera, frame)) for frame in frames]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.kill()


def opened(address: str, **options: Any) -> JetStream:
    return open_sink(address.removeprefix("nats:"), DeliverSettings(sink="nats:x", options=options))


def stored(server: NatsServer, stream: str = "fer_stream") -> list[tuple[str, str, str]]:
    """Return subject, id and text of each message."""

    async def work(client: Any) -> list[tuple[str, str, str]]:
        context = client.jetstream()
        last = (await context.stream_info(stream)).state.messages
        messages = [await context.get_msg(stream, number) for number in range(1, last + 1)]
        return [(one.subject, one.headers["Nats-Msg-Id"], one.data.decode()) for one in messages]

    return list(ask(server.address, work))


def test_events_are_published_once(server: NatsServer) -> None:
    sink = opened(server.address)
    first = [*resets(1, 2), as_delivery(event("emotion.started", "front.door"))]
    sink.write(first)
    sink.write([*first, *resets(3)])
    sink.close()
    sink.close()
    assert stored(server) == [
        *(("fer_stream.door.camera.reset", one.id, one.text) for one in resets(1, 2)),
        ("fer_stream.front_door.emotion.started", first[2].id, first[2].text),
        *(("fer_stream.door.camera.reset", one.id, one.text) for one in resets(3)),
    ]


def test_a_gap_has_no_camera(server: NatsServer) -> None:
    sink = opened(server.address, subject="a.b", stream="mine")
    sink.write([as_delivery(gap(1, 2, "test"))])
    sink.close()
    assert [subject for subject, _, _ in stored(server, "mine")] == ["a.b._.stream.gap"]
    assert api(server.address, "STREAM.INFO.mine")["config"]["subjects"] == ["a.b.>"]


def test_a_large_batch_stays_in_order(server: NatsServer) -> None:
    sink = opened(server.address)
    batch = resets(*range(1, 501))
    sink.write(batch)
    sink.close()
    assert [one[1] for one in stored(server)] == [one.id for one in batch]


def test_a_server_that_is_down_and_comes_back(server: NatsServer) -> None:
    sink = opened(server.address)
    sink.write(resets(1))
    server.kill()
    with pytest.raises(RetryError, match="the NATS server nats://127"):
        sink.write(resets(2))
    with pytest.raises(RetryError, match="cannot be reached"):
        sink.write(resets(2))
    server.start()
    sink.write(resets(1, 2))
    sink.close()
    assert [one[1] for one in stored(server)] == [one.id for one in resets(1, 2)]


def test_a_wrong_password_is_for_the_operator(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kill()
    server.configure('authorization { user: "fer", password: "right" }')
    server.start()
    where = f"127.0.0.1:{server.port}"
    sink = opened(f"nats://fer:wrong@{where}")
    with pytest.raises(FatalError, match=r"nats://fer:\*\*\*@127\.0\.0\.1:\d+ refuses this process") as caught:
        sink.write(resets(1))
    assert "wrong" not in str(caught.value)
    sink.close()
    monkeypatch.setenv("BUS_PASSWORD", "right")
    sink = opened(f"nats://fer:env:BUS_PASSWORD@{where}")
    sink.write(resets(1))
    sink.close()
    sink = opened(f"nats://fer:file:{tmp_path}/missing@{where}")
    with pytest.raises(RetryError, match="missing cannot be read: No such file"):
        sink.write(resets(1))
    sink.close()


def test_events_that_are_too_large_are_refused(server: NatsServer) -> None:
    server.kill()
    server.configure("max_payload: 600")
    server.start()
    sink = opened(server.address)
    small, large = resets(1)[0], as_delivery(event("emotion.started"))
    assert len(large.text) > 600 - 200 > len(small.text)
    with pytest.raises(RejectedError) as caught:
        sink.write([small, large])
    assert caught.value.reasons == {large.id: f"it has {len(large.text)} bytes, and the server takes 600"}
    sink.write([small])
    sink.close()
    assert [one[1] for one in stored(server)] == [small.id]


def test_a_stream_with_a_limit_refuses_what_is_larger(server: NatsServer) -> None:
    async def make(client: Any) -> None:
        await client.jetstream().add_stream(name="tight", subjects=["fer_stream.>"], max_msg_size=500)

    ask(server.address, make)
    sink = opened(server.address)
    large = as_delivery(event("emotion.started"))
    with pytest.raises(RejectedError) as caught:
        sink.write([*resets(1), large])
    assert list(caught.value.reasons) == [large.id]
    sink.write(resets(1, 2))
    sink.close()
    assert [one[1] for one in stored(server, "tight")] == [one.id for one in resets(1, 2)]


def test_no_stream(server: NatsServer) -> None:
    sink = opened(server.address, create=False)
    with pytest.raises(RetryError, match=r"no stream takes the subjects fer_stream\.>; make one, or set the option"):
        sink.write(resets(1))
    sink.close()


def test_a_server_without_jetstream(server: NatsServer) -> None:
    server.kill()
    server.configure(jetstream=False)
    server.start()
    sink = opened(server.address)
    with pytest.raises(RetryError, match="none can be made"):
        sink.write(resets(1))
    sink.close()


@pytest.mark.parametrize("address", ["", "//", "127.0.0.1:4222", "http://127.0.0.1", "//127.0.0.1:x", "//h/subject"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of NATS servers"):
        open_sink(address, DeliverSettings(sink="nats:x"))


def test_invalid_options() -> None:
    with pytest.raises(ConfigError, match="option subject"):
        opened("nats://127.0.0.1", subject="a..b")


def check(address: str, **options: Any) -> None:
    sink = opened(address, **options)
    try:
        sink.check()
    finally:
        sink.close()


def test_a_check_publishes_nothing(server: NatsServer) -> None:
    check(server.address)
    with pytest.raises(RetryError, match=r"no stream takes the subjects fer_stream\.>; make one, or set the option"):
        check(server.address, create=False)
    sink = opened(server.address)
    sink.write(resets(1))
    sink.check()
    sink.write(resets(2))
    sink.close()
    check(server.address, create=False)
    assert [one[1] for one in stored(server)] == [one.id for one in resets(1, 2)]


def test_a_check_finds_what_is_wrong(server: NatsServer) -> None:
    server.kill()
    with pytest.raises(RetryError, match="cannot be reached"):
        check(server.address)
    server.configure(jetstream=False)
    server.start()
    with pytest.raises(RetryError, match="has no JetStream: start it with --jetstream"):
        check(server.address)
    server.kill()
    server.configure('authorization { user: "fer", password: "right" }')
    server.start()
    with pytest.raises(FatalError, match="refuses this process"):
        check(server.address)
