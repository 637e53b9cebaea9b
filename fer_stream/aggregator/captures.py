"""The aggregator's side of the capture protocol: cameras join, send frames, fall silent and leave."""

from __future__ import annotations

import logging
import math
import time
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.aggregator.event_log import wake_when_done
from fer_stream.aggregator.frames import Arrival
from fer_stream.aggregator.moves import Moves
from fer_stream.aggregator.roster import Camera
from fer_stream.errors import JournalError, RivalError, WireError
from fer_stream.events.attention import Attention
from fer_stream.events.calibration import calibrations
from fer_stream.events.timeline import Timeline
from fer_stream.fleet.answers import to_body
from fer_stream.fleet.records import Moved, Welcome
from fer_stream.operations import metrics
from fer_stream.operations.process import REMOVED, read_note
from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Kind, Message
from fer_stream.types import Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from fer_stream.aggregator.dispatcher import Command, Dispatcher
    from fer_stream.aggregator.frames import Item
    from fer_stream.aggregator.home import Home
    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.events.smoother import LabelSet
    from fer_stream.fleet.records import Place
    from fer_stream.plugins import Hub
    from fer_stream.protocol.results import Result
    from fer_stream.settings.tree import Settings, SmootherSettings
    from fer_stream.types import Measure

_log = logging.getLogger(__name__)


class _Joining(NamedTuple):
    """A capture that waits for its camera's epoch, and its latest HELLO."""

    camera: Camera
    message: Message
    reported: dict[str, int]
    epoch: Future[int]


class Captures:
    """All cameras by name, and the messages from and to their captures.

    Args:
        settings: all settings.
        hub: sends to the captures.
        dispatcher: receives the frames.
        publisher: receives the events, and numbers the epochs.
        carry_out: carries out the dispatcher's commands.
        home: says which cameras belong here.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        dispatcher: Dispatcher[Message, Result],
        publisher: Publisher,
        carry_out: Callable[[Iterable[Command[Message, Result]]], None],
        home: Home,
    ) -> None:
        self.cameras: dict[str, Camera] = {}
        self._settings = settings
        self._hub = hub
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._carry_out = carry_out
        self._home = home
        self._peers: dict[bytes, str] = {}
        self._joining: dict[str, _Joining] = {}
        self._leaving: dict[str, int] = {}  # cameras whose last events are recorded, and their journal's mark
        self._moves = Moves(hub, dispatcher, publisher, home, self._send_off)
        self._labels: LabelSet | None = None
        self._measures: tuple[str, ...] = ()
        self._smoother = settings.smoother
        self._stopping = False

    def timelines(self) -> list[Timeline]:
        """Return the timelines of the cameras that have one."""
        return [camera.timeline for camera in self.cameras.values() if camera.timeline]

    def begin(self, labels: LabelSet, measures: Sequence[Measure], smoother: SmootherSettings) -> None:
        """Set what the workers' model gives and how to smooth it, and give each camera a timeline, its first."""
        self._labels, self._smoother = labels, smoother
        self._measures = tuple(measure.name for measure in measures)
        for camera in self.cameras.values():
            self._begin(camera, labels)

    # Messages

    def receive(self, peer: bytes, parts: list[Any]) -> None:
        """Handle a message from a capture.

        Raises:
            WireError: the message is invalid.
        """
        now = time.monotonic()
        try:
            message = messages.unpack(parts, verify=False)
        except WireError:
            # If this was a frame, the capture's next totals count it as sent, and it is booked as lost on the link.
            if peer not in self._peers:
                self._send(peer, Kind.WHO)
            raise
        name = self._peers.get(peer)
        if message.kind is Kind.HELLO:
            self._hello(peer, message, now)
        elif name is None:
            self._send(peer, Kind.WHO)
        else:
            camera = self.cameras[name]
            camera.heard, camera.silent = now, False
            if camera.ended:  # the capture has not received GOODBYE yet
                self._send(peer, Kind.GOODBYE)
            elif message.kind is Kind.FRAME:
                self._frame(camera, message, now)
            elif message.kind is Kind.OFFER:
                self._offer(camera, message, now)
            elif message.kind is Kind.BYE:
                self._bye(camera, message, now)

    def _send(self, peer: bytes, kind: Kind, body: dict[str, Any] | None = None, **fields: Any) -> bool:
        return self._hub.send("frames", peer, messages.json_message(kind, body, **fields))

    def _frame(self, camera: Camera, message: Message, now: float) -> None:
        camera.age = message.age / 1e6
        camera.transfer = now - (camera.frames.asked or now)
        size = message.width, message.height
        arrival = Arrival(camera.epoch, message.seq, Nanoseconds(message.time), now - camera.age, size)
        # Workers must not open another process's memory for a capture: the descriptor must name the capture's own.
        in_memory = message.encoding.in_memory
        foreign = in_memory and not (camera.shares and shared.owner(message.payload) == camera.pid)
        refused = "corrupt" if foreign else ""
        self._carry_out(self._dispatcher.frame(camera.name, arrival, message, message.totals, now, refused))

    def _offer(self, camera: Camera, message: Message, now: float) -> None:
        held_up = self._stopping or self._moves.gives(camera.name) or self._must_wait(camera)
        full = message.body().get("full") is True and not held_up
        self._carry_out(self._dispatcher.offer(camera.name, message.totals, full, now))
        if camera.live and message.time and camera.timeline and not camera.frames.unresolved:
            patience = max(self._settings.dispatch.offline_after, 2 * camera.pause, 3 * camera.transfer)
            self._publisher.record(camera.timeline.tick(Nanoseconds(message.time), patience))

    def _bye(self, camera: Camera, message: Message, now: float) -> None:
        self._carry_out(self._dispatcher.offer(camera.name, message.totals, full=False, now=now))
        reason = str(message.body().get("reason"))
        known = reason in ("end of stream", "source failed", "camera removed")
        removed = camera.name in read_note(REMOVED)
        self._moves.stays(camera.name)
        camera.leaving = reason if known else "camera removed" if removed else "capture ended"
        self._take_leave(camera)

    # Joining and leaving

    def _hello(self, peer: bytes, message: Message, now: float) -> None:
        new, reported = Camera.from_hello(peer, message, now)
        name = new.name
        if reason := self._hub.objection(peer, name):
            _log.warning("a capture is refused: %s", reason)
            self._send(peer, Kind.REFUSED, {"reason": reason, "final": True})
            return
        old = self.cameras.get(name)
        if old is not None and old.incarnation == new.incarnation:
            self._peers.pop(old.peer, None)
            old.heard, old.peer = now, peer
            self._peers[peer] = name
            if self._moves.gives(name):
                self._carry_out(self._dispatcher.offer(name, message.totals, full=False, now=now))
                self._moves.answered(old)
                if name not in self.cameras:  # it is sent away
                    return
        elif isinstance(answer := self._home.answer(name), Moved):
            self._moves.send_away(new, answer, reported)
            return
        elif old is not None and not old.leaving and not self._silent(old, now):
            reason = (
                f"camera {name} is captured by process {old.pid} already: stop that one, or choose another --camera"
            )
            silent = now - old.heard > self._settings.dispatch.silence
            self._send(peer, Kind.REFUSED, {"reason": reason, "final": False, "silent": silent})
            return
        else:
            self._begin_join(new, message, reported)
            return
        self._welcome(self.cameras[name])

    def _welcome(self, camera: Camera) -> None:
        body = {"memory": camera.shares, **to_body(Welcome(self._home.answer(camera.name).others))}
        self._send(camera.peer, Kind.WELCOME, body, epoch=camera.epoch)

    def _begin_join(self, new: Camera, message: Message, reported: dict[str, int]) -> None:
        """Ask the journal for an epoch, without waiting for it; the camera joins when it is stored."""
        known = self._joining.get(new.name)
        if known is not None and known.camera.incarnation != new.incarnation:
            return  # it repeats its HELLO, and is refused then if the other capture has joined
        if known is None:
            epoch = self._publisher.log(new.name).journal.epoch(new.name)
            wake_when_done(self._hub, epoch)
            known = _Joining(new, message, reported, epoch)
        self._joining[new.name] = _Joining(new, message, reported, known.epoch)
        self._settle_joins()

    def settle(self) -> None:
        """Go on with the captures that waited for the journal: those that join, and those that leave."""
        self._settle_joins()
        for name in list(self._leaving):
            self._take_leave(self.cameras[name])
        self._moves.settle(self.cameras)

    def _settle_joins(self) -> None:
        for name, (new, message, reported, epoch) in list(self._joining.items()):
            if not epoch.done():
                continue
            del self._joining[name]
            if isinstance(answer := self._home.answer(name), Moved):  # it has changed meanwhile
                self._moves.send_away(new, answer, reported)
                continue
            try:
                new.epoch = epoch.result()
            except RivalError:
                raise
            except JournalError as error:  # the capture repeats its HELLO
                _log.warning("camera %s has to wait: %s", name, error)
                continue
            self._join(new, self.cameras.get(name), message, reported, time.monotonic())
            self._welcome(new)

    def _join(self, new: Camera, old: Camera | None, message: Message, reported: dict[str, int], now: float) -> None:
        self._leaving.pop(new.name, None)
        self._moves.joined(new.name)
        if old is not None:
            self._peers.pop(old.peer, None)
            new.export, new.rate = old.export, old.rate
            new.ending = old.ending + ([old.timeline] if old.timeline else [])
        metrics.remember(new.name)
        self.cameras[new.name] = new
        self._peers[new.peer] = new.name
        if self._labels:
            self._begin(new, self._labels)
        commands = self._dispatcher.joined(new.name, new.policy, message.totals, reported, now)
        new.frames = self._dispatcher.cameras[new.name]
        self._carry_out(commands)
        if old is None and message.totals.sent:
            # The capture is older than this aggregator. The previous aggregator exported every outcome that it reported
            # to the capture, so only the frames that were lost with it are left to export.
            known = new.frames.ledger()
            known.lost_link = reported.get("lost_link", 0)
            new.export.begin(known)
        _log.info("camera %s is here", new.name, extra={"epoch": new.epoch, "pid": new.pid})

    def _begin(self, camera: Camera, labels: LabelSet) -> None:
        how = self._settings
        attention = Attention(how.search, camera.policy, how.depth)
        calibration = calibrations(how.calibration, labels.model_labels).of(camera.name)
        camera.timeline = Timeline(
            camera.name, camera.epoch, labels, how.tracker, self._smoother, attention, calibration, camera.places
        )

    def _take_leave(self, camera: Camera) -> None:
        """Close the events of a leaving capture once all its frames are resolved; send GOODBYE once they are stored."""
        if camera.frames.unresolved:
            return
        if camera.name not in self._leaving:
            if camera.timeline:
                self._publisher.record(camera.timeline.offline(camera.leaving))
            self._leaving[camera.name] = self._publisher.log(camera.name).mark()
            self._publisher.flush()
        if self._publisher.log(camera.name).passed(self._leaving[camera.name]):
            del self._leaving[camera.name]
            camera.ended = True
            self._dispatcher.left(camera.name)
            self._send(camera.peer, Kind.GOODBYE)

    def closed(self, which: Callable[[str], bool]) -> bool:
        """Return whether the cameras of these names are given away, with all frames resolved and all events stored."""
        if any(which(name) for name in self._joining):
            return False
        here = (camera for camera in self.cameras.values() if which(camera.name))
        return all(camera.ended or self._moves.closed(camera.name) for camera in here)

    def give(self, now: float) -> None:
        """Look at once, not in the next round, which cameras are to be given away."""
        self._moves.round(self.cameras, now)

    def dismiss(self, which: Callable[[str], bool], place: Place) -> bool:
        """Send the cameras of these names to another aggregator; return whether none of them is here any more."""
        for camera in [camera for camera in self.cameras.values() if which(camera.name)]:
            if camera.ended:
                self._send_off(camera)
            elif not camera.frames.unresolved:
                self._moves.send_off(camera, Moved(place))
        return not any(map(which, self.cameras))

    # The dispatcher's commands

    def ask(self, name: str) -> None:
        """Ask a capture for its freshest frame, and report the outcomes of the frames that it sent."""
        camera = self.cameras[name]
        self._send(camera.peer, Kind.NEXT, camera.frames.reported(), age=round(camera.transfer * 1e6))

    def timeline(self, item: Item[Message, Result]) -> Timeline | None:
        """Return the timeline that a frame belongs to; ``None`` before the first worker's labels are known."""
        camera = self.cameras[item.camera]
        timelines = (*camera.ending, camera.timeline)
        return next((known for known in timelines if known and known.epoch == item.arrival.epoch), None)

    def release(self, item: Item[Message, Result]) -> None:
        """Give the result of a resolved frame to its timeline, and record the events."""
        camera, timeline, arrival = self.cameras[item.camera], self.timeline(item), item.arrival
        # Frames are released in order of capture, so the first frame of a newer capture ends the older timelines.
        while camera.ending and camera.ending[0] is not timeline:
            self._publisher.record(camera.ending.pop(0).offline("capture restarted"))
        found = item.result
        if found is not None and item.outcome == "done" and timeline is not None:
            metrics.faces.labels(item.camera).inc(len(found.faces))
            events = timeline.observe(arrival.frame, arrival.time, arrival.size, found.faces, found.searched)
            self._publisher.record(events)
            self._publisher.observe(timeline)
            now = time.monotonic()
            camera.rate.add(now)
            metrics.latency.labels(item.camera).observe(now - arrival.taken)
        elif timeline is not None:
            timeline.miss(arrival.frame)
        if camera.leaving:
            self._take_leave(camera)

    # Time

    def round(self, now: float) -> None:
        """Find silent cameras, end finished timelines and captures, export ledgers, and forget cameras long gone."""
        removed = read_note(REMOVED)
        for camera in self.cameras.values():
            if camera.name in removed and not camera.leaving and self._silent(camera, now):
                camera.leaving = "camera removed"  # its capture was killed, so there is no BYE
                self._take_leave(camera)
            self._check_camera(camera, now)
            self._export(camera)
        self._moves.round(self.cameras, now)
        how = self._settings.dispatch
        for camera in list(self.cameras.values()):
            if camera.over(now, how) or (camera.ended and removed.get(camera.name)):
                self._forget(camera.name)

    def _check_camera(self, camera: Camera, now: float) -> None:
        if self._must_wait(camera):
            self._dispatcher.silent(camera.name)  # until the journal can be written and the camera offers again
        if not (camera.leaving or camera.silent) and self._silent(camera, now):
            camera.silent = True
            self._dispatcher.silent(camera.name)
            _log.warning("camera %s is silent", camera.name, extra={"pid": camera.pid})
        if not camera.frames.unresolved:
            for timeline in camera.ending:
                self._publisher.record(timeline.offline("capture restarted"))
            camera.ending = []
            if camera.silent and camera.timeline:
                self._publisher.record(camera.timeline.offline("capture silent"))

    def _must_wait(self, camera: Camera) -> bool:
        """Return whether a camera that must not lose events has to wait for its journal."""
        return camera.policy == "wait" and self._publisher.log(camera.name).failing

    def _export(self, camera: Camera) -> None:
        camera.export.export(camera.frames.ledger())
        metrics.camera_online.labels(camera.name).set(bool(camera.timeline and camera.timeline.online))
        metrics.waiting.labels(camera.name).set(len(camera.frames.waiting))
        metrics.tracks.labels(camera.name).set(len(camera.timeline.tracks) if camera.timeline else 0)
        estimates = camera.timeline.estimates() if camera.timeline else []
        for number, name in enumerate(self._measures):
            levels = [estimate.measures.values[number] for estimate in estimates if estimate.measures]
            metrics.measure.labels(camera.name, name).set(fmean(levels) if levels else math.nan)

    def _forget(self, name: str) -> None:
        if self.cameras[name].frames.unresolved:
            return
        _log.info("camera %s is forgotten: its capture has gone", name)
        self._peers.pop(self.cameras.pop(name).peer, None)
        self._leaving.pop(name, None)
        self._moves.stays(name)
        self._dispatcher.forget(name)
        metrics.forget(name)

    def _send_off(self, camera: Camera) -> None:
        """Forget a camera that is another aggregator's now, with its ledger exported."""
        self._export(camera)
        self._forget(camera.name)

    def _silent(self, camera: Camera, now: float) -> bool:
        """Return whether a capture is silent: nothing came for ``dispatch.silence`` seconds.

        Over a network, a frame in transfer delays the messages after it. So while a requested frame is expected, a
        capture is silent only after ``dispatch.transfer`` seconds, or if its connection is broken.
        """
        how, quiet = self._settings.dispatch, now - camera.heard
        if quiet <= how.silence:
            return False
        comes = self._settings.networked and camera.frames.asked is not None and quiet < how.transfer
        return not (comes and self._send(camera.peer, Kind.PING))

    # The end

    def stop(self) -> None:
        """Ask for no more frames."""
        self._stopping = True
        for name in self.cameras:
            self._dispatcher.silent(name)

    def busy(self) -> bool:
        """Return whether any frame is unresolved."""
        return any(camera.frames.unresolved for camera in self.cameras.values())

    def close(self) -> None:
        """End all timelines, record their events, and export the ledgers for the last time."""
        for camera in self.cameras.values():
            for timeline in (*camera.ending, camera.timeline):
                if timeline:
                    self._publisher.record(timeline.offline("aggregator stopped"))
            camera.ending = []
            camera.export.export(camera.frames.ledger())
