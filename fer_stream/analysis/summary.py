"""Summarises a recording: counts, shares of labels, the valence curve, and the time without a sure label."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream.types import EventType, ExpressionData, FaceData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.analysis.observe import Observation

STEP = 0.5
"""Seconds that one point of a curve covers."""

ENDED = (EventType.EMOTION_ENDED, EventType.VALENCE_ENDED)


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of a label on a track, or (without a label) the track's stay: seconds from the recording's start."""

    track: int
    start: float
    end: float
    label: str | None

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.end - self.start


class Summary:
    """Adds up observations. Its memory grows with duration, events and tracks, not with frames and faces.

    Args:
        start: the capture time that counts as 0, in nanoseconds.
        valence: the group of each label; the groups ``positive`` and ``negative`` define the valence curve.
    """

    def __init__(self, start: int, valence: Mapping[str, str]) -> None:
        self.frames = self.faces = 0
        self.duration = 0.0
        self.events: Counter[str] = Counter()
        self.intervals: list[Interval] = []
        self.stays: list[Interval] = []
        self.confused: defaultdict[tuple[str, str], float] = defaultdict(float)
        """Seconds for which frames show a face without a sure label, by its two most probable labels."""
        self._start = start
        sign = {"positive": 1.0, "negative": -1.0}
        self.signed = any(group in sign for group in valence.values())
        """Whether a group is named ``positive`` or ``negative``; otherwise there is no valence curve."""
        self._sign = {label: sign.get(group, 0.0) for label, group in valence.items()} | sign
        self._sums: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.labelled = True
        """Whether the model has labels, and not only measures."""
        self._measured: tuple[str, ...] = ()
        self._levels: defaultdict[int, dict[int, array[float]]] = defaultdict(dict)
        """For each track and step, the number of frames with measures, and the sum of each measure."""
        self._before: int | None = None

    def add(self, observation: Observation, faces: int) -> None:
        """Take the next observation; ``faces`` is the number of faces found in the frames that it completed."""
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
            self.labelled = bool(ranked)
            if estimate.label is None and len(ranked) > 1:
                first, second = sorted((ranked[0][0], ranked[1][0]))
                self.confused[first, second] += step
            step_number = int(self.duration / STEP)
            if estimate.measures:
                self._measured = estimate.measures.names
                values = (1.0, *estimate.measures.values)
                levels = self._levels[track.id].setdefault(step_number, array("d", bytes(8 * len(values))))
                for at, value in enumerate(values):
                    levels[at] += value
            point = self._sums[step_number]
            point[0] += sum(self._sign.get(label, 0.0) * value for label, value in ranked)
            point[1] += 1

    def _interval(self, into: list[Interval], track: int, data: ExpressionData | FaceData, label: str | None) -> None:
        if data.end_time is not None:
            start, end = ((when - self._start) / 1e9 for when in (data.start_time, data.end_time))
            into.append(Interval(track, start, end, label))

    @property
    def face_seconds(self) -> float:
        """The sum over all tracks of the seconds from entering to leaving."""
        return sum(stay.seconds for stay in self.stays)

    @property
    def shares(self) -> dict[str, float]:
        """The share of `face_seconds` with each label, the largest first; ``uncertain`` is time without an interval."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for interval in self.intervals:
            seconds[interval.label or ""] += interval.seconds
        whole = self.face_seconds
        if not self.labelled:
            return {}
        if rest := round(max(whole - sum(seconds.values()), 0.0), 6):
            seconds["uncertain"] = rest
        found = sorted(seconds.items(), key=lambda item: -item[1])
        return {label: part / whole for label, part in found} if whole else {}

    @property
    def uncertain_between(self) -> dict[str, float]:
        """The seconds in ``confused``, with keys like ``"neutral or sad"``, the longest first."""
        found = sorted(self.confused.items(), key=lambda item: -item[1])
        return {f"{first} or {second}": seconds for (first, second), seconds in found if seconds}

    @property
    def valence(self) -> list[tuple[float, float]]:
        """The valence curve: ``(seconds, mean of P(positive) - P(negative) over the faces in view)``, -1 to 1.

        There is no point where no face was in view.
        """
        return [(self._middle(i), total / count) for i, (total, count) in sorted(self._sums.items())]

    @property
    def measures(self) -> dict[str, dict[int, list[tuple[float, float]]]]:
        """The curves of each measure, by track: ``(seconds, mean of the smoothed measure)``; empty without measures."""
        return {
            name: {
                track: [(self._middle(i), levels[at] / levels[0]) for i, levels in sorted(steps.items())]
                for track, steps in sorted(self._levels.items())
            }
            for at, name in enumerate(self._measured, 1)
        }

    def _middle(self, step: int) -> float:
        """Return the second in the middle of a step of the curves."""
        return min(STEP * (step + 0.5), self.duration)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
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
