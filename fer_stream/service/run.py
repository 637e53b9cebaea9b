"""`fer-stream run`: every role on this machine, the events that it prints, and the summary at the end.

The main thread of this process supervises (`fer_stream.service.supervisor`) and never blocks on output: standard output
has a thread of its own (`fer_stream.service.view`), and so has stderr (`fer_stream.operations.logs`). Sinks are served
by a child, `fer-stream deliver`.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.errors import ConfigError, FerStreamError, JournalError
from fer_stream.operations import instances
from fer_stream.operations.calls import Calls
from fer_stream.operations.logs import tell_error
from fer_stream.operations.process import DELIVERIES, install_stop, leave_note, supervising
from fer_stream.service import summary
from fer_stream.service.cameras import RUN_TIME, Cameras
from fer_stream.service.commands import Commands
from fer_stream.service.progress import Progress
from fer_stream.service.registry import FileRegistry
from fer_stream.service.supervisor import CAPTURE_GRACE, Supervisor
from fer_stream.service.view import View
from fer_stream.settings.deployment import check_purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fer_stream.operations.process import Stop
    from fer_stream.service.cameras import Given
    from fer_stream.service.children import Child
    from fer_stream.settings.tree import JournalSettings

BEAT = 0.5
"""Seconds between checks of the children and of the aggregator's status."""

GRACE = 4.5
"""Seconds within which all children must end after SIGTERM: first the captures, which drain, then the others. A run
ends within five seconds; the rest is for the sinks."""

DELIVERY_GRACE = 2.5
"""Seconds that `fer-stream deliver` has afterwards for the rest of the journal if the run was told to end. Otherwise it
takes as long as a sink takes events."""

VIEW_GRACE = 0.4
"""Seconds after `GRACE` until which what is printed has to be read if the run was told to end."""

_log = logging.getLogger(__name__)


def run(
    given: Given,
    again: Callable[[], Given] | None = None,
    *,
    duration: float | None = None,
    form: str = "pretty",
    sinks: Sequence[str] = (),
    summary_file: Path | None = None,
    stop: Stop | None = None,
    live: bool = False,
) -> int:
    """Run every role on this machine until all sources end, ``duration`` is over, or SIGINT, SIGTERM or a hang-up.

    A service without cameras goes on: cameras can be added to it (`fer_stream.service.cameras`).

    Args:
        given: the settings; if the address is not set, the run uses its own.
        again: reads ``given`` again, on SIGHUP and for `fer-stream cameras reload`.
        duration: seconds, or ``None`` for no limit.
        form: how events are printed: ``pretty`` or ``jsonl``.
        sinks: where events are delivered, as NAME:ARGUMENT, besides those in the settings.
        summary_file: a file for the summary (`fer_stream.service.summary.summary`), as JSON.
        stop: ends the run when it is set; by default the process's signals set it.
        live: whether to serve the live page too.

    Returns:
        0; or the exit code of a process that could not work or lost events at its end; or 1 if not all events were
        printed, or if the sources have ended and a sink did not take all events.

    Raises:
        FerStreamError: the address is in use, or the summary cannot be written.
    """
    stop = stop or install_stop(reloads=True)
    check_purpose(given.settings)
    if given.settings.fleet.cell:
        raise ConfigError(
            f"run is for one machine, and the settings name cell {given.settings.fleet.cell}: start fer-stream "
            "aggregator, worker and node on the cell's machines, or remove fleet.cell"
        )
    cameras = Cameras(given, again, FileRegistry.of(given.settings))
    settings = given.settings.model_copy(update={"cameras": dict(cameras.now)})
    with ExitStack() as last:
        claim = last.enter_context(instances.Claim())
        if not instances.given(settings):
            settings = settings.model_copy(update={"address": claim.address})
        # Check that the address is free: our captures and workers must not connect to another run's aggregator.
        plugins.transport(settings).bind(settings.own_address).close()
        last.enter_context(supervising())
        begin = _last_cursor(settings.journal)
        view = View(f"stdout:{form}", plugins.load("sinks", "stdout")(form), settings, begin)
        last.callback(view.close)
        view.start()
        # Set this before the import of the metrics module, which reads it only once.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(claim.path / "metrics")
        (claim.path / "metrics").mkdir()
        added = [name for name, home in cameras.homes.items() if home == RUN_TIME]
        supervisor = Supervisor(settings, claim.path, live, (claim.lock,), added, sinks=sinks, begin=begin)
        progress = Progress(settings, begin)
        last.callback(progress.close)
        if settings.metrics:
            from fer_stream.operations import metrics  # noqa: PLC0415

            server = metrics.serve(settings, lambda: _missing(supervisor, progress))
            last.callback(server.close if server else lambda: None)
        last.callback(supervisor.close)
        calls = Calls(claim.path / "calls")
        last.callback(calls.close)
        announce = last.enter_context(instances.announced(settings.address, settings.cameras, calls.path))
        commands = Commands(calls, cameras, supervisor, progress, announce)
        if added:
            _log.info("added at run time, earlier: %s", ", ".join(added))
        if not settings.cameras:
            _log.warning("there is no camera yet: add one with `fer-stream cameras add NAME SOURCE`")
        supervisor.start()

        failed = _loop(supervisor, progress, commands, view, stop, duration, exports=settings.metrics is not None)
        calls.close()
        told = stop.is_set()
        deadline = _end(supervisor, progress, failed, stop)
        newest = _last_cursor(settings.journal) if supervisor.aggregator.was_ready else begin
        view.finish(stop, newest, deadline + VIEW_GRACE)
        progress.close()
        made = summary.summary(progress, {view.title: view.state(newest), **supervisor.delivered()})
        return _report(supervisor, progress, made, failed, summary_file, told=told)


def _report(
    supervisor: Supervisor,
    progress: Progress,
    made: dict[str, Any],
    failed: Child | None,
    summary_file: Path | None,
    *,
    told: bool,
) -> int:
    """Give the summary, and return the exit code of a run that was told to end or has ended by itself."""
    if failed is None:
        summary.tell(made)
    if summary_file:
        summary.write(summary_file, made)
    if progress.error:
        raise progress.error
    code = _verdict(supervisor, progress, failed)
    if why := supervisor.delivery_failure():
        _log.error("no sink has got events, which are delivered at the next start: %s", why)
        code = code or (0 if told else FerStreamError.exit_code)
    if failed is None and (lost := summary.lost(made) or ([] if told else summary.waiting(made))):
        tell_error("; ".join(lost))
        return code or FerStreamError.exit_code
    return code


def _last_cursor(journal: JournalSettings) -> int:
    try:
        with plugins.journal(journal).reader() as reader:
            return reader.cursor()
    except JournalError:
        return 0  # there is no journal yet; if it is unusable, the aggregator reports it


def _loop(
    supervisor: Supervisor,
    progress: Progress,
    commands: Commands,
    view: View,
    stop: Stop,
    duration: float | None,
    *,
    exports: bool,
) -> Child | None:
    """Supervise until the run has to end; return the child whose failure is the reason, if one is.

    ``exports``: whether there are metrics.
    """
    end: float | None = None
    told: dict[str, Any] = {}
    next_beat = 0.0
    while not stop.is_set():
        if supervisor.aggregator.was_ready:
            progress.look()
        else:
            stop.wait(0.05)
        commands.look(stop)
        now = time.monotonic()
        if now < next_beat and not supervisor.due():
            continue
        next_beat = now + BEAT
        if supervisor.aggregator.running and progress.ask(0.25):
            for camera in supervisor.note(progress.status):
                progress.close_ledger(camera)
                if exports:  # also the series of a camera that never reached the aggregator
                    from fer_stream.operations import metrics  # noqa: PLC0415

                    metrics.forget(camera)
            if duration is not None and end is None and supervisor.aggregator.was_ready:
                end = now + duration
        else:
            supervisor.note_silence()
        sinks = {view.title: view.state(progress.cursor), **supervisor.delivered()}
        if exports:
            from fer_stream.operations import metrics  # noqa: PLC0415

            metrics.export_view(view.title, view.undelivered, sinks[view.title]["behind"])
        if sinks != told:
            with suppress(OSError):  # for example a full disk; the next change writes it again
                leave_note(supervisor.folder, DELIVERIES, sinks)
            told = sinks
        failed = supervisor.watch()
        if failed is not None:
            return failed
        if view.closed or supervisor.ended() or (end is not None and now >= end):
            break
    return None


def _end(supervisor: Supervisor, progress: Progress, failed: Child | None, stop: Stop) -> float:
    """End every role in order and count the last events; return the deadline for it (monotonic seconds)."""
    captures, deadline = list(supervisor.captures.values()), time.monotonic() + GRACE
    if failed is not None and failed not in captures:
        # Without the failed process their last frames cannot be processed.
        supervisor.kill([*captures, *supervisor.workers])
    supervisor.stop(captures, deadline - GRACE + CAPTURE_GRACE, progress.look)
    patience = 1.0 if failed is not None else max(1.0, (deadline - time.monotonic()) / 2)
    if progress.ask(patience if supervisor.aggregator.running else 0.0):
        progress.finish(deadline)
    others = [child for child in supervisor.extras if child is not supervisor.delivery]
    supervisor.stop([*supervisor.workers, supervisor.aggregator, *others], deadline, lambda: time.sleep(0.02))
    if supervisor.delivery is not None:
        _deliver_rest(supervisor, supervisor.delivery, stop)
    if supervisor.aggregator.was_ready:
        progress.read_rest()
    return deadline


def _deliver_rest(supervisor: Supervisor, child: Child, stop: Stop) -> None:
    """End `fer-stream deliver` when the journal is complete and its rest is delivered, as far as that is possible."""
    child.terminate()
    since: float | None = None  # when the run was told to end
    while child.running and (since is None or time.monotonic() < since + DELIVERY_GRACE):
        if since is None and stop.is_set():
            since = time.monotonic()
        time.sleep(0.02)
    supervisor.delivered()
    supervisor.kill([child])


def _verdict(supervisor: Supervisor, progress: Progress, failed: Child | None) -> int:
    """Print what has failed, and return the run's exit code."""
    if failed is not None:
        tell_error(failed.failure())
        return failed.code or 1
    if (code := supervisor.aggregator.code or 0) > 0:  # it lost events at its end
        tell_error(supervisor.aggregator.failure())
        return code
    if code < 0 and progress.status:  # an aggregator that never answered had no events to lose
        held = progress.status["events_held"]
        lost = f"{held} events that it held are lost" if held else "its last events are missing"
        tell_error(f"the aggregator was killed before it had ended: {lost}; its next start closes open intervals")
        return FerStreamError.exit_code
    return supervisor.failed()


def _missing(supervisor: Supervisor, progress: Progress) -> str:
    """Return what is missing until frames are processed, for ``/readyz``."""
    if progress.stale:
        return "an answer from the aggregator"
    return ", ".join(supervisor.missing(progress.status))
