"""`fer-stream run`: start every role on this machine, watch them, restart them, and end them in order.

The children are the same commands that people run by hand (``fer-stream aggregator``, ``worker``, ``capture``), so
nothing works here that would not work across machines. This process is also a subscriber like any other: it hands the
events to the sinks as they come.

A child that ends by its own verdict (exit 1 or 2) before it was ever ready cannot work, and neither can the service: it
ends, with that code and that child's last words. One that was killed, or had worked, is started again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.client import Subscription, ask_status, read_journal
from fer_stream.config import save
from fer_stream.deployment import check_purpose
from fer_stream.errors import ConfigError, FerStreamError, JournalError, TransportError
from fer_stream.journal import Reader
from fer_stream.process import LAST_WORDS, PARENT, install_stop, tell_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.config import Settings
    from fer_stream.plugins import Peer, Sink
    from fer_stream.process import Stop
    from fer_stream.types import Event

BEAT = 0.5
"""Seconds between looks at the children and at the aggregator's status."""

PAUSES = (1.0, 32.0)
"""First and longest pause before a child that was never ready is started again."""

GRACE = 4.5
"""Seconds in which all children have ended after they were asked to: captures first, for as long as they drain. What
follows has the rest of the five seconds in which a run has ended."""

CAPTURES_GRACE = 3.5
"""Seconds of these that captures have."""

FROZEN = 10.0
"""Seconds without an answer after which a running aggregator is replaced: longer than any load explains."""

STARTUP = 60.0
"""Seconds that a child may take until it is ready before it counts as silent."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    """One supervised process; ``words`` is the file in which it leaves its last ones, where it fails."""

    title: str
    arguments: list[str]
    words: Path
    process: subprocess.Popen[bytes] | None = None
    was_ready: bool = False
    live: bool = False
    """Of a capture that was ready: whether what it opened is a camera, which may come back."""
    seen: float = 0.0
    pause: float = PAUSES[0]
    start_at: float = 0.0
    code: int | None = field(default=None)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self) -> str:
        """Return why it failed, in its own words."""
        try:
            return self.words.read_text(encoding="utf-8")
        except OSError:  # it had no time for any
            return f"{self.title} ended with {self.code}"


class Supervisor:
    """See the module's text."""

    def __init__(self, settings: Settings, folder: Path, live: bool = False) -> None:
        """Prepare; `start` starts.

        Args:
            settings: the whole tree, with at least one camera.
            folder: an empty folder of our own for the children's last words and metrics.
            live: whether to serve the live page.
        """
        self._settings = settings
        self._folder = folder

        def child(title: str, *arguments: str) -> _Child:
            return _Child(title, list(arguments), folder / f"{title}.txt")

        self.aggregator = child("aggregator", "aggregator")
        self.workers = [child(f"worker {n}", "worker", "--name", str(n)) for n in range(1, settings.workers + 1)]
        self.captures = {name: child(f"capture {name}", "capture", "--camera", name) for name in settings.cameras}
        self.extras = [child("live", "live")] if live else []
        # A role's own metrics go into files that this process serves in one.
        shared = settings.model_copy(update={"metrics": None, "metrics_token": None, "sinks": []})
        self._file = save(shared)

    @property
    def children(self) -> list[_Child]:
        """All of them."""
        return [self.aggregator, *self.workers, *self.captures.values(), *self.extras]

    def start(self) -> None:
        """Start all children. Their order does not matter; the slowest to warm up goes first."""
        for child in (*self.workers, self.aggregator, *self.captures.values(), *self.extras):
            self._start(child)

    def _start(self, child: _Child) -> None:
        ours = "FER_STREAM_"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        environment |= {PARENT: str(os.getpid()), "FER_STREAM_PROCESS": child.title, LAST_WORDS: str(child.words)}
        child.words.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fer_stream", *child.arguments, "--config", f"/dev/fd/{self._file}"]
        # A group of its own: Ctrl-C at the terminal comes to us alone, and we end the children in order.
        child.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._file,),
        )
        child.seen, child.code = time.monotonic() + STARTUP, None

    def note(self, status: dict[str, Any]) -> None:
        """Take the aggregator's word on who is ready, and replace workers that run without its knowing."""
        now, process = time.monotonic(), self.aggregator.process
        if process is None or status["pid"] != process.pid:
            return  # another one is at that address; ours will find it in use
        if not self.aggregator.was_ready:  # it does not know them yet; one that is busy tells it only then
            for worker in self.workers:
                worker.seen = max(worker.seen, now + self._settings.dispatch.deadline)
        self._ready(self.aggregator, now)
        for worker in self.workers:
            name = worker.arguments[-1]  # which another machine's may have, too: each is told with its machine's then
            pids = [known["pid"] for title, known in status["workers"].items() if title.split(" at ")[0] == name]
            if worker.process and worker.process.pid in pids:
                self._ready(worker, now)
            elif worker.running and worker.process and now - worker.seen > self._settings.dispatch.silence:
                _log.warning("%s does not answer and is replaced", worker.title, extra={"pid": worker.process.pid})
                worker.process.kill()
        for name, capture in self.captures.items():
            known = status["cameras"].get(name)
            if capture.process and known and known["pid"] == capture.process.pid:
                self._ready(capture, now)
                capture.live = known["live"]

    def note_silence(self) -> None:
        """Take it that the aggregator did not answer; after long enough it is replaced."""
        child = self.aggregator
        if child.running and child.process and time.monotonic() - child.seen > FROZEN:
            _log.warning("the aggregator does not answer and is replaced", extra={"pid": child.process.pid})
            child.process.kill()

    def _ready(self, child: _Child, now: float) -> None:
        child.was_ready, child.pause, child.seen = True, PAUSES[0], now

    def killed(self) -> bool:
        """Whether a child was killed since the last `watch`: there is nothing to ask, and no time to lose."""
        return any(child.process is not None and (child.process.poll() or 0) < 0 for child in self.children)

    def watch(self) -> _Child | None:
        """Start again who died; return a child whose failure is the end of the service."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if child.start_at and now >= child.start_at:
                    child.start_at = 0.0
                    self._start(child)
                continue
            code = child.process.poll()
            if code is None:
                continue
            child.process, child.code = None, code
            if child in self.extras:  # nothing depends on it
                child.was_ready = code < 0 or now > child.seen
                self._later(child)
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
            self._later(child)
        return None

    def _later(self, child: _Child) -> None:
        pause = 0.0 if child.was_ready else child.pause
        child.pause = min(2 * child.pause, PAUSES[1])
        child.start_at, child.was_ready = time.monotonic() + pause, False
        _log.warning("%s is started again in %g s: %s", child.title, pause, child.said())

    def ended(self) -> bool:
        """Whether every camera has come to its end."""
        return all(child.process is None and not child.start_at for child in self.captures.values())

    def failed(self) -> int:
        """Return the exit code of a capture that failed, or 0."""
        return next((child.code for child in self.captures.values() if child.code and child.code > 0), 0)

    def stop(self, children: list[_Child], deadline: float, look: Callable[[], None]) -> None:
        """Ask children to end and wait; who has not by ``deadline`` is killed. ``look`` is called while waiting."""
        for child in children:
            child.start_at = 0.0
            if child.running and child.process:
                child.process.send_signal(signal.SIGTERM)
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

    def kill(self, children: list[_Child]) -> None:
        """End children at once."""
        for child in children:
            child.start_at = 0.0
            if child.process is not None:
                if child.running:
                    child.process.kill()
                child.code = child.process.wait()
                child.process = None


class _Desk:
    """What `run` shows: events to the sinks, a progress bar for files, the summary at the end."""

    def __init__(self, settings: Settings, sinks: list[Sink]) -> None:
        self.started, self.begin = time.time(), time.monotonic()
        transport = plugins.transport(settings)
        self._control: Peer = transport.connect(settings.address, "control")
        self._settings = settings
        self._sinks = sinks
        self.status: dict[str, Any] = {}
        self.events: dict[str, int] = {}
        self.error: FerStreamError | None = None
        self._subscription = Subscription(
            settings.address,
            after=_last_cursor(settings.journal.path),
            transport=settings.transport,
            key=settings.key,
            keys=settings.keys,
        )
        self._bars: dict[str, Any] = {}

    def look(self, timeout: float = 0.05) -> None:
        """Hand on the events that are here; wait up to ``timeout`` seconds for one."""
        found = self._subscription.receive(timeout)
        while found is not None:
            self._hand_on(*found)
            found = self._subscription.receive(0)

    def read_rest(self) -> None:
        """Hand on what was journaled after the aggregator's last word, when it closed what was open."""
        try:
            for event, text in read_journal(self._settings.journal.path, after=self._subscription.cursor):
                self._hand_on(event, text)
        except JournalError as error:
            self.error = self.error or error

    def _hand_on(self, event: Event, text: str) -> None:
        self.events[event.type] = self.events.get(event.type, 0) + 1
        for sink in self._sinks:
            try:
                if not self.error:
                    sink.write(event, text)
            except FerStreamError as error:
                self.error = error

    @property
    def unread(self) -> bool:
        """Whether a sink has failed, or has nobody left to write to, as when stdout's reader has gone (``| head``)."""
        return self.error is not None or any(getattr(sink, "closed", False) for sink in self._sinks)

    def ask(self, timeout: float) -> bool:
        """Ask the aggregator how things stand; ``False`` if it does not answer."""
        try:
            self.status = ask_status(self._control, self._settings.address, timeout)
        except TransportError:
            return False
        self._progress()
        return True

    def finish(self, deadline: float) -> None:
        """Hand on every event up to the last one that the status told of."""
        while self._subscription.cursor < self.status.get("cursor", 0) and time.monotonic() < deadline:
            self.look()

    def _progress(self) -> None:
        """Show how far each file is, on a terminal."""
        for name, camera in self.status["cameras"].items():
            if not camera["frames"]:
                continue
            if name not in self._bars:
                from tqdm import tqdm  # noqa: PLC0415

                self._bars[name] = tqdm(
                    total=camera["frames"], desc=name, unit="frame", disable=None, leave=False, file=sys.stderr
                )
            bar = self._bars[name]
            bar.update(camera["ledger"]["captured"] - bar.n)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._subscription.close()
        self._control.close()


def _last_cursor(path: Path) -> int:
    try:
        with Reader(path) as reader:
            return reader.cursor()
    except JournalError:
        return 0  # none yet; one that cannot be used is the aggregator's to complain of


def _summary(desk: _Desk) -> dict[str, Any]:
    cameras = desk.status.get("cameras", {})
    return {
        "cameras": {name: camera["ledger"] for name, camera in cameras.items()},
        "events": dict(sorted(desk.events.items())),
        "started": round(desk.started, 3),
        "duration_s": round(time.monotonic() - desk.begin, 3),
    }


def _tell(summary: dict[str, Any]) -> None:
    """Print the summary for people, on stderr: what was captured, done and lost, and why."""
    lines = [f"ran for {summary['duration_s']:.1f} s"]
    for name, ledger in summary["cameras"].items():
        others = [f"{n} {term.replace('_', ' ')}" for term, n in ledger.items() if term != "captured" and n]
        lines.append(f"{name}: {ledger['captured']} frames captured = {' + '.join(others) or '0'}")
    lines.append("events: " + (", ".join(f"{n} {kind}" for kind, n in summary["events"].items()) or "none"))
    sys.stderr.write("\n".join(lines) + "\n")


def run(
    settings: Settings,
    *,
    duration: float | None = None,
    sinks: list[Sink] | None = None,
    summary: Path | None = None,
    stop: Stop | None = None,
    live: bool = False,
) -> int:
    """Run every role on this machine until all sources end, ``duration`` is over, or SIGINT or SIGTERM.

    Args:
        settings: the whole tree, with at least one camera.
        duration: seconds, or ``None`` for no limit.
        sinks: where events go.
        summary: a file for the ledger of every camera and the counts of events, as JSON.
        stop: ends the run when it is set; by default the process's signals do.
        live: whether to serve the live page too.

    Returns:
        0, or the exit code of the process that could not work, or lost events at its end.
    """
    stop = stop or install_stop()
    check_purpose(settings)
    with ExitStack() as last:  # what is left to do however this ends, in reverse
        folder = Path(last.enter_context(tempfile.TemporaryDirectory(prefix="fer-stream-", ignore_cleanup_errors=True)))
        for sink in sinks or []:
            last.callback(sink.close)
        # Before the metrics module is imported, which looks at this once.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
        (folder / "metrics").mkdir()
        supervisor = Supervisor(settings, folder, live)
        desk = _Desk(settings, sinks or [])
        last.callback(desk.close)
        if settings.metrics:
            from fer_stream import metrics  # noqa: PLC0415

            server = metrics.serve(settings, lambda: _missing(supervisor, desk))
            last.callback(server.close if server else lambda: None)
        last.callback(supervisor.close)
        supervisor.start()
        failed = _loop(supervisor, desk, stop, duration)
        result = _end(supervisor, desk, failed)
        desk.close()
        if failed is None:
            _tell(result)
        if summary:
            _write(summary, result)
        if desk.error:
            raise desk.error
        if failed is not None:
            tell_error(failed.said())
            return failed.code or 1
        if (code := supervisor.aggregator.code or 0) > 0:  # it lost something at its end
            tell_error(supervisor.aggregator.said())
            return code
        if code < 0 and desk.status:  # one that has never answered has lost nothing
            held = desk.status["events_held"]
            lost = f"{held} events that it held are lost" if held else "its last events are missing"
            tell_error(f"the aggregator was killed before it had ended: {lost}; its next start closes what is open")
            return FerStreamError.exit_code
        return supervisor.failed()


def _end(supervisor: Supervisor, desk: _Desk, failed: _Child | None) -> dict[str, Any]:
    """End every role in order, hand on the last events, and return the summary."""
    captures, deadline = list(supervisor.captures.values()), time.monotonic() + GRACE
    if failed is not None and failed not in captures:
        # There is nobody any more who would take their last frames.
        supervisor.kill([*captures, *supervisor.workers])
    supervisor.stop(captures, deadline - GRACE + CAPTURES_GRACE, desk.look)
    patience = 1.0 if failed is not None else max(1.0, (deadline - time.monotonic()) / 2)
    if desk.ask(patience if supervisor.aggregator.running else 0.0):
        desk.finish(deadline)
    supervisor.stop(
        [*supervisor.workers, supervisor.aggregator, *supervisor.extras], deadline, lambda: time.sleep(0.02)
    )
    if supervisor.aggregator.was_ready:
        desk.read_rest()
    return _summary(desk)


def _loop(supervisor: Supervisor, desk: _Desk, stop: Stop, duration: float | None) -> _Child | None:
    """Look after everything until it is time to end; return the child that could not work, if that is why."""
    end: float | None = None
    beat = 0.0
    while not stop.is_set():
        if supervisor.aggregator.was_ready:
            desk.look()
        else:
            stop.wait(0.05)
        now = time.monotonic()
        if now < beat and not supervisor.killed():
            continue
        beat = now + BEAT
        if supervisor.aggregator.running and desk.ask(0.25):
            supervisor.note(desk.status)
            if duration is not None and end is None and supervisor.aggregator.was_ready:
                end = now + duration
        else:
            supervisor.note_silence()
        failed = supervisor.watch()
        if failed is not None:
            return failed
        if desk.unread or supervisor.ended() or (end is not None and now >= end):
            break
    return None


def _missing(supervisor: Supervisor, desk: _Desk) -> str:
    """Return what is missing until frames flow, for ``/readyz``."""
    if not desk.status.get("workers"):
        return "a worker"
    return ", ".join(name for name in supervisor.captures if name not in desk.status["cameras"])


def _write(path: Path, summary: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise FerStreamError(f"the summary {path} cannot be written: {error.strerror}") from error
