"""The supervisor of `fer-stream run` and `fer-stream node`: starts the roles, restarts dead ones, ends them in order.

The children are the same commands that people run by hand (``fer-stream aggregator``, ``worker``, ``capture``), so
nothing depends on the roles being on one machine.

A child that exits with 1 or 2 before it was ever ready cannot work, and the service cannot work without it. The service
then ends with this exit code and the child's error message. A child that was killed, or had worked, is restarted. So is
the capture of a camera that was added or changed at run time (`Supervisor.apply`): the service works without it.

The supervisor of a `run` learns how the children are from its aggregator's status. That of a node cannot: its captures
and workers may be at any aggregator of the cell. They report to it themselves. A node goes on without any of its
children, once they have worked.

A removed camera leaves in two steps. Its capture ends, and the aggregator resolves its last frames and closes its
events. Once a status has shown its final ledger, the aggregator may forget it.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fer_stream.errors import ConfigError
from fer_stream.events.cursor import to_cursor
from fer_stream.operations.process import REMOVED, leave_note
from fer_stream.service.children import Child
from fer_stream.settings.tree import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from fer_stream.settings.tree import CameraSettings, Settings
    from fer_stream.system.handover import Handover

REPORTED = 1.5
"""Seconds for which a child's report says that it lives."""

FROZEN = 10.0
"""Seconds without an answer after which a running aggregator is replaced; no load delays an answer this long."""

CAPTURE_GRACE = 3.5
"""Seconds that a capture has to end: its last frames are processed in that time."""

State = Literal["waiting", "starting", "online", "offline", "failing", "ended", "ending"]
"""A camera's state. ``waiting``: no node of the cell captures it; ``starting``: no frame yet; ``failing``: no frame
yet, and there is a reason; ``offline``: frames have come, and come no more; ``ended``: a recording is over; ``ending``:
its capture has been told to end."""

_log = logging.getLogger(__name__)


class CameraState(NamedTuple):
    """A camera's state, the Unix time in seconds since which it lasts, and the reason why it is not online."""

    state: State
    since: float
    reason: str


class NodeRoles(NamedTuple):
    """What a node runs besides captures: an aggregator with its settings, or ``None``, and a number of workers."""

    aggregator: Settings | None
    workers: int


class Supervisor:
    """Supervises the aggregator, workers, captures, and optionally the live page and sinks of one run; or a node's."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        live: bool = False,
        inherited: tuple[int, ...] = (),
        optional: Iterable[str] = (),
        node: NodeRoles | None = None,
        sinks: Sequence[str] = (),
        begin: int = 0,
    ) -> None:
        """Prepare the children; `start` starts them.

        Args:
            settings: the whole tree.
            folder: the run's own folder, for the children's error messages and the notes to them.
            live: whether to serve the live page.
            inherited: descriptors that every child keeps open.
            optional: the cameras without which the service works.
            node: for a node, what it runs.
            sinks: those that `fer-stream deliver` serves, besides those in ``settings.deliver``.
            begin: the cursor number after which new sinks begin.
        """
        self._settings, self._sinks = settings, list(sinks)
        self._inherited, self._node = inherited, node
        self.folder = folder
        self.aggregator = Child("aggregator", ["aggregator"], folder)
        self.workers = [
            Child(f"worker {n}", ["worker", "--name", str(n)], folder, reports=node is not None)
            for n in range(1, (settings.workers if node is None else node.workers) + 1)
        ]
        self.captures = {name: self._capture(name, name in set(optional)) for name in settings.cameras}
        self.extras = [Child("live", ["live"], folder)] if live else []
        self.delivery: Child | None = None
        """`fer-stream deliver`, which is one of the extras; ``None`` without sinks."""
        if node is None and (sinks or settings.deliver):
            self.delivery = Child("deliver", ["deliver", "--from", to_cursor(begin)], folder, reports=True)
            self.extras.append(self.delivery)
        self._file = self._saved(settings)
        self._home = self._saved(node.aggregator) if node is not None and node.aggregator else None
        """The settings of a node's aggregator, and of its workers."""
        self.reported: dict[str, Any] = {"cameras": {}, "workers": {}}
        """What the children of a node report, in the form of a status."""
        self._delivered: dict[str, Any] = {}
        self._removed: dict[str, bool] = {}
        """The removed cameras of which a trace is left, and whether the aggregator may forget them."""
        self._moved: set[str] = set()
        """The cameras that another node captures now, and whose captures here may not have ended yet."""
        self._states: dict[str, CameraState] = {}

    def _capture(self, name: str, optional: bool) -> Child:
        reports = self._node is not None
        return Child(f"capture {name}", ["capture", "--camera", name], self.folder, optional=optional, reports=reports)

    def _saved(self, settings: Settings) -> Handover:
        # The children write their metrics to shared files, and this process serves them together.
        return save(settings.model_copy(update={"metrics": None, "metrics_token": None, "sinks": self._sinks}))

    @property
    def children(self) -> list[Child]:
        """All children."""
        aggregator = [self.aggregator] if self._node is None or self._node.aggregator else []
        return [*aggregator, *self.workers, *self.captures.values(), *self.extras]

    def start(self) -> None:
        """Start all children, the slowest to warm up first. They work in any order."""
        for child in sorted(self.children, key=lambda child: child not in self.workers):
            child.start(self._file_of(child), self._inherited)

    def _file_of(self, child: Child) -> Handover:
        return self._file if self._home is None or child in self.captures.values() else self._home

    # Changes of cameras

    def apply(self, cameras: Mapping[str, CameraSettings], moved: AbstractSet[str] = frozenset()) -> None:
        """Make these the cameras of the service. Captures of cameras that stay as they are go on undisturbed.

        Args:
            cameras: the cameras.
            moved: those that another node captures from now on, so that they are not removed.
        """
        before = self._settings.cameras
        self._renew({"cameras": dict(cameras)})
        now = time.monotonic()
        for name in before.keys() - cameras.keys():
            if name in moved:
                self._moved.add(name)
            else:
                self._removed[name] = False
        for name in cameras:
            self._removed.pop(name, None)
        self._moved -= cameras.keys()
        self._tell_removed()  # before the captures end: the aggregator reads it when they sign off
        for name, capture in self.captures.items():
            if not capture.leave_by and (name not in cameras or cameras[name] != before.get(name)):
                capture.leave_by = now + CAPTURE_GRACE
                capture.terminate()
        for name in cameras.keys() - self.captures.keys():
            self._begin(name)

    def aim(self, address: str) -> None:
        """Let the children that start from now on connect to these addresses."""
        if address != self._settings.address:
            self._renew({"address": address})

    def _renew(self, changes: dict[str, Any]) -> None:
        self._settings = self._settings.model_copy(update=changes)
        old, self._file = self._file, self._saved(self._settings)
        old.close()

    def _begin(self, name: str) -> None:
        self.captures[name] = self._capture(name, optional=True)
        self._start(self.captures[name])

    def _start(self, child: Child) -> None:
        try:
            child.start(self._file_of(child), self._inherited)
        except OSError as error:  # for example because there are too many processes
            child.again(time.monotonic(), f"no process can be started: {error.strerror}")

    def _leave(self, name: str, capture: Child, now: float) -> None:
        """End a capture whose camera was changed or removed; then start the changed one."""
        if capture.running:
            if now < capture.leave_by:
                return
            _log.warning("%s did not end in time and is killed", capture.title)
            capture.kill()
        capture.ended()
        capture.forget()
        if name in self._settings.cameras:
            self._begin(name)
        else:
            del self.captures[name]

    def _note_removed(self, known: Mapping[str, Any]) -> list[str]:
        """Let the aggregator forget removed cameras whose final ledger a status has shown; return those it forgot."""
        before, gone = dict(self._removed), list(self._moved - self.captures.keys())
        self._moved -= set(gone)
        for name in gone:
            self._states.pop(name, None)
        for name in self._removed.keys() - self.captures.keys():
            if name in known:
                self._removed[name] = known[name]["state"] == "ended"
            else:
                del self._removed[name]
                self._states.pop(name, None)
                gone.append(name)
        if self._removed != before:
            self._tell_removed()
        return gone

    def _tell_removed(self) -> None:
        with suppress(OSError):  # for example a full disk; then the camera leaves like one whose capture ended
            leave_note(self.folder, REMOVED, self._removed)

    @property
    def leaving(self) -> set[str]:
        """The removed cameras of which a trace is left."""
        return set(self._removed)

    def state(self, name: str, status: Mapping[str, Any]) -> CameraState:
        """Return the state of a camera, given the latest status."""
        state, reason = self._state(name, status.get("cameras", {}).get(name))
        known = self._states.get(name)
        if known is None or known.state != state:
            known = CameraState(state, time.time(), reason)
        self._states[name] = known._replace(reason=reason)
        return self._states[name]

    def _state(self, name: str, known: Mapping[str, Any] | None) -> tuple[State, str]:
        capture = self.captures.get(name)
        if capture is None or capture.leave_by:
            return ("starting" if name in self._settings.cameras else "ending"), ""
        if capture.finished:
            return ("failing", capture.failure()) if capture.code else ("ended", "")
        if capture.process and known and known["pid"] == capture.process.pid and known["state"] != "offline":
            return ("ended" if known["state"] == "ended" else "online"), ""
        reason = capture.trouble()
        return ("offline" if capture.was_online else "failing" if reason else "starting"), reason

    # The children's lives

    def note(self, status: dict[str, Any]) -> list[str]:
        """Mark children as ready from the aggregator's status; kill workers that run but are missing in it.

        Returns:
            The removed cameras of which no trace is left since this call.
        """
        now, process = time.monotonic(), self.aggregator.process
        if process is None or status["pid"] != process.pid:
            return []  # another aggregator has this address; ours will fail because the address is in use
        if not self.aggregator.was_ready:  # a new aggregator learns of a busy worker only when the worker has finished
            for worker in self.workers:
                worker.seen = max(worker.seen, now + self._settings.dispatch.deadline)
        self.aggregator.ready(now)
        return self._note(status, now)

    def note_reports(self, pid: int | None) -> list[str]:
        """Do the same with the reports of a node's children; ``pid``: the process that its aggregator's answer has."""
        if self.aggregator.process is not None and pid == self.aggregator.process.pid:
            self.aggregator.ready(time.monotonic())
        titles = {name: child.report(REPORTED) for name, child in self.captures.items()}
        workers = {child.arguments[-1]: child.report(REPORTED) for child in self.workers}
        self.reported = {
            "cameras": {name: report for name, report in titles.items() if report and report["state"] != "starting"},
            "workers": {name: report for name, report in workers.items() if report},
        }
        gone = self._note(self.reported, time.monotonic())
        for child in self.children:  # it goes on without them, and tries again
            child.optional |= child.was_ready
        return gone

    def _note(self, status: dict[str, Any], now: float) -> list[str]:
        for worker in self.workers:
            # A worker on another machine may have the same name; then the status has the titles "NAME at MACHINE".
            name = worker.arguments[-1]
            pids = [known["pid"] for title, known in status["workers"].items() if title.split(" at ")[0] == name]
            if worker.process and worker.process.pid in pids:
                worker.ready(now)
            elif worker.running and worker.process and now - worker.seen > self._settings.dispatch.silence:
                _log.warning("%s does not answer and is replaced", worker.title, extra={"pid": worker.process.pid})
                worker.replace()
        for name, capture in self.captures.items():
            known = status["cameras"].get(name)
            if capture.process and known and known["pid"] == capture.process.pid:
                capture.ready(now)
                capture.live = known["live"]
                capture.was_online |= known["state"] == "online"
        for name in self.captures:
            self.state(name, status)
        return self._note_removed(status["cameras"])

    def note_silence(self) -> None:
        """Record that the aggregator did not answer; kill it after `FROZEN` seconds of silence."""
        child = self.aggregator
        if child.running and child.process and time.monotonic() - child.seen > FROZEN:
            _log.warning("the aggregator does not answer and is replaced", extra={"pid": child.process.pid})
            child.replace()

    def due(self) -> bool:
        """Return whether `watch` should run at once: a signal killed a child, or a changed camera's capture ended."""
        return any(child.leave_by and not child.running for child in self.captures.values()) or any(
            child.killed for child in self.children
        )

    def watch(self) -> Child | None:
        """Restart dead children; return a child whose failure ends the service, if there is one."""
        now = time.monotonic()
        for name, capture in list(self.captures.items()):
            if capture.leave_by:
                self._leave(name, capture, now)
        for child in self.children:
            if child.leave_by:
                continue
            if child.process is None and child.start_at and now >= child.start_at:
                self._start(child)
            code = child.ended()
            if code is None:
                if child in self.extras and child.running:  # the aggregator's status does not contain it
                    child.ready(now)
                continue
            if child in self.extras:  # nothing depends on it, so its failure never ends the service
                child.again(now)
                continue
            is_capture = child in self.captures.values()
            if is_capture and code == 0:
                continue  # its source has ended
            if child.optional:
                child.again(now)
                continue
            if code == ConfigError.exit_code or (code > 0 and not child.was_ready):
                return child
            if code > 0 and is_capture and not (child.live and self._settings.cameras[child.arguments[-1]].retry):
                if len(self.captures) == 1:
                    return child
                _log.error("%s has failed and is not started again: %s", child.title, child.failure())
                continue
            child.again(now)
        return None

    def missing(self, status: dict[str, Any]) -> list[str]:
        """Return texts that name what is missing or failing, given the latest status."""
        found = ["a worker"] if self.workers and not status.get("workers") else []
        known = status.get("cameras", {})
        found += [name for name, child in self.captures.items() if name not in known and not child.finished]
        return [*found, *(f"{child.title} keeps failing" for child in self.children if child.failing)]

    def ended(self) -> bool:
        """Return whether there are captures, and every one has ended and will not be restarted."""
        captures = self.captures.values()
        return bool(captures) and all(child.finished and not child.leave_by for child in captures)

    def failed(self) -> int:
        """Return the exit code of a capture that failed and is not optional, or 0."""
        captures = self.captures.values()
        return next((child.code for child in captures if child.code and child.code > 0 and not child.optional), 0)

    def stop(self, children: list[Child], deadline: float, look: Callable[[], None]) -> None:
        """Ask children to end (SIGTERM) and wait; kill those that still run at ``deadline`` (monotonic seconds).

        ``look`` is called repeatedly while waiting.
        """
        for child in children:
            child.terminate()
        while any(child.running for child in children) and time.monotonic() < deadline:
            look()
        late = [child.title for child in children if child.running]
        if late:
            _log.warning("%s did not end in time and is killed", ", ".join(late))
        self.kill(children)

    def delivered(self) -> dict[str, Any]:
        """Return the states of the sinks as `fer-stream deliver` has reported them last; empty if there are none."""
        if self.delivery is not None:
            self._delivered = (self.delivery.report(math.inf) or {}).get("sinks", self._delivered)
        return self._delivered

    def delivery_failure(self) -> str:
        """Return why `fer-stream deliver` has never reported its sinks; empty if it has, or if there are none."""
        return "" if self._delivered or self.delivery is None else self.delivery.failure()

    def close(self) -> None:
        """Kill the children that still run, and release the settings."""
        self.kill(self.children)
        self._file.close()
        if self._home is not None:
            self._home.close()

    def kill(self, children: Iterable[Child]) -> None:
        """Kill children (SIGKILL), and wait briefly for their end."""
        for child in children:
            child.kill()
