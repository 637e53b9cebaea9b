"""The client library: `subscribe` to events, read a journal, and ask for an aggregator's `status`."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Literal

from fer_stream import plugins
from fer_stream.client.scouts import NoAnswerError, first, no_answer
from fer_stream.client.subscription import Subscription, number_after, wanted
from fer_stream.errors import JournalError, WireError
from fer_stream.events import cloudevents
from fer_stream.operations import instances
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fer_stream.plugins import Peer
    from fer_stream.settings.tree import JournalSettings, Settings
    from fer_stream.types import Event

__all__ = ["NoAnswerError", "Subscription", "ask_status", "read_journal", "status", "subscribe"]


def subscribe(
    address: str | None = None,
    *,
    camera: str | None = None,
    types: Sequence[str] = (),
    after: str | Literal[0] | None = None,
    until_now: bool = False,
    timeout: float | None = None,
    settings: Settings | None = None,
) -> Subscription:
    """Return a `Subscription` to the aggregator at ``address``.

    By default this is the aggregator that the settings name, or else the only running service of this user here.

    ::

        with fer_stream.subscribe(camera="door", types=["emotion.started"]) as events:
            for event in events:
                if event.type == "emotion.started":  # a stream.gap may arrive, too
                    print(event.time, event.track, event.data.label)

    Raises:
        TransportError: no address is given, and no service runs.
        ConfigError: no address is given, and several services run.
    """
    if settings is None:
        from fer_stream.settings.tree import load  # noqa: PLC0415  (slow to import, not always needed)

        settings = load()
    return Subscription(
        address or instances.find(settings),
        camera=camera,
        types=types,
        after=after,
        until_now=until_now,
        timeout=timeout,
        transport=settings.transport,
        key=settings.key,
        keys=settings.keys,
    )


def read_journal(
    journal: Path | str | JournalSettings,
    *,
    after: str | Literal[0] = 0,
    camera: str | None = None,
    types: Sequence[str] = (),
) -> Iterator[tuple[Event, str]]:
    """Yield the events in a journal after a cursor, with their texts, whether or not an aggregator runs.

    Args:
        journal: the path of an SQLite file, the address of NATS servers, or settings that name either.
        after: the cursor.
        camera: only this camera's events, and gaps.
        types: only these types or families, and gaps.

    Raises:
        JournalError: there is no readable journal.
        ConfigError: ``after`` is neither a cursor nor 0, or the journal's address is invalid.
        PluginError: nats-py is not installed.
    """
    position = number_after(after)
    place = plugins.journal(_settings_of(journal))
    with place.reader() as reader:
        while position < reader.cursor():
            texts, reached = reader.read(position, camera=camera)
            for text in texts:
                try:
                    event = cloudevents.decode(text)
                except WireError as error:
                    raise JournalError(f"the journal {place.name} holds an invalid event: {error}") from error
                if wanted(event, types):
                    yield event, text
            position = reached


def _settings_of(journal: Path | str | JournalSettings) -> JournalSettings:
    from fer_stream.settings.tree import JournalSettings  # noqa: PLC0415  (slow to import, not always needed)

    return journal if isinstance(journal, JournalSettings) else JournalSettings(path=journal)


def status(settings: Settings | None = None, timeout: float = 3.0) -> dict[str, Any]:
    """Return the status of a running aggregator: see `fer_stream.aggregator.status.status`.

    Args:
        settings: all settings, by default as loaded. If they contain no address, the only running service of this user
            on this machine is asked. Of several addresses, the first that answers is asked.
        timeout: seconds to wait for an answer.

    Raises:
        TransportError: no aggregator runs, none answers within ``timeout`` seconds, or it refuses this process's key;
            the message gives the known cause.
        ConfigError: no address is given, and several services run.
    """
    if settings is None:
        from fer_stream.settings.tree import load  # noqa: PLC0415  (slow to import, not always needed)

        settings = load()
    transport = plugins.transport(settings)
    address = first(transport, instances.find(settings), timeout)
    peer = transport.connect(address, "control")
    try:
        return ask_status(peer, address, timeout)
    except NoAnswerError:
        raise no_answer(address, peer.diagnose(), timeout) from None
    finally:
        peer.close()


def ask_status(peer: Peer, address: str, timeout: float) -> dict[str, Any]:
    """Like `status`, but use an open control link, and do not look up the cause if no answer comes."""
    ticket = random.getrandbits(48)
    deadline = time.monotonic() + timeout
    peer.send(messages.json_message(Kind.STATUS, ticket=ticket))
    while (remaining := deadline - time.monotonic()) > 0:
        parts = peer.receive(remaining)
        if parts is None:
            continue
        message: Message = messages.unpack(parts)
        if message.kind is Kind.STATUS and message.ticket == ticket:
            return message.body()
    raise NoAnswerError(f"no aggregator answers at {address}")
