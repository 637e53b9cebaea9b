"""The client library: `subscribe` to events, read a journal, and ask for an aggregator's `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fer_stream import plugins
from fer_stream.client.journal import read_journal
from fer_stream.client.scouts import NoAnswerError, first, no_answer
from fer_stream.client.state import StateReader, ask_status
from fer_stream.client.subscription import Subscription
from fer_stream.operations import instances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_stream.settings.tree import Settings

__all__ = ["NoAnswerError", "StateReader", "Subscription", "ask_status", "read_journal", "status", "subscribe"]


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


def status(settings: Settings | None = None, timeout: float = 3.0) -> dict[str, Any]:
    """Return the status of a running aggregator: see `fer_stream.aggregator.status.status`.

    In a cell it is that of all aggregators together, whichever is asked. Each camera and worker then has a key
    ``aggregator``, and each camera its ``partition``; an aggregator under ``fleet`` has the keys ``uptime_s`` and
    ``error``, why it does not answer, or an empty text.

    Args:
        settings: all settings, by default as loaded. If they contain no address, the only running service of this user
            on this machine is asked. Of several addresses, the first that answers is asked.
        timeout: seconds to wait for an answer; in a cell, for the other aggregators' as long again.

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
    reader = StateReader(transport, address)
    try:
        return reader.ask(timeout)
    except NoAnswerError:
        raise no_answer(address, reader.diagnose(), timeout) from None
    finally:
        reader.close()
