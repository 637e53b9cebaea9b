"""`fer-stream run`: every role on this machine, the sinks that get the events, and the summary at the end.

This process supervises (`fer_stream.service.supervisor`) and does nothing that may keep it waiting: each sink has a
thread (`fer_stream.service.sink_threads`), and so has stderr (`fer_stream.operations.logs`).
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fer_stream import plugins
from fer_stream.errors import FerStreamError, JournalError
from fer_stream.journal import Reader
from fer_stream.operations import instances
from fer_stream.operations.logs import tell_error
from fer_stream.operations.process import install_stop, supervising
from fer_stream.service import summary
from fer_stream.service.progress import Progress
from fer_stream.service.sink_threads import SinkThreads
from fer_stream.service.supervisor import Supervisor
from fer_stream.settings.deployment import check_purpose

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_stream.operations.process import Stop
    from fer_stream.service.children import Child
    from fer_stream.service.sink_threads import Export
    from fer_stream.settings.tree import Settings

BEAT = 0.5
"""Seconds between looks at the children and at the aggregator's status."""

GRACE = 4.5
"""Seconds in which all children have ended after they were asked to: captures first, for as long as they drain. What
follows has the rest of the five seconds in which a run has ended."""

CAPTURES_GRACE = 3.5
"""Seconds of these that captures have."""

SINKS_GRACE = 0.4
"""Seconds that sinks have after these, where the run was told to end."""


def run(
    settings: Settings,
    *,
    duration: float | None = None,
    sinks: Sequence[str] = (),
    summary_file: Path | None = None,
    stop: Stop | None = None,
    live: bool = False,
) -> int:
    """Run every role on this machine until all sources end, ``duration`` is over, or SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: the whole tree, with at least one camera; without an address the run gets one of its own.
        duration: seconds, or ``None`` for no limit.
        sinks: where events go, as NAME:ARGUMENT.
        summary_file: a file for the summary (`fer_stream.service.summary.summary`), as JSON.
        stop: ends the run when it is set; by default the process's signals do.
        live: whether to serve the live page too.

    Returns:
        0, or the exit code of the process that could not work, or lost events at its end; or 1 where a sink did not
        take all events.

    Raises:
        FerStreamError: a sink cannot be opened, the address is in use, or the summary cannot be written.
    """
    stop = stop or install_stop()
    check_purpose(settings)
    with ExitStack() as last:  # what is left to do however this ends, in reverse
        claim = last.enter_context(instances.Claim())
        if not instances.given(settings):
            settings = settings.model_copy(update={"address": f"ipc://{claim.path}"})
        # Our captures and workers must not find another's aggregator there.
        plugins.transport(settings).bind(settings.address).close()
        last.enter_context(supervising())
        begin = _last_cursor(settings.journal.path)
        sink_threads = SinkThreads(sinks, settings, begin)
        last.callback(sink_threads.close)
        sink_threads.open(stop)
        # Before the metrics module is imported, which looks at this once.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(claim.path / "metrics")
        (claim.path / "metrics").mkdir()
        supervisor = Supervisor(settings, claim.path, live, (claim.lock,))
        progress = Progress(settings, begin)
        last.callback(progress.close)
        export: Export | None = None
        if settings.metrics:
            from fer_stream.operations import metrics  # noqa: PLC0415

            server = metrics.serve(settings, lambda: _missing(supervisor, progress))
            last.callback(server.close if server else lambda: None)
            export = metrics.export_sink
        last.callback(supervisor.close)
        last.enter_context(instances.announced(settings.address, settings.cameras))
        supervisor.start()

        failed = _loop(supervisor, progress, sink_threads, stop, duration, export)
        deadline = _end(supervisor, progress, failed) + SINKS_GRACE
        newest = _last_cursor(settings.journal.path) if supervisor.aggregator.was_ready else begin
        sink_threads.finish(stop, newest, deadline)
        progress.close()
        made = summary.summary(progress, sink_threads)
        if failed is None:
            summary.tell(made)
        if summary_file:
            summary.write(summary_file, made)
        if progress.error:
            raise progress.error
        code = _verdict(supervisor, progress, failed)
        if failed is None and (lost := summary.undelivered(made)):
            tell_error("; ".join(lost))
            return code or FerStreamError.exit_code
        return code


def _last_cursor(path: Path) -> int:
    try:
        with Reader(path) as reader:
            return reader.cursor()
    except JournalError:
        return 0  # none yet; one that cannot be used is the aggregator's to complain of


def _loop(
    supervisor: Supervisor,
    progress: Progress,
    sink_threads: SinkThreads,
    stop: Stop,
    duration: float | None,
    export: Export | None,
) -> Child | None:
    """Look after everything until it is time to end; return the child that could not work, if that is why."""
    end: float | None = None
    beat = 0.0
    while not stop.is_set():
        if supervisor.aggregator.was_ready:
            progress.look()
        else:
            stop.wait(0.05)
        now = time.monotonic()
        if now < beat and not supervisor.killed():
            continue
        beat = now + BEAT
        if supervisor.aggregator.running and progress.ask(0.25):
            supervisor.note(progress.status)
            if duration is not None and end is None and supervisor.aggregator.was_ready:
                end = now + duration
        else:
            supervisor.note_silence()
        sink_threads.tell(supervisor.deliveries, progress.cursor, export)
        failed = supervisor.watch()
        if failed is not None:
            return failed
        if sink_threads.closed or supervisor.ended() or (end is not None and now >= end):
            break
    return None


def _end(supervisor: Supervisor, progress: Progress, failed: Child | None) -> float:
    """End every role in order and count the last events; return until when that may have taken (monotonic)."""
    captures, deadline = list(supervisor.captures.values()), time.monotonic() + GRACE
    if failed is not None and failed not in captures:
        # Nothing is left to process their last frames.
        supervisor.kill([*captures, *supervisor.workers])
    supervisor.stop(captures, deadline - GRACE + CAPTURES_GRACE, progress.look)
    patience = 1.0 if failed is not None else max(1.0, (deadline - time.monotonic()) / 2)
    if progress.ask(patience if supervisor.aggregator.running else 0.0):
        progress.finish(deadline)
    supervisor.stop(
        [*supervisor.workers, supervisor.aggregator, *supervisor.extras], deadline, lambda: time.sleep(0.02)
    )
    if supervisor.aggregator.was_ready:
        progress.read_rest()
    return deadline


def _verdict(supervisor: Supervisor, progress: Progress, failed: Child | None) -> int:
    """Tell people what has failed, and return the run's exit code."""
    if failed is not None:
        tell_error(failed.said())
        return failed.code or 1
    if (code := supervisor.aggregator.code or 0) > 0:  # it lost something at its end
        tell_error(supervisor.aggregator.said())
        return code
    if code < 0 and progress.status:  # one that has never answered has lost nothing
        held = progress.status["events_held"]
        lost = f"{held} events that it held are lost" if held else "its last events are missing"
        tell_error(f"the aggregator was killed before it had ended: {lost}; its next start closes what is open")
        return FerStreamError.exit_code
    return supervisor.failed()


def _missing(supervisor: Supervisor, progress: Progress) -> str:
    """Return what is missing until frames flow, for ``/readyz``."""
    if progress.stale:
        return "an answer from the aggregator"
    return ", ".join(supervisor.missing(progress.status))
