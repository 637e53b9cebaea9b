"""Follows a key-value bucket: all present values, then every change, in the order in which the bucket stored them.

An ordered consumer sends numbered messages. If one is missing, or nothing comes, not even a heartbeat, the watch begins
anew with all present values. So it never skips a key's latest value, and says which values are only repeated.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.errors import JournalError
from fer_stream.journal.nats.connection import RefusedError, UnclearError
from fer_stream.journal.nats.streams import MISSING, SECOND, ensure_now, state
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.msg import Msg

    from fer_stream.journal.nats.connection import Connection

HEARTBEAT = 0.5
"""Seconds without a change after which the server sends a heartbeat."""

SILENCE = 2.0
"""Seconds without any message after which the watch begins anew."""

RETRY = 0.25
"""Seconds until it begins anew."""

_log = logging.getLogger(__name__)


class Value(NamedTuple):
    """A value of a bucket."""

    key: str
    revision: int
    text: str
    live: bool
    """Whether it was written after the watch had begun; otherwise it may be old."""


async def follow(
    connection: Connection, bucket: str, deliver: Callable[[Value], None], again: Mapping[str, Any] | None = None
) -> None:
    """Deliver the values of a bucket until the connection is closed.

    Args:
        connection: the connection.
        bucket: the bucket's name.
        deliver: called with each value.
        again: the configuration with which the bucket is made again if it is missing.
    """
    while True:
        try:
            await _follow(connection, bucket, deliver)
        except (UnclearError, RefusedError) as error:
            if again is not None and isinstance(error, RefusedError) and error.code == MISSING:
                await _make(connection, again)
            _log.debug("the watch on %s begins anew: %s", bucket, connection.trouble(error))
        except Exception:
            _log.exception("the watch on %s begins anew", bucket)
        if connection.ending:  # closing the client ends the wait, and may take the place of a cancellation
            return
        await asyncio.sleep(RETRY)


async def _make(connection: Connection, wanted: Mapping[str, Any]) -> None:
    with suppress(UnclearError, RefusedError, JournalError):
        await ensure_now(connection, dict(wanted))


async def _follow(connection: Connection, bucket: str, deliver: Callable[[Value], None]) -> None:
    """Deliver values until something is missing."""
    errors = extras.require("nats.errors", "fleet")
    stream, prefix = f"KV_{bucket}", f"$KV.{bucket}."
    client = connection.client
    try:
        inbox = client.new_inbox()
        messages = await client.subscribe(inbox)
        try:
            await _consume(connection, stream, inbox)
            begun = (await state(connection, stream)).last
            received = 0
            while True:
                message = await messages.next_msg(timeout=SILENCE)
                if (message.headers or {}).get("Status"):
                    if _missed(message, received):
                        return
                    continue
                place = message.metadata.sequence
                received += 1
                if place.consumer != received:
                    return
                text = message.data.decode(errors="replace")
                deliver(Value(message.subject.removeprefix(prefix), place.stream, text, place.stream > begun))
        finally:
            await messages.unsubscribe()
    except (errors.Error, OSError, TimeoutError) as error:
        raise UnclearError(f"the watch on {bucket} hears nothing: {error or type(error).__name__}") from error


def _missed(heartbeat: Msg, received: int) -> bool:
    return int((heartbeat.headers or {}).get("Nats-Last-Consumer", received)) != received


async def _consume(connection: Connection, stream: str, inbox: str) -> None:
    name = secrets.token_hex(8)
    configuration = {
        "name": name,
        "deliver_subject": inbox,
        "deliver_policy": "last_per_subject",
        "filter_subject": "$KV." + stream.removeprefix("KV_") + ".>",
        "ack_policy": "none",
        "max_deliver": 1,
        "replay_policy": "instant",
        "idle_heartbeat": round(HEARTBEAT * SECOND),
        "inactive_threshold": 5 * SECOND,
        "num_replicas": 1,
        "mem_storage": True,
    }
    await connection.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": configuration})
