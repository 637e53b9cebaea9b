"""Adds trials and exports to a finished analysis, without analysing the recording again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_stream.analysis import exports, page, statistics, statistics_report, trials
from fer_stream.analysis.exports import Recording
from fer_stream.analysis.output import EXPORTS
from fer_stream.client.recorded import EVENTS
from fer_stream.client.recorded import Recording as Events
from fer_stream.errors import AnnotationError
from fer_stream.events.statistics import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_stream.analysis.output import OutputFolder
    from fer_stream.interchange.markers import Marker
    from fer_stream.types import Places

PAGE = "report.html"

TRIALS = "trials"
"""The key of a summary for the trials that are in the tables."""


@dataclass(frozen=True, slots=True)
class Source:
    """The recording of an analysis.

    Args:
        camera: its camera's name.
        address: the camera's source.
        path: the source as a path, which does not exist if it is an address.
        start: the capture time of the recording's beginning, in nanoseconds.
        places: the camera's zones and lines.
        least_faces: statistics about fewer faces are withheld.
    """

    camera: str
    address: str
    path: Path
    start: int
    places: Places | None
    least_faces: int


def add(
    output: OutputFolder,
    summary: dict[str, Any],
    source: Source,
    kinds: Sequence[str],
    wanted: Sequence[Marker] | None,
) -> dict[str, Any]:
    """Add exports and trials to a finished analysis, and return its new summary; ``summary`` itself if none is missing.

    Its other exports stay. The exports are added even if a trial does not fit.

    Args:
        output: the folder of the analysis.
        summary: its summary.
        source: its recording.
        kinds: the kinds of `fer_stream.analysis.exports` to add if they are missing.
        wanted: the trials, which replace the earlier ones; ``None`` keeps those.

    Raises:
        AnnotationError: a trial starts after the last frame, or the analysis is of pictures, which have no times.
        ConfigError: the folder cannot be written, or holds foreign files.
        ModelError: a label or measure of the model has the name of the column for trials.
    """
    if "images" in summary and (kinds or wanted):
        raise AnnotationError(
            f"{summary['source']}: pictures have no times, so there are no exports or trials of them: leave out "
            "--export and --markers"
        )
    missing = [kind for kind in kinds if kind not in summary.get(EXPORTS, ())]
    if missing:
        summary = _add_exports(output, summary, source, missing)
    as_json = None if wanted is None else [_as_dict(trial) for trial in wanted]
    if wanted is None or as_json == summary.get(TRIALS, []):
        return summary
    trials.check(wanted, summary["source"], summary["duration_s"])
    tables = [f"{name}.{suffix}" for name in trials.TABLES for suffix in ("csv", "parquet")]
    with output.replacing([*tables, *statistics.FILES, PAGE]) as part:
        marking, record = trials.Marking(wanted, marked=TRIALS in summary), Record()
        for name in tables:
            marking.copy(output.path / name, part / name)
        for event in Events(source.camera, source.start, output.path / EVENTS, summary["source"]).events():
            record.take(event)
        spans = trials.spans(wanted, source.start)
        statistics.write(record, part, summary["labels"], source.places, source.least_faces, spans)
        further = statistics_report.sections(part, summary["share"])
        text = (output.path / PAGE).read_text(encoding="utf-8")
        (part / PAGE).write_text(page.with_further(text, further), encoding="utf-8")
        return output.finish(summary | {TRIALS: as_json}, keep=summary["files"])


def _add_exports(
    output: OutputFolder, summary: dict[str, Any], source: Source, missing: Sequence[str]
) -> dict[str, Any]:
    with output.replacing(exports.names(missing, source.camera)) as part:
        spans, labels = exports.read_events(output.path / EVENTS, source.start)
        recording = Recording(
            name=source.camera,
            title=summary["source"],
            media=exports.media_path(source.address, source.path, output.path),
            duration=summary["duration_s"],
            frames=summary["frames"],
            version=summary["version"],
            model=summary["model"],
            labels=labels,
            spans=spans,
        )
        exports.write(missing, recording, part)
        kinds = summary.get(EXPORTS, {}) | {kind: exports.names([kind], source.camera) for kind in missing}
        return output.finish(summary | {EXPORTS: kinds}, keep=summary["files"])


def _as_dict(trial: Marker) -> dict[str, Any]:
    return {"name": trial.name, "start": trial.start, "end": trial.end}
