"""The capture's side of the protocol: it registers with an aggregator, offers frames, and sends them when asked.

It follows MOVED to another aggregator, and goes to another one if its own dies. Its totals and its slot go with it.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from fer_stream.capture.encoder import Encoder
from fer_stream.capture.reader import Reader
from fer_stream.capture.slot import Slot
from fer_stream.errors import ConfigError, WireError
from fer_stream.operations import metrics
from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_stream.fleet.link import Link
    from fer_stream.settings.kinds import Policy
    from fer_stream.settings.tree import Settings

BEAT = 0.5
"""Seconds between heartbeats."""

_log = logging.getLogger(__name__)


class Capture:
    """The capture's side of the protocol: its registration, its offers, its frames, and the outcomes reported to it."""

    def __init__(self, settings: Settings, name: str, link: Link) -> None:
        camera = settings.cameras[name]
        self.name = name
        self.policy: Policy = camera.policy or settings.policy
        self.slot = Slot(self.policy)
        # Frames in shared memory: ``depth`` in flight, one in the slot, two being read (a recording reads one ahead),
        # and one spare.
        self._encoder = Encoder(name, camera, link.address, settings.depth + 4)
        self.reader = Reader(name, camera, self.policy, self.slot, link.wake, self._encoder.room)
        self.finished = False
        self.welcomed = False
        self._camera = camera
        self._link = link
        self._incarnation = secrets.token_hex(8)
        self._reported: dict[str, int] = {}
        self._offered = False
        self._beat = 0.0
        self._refused_since: float | None = None
        self._patience = settings.dispatch.silence + 2.0
        self._exported = Totals()

    def step(self, timeout: float) -> None:
        """Wait for a message or a frame, and send what is due.

        Raises:
            ConfigError: the aggregator refuses this camera for good.
        """
        parts = self._link.receive(timeout)
        while parts is not None:
            try:
                self._handle(messages.unpack(parts))
            except WireError as error:
                metrics.rejected_messages.labels("frames").inc()
                _log.warning("a message of the aggregator is rejected: %s", error)
            parts = self._link.receive(0) if not self.finished else None
        if not self.reader.opened or self.finished:
            return
        if self._link.turn():  # elsewhere, or here again
            self.welcomed = self._encoder.shares = False
            self._refused_since, self._beat = None, 0.0
        totals, full = self.slot.state()
        now = time.monotonic()
        if self.welcomed and self.slot.closed and not full:  # even if the source still blocks the reader
            if now >= self._beat:
                self._say(Kind.BYE, now, {"reason": self.reader.reason})
        elif now >= self._beat:
            if self.welcomed:
                self._offer(now)
            elif not self._link.resting:
                self._hello(now)
        elif self.welcomed and full and not self._offered:
            self._offer(now)
        self._export(totals)

    def give_up(self) -> None:
        """Send BYE even if a frame is left in the slot; the aggregator counts that frame as lost."""
        if self.welcomed:
            self._say(Kind.BYE, time.monotonic(), {"reason": self.reader.reason})

    def close(self) -> None:
        """Release the shared memory of the frames that were sent."""
        self._encoder.close()

    def _handle(self, message: Message) -> None:
        match message.kind:
            case Kind.WELCOME:
                self._link.welcome(message.body())
                self.welcomed, self._refused_since = True, None
                self._encoder.aim(self._link.address)
                here = self._encoder.encoding is Encoding.SHARED
                self._encoder.shares = here and message.body().get("memory") is True
                self._offer(time.monotonic())
            case Kind.NEXT:
                self._take(_counts(message.body()))
                if message.age:
                    self._encoder.record_transfer(message.age / 1e6)
                self._send_frame()
            case Kind.MOVED:
                body = message.body()
                self._link.moved(body)
                self.welcomed = False
                if "reported" in body:
                    self._take(_counts(body["reported"]))
            case Kind.WHO if not self._link.resting:
                self._hello(time.monotonic())
            case Kind.REFUSED:
                # An earlier capture of this camera may be dead without the aggregator knowing: retry for a while. Once
                # that one is silent, the aggregator decides how long it waits for it.
                body, now = message.body(), time.monotonic()
                self.welcomed = False
                self._refused_since = None if body.get("silent") else self._refused_since or now
                if body.get("final") or now - (self._refused_since or now) > self._patience:
                    raise ConfigError(str(body.get("reason")))
            case Kind.GOODBYE:
                self.finished = True

    def _take(self, counts: dict[str, int]) -> None:
        """Take outcomes of sent frames, unless they are older than the known ones: they never become fewer."""
        if sum(counts.values()) >= sum(self._reported.values()):
            self._reported = counts

    def _hello(self, now: float) -> None:
        about = {
            "camera": self.name,
            "incarnation": self._incarnation,
            "pid": os.getpid(),
            "policy": self.policy,
            "live": self.reader.live,
            "frames": self.reader.frames,
            "rate": self._camera.rate,
            "reported": self._reported,
            "memory": shared.identity(),
            "moves": True,
            **self._camera.model_dump(mode="json", include={"zones", "lines"}, exclude_defaults=True),
        }
        self._say(Kind.HELLO, now, about)

    def _offer(self, now: float) -> None:
        self._offered = self.slot.state()[1]
        self._say(Kind.OFFER, now, {"full": self._offered})

    def _say(self, kind: Kind, now: float, body: dict[str, object]) -> None:
        self._beat = now + BEAT
        # The capture time of a live camera advances without frames; that of a recording does not.
        stamp = self.reader.clock.now() if self.reader.live else 0
        self._link.send(messages.json_message(kind, body, totals=self.slot.state()[0], time=stamp))

    def _send_frame(self) -> None:
        held = self.slot.take()
        self._offered = False
        if held is None:
            return
        frame, taken = held
        totals = self.slot.state()[0]
        encoded = self._encoder.encode(frame, totals.sent, sum(self._reported.values()))
        (width, height), encoding = encoded.size, encoded.encoding
        message = Message(
            Kind.FRAME,
            encoded.payload,
            seq=frame.number,
            time=frame.time,
            age=round((time.monotonic() - taken) * 1e6),
            totals=totals,
            width=width,
            height=height,
            encoding=encoding,
            colour=encoded.colour,
        )
        # Raw pixels are sent without a checksum, which would take as long as decoding the picture.
        self._link.send(messages.pack(message, checked=encoding not in (Encoding.RAW, Encoding.YUV)))

    def _export(self, totals: Totals) -> None:
        for term in ("captured", "superseded", "rejected", "sent"):
            step = getattr(totals, term) - getattr(self._exported, term)
            metrics.capture_frames.labels(self.name, term).inc(step)
        self._exported = totals


def _counts(body: Mapping[str, Any]) -> dict[str, int]:
    """Return the outcomes of sent frames that an aggregator reports.

    Raises:
        WireError: they are no counts.
    """
    try:
        return {str(term): int(n) for term, n in body.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise WireError(f"outcomes of frames that are no counts: {error}") from error
