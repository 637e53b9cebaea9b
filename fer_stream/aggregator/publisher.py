"""The aggregator's output: events, which are journaled before they are published, and replays of them.

On one machine all events go into one journal. In a cell each partition has its own, and this aggregator writes those of
its partitions; it publishes the others' events, too, so that a subscriber gets all of them from any aggregator.

Observations (the faces in each frame) and the preview (the frames themselves) may be lost, are never journaled, and are
produced only while they have subscribers.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.aggregator.event_log import EventLog, wake_when_done
from fer_stream.errors import JournalError, WireError
from fer_stream.events.cursor import to_cursor
from fer_stream.fleet.partitions import partition
from fer_stream.operations import metrics
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind, Message
from fer_stream.types import EventType, Probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from fer_stream.events.timeline import Timeline
    from fer_stream.fleet.driver import Journals
    from fer_stream.plugins import Hub, JournalWriter
    from fer_stream.types import Annotation, AnnotationPage, AnnotationQuery, Box, Cursor, Event


NOTHING = 2**62
"""A cursor after all events."""

HELD = 10_000
"""Most events held while journals cannot be written. Further ones are lost, counted, and reported as a gap."""

ENDING = 1.0
"""Seconds that the journals have at the end to store the last events."""

REPLAY_BATCH = 500
"""Most events in one answer to REPLAY, so that a long replay does not delay the frames."""

REPLAY_BYTES = 256_000
"""Most bytes in one answer to REPLAY. A client with a slow link requests fewer."""

LEAST_EVENT = 256
"""Bytes of the smallest event."""

_log = logging.getLogger(__name__)


class _Replay(NamedTuple):
    """A REPLAY that waits for a journal."""

    peer: bytes
    ticket: int
    partition: int
    """-1: the latest cursor of all is asked for."""
    answer: Future[Any]


class Publisher:
    """Journals, publishes and replays events. `record` collects them; `flush` journals them, then publishes them.

    Args:
        hub: publishes.
        partitions: how many there are.
        journals: reads those of other aggregators; ``None`` on one machine.
    """

    def __init__(self, hub: Hub, partitions: int = 1, journals: Journals | None = None) -> None:
        self.counted: Counter[str] = Counter()
        """Events published, by type."""
        self.logs: dict[int, EventLog] = {}
        """By partition, the journals that this aggregator writes."""
        self._hub = hub
        self._partitions, self._journals = partitions, journals
        self._newest = dict.fromkeys(range(partitions), 0)  # the latest known cursors of partitions that others write
        self._partition_of: dict[str, int] = {}
        self._replays: list[_Replay] = []
        # Topics by link. ZeroMQ reports every subscribe, but only the last unsubscribe.
        self._listened: dict[str, set[bytes]] = {"events": set(), "observations": set(), "preview": set()}

    # Journals

    def open(self, number: int, journal: JournalWriter) -> EventLog:
        """Begin to write a partition's journal."""
        log = self.logs[number] = EventLog(self._hub, journal, self._publish)
        return log

    def close(self, number: int) -> None:
        """Write a partition's journal no more, of which all events are stored."""
        log = self.logs.pop(number)
        self._newest[number] = log.cursor
        log.journal.close()

    def log(self, camera: str) -> EventLog:
        """Return the journal of a camera, whose partition this aggregator writes."""
        return self.logs[self._number(camera)]

    def _number(self, camera: str) -> int:
        if self._partitions == 1:
            return 0
        number = self._partition_of.get(camera)
        if number is None:
            number = self._partition_of[camera] = partition(camera, self._partitions)
        return number

    @property
    def failing(self) -> bool:
        """Whether a journal cannot be written at present."""
        return any(log.failing for log in self.logs.values())

    @property
    def held(self) -> int:
        """The number of events that wait to be journaled."""
        return sum(log.held for log in self.logs.values())

    @property
    def cursor(self) -> Cursor:
        """The latest cursor: of the journal, or of all partitions as far as it is known here."""
        return to_cursor(*map(self._latest, range(self._partitions)))

    def _latest(self, number: int) -> int:
        log = self.logs.get(number)
        return log.cursor if log else self._newest[number]

    # Events

    def record(self, events: Iterable[Event]) -> None:
        """Take events to be journaled and published by the next `flush`."""
        found: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            found[self._number(event.camera)].append(event)
        for number, part in found.items():
            log = self.logs[number]
            log.record(part)
            if log.failing and (over := self.held - HELD) > 0:
                log.drop(over)

    def flush(self) -> None:
        """Go on with all journals, as `EventLog.flush`, and with the replays.

        Raises:
            RivalError: another process writes a journal.
        """
        for log in self.logs.values():
            log.flush()
        metrics.journal_failing.set(self.failing)
        self._answer_replays()

    def _publish(self, event: Event, text: str) -> None:
        if event.type is EventType.STREAM_GAP:
            self.beat()  # a subscriber of one camera cannot see the gap in that camera's sequence
            return
        self._hub.publish("events", f"{event.camera}/", [text.encode()])
        self.counted[event.type] += 1
        metrics.events.labels(event.camera, event.type, getattr(event.data, "label", "")).inc()

    @property
    def listened(self) -> bool:
        """Whether events have subscribers."""
        return bool(self._listened["events"])

    def relay(self, number: int, cursor: int, camera: str, text: str) -> None:
        """Publish an event that another aggregator has journaled.

        Args:
            number: its partition.
            cursor: the number of its cursor.
            camera: its camera; empty if only the cursor is to be taken.
            text: its JSON.
        """
        if number in self.logs:
            return
        self._newest[number] = max(self._newest[number], cursor)
        if camera:
            self._hub.publish("events", f"{camera}/", [text.encode()])

    def purge(self, now: float, retention: float) -> None:
        """Once an hour, delete the events journaled more than ``retention`` seconds ago."""
        for log in self.logs.values():
            log.purge(now, retention)

    def end(self) -> None:
        """Journal and publish the remaining events.

        Raises:
            JournalError: a journal still cannot be written; the message says how many events are lost.
        """
        deadline = time.monotonic() + ENDING
        self.flush()
        while self._unstored and time.monotonic() < deadline:
            time.sleep(0.02)
            self.flush()
        if self._unstored:
            raise JournalError(f"{self._unstored} events are lost: the journal could not be written until the end")

    @property
    def _unstored(self) -> int:
        return sum(log.unstored for log in self.logs.values())

    def beat(self) -> None:
        """Publish the latest cursor, from which a subscriber sees whether it missed the latest events."""
        metrics.journal_cursor.set(sum(log.cursor for log in self.logs.values()))
        self._hub.publish("events", "/", [self.cursor.encode()])

    # Annotations

    def annotate(self, annotation: Annotation) -> Future[Annotation]:
        """Begin to store an annotation, as `fer_stream.plugins.JournalWriter.annotate`.

        Raises:
            JournalError: no journal is open yet.
        """
        return self._annotated().annotate(annotation)

    def annotations(self, wanted: AnnotationQuery) -> Future[AnnotationPage]:
        """Begin to read annotations, as `fer_stream.plugins.JournalWriter.annotations`.

        Raises:
            JournalError: no journal is open yet.
        """
        return self._annotated().annotations(wanted)

    def _annotated(self) -> Journals | JournalWriter:
        """Return what stores annotations: in a cell any aggregator may, whoever writes the camera's events."""
        if self._journals is not None:
            return self._journals
        if not self.logs:
            raise JournalError("no journal is open yet: try again")
        return self.logs[0].journal

    # Replays

    def replay(self, peer: bytes, message: Message, *, withheld: bool = False) -> None:
        """Answer a REPLAY with a batch of the events after its cursor; ``seq`` is the last cursor that it covers.

        ``bytes`` in the request limits the batch; its default and maximum is `REPLAY_BYTES`. A batch has at least one
        event if there is one, and at most `REPLAY_BATCH`. Where there are several partitions, ``partition`` says which
        one is meant; without it the answer is only CURSOR, with the latest cursor of all.

        If the events are ``withheld``, the batch is empty: the peer learns only that there is an aggregator.

        Raises:
            WireError: the request has no valid cursor, partition or number of bytes.
        """
        body = message.body()
        after, camera, size = body.get("after"), body.get("camera"), body.get("bytes", REPLAY_BYTES)
        number = body.get("partition", None if self._partitions > 1 else 0)
        if type(after) is not int or after < 0 or not isinstance(camera, str | None):
            raise WireError("a REPLAY without a cursor")
        if type(size) is not int or size <= 0:
            raise WireError("a REPLAY without a valid number of bytes")
        if number is not None and (type(number) is not int or not 0 <= number < self._partitions):
            raise WireError(f"a REPLAY of a partition {number!r:.20}, of {self._partitions}")
        if withheld:
            after = NOTHING
        size = min(size, REPLAY_BYTES)
        self.flush()
        limit = min(REPLAY_BATCH, 1 + size // LEAST_EVENT)
        answer: Future[Any]
        if number is None and self._journals:
            answer = self._journals.newest()
        elif number in self.logs:
            log = self.logs[number]
            answer = log.journal.read(min(after, log.cursor), limit, camera, size)
        elif number is not None and self._journals:
            answer = self._journals.read(number, after, limit, camera, size)
        else:
            return  # no journal is open yet: the client repeats its request
        wake_when_done(self._hub, answer)
        self._replays.append(_Replay(peer, message.ticket, -1 if number is None else number, answer))
        self._answer_replays()

    def _answer_replays(self) -> None:
        waiting = []
        for replay in self._replays:
            if not replay.answer.done():
                waiting.append(replay)
                continue
            try:
                found = replay.answer.result()
            except JournalError as error:  # the client repeats its request
                _log.error("a replay is not answered: %s", error)
                continue
            if replay.partition < 0:
                for number, cursor in found.items():
                    self.relay(number, cursor, "", "")
                answer = messages.json_message(Kind.CURSOR, {"cursor": self.cursor}, ticket=replay.ticket)
            else:
                answer = messages.pack(self._events(replay, *found))
            self._hub.send("control", replay.peer, answer)
        self._replays = waiting

    def _events(self, replay: _Replay, texts: list[str], reached: int, latest: int = 0) -> Message:
        log = self.logs.get(replay.partition)
        if log is not None:
            # A batch that is stored and not published yet may be in it. The heartbeat's cursor must not be below `seq`.
            latest, reached = log.cursor, min(reached, log.cursor)
        else:
            self.relay(replay.partition, max(latest, reached), "", "")
            latest = self._newest[replay.partition]
        return Message(Kind.EVENTS, "\n".join(texts).encode(), seq=reached, time=latest, ticket=replay.ticket)

    # Observations and preview

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
        if estimate and estimate.measures:
            found[-1]["measures"] = {name: round(value, 4) for name, value in estimate.measures.as_dict().items()}
    return found


def _rounded(box: Box) -> list[float]:
    return [round(side, 1) for side in box]
