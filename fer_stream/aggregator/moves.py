"""How cameras leave for another aggregator, and captures learn where they belong: see `fer_stream.aggregator.home`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_stream.fleet.answers import to_body
from fer_stream.fleet.records import Moved
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fer_stream.aggregator.dispatcher import Dispatcher
    from fer_stream.aggregator.home import Home
    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.aggregator.roster import Camera
    from fer_stream.plugins import Hub
    from fer_stream.protocol.messages import Message
    from fer_stream.protocol.results import Result

SIGN = 1.0
"""Seconds between two signs of life to a capture."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Giving:
    """How far a camera is that is given away."""

    answered: bool = False
    """Whether its capture has sent all frames that it was asked for."""
    mark: int | None = None
    """Its journal's mark after its last event."""
    closed: bool = False
    """Whether that is stored."""


class Moves:
    """The cameras that are given away.

    Args:
        hub: sends to the captures.
        dispatcher: is told to ask for no more frames.
        publisher: receives the last events.
        home: says which cameras belong here.
        forget: exports a camera's ledger for the last time, and forgets the camera.
    """

    def __init__(
        self,
        hub: Hub,
        dispatcher: Dispatcher[Message, Result],
        publisher: Publisher,
        home: Home,
        forget: Callable[[Camera], None],
    ) -> None:
        self._hub = hub
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._home = home
        self._forget = forget
        self._giving: dict[str, _Giving] = {}
        self._sent: dict[str, tuple[str, dict[str, int]]] = {}  # incarnations and outcomes of captures sent away
        self._next_sign = 0.0

    def gives(self, name: str) -> bool:
        """Return whether a camera is given away, so that its capture is asked for no more frames."""
        return name in self._giving

    def closed(self, name: str) -> bool:
        """Return whether a camera is given away, with all its frames resolved and all its events stored."""
        return self.gives(name) and self._giving[name].closed

    def stays(self, name: str) -> None:
        """Give a camera away no longer: it ends here, or it is forgotten."""
        self._giving.pop(name, None)

    def joined(self, name: str) -> None:
        """Begin anew with a camera."""
        self._giving.pop(name, None)
        self._sent.pop(name, None)

    def answered(self, camera: Camera) -> None:
        """Take that a capture has answered WHO. All frames that it was asked for have arrived, or are lost."""
        self._giving[camera.name].answered = True
        self._go_on(camera)

    def round(self, cameras: Mapping[str, Camera], now: float) -> None:
        """Begin to give cameras away, or keep them; once a second, send each capture a sign of life."""
        for camera in cameras.values():
            if camera.leaving or camera.ended or not self._home.gives(camera.name):
                self.stays(camera.name)
            elif not self._giving.setdefault(camera.name, _Giving()).answered:
                self._dispatcher.silent(camera.name)
                self._send(camera, Kind.WHO)  # its HELLO comes after all frames that it was asked for
        if now < self._next_sign:
            return
        self._next_sign = now + SIGN
        for camera in cameras.values():
            if camera.moves and not camera.ended:
                self._send(camera, Kind.PING)

    def settle(self, cameras: Mapping[str, Camera]) -> None:
        """Go on with the cameras that are given away."""
        for name in list(self._giving):
            self._go_on(cameras[name])

    def _go_on(self, camera: Camera) -> None:
        """Close a camera's events; once they are stored, send its capture where it belongs."""
        giving = self._giving[camera.name]
        giving.closed = False
        if camera.frames.unresolved or not (giving.answered or camera.silent):
            return
        if giving.mark is None or (camera.timeline and camera.timeline.online):  # a silent capture may come back
            for timeline in (*camera.ending, camera.timeline):
                if timeline:
                    self._publisher.record(timeline.offline("camera moved"))
            camera.ending = []
            giving.mark = self._publisher.log(camera.name).mark()
            self._publisher.flush()
        giving.closed = self._publisher.log(camera.name).passed(giving.mark)
        if giving.closed and isinstance(answer := self._home.answer(camera.name), Moved) and answer.place:
            self.send_off(camera, answer)

    def send_off(self, camera: Camera, answer: Moved) -> None:
        """Send a capture to another aggregator, with the outcomes of its frames, and forget the camera."""
        self._sent[camera.name] = camera.incarnation, camera.frames.reported()
        self.send_away(camera, answer, {})
        ledger = {term: count for term, count in camera.frames.ledger().as_dict().items() if count}
        where = answer.place.address if answer.place else "another aggregator"
        _log.info("camera %s is sent to %s", camera.name, where, extra=ledger)
        self._forget(camera)

    def send_away(self, camera: Camera, answer: Moved, reported: Mapping[str, int]) -> None:
        """Tell a capture where it belongs: one that does not know MOVED, by a refusal.

        ``reported`` are the outcomes that it knows. It may know fewer than it was sent away with, if that message was
        lost; or more, if it has been elsewhere since.
        """
        if camera.moves:
            body = to_body(answer)
            incarnation, known = self._sent.get(camera.name, ("", {}))
            if incarnation == camera.incarnation and sum(known.values()) >= sum(reported.values()):
                body["reported"] = known
            self._send(camera, Kind.MOVED, body)
            return
        where = f"to that at {answer.place.address}" if answer.place else "to the one that will take it"
        reason = f"camera {camera.name} belongs to another aggregator: connect its capture {where}, or update it"
        self._send(camera, Kind.REFUSED, {"reason": reason, "final": False, "silent": answer.place is None})

    def _send(self, camera: Camera, kind: Kind, body: Mapping[str, object] | None = None) -> None:
        self._hub.send("frames", camera.peer, messages.json_message(kind, body))
