"""The supervisor of `fer-stream run`: it starts every role on this machine, restarts who died, and ends them in order.

The children are the same commands that people run by hand (``fer-stream aggregator``, ``worker``, ``capture``), so
nothing works here that would not work across machines.

A child that ends by its own verdict (exit 1 or 2) before it was ever ready cannot work, and neither can the service: it
ends, with that code and that child's last words. One that was killed, or had worked, is started again.
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
"""Seconds without an answer after which a running aggregator is replaced: longer than any load explains."""

_log = logging.getLogger(__name__)


class Supervisor:
    """See the module's text."""

    def __init__(self, settings: Settings, folder: Path, live: bool = False, inherited: tuple[int, ...] = ()) -> None:
        """Prepare; `start` starts.

        Args:
            settings: the whole tree, with at least one camera.
            folder: a folder of our own for the children's last words, and what they are told.
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
        # A role's own metrics go into files that this process serves in one.
        shared = settings.model_copy(update={"metrics": None, "metrics_token": None, "sinks": []})
        self._file = save(shared)

    @property
    def children(self) -> list[Child]:
        """All of them."""
        return [self.aggregator, *self.workers, *self.captures.values(), *self.extras]

    def start(self) -> None:
        """Start all children. Their order does not matter; the slowest to warm up goes first."""
        for child in (*self.workers, self.aggregator, *self.captures.values(), *self.extras):
            child.start(self._file, self._inherited)

    def note(self, status: dict[str, Any]) -> None:
        """Take the aggregator's word on who is ready, and replace workers that run without its knowing."""
        now, process = time.monotonic(), self.aggregator.process
        if process is None or status["pid"] != process.pid:
            return  # another one is at that address; ours will find it in use
        if not self.aggregator.was_ready:  # it does not know them yet; one that is busy tells it only then
            for worker in self.workers:
                worker.seen = max(worker.seen, now + self._settings.dispatch.deadline)
        self.aggregator.ready(now)
        for worker in self.workers:
            name = worker.arguments[-1]  # which another machine's may have, too: each is told with its machine's then
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
        """Take it that the aggregator did not answer; after long enough it is replaced."""
        child = self.aggregator
        if child.running and child.process and time.monotonic() - child.seen > FROZEN:
            _log.warning("the aggregator does not answer and is replaced", extra={"pid": child.process.pid})
            child.process.kill()

    def killed(self) -> bool:
        """Whether a child was killed since the last `watch`: there is nothing to ask, and no time to lose."""
        return any(child.process is not None and (child.process.poll() or 0) < 0 for child in self.children)

    def watch(self) -> Child | None:
        """Start again who died; return a child whose failure is the end of the service."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None and child.start_at and now >= child.start_at:
                child.start(self._file, self._inherited)
            code = child.ended()
            if code is None:
                if child in self.extras and child.running:  # the aggregator does not know it
                    child.ready(now)
                continue
            if child in self.extras:  # nothing depends on it
                child.again(now)
                continue
            is_capture = child in self.captures.values()
            if is_capture and code == 0:
                continue  # its source came to its end
            if code == ConfigError.exit_code or (code > 0 and not child.was_ready):
                return child
            if code > 0 and is_capture and not (child.live and self._settings.cameras[child.arguments[-1]].retry):
                if len(self.captures) == 1:
                    return child
                _log.error("%s has failed and is not started again: %s", child.title, child.said())
                continue
            child.again(now)
        return None

    def missing(self, status: dict[str, Any]) -> list[str]:
        """Return what keeps the service from its work, for people, where this is the latest status."""
        found = [] if status.get("workers") else ["a worker"]
        known = status.get("cameras", {})
        found += [name for name, child in self.captures.items() if name not in known and not self._over(child)]
        return [*found, *(f"{child.title} keeps failing" for child in self.children if child.failing)]

    @staticmethod
    def _over(child: Child) -> bool:
        return child.process is None and not child.start_at

    def ended(self) -> bool:
        """Whether every camera has come to its end."""
        return all(map(self._over, self.captures.values()))

    def failed(self) -> int:
        """Return the exit code of a capture that failed, or 0."""
        return next((child.code for child in self.captures.values() if child.code and child.code > 0), 0)

    def stop(self, children: list[Child], deadline: float, look: Callable[[], None]) -> None:
        """Ask children to end and wait; who has not by ``deadline`` is killed. ``look`` is called while waiting."""
        for child in children:
            child.terminate()
        while any(child.running for child in children) and time.monotonic() < deadline:
            look()
        late = [child.title for child in children if child.running]
        if late:
            _log.warning("%s did not end in time and is killed", ", ".join(late))
        self.kill(children)

    def close(self) -> None:
        """End what still runs, and let go of the settings."""
        self.kill(self.children)
        os.close(self._file)

    def kill(self, children: Iterable[Child]) -> None:
        """End children at once."""
        for child in children:
            child.kill()
