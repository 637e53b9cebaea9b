"""The aggregator's loop: it receives messages, dispatches frames, and journals events before they are published.

One thread owns all sockets and the journal's writer, and waits for neither. Each turn of the loop passes the received
messages to `Captures`, `Workers` or the `Publisher`. `Captures` and `Workers` call the `Dispatcher`, whose commands are
carried out at once. The events of a turn are stored together, before any of them is published.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.aggregator import cell
from fer_stream.aggregator.allowed import following
from fer_stream.aggregator.annotations import Annotations
from fer_stream.aggregator.captures import Captures
from fer_stream.aggregator.dispatcher import FENCES, Ask, Assign, Dispatcher, Fence, Release
from fer_stream.aggregator.membership import Alone
from fer_stream.aggregator.publisher import Publisher
from fer_stream.aggregator.status import status
from fer_stream.aggregator.workers import Workers
from fer_stream.errors import WireError
from fer_stream.operations import instances, metrics
from fer_stream.operations.process import install_stop, parent_gone, supervised
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings import deployment
from fer_stream.system import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fer_stream.aggregator.dispatcher import Command
    from fer_stream.aggregator.membership import Membership
    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Hub, JournalWriter
    from fer_stream.protocol.messages import Message
    from fer_stream.protocol.results import Result
    from fer_stream.settings.tree import Settings

BEAT = 0.5
"""Seconds between rounds, which find silent cameras, export metrics and publish the cursor."""

LOOK = 0.2
"""Seconds between checks for silent or late workers."""

LEAVE = 10.0
"""Seconds for giving everything to other aggregators after the aggregator was told to stop."""

DRAIN = 1.5
"""Seconds for workers to finish their frames after the aggregator was told to stop."""

_log = logging.getLogger(__name__)


class Aggregator:
    """See the module docstring. Call `turn` in a loop, then `drain`."""

    def __init__(self, settings: Settings, hub: Hub, membership: Membership) -> None:
        self._settings = settings
        self._hub = hub
        self._membership = membership
        self._dispatcher: Dispatcher[Message, Result] = Dispatcher(settings.dispatch, settings.depth)
        self._publisher = Publisher(hub, membership.partitions, membership.journals)
        self.captures = Captures(settings, hub, self._dispatcher, self._publisher, self._carry_out, membership)
        self.workers = Workers(
            settings, hub, self._dispatcher, self._publisher, self.captures, self._carry_out, membership
        )
        self._annotations = Annotations(
            hub, self._publisher, lambda: self.workers.labels.labels if self.workers.labels else ()
        )
        self._receivers: dict[str, Callable[[bytes, list[Any]], None]] = {
            "frames": self.captures.receive,
            "work": self.workers.receive,
            "control": self._control,
        }
        self._next_round = self._next_look = 0.0
        self._started = time.monotonic()
        for counter, values in ((metrics.fenced, FENCES), (metrics.rejected_messages, plugins.LINKS)):
            for value in values:
                counter.labels(value)  # create the label sets up front so that rate() sees the first increment
        membership.begin(self._publisher, self.captures, self.workers)

    @property
    def ready(self) -> str:
        """What is missing before frames can be processed; empty if nothing is."""
        if self._publisher.failing:
            return "a journal that can be written"
        return self._membership.missing or ("" if self.workers.known else "a worker")

    def turn(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for messages, handle them, and do what is due.

        Raises:
            ConfigError: the settings do not fit the first worker's model.
            RivalError: another aggregator has taken over.
        """
        timeout = min(timeout, self._membership.pace, max(0.0, self._next_look - time.monotonic()))
        received = self._hub.receive(timeout)
        # Take the time before processing: messages still queued do not count as silence.
        now = time.monotonic()
        for link, peer, parts in received:
            try:
                if link in plugins.BROADCASTS:
                    self._publisher.listener(link, bytes(parts[0]), self.captures.timelines())
                else:
                    self._receivers[link](peer, parts)
            except WireError as error:
                metrics.rejected_messages.labels(link).inc()
                _log.warning("a message on %s is rejected: %s", link, error)
        if now >= self._next_look:
            self._next_look = now + LOOK
            self._carry_out(self._dispatcher.tick(now))
        if now >= self._next_round:
            self._next_round = now + BEAT
            self.round(now)
        self._publisher.flush()
        self._annotations.flush()
        self.captures.settle()
        self._membership.turn(time.monotonic())

    def _carry_out(self, commands: Iterable[Command[Message, Result]]) -> None:
        todo = list(commands)
        while todo:
            match todo.pop(0):
                case Ask(camera):
                    self.captures.ask(camera)
                case Assign(worker, ticket, item):
                    if not self.workers.send(worker, ticket, item):
                        unsent = [each for each in todo if isinstance(each, Assign) and each.worker == worker]
                        todo = [each for each in todo if each not in unsent]
                        tickets = [ticket, *(each.ticket for each in unsent)]
                        todo += self._dispatcher.unreachable(worker, tickets, time.monotonic())
                case Fence(worker, reason):
                    self.workers.fence(worker, reason)
                case Release(item):
                    self.captures.release(item)

    def _control(self, peer: bytes, parts: list[Any]) -> None:
        message = messages.unpack(parts)
        reads = self._hub.may_read(peer)
        if message.kind is Kind.STATUS:
            parts_only = message.body().get("parts") is True
            if not (reads or parts_only):
                raise WireError("a STATUS with a key that may not read it")
            self._publisher.flush()
            body = {"parts": self._membership.parts()} if parts_only else self.status()
            self._hub.send("control", peer, messages.json_message(Kind.STATUS, body, ticket=message.ticket))
        elif message.kind is Kind.REPLAY:
            self._publisher.replay(peer, message, withheld=not reads)
        elif message.kind in (Kind.ANNOTATE, Kind.ANNOTATIONS):
            self._annotations.receive(peer, message)

    def status(self) -> dict[str, Any]:
        """Return the state as a JSON object: see `fer_stream.aggregator.status.status`."""
        now = time.monotonic()
        return status(self.captures, self.workers, self._publisher, self._membership, self._started, now)

    def round(self, now: float) -> None:
        """Do what is due every `BEAT` seconds: silent cameras, metrics, retention, and publishing the cursor."""
        self._carry_out(self._dispatcher.tick(now))
        self.captures.round(now)
        self.workers.round(now)
        states = self.workers.states()
        for state in ("idle", "busy"):
            metrics.workers.labels(state).set(states[state])
        if descriptors := machine.descriptors():
            metrics.descriptors_open.set(descriptors[0])
            metrics.descriptors_limit.set(descriptors[1])
        metrics.events_held.set(self._publisher.held)
        self._membership.export(now)
        self._publisher.purge(now, self._settings.journal.retention_days * 86_400)
        self._publisher.flush()
        self._publisher.beat()

    def leave(self) -> None:
        """Give everything to other aggregators, if there are any, for up to `LEAVE` seconds. The rest ends here.

        Raises:
            RivalError: as `turn`.
        """
        deadline = time.monotonic() + LEAVE
        self._membership.leave()
        while not self._membership.left and time.monotonic() < deadline:
            self.turn(BEAT)

    def drain(self) -> None:
        """End: let workers finish their frames for `DRAIN` seconds, end all timelines, and journal the events.

        Raises:
            JournalError: the journal still cannot be written.
        """
        deadline = time.monotonic() + DRAIN
        self.captures.stop()
        while self.captures.busy() and time.monotonic() < deadline:
            self.turn(0.05)
        self.round(time.monotonic())  # may resolve frames for the last time
        self.captures.close()
        self._publisher.end()
        self._publisher.beat()


def run(settings: Settings, stop: Stop | None = None, alone: Callable[[JournalWriter], Membership] = Alone) -> None:
    """Run an aggregator until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: all settings. If they name a cell, it is a member of that one.
        stop: ends the aggregator when it is set; by default set by the process's signals.
        alone: makes the membership of one that is not in a cell.

    Raises:
        TransportError: the address is in use.
        JournalError: the journal cannot be written.
        ConfigError: the settings do not fit the workers' model, the purpose is prohibited, or none is set although
            other machines can reach the aggregator; or a cell's settings do not fit together.
    """
    stop = stop or install_stop()
    deployment.check_purpose(settings)
    place = plugins.journal(settings.journal)
    with ExitStack() as last:
        journal = None if settings.fleet.cell else last.enter_context(closing(place.writer()))
        # A transport of another package may know no cells, and needs no argument for one.
        allowed = last.enter_context(following(settings)) if settings.fleet.cell else None
        how = {"allowed": allowed} if allowed is not None else {}
        hub = last.enter_context(closing(plugins.transport(settings).bind(settings.own_address, **how)))
        deployment.check_reach(settings)  # after `bind`, which checks for keys; no peer has been answered yet
        here = alone(journal) if journal else last.enter_context(cell.join(settings, hub.key, hub.wake))
        aggregator = Aggregator(settings, hub, here)
        if server := metrics.serve(settings, lambda: aggregator.ready):
            last.callback(server.close)
        what_for = settings.deployment.model_dump(exclude_none=True) or {"purpose": None}
        _log.info("ready at %s", settings.address, extra={"journal": place.name, **what_for})
        with nullcontext() if supervised() else instances.announced(settings.address):
            while not (stop.is_set() or parent_gone()):
                aggregator.turn(BEAT / 2)
        aggregator.leave()
        aggregator.drain()
