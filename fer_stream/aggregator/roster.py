"""The records of cameras and workers, which are parsed from HELLO and READY."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from fer_stream.aggregator.export import LedgerExport
from fer_stream.aggregator.ledger import TERMS
from fer_stream.errors import WireError
from fer_stream.operations import metrics
from fer_stream.protocol import results, shared
from fer_stream.protocol.pace import SlowLinkWarning
from fer_stream.settings.kinds import CAMERA_NAME, MAX_BATCH
from fer_stream.settings.sections import CameraSettings, SmootherSettings
from fer_stream.types import Measure

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.aggregator.dispatcher import Credit
    from fer_stream.aggregator.frames import CameraFrames
    from fer_stream.events.timeline import Timeline
    from fer_stream.protocol.messages import Message
    from fer_stream.protocol.results import Result
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import DispatchSettings
    from fer_stream.types import Places


@dataclass(slots=True)
class Camera:
    """A camera and its capture."""

    name: str
    peer: bytes
    incarnation: str
    pid: int
    policy: Policy
    live: bool
    length: int | None  # frames of a recording, where known
    pause: float  # seconds between two frames if the rate is capped, else 0
    heard: float  # when its last message arrived, in monotonic seconds
    shares: bool  # it can share memory with this process
    moves: bool  # it follows MOVED
    places: Places | None  # its zones and lines
    epoch: int = 0
    frames: CameraFrames[Message, Result] = field(init=False)  # set when it has joined
    export: LedgerExport = field(init=False)
    timeline: Timeline | None = None
    ending: list[Timeline] = field(default_factory=list)  # of earlier captures, until their frames are released
    leaving: str = ""  # the reason, once the capture said BYE
    ended: bool = False  # after BYE, once all its frames are resolved
    silent: bool = False
    age: float = 0.0  # of its last frame on arrival, in seconds
    transfer: float = 0.0  # seconds from the request for its last frame to the frame's arrival
    rate: metrics.Rate = field(default_factory=metrics.Rate)

    def __post_init__(self) -> None:
        self.export = LedgerExport(self.name)

    def over(self, now: float, how: DispatchSettings) -> bool:
        """Return whether the capture has been gone for so long that the camera can be forgotten."""
        patience = how.forget_after if self.ended else how.forget_silent_after if self.silent else math.inf
        return now - self.heard > patience and not self.ending

    @classmethod
    def from_hello(cls, peer: bytes, message: Message, now: float) -> tuple[Camera, dict[str, int]]:
        """Parse a HELLO: return the camera, and the outcomes of its sent frames that aggregators reported to it.

        Raises:
            WireError: a field is missing or not valid.
        """
        about = message.body()
        name = about.get("camera")
        if not isinstance(name, str) or not re.fullmatch(CAMERA_NAME, name):
            raise WireError(f"a capture with the name {name!r:.80}")
        try:
            reported = {str(term): int(count) for term, count in dict(about["reported"]).items()}
            found = cls(
                name=name,
                peer=peer,
                incarnation=str(about["incarnation"]),
                pid=int(about["pid"]),
                policy="wait" if about["policy"] == "wait" else "drop_oldest",
                live=bool(about["live"]),
                length=None if about["frames"] is None else int(about["frames"]),
                pause=0.0 if about.get("rate") is None else _pause(about["rate"]),
                heard=now,
                shares=_shares(about),
                moves=about.get("moves") is True,
                places=CameraSettings(zones=about.get("zones", {}), lines=about.get("lines", {})).places,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WireError(f"a capture's HELLO has a missing or invalid field: {error}") from error
        counts = reported.values()
        if not reported.keys() <= TERMS or min(counts, default=0) < 0 or sum(counts) > message.totals.sent:
            raise WireError("HELLO carries ledger counts that no aggregator can have sent")
        return found, reported


def _pause(rate: Any) -> float:
    """Return the seconds between two frames at a rate in frames per second."""
    if not 0 < float(rate) <= 1e6:
        raise ValueError(f"a rate of {rate!r:.20}")
    return 1 / float(rate)


class Answers(NamedTuple):
    """What a worker's model answers, and how it is smoothed: the same for all workers of an aggregator."""

    labels: tuple[str, ...]
    measures: tuple[Measure, ...] = ()
    smoother: Mapping[str, float] = MappingProxyType({})
    """The model's own smoother settings."""

    @classmethod
    def from_ready(cls, about: dict[str, Any]) -> Answers:
        """Parse a READY.

        Raises:
            WireError: a field is missing or not valid, or there are no labels or too many, or too many measures.
        """
        try:
            found = cls(
                tuple(str(label) for label in about["labels"]),
                tuple(_measure(str(name), *scale) for name, scale in about.get("measures", {}).items()),
                {str(name): float(value) for name, value in about.get("smoother", {}).items()},
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WireError(f"a worker's READY has a missing or invalid field: {error}") from error
        if not (found.labels or found.measures) or len(found.labels) > results.MAX_LABELS:
            raise WireError(f"a worker with {len(found.labels)} labels")
        if len(found.measures) > results.MAX_LABELS:
            raise WireError(f"a worker with {len(found.measures)} measures")
        try:
            SmootherSettings(**found.smoother)
        except ValidationError as error:
            fault = error.errors()[0]
            raise WireError(f"a worker with invalid smoother settings: {fault['loc']!r:.80} {fault['msg']}") from error
        return found

    def unlike(self, other: Answers) -> tuple[str, str]:
        """Return the first part in which two differ: that of this one, and that of the other, as texts."""
        pairs = zip(self._texts(), other._texts(), strict=True)
        return next((mine, theirs) for mine, theirs in pairs if mine != theirs)

    def _texts(self) -> tuple[str, str, str]:
        measures = ", ".join(f"{each.name} from {each.least:g} to {each.greatest:g}" for each in self.measures)
        own = ", ".join(f"{name} = {value!r}" for name, value in sorted(self.smoother.items()))
        return (
            f"the labels {', '.join(self.labels)}" if self.labels else "no labels",
            f"the measures {measures}" if measures else "no measures",
            f"the smoother settings {own}" if own else "no smoother settings of its own",
        )


@dataclass(slots=True)
class Worker:
    """A worker, its credit, and the pace of the link to it."""

    name: str
    host: str
    pid: int
    model: str
    detector: str
    shares: bool  # it can share memory with this process
    moves: bool  # it follows MOVED
    most: int  # frames that it takes at a time
    credit: Credit[Message, Result] = field(init=False)  # set when it is accepted
    warning: SlowLinkWarning = field(default_factory=SlowLinkWarning, init=False)  # of the link to it

    @classmethod
    def from_ready(cls, about: dict[str, Any]) -> Worker:
        """Parse a READY; `Answers` has what it says about the model's answers.

        Raises:
            WireError: a field is missing or not valid, or there are too many frames at a time.
        """
        try:
            texts = {key: str(about[key]) for key in ("name", "host", "model", "detector")}
            found = cls(
                pid=int(about["pid"]),
                shares=_shares(about),
                moves=about.get("moves") is True,
                most=int(about.get("frames", 1)),
                **texts,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WireError(f"a worker's READY has a missing or invalid field: {error}") from error
        if not 1 <= found.most <= MAX_BATCH:
            raise WireError(f"a worker that takes {found.most} frames at a time")
        return found

    @property
    def movable(self) -> bool:
        """Whether it can be sent to another aggregator now."""
        return self.moves and self.credit.state == "idle"

    def record_transfer(self, seconds: float, now: float) -> None:
        """Record the seconds that the last frame took to reach this worker, and warn if the link is slow."""
        if slow := self.warning.slow(seconds, now):
            _log.warning(
                "the link to worker %s at %s is slow: %s; set a lower jpeg_quality or a max_width of the cameras "
                '(and encoding = "jpeg" of those on this machine), or run the worker nearer',
                *(self.name, self.host, slow),
            )


def _measure(name: str, least: Any, greatest: Any) -> Measure:
    """Return a measure with finite ends.

    Raises:
        ValueError: they are not.
    """
    measure = Measure(name, float(least), float(greatest))
    if not -math.inf < measure.least < measure.greatest < math.inf:
        raise ValueError(f"a measure from {least!r:.20} to {greatest!r:.20}")
    return measure


def _shares(about: dict[str, Any]) -> bool:
    return bool(shared.identity()) and about.get("memory") == shared.identity()
