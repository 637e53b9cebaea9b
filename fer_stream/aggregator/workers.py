"""The aggregator's side of the worker protocol: workers join, receive frames, answer, and are given up."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fer_stream.aggregator.ledger import REASONS
from fer_stream.aggregator.roster import Answers, Worker
from fer_stream.events.calibration import calibrations
from fer_stream.events.smoother import LabelSet
from fer_stream.fleet.answers import to_body
from fer_stream.fleet.records import Moved
from fer_stream.operations import metrics
from fer_stream.protocol import messages, results, shared
from fer_stream.protocol.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fer_stream.aggregator.captures import Captures
    from fer_stream.aggregator.dispatcher import Command, Dispatcher
    from fer_stream.aggregator.frames import Item
    from fer_stream.aggregator.home import Home
    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.fleet.records import Place
    from fer_stream.plugins import Hub
    from fer_stream.protocol.messages import Message
    from fer_stream.protocol.results import Result
    from fer_stream.settings.tree import Settings

SECOND = 1.0
"""Seconds between two signs of life, and between two workers that are sent away."""

_log = logging.getLogger(__name__)


class Workers:
    """All workers by their peer id in hexadecimal, and the messages from and to them.

    Args:
        settings: all settings.
        hub: sends to the workers.
        dispatcher: receives the answers.
        publisher: publishes each sent frame as preview.
        captures: receive the labels of the first worker's model.
        carry_out: carries out the dispatcher's commands.
        home: says whether workers are welcome.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        dispatcher: Dispatcher[Message, Result],
        publisher: Publisher,
        captures: Captures,
        carry_out: Callable[[Iterable[Command[Message, Result]]], None],
        home: Home,
    ) -> None:
        self.known: dict[str, Worker] = {}
        self.labels: LabelSet | None = None
        """The labels that events use; ``None`` before the first worker."""
        self._settings = settings
        self._hub = hub
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._captures = captures
        self._carry_out = carry_out
        self._home = home
        self._next_second = 0.0
        self._answers = Answers(())
        self._mapped = shared.MappedFrames()

    # Messages

    def receive(self, peer: bytes, parts: list[Any]) -> None:
        """Handle a message from a worker.

        Raises:
            WireError: the message is invalid.
            ConfigError: the settings do not fit the first worker's model.
        """
        now, worker = time.monotonic(), peer.hex()
        message = messages.unpack(parts)
        if message.kind is Kind.READY:
            self._ready(peer, worker, message.body(), now)
        elif message.kind is Kind.BYE:
            self._carry_out(self._dispatcher.ended(worker, now))
        elif not self._dispatcher.heard(worker, now):
            self._hub.send("work", peer, messages.json_message(Kind.WHO))
        elif message.kind is Kind.PING:
            seconds = self._dispatcher.pinged(worker, message.ticket, message.seq, now)
            if seconds is not None:
                self.known[worker].record_transfer(seconds, now)
        elif message.kind is Kind.DONE:
            result = results.unpack_faces(message.payload, self._answers.labels, self._answers.measures)
            self._carry_out(self._dispatcher.done(worker, message.ticket, "done", "", result, now))
        elif message.kind is Kind.REJECT:
            self._reject(worker, message.ticket, str(message.body().get("reason", "corrupt")), now)

    def _reject(self, worker: str, ticket: int, reason: str, now: float) -> None:
        known = self.known[worker]
        if reason == "memory" and known.shares:  # send it pixels, not descriptors, from now on
            _log.warning("worker %s may not open captures' memory and gets copies", known.name)
            known.shares = False
            self._carry_out(self._dispatcher.returned(worker, ticket, now))
            return
        reason = reason if reason in REASONS else "corrupt"
        self._carry_out(self._dispatcher.done(worker, ticket, "rejected", reason, None, now))

    def _ready(self, peer: bytes, worker: str, about: dict[str, Any], now: float) -> None:
        if self._dispatcher.heard(worker, now):
            return  # it answered WHO more than once, and is known already
        new, answers = Worker.from_ready(about), Answers.from_ready(about)
        answer = self._home.answer_worker()
        if isinstance(answer, Moved):
            self._send_away(peer, new, answer)
            return
        if self.labels is None:
            labels = LabelSet(self._settings.labels, answers.labels, self._settings.valence)
            calibrations(self._settings.calibration, answers.labels)  # raises what `LabelSet` would, before any camera
            self._captures.begin(labels, answers.measures, self._settings.smoother.with_model(answers.smoother))
            self.labels, self._answers = labels, answers
        elif answers != self._answers:
            its, theirs = answers.unlike(self._answers)
            reason = f"the model of worker {new.name} has {its}, the other workers' has {theirs}"
            self._refuse(peer, f"{reason}: give all workers the same --model", final=True)
            return
        for other, known in list(self.known.items()):
            if (known.name, known.host) != (new.name, new.host):
                continue
            if self._ping(other):  # it is still connected
                reason = f"worker {new.name} is process {known.pid} already: stop that one, or choose another --name"
                self._refuse(peer, reason, final=False)
                return
            self._carry_out(self._dispatcher.gone(other, "replaced", now))
        commands = self._dispatcher.ready(worker, now, new.most)
        new.credit = self._dispatcher.workers[worker]
        self.known[worker] = new
        self._hub.send("work", peer, messages.json_message(Kind.WELCOME, to_body(answer)))
        self._carry_out(commands)
        _log.info("worker %s is here", new.name, extra={"pid": new.pid, "model": new.model})

    def _refuse(self, peer: bytes, reason: str, *, final: bool) -> None:
        self._hub.send("work", peer, messages.json_message(Kind.REFUSED, {"reason": reason, "final": final}))

    # Moves

    def round(self, now: float) -> None:
        """Once a second, send each worker a sign of life, and one away if workers are not welcome any more."""
        if now < self._next_second:
            return
        self._next_second = now + SECOND
        for worker, known in self.known.items():
            if known.moves:
                self._ping(worker)
        answer = self._home.answer_worker()
        if isinstance(answer, Moved) and answer.place is not None:
            self.move(answer.place)

    def move(self, place: Place) -> bool:
        """Send the worker that has been idle longest to another aggregator; return ``False`` if none is idle."""
        idle = [(known.credit.idle_since, worker) for worker, known in self.known.items() if known.movable]
        if not idle:
            return False
        worker = min(idle)[1]
        known = self.known[worker]
        self._send_away(bytes.fromhex(worker), known, Moved(place))
        # It is idle, so no frame is lost.
        self._carry_out(self._dispatcher.gone(worker, "ended", time.monotonic()))
        _log.info("worker %s is sent to %s", known.name, place.address, extra={"pid": known.pid})
        return True

    def _send_away(self, peer: bytes, worker: Worker, answer: Moved) -> None:
        if worker.moves:
            self._hub.send("work", peer, messages.json_message(Kind.MOVED, to_body(answer)))
            return
        where = f"that at {answer.place.address}" if answer.place else "another one"
        reason = f"this aggregator takes no more workers: connect worker {worker.name} to {where}, or update it"
        self._refuse(peer, reason, final=False)

    def _ping(self, worker: str) -> bool:
        return self._hub.send("work", bytes.fromhex(worker), messages.json_message(Kind.PING))

    # The dispatcher's commands

    def send(self, worker: str, ticket: int, item: Item[Message, Result]) -> bool:
        """Send a frame to a worker, and publish it as preview; return whether the worker is connected."""
        arrival, frame, known = item.arrival, item.frame, self.known[worker]
        if frame is None:
            raise AssertionError("a resolved frame is never assigned")
        age = time.monotonic() - arrival.taken
        metrics.frame_age.labels(item.camera).observe(age)
        self._publisher.preview(item.camera, arrival.epoch, frame, self._mapped.copied)
        if not known.shares:
            frame = self._mapped.copied(frame)
        known.warning.size = memoryview(frame.payload).nbytes
        parts = messages.forwarded(frame, epoch=arrival.epoch, ticket=ticket, age=max(0, round(age * 1e6)))
        timeline = self._captures.timeline(item)
        hints = timeline.hints(arrival.frame, arrival.time, arrival.size) if timeline else None
        if hints is not None:
            parts.append(results.pack_hints(hints))
        return self._hub.send("work", bytes.fromhex(worker), parts)

    def states(self) -> Counter[str]:
        """Return how many workers are idle and busy."""
        return Counter(known.credit.state for known in self.known.values())

    def fence(self, worker: str, reason: str) -> None:
        """Remove a worker that was given up, and count the reason."""
        known = self.known.pop(worker, None)
        metrics.fenced.labels(reason).inc()
        if known and reason != "ended":
            _log.warning("worker %s is given up: %s", known.name, reason, extra={"pid": known.pid})
