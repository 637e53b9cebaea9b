"""The aggregator's output: events, which are journaled before they are published, and replays of them.

Observations (the faces in each frame) and the preview (the frames themselves) may be lost, are never journaled, and are
produced only while they have subscribers.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fer_stream.errors import JournalError, RivalError, WireError
from fer_stream.events.cursor import to_number
from fer_stream.operations import metrics
from fer_stream.plugins import BATCH
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message
from fer_stream.types import EventType, Probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from fer_stream.events.timeline import Timeline
    from fer_stream.plugins import Hub, JournalWriter, Stored
    from fer_stream.types import Box, Event


HELD = 10_000
"""Most events held while the journal cannot be written. Further ones are lost, counted, and reported as a gap."""

ENDING = 1.0
"""Seconds that the journal has at the end to store the last events."""

REPLAY_BATCH = 500
"""Most events in one answer to REPLAY, so that a long replay does not delay the frames."""

REPLAY_BYTES = 256_000
"""Most bytes in one answer to REPLAY. A client with a slow link requests fewer."""

LEAST_EVENT = 256
"""Bytes of the smallest event."""

_log = logging.getLogger(__name__)


class Publisher:
    """Journals, publishes and replays events. `record` collects them; `flush` journals them, then publishes them.

    Nothing waits for the journal: while it stores one batch, further events are collected.
    """

    def __init__(self, hub: Hub, journal: JournalWriter) -> None:
        self.counted: Counter[str] = Counter()
        """Events published, by type."""
        self.cursor = journal.cursor
        """The number of the cursor of the latest published event."""
        self._hub = hub
        self._journal = journal
        self._recorded: list[Event] = []
        self._writing: tuple[int, float, Future[list[Stored]]] | None = None  # events in the batch, when, the batch
        self._lost = 0
        self._total = 0
        self._replays: list[tuple[bytes, int, Future[tuple[list[str], int]]]] = []
        self._purge: Future[int] | None = None
        self._failing_since: float | None = None
        self._purge_at = 0.0
        # Topics by link. ZeroMQ reports every subscribe, but only the last unsubscribe.
        self._listened: dict[str, set[bytes]] = {"observations": set(), "preview": set()}

    @property
    def failing(self) -> bool:
        """Whether the journal cannot be written at present."""
        return bool(self._journal.trouble)

    @property
    def held(self) -> int:
        """The number of events that wait to be journaled."""
        return len(self._recorded) + (self._writing[0] if self._writing else 0)

    def mark(self) -> int:
        """Return a mark for the events recorded so far, for `passed`."""
        return self._total

    def passed(self, mark: int) -> bool:
        """Return whether all events that were recorded before a mark are published."""
        return self._total - self.held - self._lost >= mark

    def record(self, events: Iterable[Event]) -> None:
        """Take events to be journaled and published by the next `flush`."""
        before = len(self._recorded)
        self._recorded += events
        self._total += len(self._recorded) - before
        if (over := min(self.held - HELD, len(self._recorded))) > 0 and self.failing:
            del self._recorded[-over:]
            self._lost += over
            metrics.events_lost.inc(over)

    def flush(self) -> None:
        """Hand the recorded events to the journal, and publish those that it has stored.

        Events that cannot be written are held, not published, and tried again.

        Raises:
            RivalError: another process writes the journal.
        """
        try:
            self._journal.check()
            while self._publish_stored() and (self._recorded or self._lost):
                batch, self._recorded = self._recorded[:BATCH], self._recorded[BATCH:]
                lost = 0 if self._recorded else self._lost  # a replay then contains the gap
                self._lost -= lost
                future = self._journal.append(batch, lost)
                self._writing = len(batch) + lost, time.monotonic(), future
                wake_when_done(self._hub, future)
        except RivalError as error:
            count = self.held + self._lost
            lost_text = f"; {count} events of this aggregator are not in the journal" if count else ""
            raise RivalError(f"{error}{lost_text}") from error
        self._report_state()
        self._answer_replays()
        if self._purge is not None and self._purge.done():
            self._end_purge(self._purge)

    def _publish_stored(self) -> bool:
        """Publish the batch that the journal has stored; return whether the next one may be handed over."""
        if self._writing is None:
            return True
        _, began, future = self._writing
        if not future.done():
            return False
        stored = future.result()
        self._writing = None
        metrics.stage.labels("journal").observe(time.monotonic() - began)
        for event, text in stored:
            self.cursor = to_number(event.cursor)
            if event.type is EventType.STREAM_GAP:
                self.beat()  # a subscriber of one camera cannot see the gap in that camera's sequence
                continue
            self._hub.publish("events", f"{event.camera}/", [text.encode()])
            self.counted[event.type] += 1
            metrics.events.labels(event.camera, event.type, getattr(event.data, "label", "")).inc()
        metrics.journal_cursor.set(self.cursor)
        return True

    def _report_state(self) -> None:
        trouble, now = self._journal.trouble, time.monotonic()
        if trouble and self._failing_since is None:
            self._failing_since = now
            _log.error("%s; events are held until the journal can be written", trouble)
        elif not trouble and self._failing_since is not None:
            _log.warning("the journal can be written again, after %.1f s", now - self._failing_since)
            self._failing_since = None
        metrics.journal_failing.set(bool(trouble))

    def purge(self, now: float, retention: float) -> None:
        """Once an hour, delete the events journaled more than ``retention`` seconds ago."""
        if now >= self._purge_at and self._purge is None:
            self._purge_at = now + 3600
            self._purge = self._journal.purge(time.time() - retention)
            wake_when_done(self._hub, self._purge)

    def _end_purge(self, purge: Future[int]) -> None:
        self._purge = None
        try:
            purge.result()
        except RivalError:
            raise
        except JournalError as error:
            _log.warning("old events stay for another hour: %s", error)

    def close(self) -> None:
        """Journal and publish the remaining events.

        Raises:
            JournalError: the journal still cannot be written; the message says how many events are lost.
        """
        deadline = time.monotonic() + ENDING
        self.flush()
        while (self.held or self._lost) and time.monotonic() < deadline:
            time.sleep(0.02)
            self.flush()
        if count := self.held + self._lost:
            raise JournalError(f"{count} events are lost: the journal could not be written until the end")

    def beat(self) -> None:
        """Publish the latest cursor, from which a subscriber sees whether it missed the latest events."""
        self._hub.publish("events", "/", [str(self.cursor).encode()])

    def replay(self, peer: bytes, message: Message) -> None:
        """Answer a REPLAY with a batch of the events after its cursor; ``seq`` is the last cursor that it covers.

        ``bytes`` in the request limits the batch; its default and maximum is `REPLAY_BYTES`. A batch has at least one
        event if there is one, and at most `REPLAY_BATCH`.

        Raises:
            WireError: the request has no valid cursor, or no valid number of bytes.
        """
        body = message.body()
        after, camera, size = body.get("after"), body.get("camera"), body.get("bytes", REPLAY_BYTES)
        if type(after) is not int or after < 0 or not isinstance(camera, str | None):
            raise WireError("a REPLAY without a cursor")
        if type(size) is not int or size <= 0:
            raise WireError("a REPLAY without a valid number of bytes")
        size = min(size, REPLAY_BYTES)
        self.flush()
        limit = min(REPLAY_BATCH, 1 + size // LEAST_EVENT)
        future = self._journal.read(min(after, self.cursor), limit, camera, size)
        wake_when_done(self._hub, future)
        self._replays.append((peer, message.ticket, future))
        self._answer_replays()

    def _answer_replays(self) -> None:
        waiting = []
        for peer, ticket, future in self._replays:
            if not future.done():
                waiting.append((peer, ticket, future))
                continue
            try:
                texts, reached = future.result()
            except JournalError as error:  # the client repeats its request
                _log.error("a replay is not answered: %s", error)
                continue
            payload = "\n".join(texts).encode()
            # A batch that is stored and not published yet may be in it. The heartbeat's cursor must not be below `seq`.
            answer = Message(Kind.EVENTS, payload, seq=min(reached, self.cursor), time=self.cursor, ticket=ticket)
            self._hub.send("control", peer, messages.pack(answer))
        self._replays = waiting

    def observe(self, timeline: Timeline) -> None:
        """Publish the faces in a camera's latest frame if there are subscribers."""
        topic = f"{timeline.camera}/"
        if self._heard("observations", topic):
            body = {
                "camera": timeline.camera,
                "epoch": timeline.epoch,
                "frame": timeline.frame,
                "time": timeline.time,
                "size": timeline.size,
                "searched": timeline.searched,
                "face_regions": [_rounded(box) for box in timeline.face_regions],
                "tracks": describe(timeline),
            }
            self._hub.publish("observations", topic, [json.dumps(body, separators=(",", ":")).encode()])

    def preview(self, camera: str, epoch: int, frame: Message, copied: Callable[[Message], Message]) -> None:
        """Publish a FRAME if there are subscribers: unchanged under ``CAMERA/``, with its pixels under ``/CAMERA/``.

        Args:
            camera: the camera's name.
            epoch: the camera's epoch when the frame arrived.
            frame: the message.
            copied: returns the message with the pixels included; called only if ``/CAMERA/`` has subscribers.
        """
        for topic in (f"{camera}/", f"/{camera}/"):
            if self._heard("preview", topic):
                shown = copied(frame) if topic.startswith("/") else frame
                self._hub.publish("preview", topic, messages.forwarded(shown, epoch=epoch, ticket=0, age=0))

    def _heard(self, link: str, topic: str) -> bool:
        listened = self._listened[link]
        return bool(listened) and any(topic.encode().startswith(prefix) for prefix in listened)

    def listener(self, link: str, notice: bytes, timelines: Iterable[Timeline]) -> None:
        """Take a subscription or its end from `Hub.receive`; publish the latest observations for a new subscriber."""
        if link not in self._listened:
            return
        began, topic = notice[:1] == b"\x01", notice[1:]
        if not began:
            self._listened[link].discard(topic)
            return
        self._listened[link].add(topic)
        for timeline in timelines if link == "observations" else ():
            if f"{timeline.camera}/".encode().startswith(topic):
                self.observe(timeline)


def wake_when_done(hub: Hub, future: Future[Any]) -> None:
    """Let the hub's `receive` return when a future is done. One that is done already has no need of it."""
    if not future.done():
        future.add_done_callback(lambda _: hub.wake())


def describe(timeline: Timeline) -> list[dict[str, Any]]:
    """Return the tracks in a camera's latest frame, with labels and probabilities, as JSON objects."""
    estimates = {estimate.track: estimate for estimate in timeline.estimates()}
    since = {track: start for track, _, start in timeline.open_intervals()}
    found = []
    for track in timeline.tracks:
        estimate = estimates.get(track.id)
        probabilities = estimate.probabilities if estimate else Probabilities((), ())
        found.append(
            {
                "track": track.id,
                "box": _rounded(track.face.box),
                "confidence": round(track.face.confidence, 4),
                "label": estimate.label if estimate else None,
                "since": since.get(track.id),
                "probabilities": {label: round(value, 4) for label, value in probabilities.as_dict().items()},
            }
        )
    return found


def _rounded(box: Box) -> list[float]:
    return [round(side, 1) for side in box]
