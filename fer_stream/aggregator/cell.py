"""An aggregator's membership in a cell: it carries out what the rules (`fer_stream.fleet.member`) and the engine say.

For each partition that it owns it writes a journal. Partitions come and go::

    Serve   the partition is taken, and what was left open is closed: write its journal, welcome its cameras
    Flush   it is to be given away: its cameras end here (`Captures.closed`)
    Move    somebody else owns it: its cameras are sent there, its journal is closed
    End     somebody else has taken it, so this process ends
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.errors import ConfigError, FencedError, FerStreamError, WireError
from fer_stream.fleet import records, values
from fer_stream.fleet.driver import Driver, Shared
from fer_stream.fleet.identity import identity
from fer_stream.fleet.liveness import T
from fer_stream.fleet.member import Member
from fer_stream.fleet.ownership import GIVING, TAKING
from fer_stream.fleet.partitions import partition
from fer_stream.fleet.records import Done, Place, Unknown
from fer_stream.operations import metrics
from fer_stream.protocol import messages
from fer_stream.protocol.messages import Kind
from fer_stream.settings import deployment
from fer_stream.system import folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_stream.aggregator.captures import Captures
    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.aggregator.workers import Workers
    from fer_stream.fleet.driver import Engine
    from fer_stream.fleet.identity import Identity
    from fer_stream.fleet.records import Answer, Command
    from fer_stream.plugins import Peer, Transport
    from fer_stream.settings.tree import Settings

PACE = 0.1
"""Most seconds between two looks at what the rules and the engine say."""

FLUSH = 3.0
"""Seconds in which the cameras of a partition that is given away must end here; otherwise it stays."""

SECOND = 1.0
"""Seconds over which the least number of idle workers is reported, so that a busy one is not given away."""

_log = logging.getLogger(__name__)


@contextmanager
def join(settings: Settings, key: str, wake: Callable[[], None]) -> Iterator[CellMember]:
    """Be a member of the cell that the settings name, and leave the engine at the end.

    Args:
        settings: all settings.
        key: the public half of this aggregator's CURVE key, or an empty text.
        wake: called in another thread when something has arrived.

    Raises:
        ConfigError: the journal cannot be shared, or others cannot reach the aggregator's address.
        JournalError: the journal's servers cannot be used, or the cell has another number of partitions.
        TransportError: another process with this aggregator's address runs.
    """
    fleet, journal = settings.fleet, plugins.journal(settings.journal)
    if not isinstance(journal, Shared):
        raise ConfigError(
            f"cell {fleet.cell} needs a journal that its aggregators share, and {journal.name} is none: give NATS "
            "servers (--journal nats://HOST:PORT)"
        )
    address = fleet.advertise or settings.own_address
    if deployment.wildcard(address):
        raise ConfigError(
            f"others cannot reach this aggregator at {address}: set fleet.advertise to the address at which they can"
        )
    woken = threading.Event()

    def arrived() -> None:
        woken.set()
        wake()

    with identity(folders.state() / "cells", fleet.cell, address) as me:
        engine = journal.engine(fleet, me.me, arrived)
        try:
            yield CellMember(settings, me, Place(address, key), engine, woken)
        finally:
            engine.close()


class CellMember:
    """See the module docstring, and `fer_stream.aggregator.membership.Membership`.

    Args:
        settings: all settings.
        me: this process.
        place: where others reach it.
        engine: what the cell's aggregators share.
        woken: set by another thread when the engine has something.
    """

    pace = PACE

    def __init__(self, settings: Settings, me: Identity, place: Place, engine: Engine, woken: threading.Event) -> None:
        self.partitions = settings.fleet.partitions
        self.journals = engine
        self._cell, self._me, self._engine, self._woken = settings.fleet.cell, me.me, engine, woken
        self._member = Member(me.me, place, self.partitions, me.former)
        self._driver = Driver(self._member, engine)
        self._transport: Transport = plugins.transport(settings)
        self._place = place
        self._publisher: Publisher
        self._captures: Captures
        self._workers: Workers
        self._next = self._second = 0.0
        self._idle = 0
        self._listens = self._left = False
        self._fences: dict[int, int] = {}  # of the journals that are open
        self._flushing: dict[int, tuple[records.Flush, float]] = {}  # until when
        self._dismissed: dict[int, Place] = {}  # partitions whose cameras are sent there
        self._asked: Peer | None = None  # the aggregator that an inquiry was sent to
        for cause in ("new", "given", "former", "dead"):
            metrics.fleet_takeovers.labels(cause)

    # What the aggregator asks

    def begin(self, publisher: Publisher, captures: Captures, workers: Workers) -> None:
        """See `Membership.begin`. Partitions are taken by and by."""
        self._publisher, self._captures, self._workers = publisher, captures, workers

    def leave(self) -> None:
        """See `Membership.leave`."""
        self._member.leave()

    @property
    def left(self) -> bool:
        """See `Membership.left`."""
        return self._left or self._member.alone

    @property
    def missing(self) -> str:
        """See `Membership.missing`."""
        return "an answer from the cell's engine" if self._member.liveness.doubtful(time.monotonic()) else ""

    def answer(self, camera: str) -> Answer:
        """See `Home.answer`."""
        return self._member.answer(camera)

    def gives(self, camera: str) -> bool:
        """See `Home.gives`."""
        return self._member.partitions[partition(camera, self.partitions)].state != "owned"

    def answer_worker(self) -> Answer:
        """See `Home.answer_worker`."""
        return self._member.answer_worker()

    # Turns

    def turn(self, now: float) -> None:
        """See `Membership.turn`."""
        if now < self._next and not self._woken.is_set():
            return
        self._woken.clear()
        self._next = now + PACE
        self._report(now)
        if self._publisher.listened != self._listens:
            self._listens = self._publisher.listened
            self._engine.listen(self._listens)
        self._hear()
        self._carry_out(self._driver.turn(), now)
        for flush, until in list(self._flushing.values()):
            if self._captures.closed(self._cameras_of(flush.partition)):
                self._end_flush(flush, Done(), now)
            elif now > until:
                self._end_flush(flush, Unknown(), now)
        for number in list(self._dismissed):
            self._dismiss(number)

    def _end_flush(self, flush: records.Flush, outcome: Done | Unknown, now: float) -> None:
        del self._flushing[flush.partition]
        self._publisher.logs[flush.partition].given = isinstance(outcome, Done)
        self._carry_out(self._driver.answer(flush.call, outcome), now)

    def _carry_out(self, commands: list[Command], now: float) -> None:
        for command in commands:
            match command:
                case records.Publish(number, cursor, camera, text):
                    self._publisher.relay(number, cursor, camera, text)
                case records.Serve(number):
                    self._serve(number)
                case records.Flush():
                    self._flushing[command.partition] = command, now + FLUSH
                    self._captures.give(now)
                case records.Move(number, place):
                    self._dismissed[number] = place
                case records.MoveWorker(place):
                    self._workers.move(place)
                case records.Inquire(place):
                    self._inquire(place)
                case records.End(reason):
                    raise FencedError(f"{reason}: this aggregator ends, and may start again")
                case records.Left():
                    self._left = True

    def _serve(self, number: int) -> None:
        """Write the journal of a partition that was taken. One that was not given after all goes on."""
        one = self._member.partitions[number]
        fence = one.part.fence if one.part else 0
        if self._fences.get(number) == fence:
            self._publisher.logs[number].given = False
            return
        self._dismissed.pop(number, None)
        self._close(number)
        self._publisher.open(number, self._engine.journal(number))
        self._fences[number] = fence
        metrics.fleet_takeovers.labels(one.cause).inc()
        _log.info("partition %02x is taken", number, extra={"cause": one.cause, "fence": fence})

    def _dismiss(self, number: int) -> None:
        if self._captures.dismiss(self._cameras_of(number), self._dismissed[number]):
            _log.info("partition %02x is left to %s", number, self._dismissed.pop(number).address)
            self._close(number)

    def _close(self, number: int) -> None:
        if self._fences.pop(number, None) is not None:
            self._publisher.close(number)

    def _cameras_of(self, number: int) -> Callable[[str], bool]:
        return lambda camera: partition(camera, self.partitions) == number

    def _report(self, now: float) -> None:
        """Tell the rules the loads: the cameras that give frames, and one for each partition."""
        idle = self._workers.states()["idle"]
        self._idle = min(self._idle, idle)
        if now < self._second:
            return
        self._second = now + SECOND
        weights = dict.fromkeys(self._fences, 1.0)
        served = 0
        for camera in self._captures.cameras.values():
            number = partition(camera.name, self.partitions)
            online = camera.timeline is not None and camera.timeline.online
            if (online or camera.frames.offered) and number in weights:  # one without a worker only offers frames
                weights[number] += 1
                served += 1
        self._member.report(weights, served, len(self._workers.known), self._idle)
        self._idle = idle

    # Inquiries

    def _inquire(self, place: Place) -> None:
        """Ask another aggregator who owns what."""
        self._forget_inquiry()
        try:
            address = f"{place.address}#{place.key}" if place.key else place.address
            self._asked = self._transport.connect(address, "control")
            self._asked.send(messages.json_message(Kind.STATUS, {"parts": True}))
        except FerStreamError as error:
            _log.debug("%s cannot be asked who owns what: %s", place.address, error)

    def _hear(self) -> None:
        if self._asked is None:
            return
        try:
            parts = self._asked.receive(0)
            if parts is None:
                return
            for token, (revision, text) in messages.unpack(parts).body()["parts"].items():
                found, number = values.decode_part(text), int(token)
                if found is not None and 0 <= number < self.partitions:
                    self._carry_out(self._driver.inform(number, int(revision), found), time.monotonic())
        except FencedError:
            raise
        except (FerStreamError, WireError, KeyError, ValueError, TypeError, AttributeError) as error:
            _log.debug("an answer about who owns what is not understood: %s", error)
        self._forget_inquiry()

    def _forget_inquiry(self) -> None:
        if self._asked is not None:
            self._asked.close()
            self._asked = None

    def parts(self) -> dict[str, Any]:
        """See `Membership.parts`: the revision and value of each partition's key, by number."""
        known = [one for one in self._member.partitions if one.part is not None]
        return {str(one.partition): [one.revision, values.encode_part(one.part)] for one in known if one.part}

    # Views

    def status(self) -> dict[str, Any]:
        """See `Membership.status`. ``silent_s`` is known only as far as this process's own heartbeats prove it."""
        now, member = time.monotonic(), self._member
        owns: dict[str, list[int]] = {}
        unowned = []
        for one in member.partitions:
            if self._owned(one.partition) and one.part:
                owns.setdefault(one.part.owner, []).append(one.partition)
            else:
                unowned.append(one.partition)
        mine = {self._me: member.status(now)}
        return {
            "cell": self._cell,
            "partitions": self.partitions,
            "me": self._me,
            "aggregators": {
                name: {
                    "address": status.place.address,
                    "key": status.place.key,
                    "load": round(status.load, 1),
                    "cameras": status.cameras,
                    "workers": status.workers,
                    "idle": status.idle,
                    "leaving": status.leaving,
                    "silent_s": round(member.liveness.silence(name), 1) if name != self._me else 0.0,
                    "owns": owns.get(name, []),
                }
                for name, status in sorted((member.statuses | mine).items())
            },
            "unowned": unowned,
        }

    def _owned(self, number: int) -> bool:
        """Return whether a partition has an owner that lives."""
        part = self._member.partitions[number].part
        if part is None or not part.fence:
            return False
        return part.owner == self._me or (
            part.owner in self._member.statuses and self._member.liveness.silence(part.owner) < T
        )

    def export(self, now: float) -> None:
        """Set the metrics of the cell, as this aggregator knows it."""
        member = self._member
        states = dict.fromkeys(("owned", "taking", "giving", "other", "unowned"), 0)
        for one in member.partitions:
            if one.state in TAKING:
                states["taking"] += 1
            elif one.state in (*GIVING, "revoking"):
                states["giving"] += 1
            elif one.state == "owned":
                states["owned"] += 1
            else:
                states["other" if self._owned(one.partition) else "unowned"] += 1
        for state, count in states.items():
            metrics.fleet_partitions.labels(state).set(count)
        living = [name for name in member.statuses if member.liveness.silence(name) < T]
        metrics.fleet_aggregators.set(1 + len(living))
        doubtful = member.liveness.doubtful(now)
        metrics.fleet_doubtful.set(doubtful)
        metrics.fleet_engine_failing.set(doubtful or bool(self._engine.trouble))
