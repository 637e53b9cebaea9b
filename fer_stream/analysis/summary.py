"""What a recording comes down to: counts, shares, the curve of valence, and where nothing was sure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream.types import EventType, ExpressionData, FaceData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.analysis.observe import Observation

STEP = 0.5
"""Seconds in one point of the curve of valence."""

ENDED = (EventType.EMOTION_ENDED, EventType.VALENCE_ENDED)


@dataclass(frozen=True, slots=True)
class Interval:
    """A label on a face, or (without a label) its whole stay: seconds from the recording's start."""

    track: int
    start: float
    end: float
    label: str | None

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.start


class Summary:
    """Adds up observations; what it holds grows with time and events, not with frames and faces.

    Args:
        start: the capture time that counts as 0.
        valence: the group of each label; ``positive`` and ``negative`` make the curve.
    """

    def __init__(self, start: int, valence: Mapping[str, str]) -> None:
        self.frames = self.faces = 0
        self.duration = 0.0
        self.events: Counter[str] = Counter()
        self.intervals: list[Interval] = []
        self.stays: list[Interval] = []
        self.confused: defaultdict[tuple[str, str], float] = defaultdict(float)
        """Seconds of the frames that show a face without a sure label, by the two likeliest."""
        self._start = start
        sign = {"positive": 1.0, "negative": -1.0}
        self.signed = any(group in sign for group in valence.values())
        """Whether the groups say what is positive or negative; they may have other names."""
        self._sign = {label: sign.get(group, 0.0) for label, group in valence.items()} | sign
        self._sums: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._before: int | None = None

    def add(self, observation: Observation, faces: int) -> None:
        """Take the next observation, with which so many rows of faces became ready."""
        self.faces += faces
        for event, _ in observation.events:
            self.events[event.type] += 1
            if event.type in ENDED and isinstance(event.data, ExpressionData):
                self._interval(self.intervals, event.track, event.data, event.data.label)
            elif event.type is EventType.FACE_LEFT and isinstance(event.data, FaceData):
                self._interval(self.stays, event.track, event.data, None)
        if observation.frame is None:
            return
        now = observation.frame.time
        step = (now - self._before) / 1e9 if self._before is not None else 0.0
        self._before = now
        self.frames += 1
        self.duration = (now - self._start) / 1e9
        for track in observation.tracks:
            estimate = observation.estimates.get(track.id)
            if estimate is None:
                continue
            ranked = sorted(estimate.probabilities.as_dict().items(), key=lambda item: -item[1])
            if estimate.label is None and len(ranked) > 1:
                first, second = sorted((ranked[0][0], ranked[1][0]))
                self.confused[first, second] += step
            place = self._sums[int(self.duration / STEP)]
            place[0] += sum(self._sign.get(label, 0.0) * value for label, value in ranked)
            place[1] += 1

    def _interval(self, into: list[Interval], track: int, data: ExpressionData | FaceData, label: str | None) -> None:
        if data.end_time is not None:
            start, end = ((when - self._start) / 1e9 for when in (data.start_time, data.end_time))
            into.append(Interval(track, start, end, label))

    @property
    def face_seconds(self) -> float:
        """The time that faces were in view, from entering to leaving, added up over faces."""
        return sum(stay.seconds for stay in self.stays)

    @property
    def shares(self) -> dict[str, float]:
        """Each label's part of `face_seconds`, ``uncertain`` what no interval covers, the largest first."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for interval in self.intervals:
            seconds[interval.label or ""] += interval.seconds
        whole = self.face_seconds
        if rest := round(max(whole - sum(seconds.values()), 0.0), 6):
            seconds["uncertain"] = rest
        found = sorted(seconds.items(), key=lambda item: -item[1])
        return {label: part / whole for label, part in found} if whole else {}

    @property
    def uncertain_between(self) -> dict[str, float]:
        """As ``confused``, named ``"sad or neutral"``, the most first."""
        found = sorted(self.confused.items(), key=lambda item: -item[1])
        return {f"{first} or {second}": seconds for (first, second), seconds in found if seconds}

    @property
    def valence(self) -> list[tuple[float, float]]:
        """The mean P(positive) - P(negative) of the faces in view, as ``(seconds, -1..1)``, where there are any."""
        points = [(STEP * (i + 0.5), total / count) for i, (total, count) in sorted(self._sums.items())]
        return [(min(seconds, self.duration), value) for seconds, value in points]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "frames": self.frames,
            "duration_s": round(self.duration, 3),
            "faces": self.faces,
            "tracks": len(self.stays),
            "face_seconds": round(self.face_seconds, 3),
            "share": {label: round(share, 4) for label, share in self.shares.items()},
            "uncertain_between_s": {pair: round(seconds, 3) for pair, seconds in self.uncertain_between.items()},
            "events": dict(sorted(self.events.items())),
        }
