"""Receives annotations: checks who sends one, stores it in the journal, and answers when it is on disk.

Annotations do not affect events: tracker, smoother and publisher do not use them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fer_stream.aggregator.event_log import wake_when_done
from fer_stream.errors import AnnotationRefusedError, JournalError, WireError
from fer_stream.events.annotations import check_label, check_past, checked, encode
from fer_stream.operations import metrics
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.types import EARLIEST, LATEST, AnnotationQuery, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Future

    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.plugins import Hub
    from fer_stream.protocol.messages import Message
    from fer_stream.types import Annotation

MOST_WAITING = 256
"""Most requests that wait for the journal; further ones get the answer to try again."""

MOST_READ = 500
"""Most annotations of one answer."""

SILENCE = 1.0
"""Seconds after a logged refusal in which further ones are only counted."""

_log = logging.getLogger(__name__)


class Annotations:
    """Answers ANNOTATE and ANNOTATIONS; see `docs/reference/protocol.md`. It never waits.

    Args:
        hub: sends the answers.
        publisher: has the journals.
        labels: returns the labels of the service; none before a worker has connected.
    """

    def __init__(self, hub: Hub, publisher: Publisher, labels: Callable[[], Collection[str]]) -> None:
        self._hub, self._publisher, self._labels = hub, publisher, labels
        self._waiting: list[tuple[bytes, Message, Annotation | None, Future[Any]]] = []
        self._logged = -SILENCE
        for outcome in ("stored", "refused", "failed"):
            metrics.annotated.labels(outcome)

    def receive(self, peer: bytes, message: Message) -> None:
        """Take a request. An error is answered with one sentence.

        Raises:
            WireError: it is not what a client of this version sends.
        """
        body = message.body()
        sent = None
        try:
            if len(self._waiting) >= MOST_WAITING:
                raise JournalError("the journal has too many annotations to store: try again")
            if message.kind is Kind.ANNOTATIONS:
                if not self._hub.may_read(peer) and self._hub.annotator(peer) is None:
                    raise AnnotationRefusedError("the key may not read annotations: it was revoked; use another key")
                answer: Future[Any] = self._publisher.annotations(_query(body))
            else:
                sent = self._admitted(peer, body)
                answer = self._publisher.annotate(sent)
        except (AnnotationRefusedError, JournalError) as error:
            self._refuse(peer, message, error)
            return
        wake_when_done(self._hub, answer)
        self._waiting.append((peer, message, sent, answer))

    def _admitted(self, peer: bytes, body: dict[str, Any]) -> Annotation:
        name = self._hub.annotator(peer)
        found = replace(checked(body), made=Nanoseconds(time.time_ns()))
        if name is None or name not in ("", found.annotator):
            whose = "a key of the role annotator" if name is None else f"the name of your key, {name}"
            raise AnnotationRefusedError(f"the annotation is refused: to annotate as {found.annotator}, use {whose}")
        check_past(found, found.made)
        check_label(found, self._labels())
        return found

    def flush(self) -> None:
        """Answer the requests whose journal has answered."""
        waiting, self._waiting = self._waiting, []
        for peer, message, sent, answer in waiting:
            if not answer.done():
                self._waiting.append((peer, message, sent, answer))
                continue
            try:
                found = answer.result()
                if sent is not None and replace(found, made=sent.made, number=0) != sent:
                    raise AnnotationRefusedError(
                        f"the annotation is refused: another one has the id {sent.id}; choose an id for each"
                    )
            except (AnnotationRefusedError, JournalError) as error:
                self._refuse(peer, message, error)
                continue
            if message.kind is Kind.ANNOTATIONS:
                texts = [[each.number, encode(each)] for each in found.found]
                self._answer(peer, message, {"annotations": texts, "more": found.more})
            else:
                metrics.annotated.labels("stored").inc()
                _log.info(
                    "annotation %d is stored",
                    found.number,
                    extra={"annotator": found.annotator, "camera": found.camera, "track": found.track},
                )
                self._answer(peer, message, {"number": found.number, "text": encode(found)})

    def _refuse(self, peer: bytes, message: Message, error: AnnotationRefusedError | JournalError) -> None:
        outcome = "refused" if isinstance(error, AnnotationRefusedError) else "failed"
        if message.kind is Kind.ANNOTATE:
            metrics.annotated.labels(outcome).inc()
        if time.monotonic() >= self._logged + SILENCE:
            self._logged = time.monotonic()
            _log.warning("%s", error)
        self._answer(peer, message, {outcome: str(error)})

    def _answer(self, peer: bytes, message: Message, body: dict[str, Any]) -> None:
        self._hub.send("control", peer, messages.json_message(message.kind, body, ticket=message.ticket))


def _query(body: dict[str, Any]) -> AnnotationQuery:
    numbers = {"since": EARLIEST, "until": LATEST, "after": 0, "limit": MOST_READ}
    numbers |= {name: body[name] for name in numbers if name in body}
    camera = body.get("camera")
    if any(type(value) is not int or not -(2**63) < value < 2**63 for value in numbers.values()):
        raise WireError("an ANNOTATIONS with an invalid number")
    if not isinstance(camera, str | None) or numbers["after"] < 0 or not 0 < numbers["limit"] <= MOST_READ:
        raise WireError("an ANNOTATIONS with an invalid camera, number or limit")
    return AnnotationQuery(
        max(EARLIEST, numbers["since"]), min(LATEST, numbers["until"]), camera, numbers["after"], numbers["limit"]
    )
