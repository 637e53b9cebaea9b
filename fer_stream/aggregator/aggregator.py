"""The aggregator: it decides who gets which frame, makes events of the answers, journals and publishes them.

One thread owns all sockets and the journal. Each turn of its loop takes what has arrived, tells the `Dispatcher`,
carries out its commands, and then writes the events of that turn in one transaction before any of them is published.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.aggregator.dispatcher import FENCES, REASONS, Ask, Assign, Dispatcher, Fence, Item, Release
from fer_stream.aggregator.publisher import Publisher, describe
from fer_stream.aggregator.roster import Arrival, Camera, Worker
from fer_stream.errors import JournalError, RivalError, WireError
from fer_stream.events.attention import Attention
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline, closing
from fer_stream.journal import Journal
from fer_stream.operations import instances, metrics
from fer_stream.operations.process import deliveries, install_stop, parent_gone, supervised
from fer_stream.protocol import shared, wire
from fer_stream.protocol.wire import Kind, Message
from fer_stream.settings import deployment
from fer_stream.system import machine
from fer_stream.types import Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fer_stream.aggregator.dispatcher import Command
    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Hub
    from fer_stream.settings.tree import Settings

BEAT = 0.5
"""Seconds between rounds: silent cameras are looked at, totals exported, the cursor published."""

LOOK = 0.2
"""Seconds between looks for workers that are silent or late: one is noticed that much later at most."""

DRAIN = 1.5
"""Seconds that frames in workers' hands have to come back after the aggregator was told to stop."""

_log = logging.getLogger(__name__)


class Aggregator:
    """See the module's text. `turn` does everything; `status` tells how things stand."""

    def __init__(self, settings: Settings, hub: Hub, journal: Journal) -> None:
        self._settings = settings
        self._hub = hub
        self._journal = journal
        self._dispatcher = Dispatcher(settings.dispatch, settings.depth)
        self._cameras: dict[str, Camera] = {}
        self._peers: dict[bytes, str] = {}
        self._workers: dict[str, Worker] = {}
        self._labels: LabelSet | None = None
        self._model_labels: tuple[str, ...] = ()
        self._publisher = Publisher(hub, journal)
        self._reader = shared.Reader()
        self._beat = self._look = 0.0
        self._started = time.monotonic()
        self._stopping = False
        for counter, values in ((metrics.fenced, FENCES), (metrics.rejected_messages, plugins.LINKS)):
            for value in values:
                counter.labels(
                    value
                )  # there from the beginning: of a counter that appears, no rate tells the first step
        self._publisher.record(closing(event) for event in journal.unclosed())
        self._publisher.flush()

    @property
    def ready(self) -> str:
        """What is missing until frames can be worked on, or an empty text."""
        if self._publisher.failing:
            return "a journal that can be written"
        return "" if self._workers else "a worker"

    def turn(self, timeout: float) -> None:
        """Take what has arrived, waiting for up to ``timeout`` seconds, and do all that follows from it.

        Raises:
            ConfigError: the settings do not fit the first worker's model.
        """
        messages = self._hub.receive(min(timeout, max(0.0, self._look - time.monotonic())))
        now = time.monotonic()  # whatever the work on them takes: what comes meanwhile lies unread, not unsaid
        for link, peer, parts in messages:
            try:
                if link in plugins.BROADCASTS:
                    self._publisher.listener(link, bytes(parts[0]), self._timelines())
                else:
                    getattr(self, f"_on_{link}")(peer, parts)
            except WireError as error:
                metrics.rejected_messages.labels(link).inc()
                _log.warning("a message on %s is rejected: %s", link, error)
        if now >= self._look:
            self._look = now + LOOK
            self._do(self._dispatcher.tick(now))
        if now >= self._beat:
            self._beat = now + BEAT
            self._round(now)
        self._publisher.flush()

    def _timelines(self) -> list[Timeline]:
        return [camera.timeline for camera in self._cameras.values() if camera.timeline]

    # Captures

    def _on_frames(self, peer: bytes, parts: list[Any]) -> None:
        now = time.monotonic()
        try:
            message = wire.unpack(parts, verify=False)
        except WireError:
            # The frame was sent and is not here: its capture's next totals will tell, and it counts as lost.
            if peer not in self._peers:
                self._hub.send("frames", peer, wire.json_message(Kind.WHO))
            raise
        name = self._peers.get(peer)
        if message.kind is Kind.HELLO:
            self._hello(peer, message, now)
        elif name is None:
            self._hub.send("frames", peer, wire.json_message(Kind.WHO))
        else:
            camera = self._cameras[name]
            camera.heard, camera.silent = now, False
            self._on_camera(camera, message, parts, now)

    def _on_camera(self, camera: Camera, message: Message, parts: list[Any], now: float) -> None:
        if camera.ended:  # its books are closed; it has not heard our leave-taking yet
            self._hub.send("frames", camera.peer, wire.json_message(Kind.GOODBYE))
        elif message.kind is Kind.FRAME:
            camera.age = message.age / 1e6
            camera.way = now - (self._dispatcher.asked(camera.name) or now)
            arrival = Arrival(message.time, (message.width, message.height), camera.epoch, camera.timeline)
            taken = now - message.age / 1e6
            lying = message.encoding is wire.Encoding.SHARED
            strange = lying and not (camera.shares and shared.owner(message.payload) == camera.pid)
            refused = "corrupt" if strange else ""
            self._do(
                self._dispatcher.frame(
                    camera.name, message.seq, parts, taken, message.totals, now, refused, about=arrival
                )
            )
        elif message.kind is Kind.OFFER:
            held_up = self._stopping or (self._publisher.failing and camera.policy == "wait")
            full = message.body().get("full") is True and not held_up
            self._do(self._dispatcher.offer(camera.name, message.totals, full, now))
            if camera.live and message.time and camera.timeline and not self._dispatcher.unresolved(camera.name):
                patience = max(self._settings.dispatch.offline_after, 2 * camera.pause, 3 * camera.way)
                self._publisher.record(camera.timeline.tick(Nanoseconds(message.time), patience))
        elif message.kind is Kind.BYE:
            self._do(self._dispatcher.offer(camera.name, message.totals, full=False, now=now))
            reason = str(message.body().get("reason"))
            camera.leaving = reason if reason in ("end of stream", "source failed") else "capture ended"
            self._take_leave(camera)

    def _hello(self, peer: bytes, message: Message, now: float) -> None:
        new, told = Camera.from_hello(peer, message, now)
        name = new.name
        if reason := self._hub.objection(peer, name):
            _log.warning("a capture is refused: %s", reason)
            self._hub.send("frames", peer, wire.json_message(Kind.REFUSED, {"reason": reason, "final": True}))
            return
        old = self._cameras.get(name)
        if old is not None and old.incarnation == new.incarnation:
            old.heard, old.peer = now, peer
            self._peers[peer] = name
        elif old is not None and not old.leaving and not self._silent(old, now):
            reason = (
                f"camera {name} is captured by process {old.pid} already: stop that one, or choose another --camera"
            )
            self._hub.send("frames", peer, wire.json_message(Kind.REFUSED, {"reason": reason, "final": False}))
            return
        else:
            try:
                self._join(new, old, message, told, now)
            except RivalError:
                raise
            except JournalError as error:  # it says HELLO again soon
                _log.warning("camera %s has to wait: %s", name, error)
                return
        here = {"memory": self._cameras[name].shares}
        self._hub.send("frames", peer, wire.json_message(Kind.WELCOME, here, epoch=self._cameras[name].epoch))

    def _join(self, new: Camera, old: Camera | None, message: Message, told: dict[str, int], now: float) -> None:
        new.epoch = self._journal.epoch(new.name)
        if old is not None:
            self._peers.pop(old.peer, None)
            new.export, new.rate = old.export, old.rate
            new.ending = old.ending + ([old.timeline] if old.timeline else [])
        metrics.remember(new.name)
        self._cameras[new.name] = new
        self._peers[new.peer] = new.name
        if self._labels:
            self._begin(new)
        self._do(self._dispatcher.joined(new.name, new.policy, message.totals, told, now))
        if old is None and message.totals.sent:  # it was another aggregator's, which has exported all that it told
            known = self._dispatcher.ledger(new.name)
            known.lost_link = told.get("lost_link", 0)  # it could not tell of those that were lost with it
            new.export.begin(known)
        _log.info("camera %s is here", new.name, extra={"epoch": new.epoch, "pid": new.pid})

    def _begin(self, camera: Camera) -> None:
        if self._labels is None:
            raise AssertionError("no timeline before there are labels")
        how = self._settings
        attention = Attention(how.search, camera.policy, how.depth)
        camera.timeline = Timeline(camera.name, camera.epoch, self._labels, how.tracker, how.smoother, attention)

    def _take_leave(self, camera: Camera) -> None:
        """Once every frame of a capture that ends is resolved: close its events, journal them, and let it go."""
        self._publisher.flush()
        if self._dispatcher.unresolved(camera.name) or self._publisher.failing:
            return
        camera.ended = True
        self._dispatcher.left(camera.name)
        if camera.timeline:
            self._publisher.record(camera.timeline.offline(camera.leaving))
        self._publisher.flush()
        self._hub.send("frames", camera.peer, wire.json_message(Kind.GOODBYE))

    # Workers

    def _on_work(self, peer: bytes, parts: list[Any]) -> None:
        now, worker = time.monotonic(), peer.hex()
        message = wire.unpack(parts)
        if message.kind is Kind.READY:
            self._ready(peer, worker, message.body(), now)
        elif message.kind is Kind.BYE:
            # With nothing in hand: a frame that crosses with this was never begun.
            self._do(self._dispatcher.unreachable(worker, now, "ended"))
        elif not self._dispatcher.heard(worker, now):
            self._hub.send("work", peer, wire.json_message(Kind.WHO))
        elif message.kind is Kind.PING:
            seconds = self._dispatcher.pinged(worker, message.ticket, message.seq, now)
            if seconds is not None:
                self._workers[worker].came(seconds, now)
        elif message.kind is Kind.DONE:
            result = wire.unpack_faces(message.payload, self._model_labels)
            self._do(self._dispatcher.done(worker, message.ticket, "done", "", result, now))
        elif message.kind is Kind.REJECT:
            reason = str(message.body().get("reason", "corrupt"))
            if reason == "memory" and self._workers[worker].shares:  # from now on it gets the pixels themselves
                _log.warning("worker %s may not open captures' memory and gets copies", self._workers[worker].name)
                self._workers[worker] = replace(self._workers[worker], shares=False)
                self._do(self._dispatcher.returned(worker, message.ticket, now))
                return
            reason = reason if reason in REASONS else "corrupt"
            self._do(self._dispatcher.done(worker, message.ticket, "rejected", reason, None, now))

    def _ready(self, peer: bytes, worker: str, about: dict[str, Any], now: float) -> None:
        if self._dispatcher.heard(worker, now):
            return  # it was asked who it is more than once, and has its credit
        new, labels = Worker.from_ready(about)
        if self._labels is None:
            self._labels = LabelSet(self._settings.labels, labels, self._settings.valence)
            self._model_labels = labels
            for camera in self._cameras.values():
                self._begin(camera)
        elif labels != self._model_labels:
            reason = (
                f"the model of worker {new.name} has the labels {', '.join(labels)}, the other workers' has "
                f"{', '.join(self._model_labels)}: give all workers the same --model"
            )
            self._hub.send("work", peer, wire.json_message(Kind.REFUSED, {"reason": reason, "final": True}))
            return
        for other, known in list(self._workers.items()):
            if (known.name, known.host) != (new.name, new.host):
                continue
            if self._hub.send("work", bytes.fromhex(other), wire.json_message(Kind.WELCOME)):  # it is still connected
                reason = f"worker {new.name} is process {known.pid} already: stop that one, or choose another --name"
                self._hub.send("work", peer, wire.json_message(Kind.REFUSED, {"reason": reason, "final": False}))
                return
            self._do(self._dispatcher.gone(other, "replaced", now))
        self._workers[worker] = new
        self._hub.send("work", peer, wire.json_message(Kind.WELCOME))
        self._do(self._dispatcher.ready(worker, now))
        _log.info("worker %s is here", new.name, extra={"pid": new.pid, "model": new.model})

    # What the dispatcher says

    def _do(self, commands: Iterable[Command]) -> None:
        todo = list(commands)
        while todo:
            command = todo.pop(0)
            match command:
                case Ask(name):
                    told = self._dispatcher.told(name)
                    camera = self._cameras[name]
                    message = wire.json_message(Kind.NEXT, told, age=round(camera.way * 1e6))
                    self._hub.send("frames", camera.peer, message)
                case Assign(worker, ticket, item):
                    if not self._send_frame(worker, ticket, item):
                        todo += self._dispatcher.unreachable(worker, time.monotonic())
                case Fence(worker, reason):
                    self._fence(worker, reason)
                case Release(item):
                    self._release(item)

    def _timeline(self, item: Item) -> Timeline | None:
        camera = self._cameras[item.camera]
        return item.about.timeline or (camera.timeline if item.about.epoch == camera.epoch else None)

    def _send_frame(self, worker: str, ticket: int, item: Item) -> bool:
        arrival: Arrival = item.about
        age = time.monotonic() - item.taken
        metrics.frame_age.labels(item.camera).observe(age)
        timeline, frame = self._timeline(item), item.frame
        self._publisher.preview(item.camera, arrival.epoch, frame, self._reader.fetched)
        if not self._workers[worker].shares:
            frame = self._reader.fetched(frame)
        self._workers[worker].pace.size = memoryview(frame[1]).nbytes
        parts = wire.forwarded(
            frame,
            epoch=arrival.epoch,
            ticket=ticket,
            age=max(0, round(age * 1e6)),
            hints=timeline.hints(item.seq, Nanoseconds(arrival.time), arrival.size) if timeline else None,
        )
        return self._hub.send("work", bytes.fromhex(worker), parts)

    def _fence(self, worker: str, reason: str) -> None:
        known = self._workers.pop(worker, None)
        metrics.fenced.labels(reason).inc()
        if known and reason != "ended":
            _log.warning("worker %s is given up: %s", known.name, reason, extra={"pid": known.pid})

    def _release(self, item: Item) -> None:
        camera, arrival, timeline = self._cameras[item.camera], item.about, self._timeline(item)
        # Frames are released in order, so one of a newer capture means that the older ones are through.
        while camera.ending and camera.ending[0] is not timeline:
            self._publisher.record(camera.ending.pop(0).offline("capture restarted"))
        if item.outcome == "done" and timeline is not None:
            found: wire.Result = item.result
            metrics.faces.labels(item.camera).inc(len(found.faces))
            when = Nanoseconds(arrival.time)
            self._publisher.record(timeline.observe(item.seq, when, arrival.size, found.faces, found.searched))
            self._publisher.observe(timeline)
            now = time.monotonic()
            camera.rate.add(now)
            metrics.latency.labels(item.camera).observe(now - item.taken)
        elif timeline is not None:
            timeline.miss(item.seq)
        if camera.leaving:
            self._take_leave(camera)

    # Clients

    def _on_control(self, peer: bytes, parts: list[Any]) -> None:
        message = wire.unpack(parts)
        if message.kind is Kind.STATUS:
            self._publisher.flush()
            self._hub.send("control", peer, wire.json_message(Kind.STATUS, self.status(), ticket=message.ticket))
        elif message.kind is Kind.REPLAY:
            self._publisher.replay(peer, message)

    def status(self) -> dict[str, Any]:
        """Return how things stand, as JSON: cameras, workers, ledger, open intervals, journal."""
        now = time.monotonic()
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "cursor": self._publisher.cursor,
            "events_held": self._publisher.held,
            "labels": list(self._labels.labels) if self._labels else [],
            "memory": shared.identity(),
            "cameras": {camera.name: self._camera_status(camera, now) for camera in self._cameras.values()},
            "workers": self._worker_status(),
            "sinks": deliveries(),
            "events": dict(sorted(self._publisher.counted.items())),
        }

    def _worker_status(self) -> dict[str, Any]:
        states = self._dispatcher.workers()
        names = Counter(known.name for known in self._workers.values())
        return {
            known.name if names[known.name] == 1 else f"{known.name} at {known.host}": {
                "state": states[worker][0],
                "frames": states[worker][1],
                "pid": known.pid,
                "model": known.model,
                "detector": known.detector,
            }
            for worker, known in self._workers.items()
        }

    def _camera_status(self, camera: Camera, now: float) -> dict[str, Any]:
        timeline = camera.timeline
        return {
            "state": "ended" if camera.ended else "online" if timeline and timeline.online else "offline",
            "epoch": camera.epoch,
            "pid": camera.pid,
            "policy": camera.policy,
            "live": camera.live,
            "frames": camera.frames,
            "rate": 0.0 if camera.ended else camera.rate.now(),
            "frame_age_s": round(camera.age, 4),
            "heard_s": round(now - camera.heard, 2),
            "ledger": self._dispatcher.ledger(camera.name).as_dict(),
            "tracks": describe(timeline) if timeline else [],
        }

    # Time

    def _round(self, now: float) -> None:
        self._do(self._dispatcher.tick(now))
        for camera in self._cameras.values():
            if self._publisher.failing and camera.policy == "wait":
                self._dispatcher.silent(camera.name)  # until it can be written, and the camera offers again
            if not (camera.leaving or camera.silent) and self._silent(camera, now):
                camera.silent = True
                self._dispatcher.silent(camera.name)
                _log.warning("camera %s is silent", camera.name, extra={"pid": camera.pid})
            if not self._dispatcher.unresolved(camera.name):
                for timeline in camera.ending:
                    self._publisher.record(timeline.offline("capture restarted"))
                camera.ending = []
                if camera.silent and camera.timeline:
                    self._publisher.record(camera.timeline.offline("capture silent"))
            if camera.leaving and not camera.ended:  # what kept it may be over
                self._take_leave(camera)
            camera.export.export(self._dispatcher.ledger(camera.name))
            metrics.camera_online.labels(camera.name).set(bool(camera.timeline and camera.timeline.online))
            metrics.waiting.labels(camera.name).set(self._dispatcher.waiting(camera.name))
            metrics.tracks.labels(camera.name).set(len(camera.timeline.tracks) if camera.timeline else 0)
        for name in [name for name, camera in self._cameras.items() if camera.over(now, self._settings.dispatch)]:
            self._forget(name)
        states = Counter(state for state, _ in self._dispatcher.workers().values())
        for state in ("idle", "busy"):
            metrics.workers.labels(state).set(states[state])
        if descriptors := machine.descriptors():
            metrics.descriptors_open.set(descriptors[0])
            metrics.descriptors_limit.set(descriptors[1])
        metrics.events_held.set(self._publisher.held)
        self._publisher.purge(now, self._settings.journal.retention_days * 86_400)
        self._publisher.flush()
        self._publisher.beat()

    def _forget(self, name: str) -> None:
        if self._dispatcher.unresolved(name):
            return
        _log.info("camera %s is forgotten: its capture has gone", name)
        self._peers.pop(self._cameras.pop(name).peer, None)
        self._dispatcher.forget(name)
        metrics.forget(name)

    def _silent(self, camera: Camera, now: float) -> bool:
        """Whether a capture is silent. While a frame is on its way all else waits behind it: the connection tells."""
        how, quiet = self._settings.dispatch, now - camera.heard
        if quiet <= how.silence:
            return False
        comes = self._dispatcher.asked(camera.name) is not None and quiet < how.transfer
        return not (comes and self._hub.send("frames", camera.peer, wire.json_message(Kind.PING)))

    def drain(self) -> None:
        """End: let workers finish what they hold, close everything that is open, and journal it.

        Raises:
            JournalError: it cannot be written until the end.
        """
        self._stopping = True
        deadline = time.monotonic() + DRAIN
        for name in self._cameras:
            self._dispatcher.silent(name)
        while any(map(self._dispatcher.unresolved, self._cameras)) and time.monotonic() < deadline:
            self.turn(0.05)
        self._round(time.monotonic())  # the last that may resolve a frame; after it nothing opens again
        for camera in self._cameras.values():
            for timeline in (*camera.ending, camera.timeline):
                if timeline:
                    self._publisher.record(timeline.offline("aggregator stopped"))
            camera.ending = []
            camera.export.export(self._dispatcher.ledger(camera.name))
        self._publisher.close()
        self._publisher.beat()


def run(settings: Settings, stop: Stop | None = None) -> None:
    """Aggregate until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: the whole tree.
        stop: ends the aggregator when it is set; by default the process's signals do.

    Raises:
        TransportError: the address is in use.
        JournalError: the journal cannot be written.
        ConfigError: the settings do not fit the workers' model, or the place and purpose do not allow it.
    """
    stop = stop or install_stop()
    deployment.check_purpose(settings)
    journal = Journal(settings.journal.path)
    if journal.shared:
        _log.warning(
            "the journal lies on %s, where locks may not keep an aggregator on another machine out: "
            "a disk of this machine is safer, and faster",
            journal.shared,
        )
    try:
        hub = plugins.transport(settings).bind(settings.address)
        try:
            deployment.check_reach(settings)  # after the keys, which binding asks for; nobody has been answered yet
            aggregator = Aggregator(settings, hub, journal)
            server = metrics.serve(settings, lambda: aggregator.ready)
            what_for = settings.deployment.model_dump(exclude_none=True) or {"purpose": None}
            _log.info("ready at %s", settings.address, extra={"journal": str(settings.journal.path), **what_for})
            try:
                with nullcontext() if supervised() else instances.announced(settings.address):
                    while not (stop.is_set() or parent_gone()):
                        aggregator.turn(BEAT / 2)
                aggregator.drain()
            finally:
                if server:
                    server.close()
        finally:
            hub.close()
    finally:
        journal.close()
