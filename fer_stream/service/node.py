"""`fer-stream node`: what one machine of a cell does. It captures its share of the cell's cameras.

Each node knows the registry and the other nodes, and computes its share (`fer_stream.fleet.nodes`). It runs a capture
for each of its cameras (`fer_stream.service.supervisor`), which connects to the aggregators of the cell. If wanted, it
runs an aggregator and workers on this machine, too. While the engine is away, everything goes on as it is.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

from fer_stream import plugins
from fer_stream.client import ask_status
from fer_stream.errors import ConfigError, TransportError
from fer_stream.fleet import nodes, values
from fer_stream.fleet.commons import ALIVE, EXPIRY, NODES, REGISTRY, commons
from fer_stream.operations import instances
from fer_stream.operations.logs import tell_error
from fer_stream.operations.process import install_stop, supervising
from fer_stream.service.cell import ANY, STATES, decode, encode_states
from fer_stream.service.supervisor import CAPTURE_GRACE, CameraState, NodeRoles, Supervisor
from fer_stream.settings import tree
from fer_stream.settings.deployment import check_purpose
from fer_stream.sources import local
from fer_stream.system import machine
from fer_stream.transports.keys import CellList

if TYPE_CHECKING:
    from fer_stream.fleet.commons import Board, Commons, Notice
    from fer_stream.fleet.records import Status
    from fer_stream.operations.process import Stop
    from fer_stream.plugins import Peer
    from fer_stream.service.children import Child
    from fer_stream.settings.tree import CameraSettings, Settings

TURN = 0.1
"""Seconds between two looks at what has arrived from the engine."""

CHECK = 0.5
"""Seconds between two checks of the children."""

TELL = 2.0
"""Seconds after which a node tells the states of its cameras again, although none has changed."""

GRACE = 15.0
"""Seconds that the aggregator and the workers have to end: an aggregator gives its partitions to others before."""

_log = logging.getLogger(__name__)


def run(settings: Settings, roles: NodeRoles, stop: Stop | None = None) -> int:
    """Run this machine's node until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: all settings; ``fleet.cell`` and ``journal.path`` name the cell. If the address is set, the captures
            connect to it, else to the cell's aggregators.
        roles: what it runs besides captures.
        stop: ends the node when it is set; by default the process's signals set it.

    Returns:
        0; or the exit code of a process that could not work, or lost events at its end.

    Raises:
        ConfigError: the settings name no cell, or another node has this machine's name.
        JournalError: the cell's servers cannot be used at the start.
    """
    stop = stop or install_stop()
    shared = commons(settings)
    if settings.cameras:
        _log.warning(
            "a node captures what the registry of its cell says: the cameras %s in the settings are not used; add them "
            "with `fer-stream cameras add`",
            ", ".join(settings.cameras),
        )
        settings = settings.model_copy(update={"cameras": {}})
    with ExitStack() as last:
        claim = last.enter_context(instances.Claim())
        control: Peer | None = None
        if (aggregator := roles.aggregator) is not None:
            # The keys of its own folder open every aggregator of the cell, so what runs beside it needs no other.
            aggregator = aggregator.model_copy(update={"key": None})
            roles = roles._replace(aggregator=aggregator)
            check_purpose(aggregator)
            transport, allowed = plugins.transport(aggregator), CellList.of(aggregator)
            settings = settings.model_copy(update={"key": None}) if allowed else settings
            # Another aggregator there would be taken for ours.
            transport.bind(aggregator.own_address, **{"allowed": allowed} if allowed else {}).close()
            last.enter_context(supervising())
            control = transport.connect(aggregator.own_address, "control")
            last.callback(control.close)
        # Set this before the import of the metrics module, which reads it only once.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(claim.path / "metrics")
        (claim.path / "metrics").mkdir()
        node = _Node(
            settings, roles, shared, Supervisor(settings, claim.path, False, (claim.lock,), (), roles), control
        )
        last.callback(node.close)
        if settings.metrics:
            from fer_stream.operations import metrics  # noqa: PLC0415

            server = metrics.serve(settings, node.missing)
            last.callback(server.close if server else lambda: None)
        last.enter_context(instances.announced(aggregator.address) if aggregator else nullcontext())
        return node.run(stop)


class _Registry:
    """The cameras of the cell, as the registry says."""

    def __init__(self, present: dict[str, str]) -> None:
        self.cameras: dict[str, CameraSettings] = {}
        self.invalid: dict[str, str] = {}
        """The reason for each camera whose settings this version cannot use."""
        self.pins: dict[str, str] = {}
        """The machine that each camera is pinned to, or an empty text; another object after each `settle`."""
        self._texts: dict[str, str] = {}
        self._changed: dict[str, str | None] = {}  # pins; None: the camera was removed
        for name, text in present.items():
            self.take(name, text)
        self.settle()

    def take(self, name: str, text: str) -> None:
        """Take a value of the registry; an empty text: the camera was removed."""
        if self._texts.get(name, "") == text:  # a watch that begins anew repeats all values
            return
        self.cameras.pop(name, None)
        self.invalid.pop(name, None)
        self._changed[name] = None
        if not text:
            del self._texts[name]
            return
        self._texts[name] = text
        found = decode(text)
        pin = found.get("machine", ANY)
        try:
            camera = tree.cameras({name: found})[name]
            if "machine" not in found and local(camera):
                raise ConfigError(f"the source of camera {name} belongs to a machine: say to which one with --machine")
            self.cameras[name] = camera
        except ConfigError as error:
            self.invalid[name] = str(error)
        self._changed[name] = "" if pin == ANY else str(pin)

    def settle(self) -> None:
        """Bring `pins` up to date, once for several changes."""
        if self._changed:
            pins = self.pins | self._changed
            self.pins = {name: pin for name, pin in pins.items() if pin is not None}
            self._changed = {}


class _Aggregators:
    """The aggregators of the cell, as far as they were heard lately."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[Status, float]] = {}

    def hear(self, member: str, text: str, now: float) -> None:
        found = values.decode_status(text)
        if found is not None:
            self._heard[member] = found[1], now

    def address(self) -> str:
        """Return their addresses with their keys; while the engine is away, those that were there before."""
        if not self._heard:
            return ""
        latest = max(heard for _, heard in self._heard.values())
        self._heard = {me: one for me, one in self._heard.items() if latest - one[1] < EXPIRY}
        staying = [status.place for status, _ in self._heard.values() if not status.leaving]
        places = staying or [status.place for status, _ in self._heard.values()]
        return ",".join(sorted({f"{one.address}#{one.key}" if one.key else one.address for one in places}))


class _Node:
    """See the module docstring."""

    def __init__(
        self, settings: Settings, roles: NodeRoles, shared: Commons, supervisor: Supervisor, control: Peer | None
    ) -> None:
        self._settings, self._roles, self._supervisor, self._control = settings, roles, supervisor, control
        self._here = settings.fleet.here
        with shared.table(settings.fleet, REGISTRY) as table:
            self._registry = _Registry(table.read())
        self._aggregators = _Aggregators()
        self._given = settings.address if instances.given(settings) else ""
        self._nodes = nodes.Nodes(self._here, secrets.token_hex(8), time.time(), machine.cores().amount)
        self._board: Board = shared.board(settings.fleet, lambda: None)
        self._captured: dict[str, CameraSettings] = {}
        self._without: dict[str, str] = {}
        """Cameras of this machine that it does not capture, and why."""
        self._told, self._tell_by = "", 0.0
        self._leaving = False

    def run(self, stop: Stop) -> int:
        self._supervisor.start()
        _log.info("ready", extra={"cell": self._settings.fleet.cell, "machine": self._here})
        failed: Child | None = None
        checked = 0.0
        while failed is None and not stop.wait(TURN):
            self._listen()
            self._share_out()
            now = time.monotonic()
            if now - checked >= CHECK or self._supervisor.due():
                checked = now
                failed = self._check()
        return self._end(failed)

    def missing(self) -> str:
        """Return what is missing until this node works, for ``/readyz``."""
        found = [] if self._address() else ["an aggregator of the cell"]
        found += [] if self._nodes.counting else ["the other nodes' word"]
        return ", ".join([*found, *self._supervisor.missing(self._supervisor.reported)])

    def close(self) -> None:
        """Kill the children that still run, and leave the engine."""
        self._supervisor.close()
        self._board.close()

    # What arrives

    def _listen(self) -> None:
        """Take what has arrived, and write the beat that is due.

        Raises:
            ConfigError: another node has this machine's name.
        """
        now = time.monotonic()
        for notice in self._board.notices():
            if notice.bucket == REGISTRY:
                self._registry.take(notice.key, notice.text)
            elif notice.bucket == ALIVE:
                self._aggregators.hear(notice.key, notice.text, now)
            else:
                self._hear(notice, now)
        self._registry.settle()
        beat = self._nodes.beat(len(self._captured), self._leaving, now)
        if beat is not None:
            self._board.say(self._here, nodes.encode(beat))

    def _hear(self, notice: Notice, now: float) -> None:
        beat = nodes.decode(notice.text) if notice.bucket == NODES and not notice.key.startswith(STATES) else None
        if beat is not None:
            self._nodes.hear(notice.key, beat, notice.live, now)

    # What follows

    def _address(self) -> str:
        return self._given or self._aggregators.address()

    def _share_out(self) -> None:
        """Start and end captures as the assignment says."""
        mine = sorted(self._nodes.mine(self._registry.pins, time.monotonic()))
        most, address = self._settings.max_cameras, self._address()
        known = [name for name in mine if name in self._registry.cameras]
        self._without = {name: self._registry.invalid[name] for name in mine if name in self._registry.invalid}
        self._without |= dict.fromkeys(known[most:], f"this machine captures max_cameras ({most}) cameras already")
        wanted = {name: self._registry.cameras[name] for name in known[:most]}
        if not address:
            self._without |= dict.fromkeys(wanted, "no aggregator of the cell is there yet")
            return
        self._supervisor.aim(address)
        if wanted != self._captured:
            for what, names in (
                ("captures", wanted.keys() - self._captured.keys()),
                ("no longer captures", self._captured.keys() - wanted.keys()),
            ):
                if names:
                    _log.info("%s %s %s", self._here, what, ", ".join(sorted(names)))
            self._supervisor.apply(wanted, self._registry.pins.keys())
            self._captured = wanted

    def _check(self) -> Child | None:
        """Look after the children; return one whose failure ends the node."""
        for camera in self._supervisor.note_reports(self._ask()):
            if self._settings.metrics:
                from fer_stream.operations import metrics  # noqa: PLC0415

                metrics.forget(camera)
        failed = self._supervisor.watch()
        self._tell_states()
        return failed

    def _ask(self) -> int | None:
        """Ask this machine's aggregator for its status, and return its process id; ``None`` if there is no answer."""
        if self._control is None or self._roles.aggregator is None or not self._supervisor.aggregator.running:
            return None
        try:
            return int(ask_status(self._control, self._roles.aggregator.address, CHECK / 2)["pid"])
        except TransportError:
            self._supervisor.note_silence()
            return None

    def _tell_states(self) -> None:
        states = {name: CameraState("failing", 0.0, reason) for name, reason in self._without.items()}
        for name in self._supervisor.captures:
            states[name] = self._supervisor.state(name, self._supervisor.reported)
        text = encode_states(states)
        now = time.monotonic()
        if text != self._told or now >= self._tell_by:
            self._told, self._tell_by = text, now + TELL
            self._board.say(f"{STATES}{self._here}", text)

    # The end

    def _end(self, failed: Child | None) -> int:
        supervisor, self._leaving = self._supervisor, True
        self._board.say(f"{STATES}{self._here}", encode_states({}))

        def look() -> None:
            self._listen()
            time.sleep(0.02)

        supervisor.stop(list(supervisor.captures.values()), time.monotonic() + CAPTURE_GRACE, look)
        self._captured = {}
        others = [child for child in supervisor.children if child not in supervisor.captures.values()]
        supervisor.stop(others, time.monotonic() + GRACE, look)
        code = failed.code or 1 if failed else max(0, supervisor.aggregator.code or 0)
        if code:
            tell_error((failed or supervisor.aggregator).failure())
        return code
