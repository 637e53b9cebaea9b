"""Prometheus metrics, and the HTTP pages ``/metrics``, ``/healthz`` and ``/readyz``.

Each role sets its own metrics. Under ``fer-stream run`` all processes write to files in one folder (prometheus-client's
multiprocess mode, enabled by ``PROMETHEUS_MULTIPROC_DIR``), and the supervisor serves their sum. A process that is
restarted under the same name continues its predecessor's files, so counters never decrease; see
`fer_stream.operations.environment.name_metrics_files`.
"""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import prometheus_client
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from fer_stream.operations import environment
from fer_stream.operations.environment import MULTIPROCESS
from fer_stream.operations.http import Answer, Server, read_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from fer_stream.settings.tree import Settings

_FORGOTTEN = ".forgotten"
"""Suffix of the marker files in the shared folder, one for each forgotten camera."""

REGISTRY = CollectorRegistry()
"""A separate registry, so that fer_stream as a library adds nothing to a program's default registry."""


class _Silent:
    """A metric that accepts every call and records nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., Self]:
        return lambda *_, **__: self


Counter: Any = partial(prometheus_client.Counter, registry=REGISTRY)
Gauge: Any = partial(prometheus_client.Gauge, registry=REGISTRY)
Histogram: Any = partial(prometheus_client.Histogram, registry=REGISTRY)
if MULTIPROCESS in os.environ and not environment.prepared():
    # Here fer_stream is used as a library, and the program shares its own metrics in these files (as under gunicorn).
    Counter = Gauge = Histogram = _Silent
for _about_the_process in (
    prometheus_client.ProcessCollector,
    prometheus_client.PlatformCollector,
    prometheus_client.GCCollector,
):
    _about_the_process(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_AGES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)

frames = Counter(
    "fer_stream_frames",
    "Frames by outcome; captured is the sum of all others.",
    ["camera", "outcome", "reason"],
)
in_flight = Gauge(
    "fer_stream_frames_in_flight",
    "Captured frames that are not resolved yet.",
    ["camera"],
    multiprocess_mode="mostrecent",
)
waiting = Gauge(
    "fer_stream_frames_waiting",
    "Frames that have arrived at the aggregator and wait for a worker.",
    ["camera"],
    multiprocess_mode="mostrecent",
)
frame_age = Histogram(
    "fer_stream_frame_age_seconds", "Age of a frame when it is assigned to a worker.", ["camera"], buckets=_AGES
)
latency = Histogram(
    "fer_stream_latency_seconds",
    "Time from a frame's capture until its events exist, before they are journaled.",
    ["camera"],
    buckets=_AGES,
)
stage = Histogram("fer_stream_stage_seconds", "Processing time of a frame, by stage.", ["stage"], buckets=_FAST)
batch = Histogram(
    "fer_stream_batch_frames", "Frames that a worker processed together.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
faces = Counter("fer_stream_faces", "Faces found in frames.", ["camera"])
events = Counter("fer_stream_events", "Events published.", ["camera", "type", "label"])
camera_online = Gauge(
    "fer_stream_camera_online", "1 while a camera delivers frames, else 0.", ["camera"], multiprocess_mode="mostrecent"
)
tracks = Gauge("fer_stream_tracks", "Faces in view now.", ["camera"], multiprocess_mode="mostrecent")
measure = Gauge(
    "fer_stream_measure",
    "Mean of a model's measure over the faces in view now, smoothed; NaN while there is none.",
    ["camera", "measure"],
    multiprocess_mode="mostrecent",
)
workers = Gauge("fer_stream_workers", "Workers by state.", ["state"], multiprocess_mode="mostrecent")
fenced = Counter("fer_stream_workers_fenced", "Workers fenced (removed, late answers dropped), by reason.", ["reason"])
journal_failing = Gauge(
    "fer_stream_journal_failing", "1 while the journal cannot be written, else 0.", multiprocess_mode="mostrecent"
)
events_held = Gauge("fer_stream_events_held", "Events that wait to be journaled.", multiprocess_mode="mostrecent")
events_lost = Counter(
    "fer_stream_events_lost", "Events dropped because too many were held while the journal could not be written."
)
journal_cursor = Gauge(
    "fer_stream_journal_cursor",
    "Cursor of the latest journaled event; in a cell, the sum over the partitions that this aggregator writes.",
    multiprocess_mode="mostrecent",
)
descriptors_open = Gauge(
    "fer_stream_descriptors_open",
    "File descriptors that the aggregator has open; each connection of a peer uses one.",
    multiprocess_mode="mostrecent",
)
descriptors_limit = Gauge(
    "fer_stream_descriptors_limit",
    "Maximum number of file descriptors of the aggregator; close to it new peers have to wait.",
    multiprocess_mode="mostrecent",
)
rejected_messages = Counter("fer_stream_messages_rejected", "Messages that violated the protocol.", ["link"])
annotated = Counter(
    "fer_stream_annotations",
    "Annotations that were sent to the aggregator, by outcome: stored, refused, or failed.",
    ["outcome"],
)
capture_frames = Counter(
    "fer_stream_capture_frames", "Frames counted by the capture, by outcome.", ["camera", "outcome"]
)
fleet_aggregators = Gauge(
    "fer_stream_fleet_aggregators",
    "Living aggregators of the cell that this one knows, with itself.",
    multiprocess_mode="mostrecent",
)
fleet_partitions = Gauge(
    "fer_stream_fleet_partitions",
    "Partitions of the cell by state, as this aggregator sees them; owned, taking and giving are its own.",
    ["state"],
    multiprocess_mode="mostrecent",
)
fleet_takeovers = Counter(
    "fer_stream_fleet_takeovers",
    "Partitions that this aggregator took: new ones, given ones, those of its former process, and of dead aggregators.",
    ["cause"],
)
fleet_engine_failing = Gauge(
    "fer_stream_fleet_engine_failing",
    "1 while the cell's engine does not answer this aggregator, else 0.",
    multiprocess_mode="mostrecent",
)
fleet_doubtful = Gauge(
    "fer_stream_fleet_doubtful",
    "1 while this aggregator's own heartbeats do not come back, so that others may take it for dead, else 0.",
    multiprocess_mode="mostrecent",
)
sink_undelivered = Counter("fer_stream_sink_events_undelivered", "Events that a run could not print.", ["sink"])
sink_behind = Gauge(
    "fer_stream_sink_events_behind",
    "Journaled events that a run has not printed yet.",
    ["sink"],
    multiprocess_mode="mostrecent",
)
delivery_lag_events = Gauge(
    "fer_stream_delivery_lag_events",
    "Journaled events that wait for a sink of `fer-stream deliver`.",
    ["sink"],
    multiprocess_mode="mostrecent",
)
delivery_lag_seconds = Gauge(
    "fer_stream_delivery_lag_seconds",
    "Seconds for which the oldest event has waited for a sink, as far as this process knows; 0 if none waits.",
    ["sink"],
    multiprocess_mode="mostrecent",
)
deliveries = Counter(
    "fer_stream_deliveries",
    "Events of a sink by outcome: delivered, rejected by the receiver, skipped by the operator, filtered.",
    ["sink", "outcome"],
)
delivery_retries = Counter(
    "fer_stream_delivery_retries", "Times that a sink could not hand a batch over, and tried again later.", ["sink"]
)
delivery_dead_letters = Gauge(
    "fer_stream_delivery_dead_letters",
    "Events that a sink's receiver has refused, or that were skipped, and are kept for `fer-stream deliver retry`.",
    ["sink"],
    multiprocess_mode="mostrecent",
)
source_failures = Counter("fer_stream_source_failures", "Times a source failed or fell silent.", ["camera"])


_sinks: dict[str, int] = {}


def export_view(sink: str, undelivered: int, behind: int) -> None:
    """Set the metrics of what a run prints: the total of events that were not printed, and those that wait."""
    sink_undelivered.labels(sink).inc(max(0, undelivered - _sinks.get(sink, 0)))
    _sinks[sink] = undelivered
    sink_behind.labels(sink).set(behind)


def forget(camera: str) -> None:
    """Hide all series of a camera, also those of a run's other processes, until `remember`."""
    if folder := os.environ.get(MULTIPROCESS):
        (Path(folder) / f"{camera}{_FORGOTTEN}").touch()  # `exposition` filters the values in the files
        return
    for metric in _of_cameras():
        metric.remove_by_labels({"camera": camera})


def remember(camera: str) -> None:
    """Show the series of a camera again after `forget`; does nothing for a camera that was not forgotten."""
    if folder := os.environ.get(MULTIPROCESS):
        (Path(folder) / f"{camera}{_FORGOTTEN}").unlink(missing_ok=True)


def _of_cameras() -> list[MetricWrapperBase]:
    ours = (value for value in globals().values() if isinstance(value, MetricWrapperBase))
    return [metric for metric in ours if "camera" in metric._labelnames]


class Rate:
    """The rate of events per second over about the last five seconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def add(self, now: float) -> None:
        """Count one event at the monotonic time ``now`` in seconds."""
        self._times.append(now)
        if len(self._times) > 2000 or self._times[0] < now - 10:
            self._times = [t for t in self._times[-2000:] if t >= now - 5]

    def now(self) -> float:
        """Return the rate, per second."""
        now = time.monotonic()
        recent = [t for t in self._times if t >= now - 5]
        return round((len(recent) - 1) / (now - recent[0]), 2) if len(recent) > 1 else 0.0


class _Remembered(CollectorRegistry):
    """The metrics of all processes of a run, without the series of forgotten cameras."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._forgotten = {path.name.removesuffix(_FORGOTTEN) for path in Path(folder).glob(f"*{_FORGOTTEN}")}
        MultiProcessCollector(self, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if s.labels.get("camera") not in self._forgotten]
            yield metric


def exposition() -> bytes:
    """Return all metrics in Prometheus text format: of this process, or under `run` of all its processes."""
    if MULTIPROCESS in os.environ:
        return prometheus_client.generate_latest(_Remembered(os.environ[MULTIPROCESS]))
    return prometheus_client.generate_latest(_WithoutCreated())


class _WithoutCreated:
    """The registry without the series ``..._created``, which would double the size of the page."""

    def collect(self) -> Iterator[Metric]:
        for family in REGISTRY.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def serve(settings: Settings, ready: Callable[[], str]) -> Server | None:
    """Serve ``/metrics``, ``/healthz`` (200 while the process answers) and ``/readyz`` (200 when it can work).

    If a token is set, a client that does not send it learns only that the process is alive, and whether it is ready.

    Args:
        settings: the whole tree; ``metrics`` is the address, ``metrics_token`` the file with the token.
        ready: returns what is missing until this process can work, or an empty text.

    Returns:
        The server, or ``None`` if no address is set.

    Raises:
        ConfigError: the address is invalid, other machines can reach it and there is no token, or the token cannot be
            read.
        TransportError: the address cannot be bound.
    """

    def readiness(trusted: bool) -> Answer:
        missing = ready()
        body = {"status": "not ready" if missing else "ready"}
        if missing and trusted:
            body["missing"] = missing
        return Answer(503 if missing else 200, "application/json", json.dumps(body).encode() + b"\n")

    pages: dict[str, Callable[[bool], Answer | None]] = {
        "/metrics": lambda trusted: Answer(200, CONTENT_TYPE_LATEST, exposition()) if trusted else None,
        "/healthz": lambda _: Answer(200, "application/json", b'{"status":"alive"}\n'),
        "/readyz": readiness,
    }
    if settings.metrics is None:
        return None
    return Server(settings.metrics, pages, read_token(settings.metrics_token) if settings.metrics_token else None)
