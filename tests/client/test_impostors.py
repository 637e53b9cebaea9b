"""Peers that are no aggregator: any invalid answer is one clear error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from fer_stream import plugins
from fer_stream.client import Subscription
from fer_stream.errors import ConfigError, WireError
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.plugins import Hub


class Impostor:
    """A hub that answers every question on the control link with ``answer(question)``."""

    def __init__(self, hub: Hub, answer: Any) -> None:
        self.hub = hub
        self.answer = answer

    def answer_all(self) -> None:
        for link, peer, parts in self.hub.receive(0.01):
            if link == "control":
                self.hub.send(link, peer, self.answer(messages.unpack(parts[:2])))


@pytest.fixture
def hub() -> Iterator[Hub]:
    opened = plugins.load("transports", "memory")().bind("memory://impostor")
    yield opened
    opened.close()


def answered(hub: Hub, payload: bytes, **fields: int) -> Subscription:
    def answer(question: Message) -> list[messages.Buffer]:
        return messages.pack(Message(Kind.EVENTS, payload, ticket=question.ticket, **fields))  # type: ignore[arg-type]

    subscription = Subscription("memory://impostor", after=0, transport="memory")
    assert subscription.receive(0.05) is None
    Impostor(hub, answer).answer_all()
    return subscription


@pytest.mark.parametrize("payload", [b"not json", b"{}", b"\xff\xfe", '{"a": 1}'.encode("utf-16")])
def test_an_answer_with_an_invalid_event_is_an_error(hub: Hub, payload: bytes) -> None:
    with answered(hub, payload, seq=1, time=1) as subscription, pytest.raises(WireError):
        subscription.receive(1)


def test_an_answer_to_another_request_is_ignored(hub: Hub) -> None:
    with Subscription("memory://impostor", after=0, until_now=True, transport="memory") as subscription:
        assert subscription.receive(0.05) is None
        Impostor(
            hub, lambda question: messages.pack(Message(Kind.EVENTS, b"x", ticket=question.ticket + 1))
        ).answer_all()
        assert subscription.receive(0.05) is None
        assert not subscription.ended


@pytest.mark.parametrize(
    ("topic", "text"), [("/", b"x"), ("/", b"-1"), ("/", b"9" * 5000), ("door/", b"{}"), ("door/", b"\xff")]
)
def test_an_invalid_published_event_is_an_error(hub: Hub, topic: str, text: bytes) -> None:
    with answered(hub, b"", seq=0, time=0) as subscription:
        assert subscription.receive(0.1) is None
        hub.publish("events", topic, [text])
        with pytest.raises(WireError):
            subscription.receive(1)


def test_an_invalid_cursor_is_refused() -> None:
    for cursor in ("-1", "1.0", "", " 1", "01", "\u0661", "latest", 7, 1.0, True, False):
        with pytest.raises(ConfigError, match=re.escape(f"{cursor!r} is not a cursor: give the cursor of an event")):
            Subscription("memory://nowhere", after=cursor, transport="memory")
    with pytest.raises(ConfigError, match="is not an address"):
        Subscription("nowhere", transport="memory")
