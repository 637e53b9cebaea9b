"""Sends annotations to an aggregator, and reads them: from an aggregator, or from a journal."""

from __future__ import annotations

import random
import secrets
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.client.scouts import first, no_answer
from fer_stream.errors import AnnotationRefusedError, JournalError, WireError
from fer_stream.events.annotations import checked, decode
from fer_stream.operations import instances
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.types import AnnotationPage, AnnotationQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fer_stream.settings.tree import Settings
    from fer_stream.types import Annotation

AGAIN = 2.0
"""Seconds after which a request without an answer is repeated; what is sent twice is stored once."""


def annotate(
    settings: Settings, given: Mapping[str, Any], timeout: float = 10.0, where: str | None = None
) -> Annotation:
    """Send an annotation, and return it as the journal has it, with its number.

    Args:
        settings: all settings.
        given: the fields, as `fer_stream.events.annotations.checked` takes them; without an id it gets one.
        timeout: seconds to wait. Meanwhile the request is repeated, also if the aggregator is restarted.
        where: the addresses of the aggregators, by default those of the settings.

    Raises:
        AnnotationRefusedError: it is invalid, of an unknown camera, or the sender may not annotate.
        JournalError: it cannot be stored now.
        TransportError: no aggregator answers, or it refuses this process.
    """
    fields = asdict(checked({"id": secrets.token_hex(16)} | dict(given)))
    del fields["made"], fields["number"]
    answer = _ask(settings, Kind.ANNOTATE, fields, timeout, where)
    try:
        return decode(answer["text"], answer["number"])
    except KeyError as error:
        raise WireError("an answer to ANNOTATE without a number") from error


def fetch_annotations(
    settings: Settings, wanted: AnnotationQuery, timeout: float = 10.0, where: str | None = None
) -> AnnotationPage:
    """Ask an aggregator for annotations.

    Raises:
        JournalError: they cannot be read now.
        TransportError: as `annotate`.
    """
    answer = _ask(settings, Kind.ANNOTATIONS, wanted._asdict(), timeout, where)
    try:
        return AnnotationPage([decode(text, number) for number, text in answer["annotations"]], int(answer["more"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WireError("an answer to ANNOTATIONS without annotations") from error


def stored_annotations(settings: Settings, wanted: AnnotationQuery) -> Iterator[Annotation]:
    """Yield the annotations in the journal that the settings name, whether or not an aggregator runs.

    Raises:
        JournalError: there is no readable journal.
    """
    with plugins.journal(settings.journal, settings.fleet).reader() as reader:
        after = wanted.after
        while True:
            page = reader.annotations(wanted._replace(after=after))
            yield from page.found
            after = page.more
            if not after:
                return


def _ask(settings: Settings, kind: Kind, body: dict[str, Any], timeout: float, where: str | None) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    transport = plugins.transport(settings)
    address = first(transport, where or instances.find(settings), timeout)
    peer = transport.connect(address, "control")
    ticket, repeat = random.getrandbits(48), 0.0
    try:
        while (now := time.monotonic()) < deadline:
            if now >= repeat:
                peer.send(messages.json_message(kind, body, ticket=ticket))
                repeat = now + AGAIN
            parts = peer.receive(min(repeat, deadline) - now)
            if parts is None:
                continue
            message = messages.unpack(parts)
            if message.kind is not kind or message.ticket != ticket:
                continue
            answer = message.body()
            if "refused" in answer:
                raise AnnotationRefusedError(str(answer["refused"]))
            if "failed" in answer:
                raise JournalError(str(answer["failed"]))
            return answer
        raise no_answer(address, peer.diagnose(), timeout)
    finally:
        peer.close()
