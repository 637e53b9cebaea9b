"""The supervisor of `fer-stream run`: starts every role on this machine, restarts dead ones, and ends them in order.

The children are the same commands that people run by hand (``fer-stream aggregator``, ``worker``, ``capture``), so
nothing depends on the roles being on one machine.

A child that exits with 1 or 2 before it was ever ready cannot work, and the service cannot work without it. The service
then ends with this exit code and the child's error message. A child that was killed, or had worked, is restarted.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError
from fer_stream.service.children import Child
from fer_stream.settings.tree import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fer_stream.settings.tree import Settings

FROZEN = 10.0
"""Seconds without an answer after which a running aggregator is replaced; no load delays an answer this long."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Supervises the aggregator, workers, captures and optionally the live page of one run."""

    def __init__(self, settings: Settings, folder: Path, live: bool = False, inherited: tuple[int, ...] = ()) -> None:
        """Prepare the children; `start` starts them.

        Args:
            settings: the whole tree, with at least one camera.
            folder: the run's own folder, for the children's error messages and the sinks' states.
            live: whether to serve the live page.
            inherited: descriptors that every child keeps open.
        """
        self._settings = settings
        self._inherited = inherited
        self.deliveries = folder / "deliveries.json"

        def child(title: str, *arguments: str) -> Child:
            return Child(title, list(arguments), folder / f"{title}.txt", self.deliveries)

        self.aggregator = child("aggregator", "aggregator")
        self.workers = [child(f"worker {n}", "worker", "--name", str(n)) for n in range(1, settings.workers + 1)]
        self.captures = {name: child(f"capture {name}", "capture", "--camera", name) for name in settings.cameras}
        self.extras = [child("live", "live")] if live else []
        # The children write their metrics to shared files, and this process serves them together.
        shared = settings.model_copy(update={"metrics": None, "metrics_token": None, "sinks": []})
        self._file = save(shared)

    @property
    def children(self) -> list[Child]:
        """All children."""
        return [self.aggregator, *self.workers, *self.captures.values(), *self.extras]

    def start(self) -> None:
        """Start all children, the slowest to warm up first. They work in any order."""
        for child in (*self.workers, self.aggregator, *self.captures.values(), *self.extras):
            child.start(self._file, self._inherited)

    def note(self, status: dict[str, Any]) -> None:
        """Mark children as ready from the aggregator's status; kill workers that run but are missing in it."""
        now, process = time.monotonic(), self.aggregator.process
        if process is None or status["pid"] != process.pid:
            return  # another aggregator has this address; ours will fail because the address is in use
        if not self.aggregator.was_ready:  # a new aggregator learns of a busy worker only when the worker has finished
            for worker in self.workers:
                worker.seen = max(worker.seen, now + self._settings.dispatch.deadline)
        self.aggregator.ready(now)
        for worker in self.workers:
            # A worker on another machine may have the same name; then the status has the titles "NAME at MACHINE".
            name = worker.arguments[-1]
            pids = [known["pid"] for title, known in status["workers"].items() if title.split(" at ")[0] == name]
            if worker.process and worker.process.pid in pids:
                worker.ready(now)
            elif worker.running and worker.process and now - worker.seen > self._settings.dispatch.silence:
                _log.warning("%s does not answer and is replaced", worker.title, extra={"pid": worker.process.pid})
                worker.process.kill()
        for name, capture in self.captures.items():
            known = status["cameras"].get(name)
            if capture.process and known and known["pid"] == capture.process.pid:
                capture.ready(now)
                capture.live = known["live"]

    def note_silence(self) -> None:
        """Record that the aggregator did not answer; kill it after `FROZEN` seconds of silence."""
        child = self.aggregator
        if child.running and child.process and time.monotonic() - child.seen > FROZEN:
            _log.warning("the aggregator does not answer and is replaced", extra={"pid": child.process.pid})
            child.process.kill()

    def killed(self) -> bool:
        """Return whether a signal killed a child since the last `watch`, so that `watch` should run at once."""
        return any(child.process is not None and (child.process.poll() or 0) < 0 for child in self.children)

    def watch(self) -> Child | None:
        """Restart dead children; return a child whose failure ends the service, if there is one."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None and child.start_at and now >= child.start_at:
                child.start(self._file, self._inherited)
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
        found = [] if status.get("workers") else ["a worker"]
        known = status.get("cameras", {})
        found += [name for name, child in self.captures.items() if name not in known and not self._finished(child)]
        return [*found, *(f"{child.title} keeps failing" for child in self.children if child.failing)]

    @staticmethod
    def _finished(child: Child) -> bool:
        return child.process is None and not child.start_at

    def ended(self) -> bool:
        """Return whether every capture has ended and will not be restarted."""
        return all(map(self._finished, self.captures.values()))

    def failed(self) -> int:
        """Return the exit code of a capture that failed, or 0."""
        return next((child.code for child in self.captures.values() if child.code and child.code > 0), 0)

    def stop(self, children: list[Child], deadline: float, look: Callable[[], None]) -> None:
        """Send children SIGTERM and wait; kill those that still run at ``deadline`` (monotonic seconds).

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

    def close(self) -> None:
        """Kill the children that still run, and release the settings."""
        self.kill(self.children)
        os.close(self._file)

    def kill(self, children: Iterable[Child]) -> None:
        """Send children SIGKILL, and wait briefly for their end."""
        for child in children:
            child.kill()
