"""What the aggregator tells the world: events, journaled before they are published, and replays of them.

Beside the events go observations (what is seen in each frame now): lossy, never journaled, and only made while
somebody listens.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fer_stream import metrics, wire
from fer_stream.errors import WireError
from fer_stream.types import Scores
from fer_stream.wire import Kind, Message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.journal import Journal
    from fer_stream.plugins import Hub
    from fer_stream.timeline import Timeline
    from fer_stream.types import Event

REPLAY_BATCH = 500
"""Events in one answer to REPLAY, so that a long replay does not hold up the frames."""


class Publisher:
    """Journals, publishes and replays events. `record` collects; nothing is published before a `flush` stored it."""

    def __init__(self, hub: Hub, journal: Journal) -> None:
        self.counted: Counter[str] = Counter()
        """Events published, by type."""
        self._hub = hub
        self._journal = journal
        self._recorded: list[Event] = []
        # Topics of observations. Of several who listen to one each says so, but only the last one to leave does.
        self._listened: set[bytes] = set()

    @property
    def cursor(self) -> int:
        """The cursor of the latest event."""
        return self._journal.cursor()

    def record(self, events: Iterable[Event]) -> None:
        """Take events to be journaled and published by the next `flush`."""
        self._recorded += events

    def flush(self) -> None:
        """Journal what was recorded in one transaction, then publish it: never the other way round.

        Raises:
            JournalError: it cannot be written; nothing was published, and it stays recorded.
        """
        if not self._recorded:
            return
        before = time.perf_counter()
        stored = self._journal.append(self._recorded)
        metrics.stage.labels("journal").observe(time.perf_counter() - before)
        self._recorded = []
        for event, text in stored:
            self._hub.publish("events", f"{event.camera}/", [text.encode()])
            self.counted[event.type] += 1
            metrics.events.labels(event.camera, event.type, getattr(event.data, "label", "")).inc()
        if stored:
            metrics.journal_cursor.set(stored[-1][0].cursor)

    def beat(self) -> None:
        """Tell the latest cursor: who missed events that nothing follows learns it from this."""
        self._hub.publish("events", "/", [str(self.cursor).encode()])

    def replay(self, peer: bytes, message: Message) -> None:
        """Answer a REPLAY with the events after its cursor, a batch of them; ``seq`` tells how far it reaches.

        Raises:
            WireError: the request names no cursor.
        """
        body = message.body()
        after, camera = body.get("after"), body.get("camera")
        if type(after) is not int or after < 0 or not isinstance(camera, str | None):
            raise WireError("a REPLAY without a cursor")
        self.flush()
        texts, reached = self._journal.read(min(after, self.cursor), REPLAY_BATCH, camera)
        payload = "\n".join(texts).encode()
        answer = Message(Kind.EVENTS, payload, seq=reached, time=self.cursor, ticket=message.ticket)
        self._hub.send("control", peer, wire.pack(answer))

    def observe(self, timeline: Timeline) -> None:
        """Tell who listens what is seen on a camera now."""
        if self._listened:
            body = {"camera": timeline.camera, "time": timeline.time, "tracks": describe(timeline)}
            text = json.dumps(body, separators=(",", ":"))
            self._hub.publish("observations", f"{timeline.camera}/", [text.encode()])

    def listener(self, link: str, notice: bytes, timelines: Iterable[Timeline]) -> None:
        """Take a notice of `Hub.receive` about who listens; who begins late is told what is in view now."""
        if link != "observations":
            return
        began, topic = notice[:1] == b"\x01", notice[1:]
        if not began:
            self._listened.discard(topic)
            return
        self._listened.add(topic)
        for timeline in timelines:
            if f"{timeline.camera}/".encode().startswith(topic):
                self.observe(timeline)


def describe(timeline: Timeline) -> list[dict[str, Any]]:
    """Return what is known of the faces in a camera's latest frame, as JSON."""
    estimates = {estimate.track: estimate for estimate in timeline.estimates()}
    since = {track: start for track, _, start in timeline.open_intervals()}
    found = []
    for track in timeline.tracks:
        estimate = estimates.get(track.id)
        scores = estimate.scores if estimate else Scores((), ())
        found.append(
            {
                "track": track.id,
                "box": [round(side, 1) for side in track.face.box],
                "score": round(track.face.score, 4),
                "label": estimate.label if estimate else None,
                "since": since.get(track.id),
                "scores": {label: round(value, 4) for label, value in scores.as_dict().items()},
            }
        )
    return found
