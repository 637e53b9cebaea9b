"""Analyses a recording: writes tables, events, plots, a report and an annotated video. Used by `fer-stream analyze`.

`observe` runs the service's own code (policy ``wait``) over the recording. `columns` defines the tables, `rows` makes
their rows, `tables` writes them, and `provenance` describes how they were made. `summary`, `plots`, `report` and
`video` produce the other output files, `output` records which files fer_stream wrote, and `folder` combines these
modules. `supplement` adds exports and trials to a finished analysis, and `study` joins the tables of several films.
"""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.analysis import provenance
from fer_stream.analysis.columns import Layout
from fer_stream.analysis.folder import Analysis
from fer_stream.analysis.observe import Observer, Recognizers, refuse
from fer_stream.analysis.pictures import Pictures, are_pictures
from fer_stream.analysis.rows import Rows
from fer_stream.analysis.tables import Tables, frame
from fer_stream.errors import AnalysisWarning, ConfigError, SourceError
from fer_stream.events.calibration import of_camera
from fer_stream.settings.tree import CameraSettings, load
from fer_stream.system import folders
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from fer_stream.analysis.rows import Row
    from fer_stream.plugins import Classifier, Detector
    from fer_stream.settings.tree import Settings

__all__ = ["Analysis", "Tables", "analyze"]


def analyze(
    source: str | Path,
    settings: Settings | None = None,
    *,
    camera: str | None = None,
    threads: int | None = None,
    pictures: bool = False,
    detector: Detector | None = None,
    classifier: Classifier | None = None,
) -> Tables:
    """Return the tables of a recording: its faces, its events and its frames.

    ::

        talk = fer_stream.analyze("talk.mp4")
        talk.faces.group_by("label").len()
        talk.to_pandas().events

    The columns are described in docs/reference/tables.md. If a part of the input cannot be analysed, an
    `AnalysisWarning` is issued, and the attribute ``errors`` (a tuple of `SourceError`, otherwise empty) gives the
    reasons. A recording that breaks off has rows up to that frame; an unreadable picture among many has no faces.
    ``warnings.simplefilter("error", fer_stream.AnalysisWarning)`` turns the warning into an exception.

    These settings apply: models, tracks, labels, ``depth``, ``workers`` (as ``threads``), and from the recording's
    camera ``plugin``, ``rate`` (it sets the frames' times; nothing waits), ``masks``, ``zones``, ``lines``,
    ``start_time`` and the decoding settings. The camera is the one named by ``camera``, else the one with this
    ``source``, else the one named like the file without its suffix. ``loop`` and a camera's policy ``drop_oldest`` are
    refused. Settings of a running service (addresses, keys, journal, sinks, metrics, deadlines) are ignored.

    Args:
        source: a video, an image, or a folder of consecutive images.
        settings: by default the settings in force (`fer_stream.settings.tree.load`).
        camera: the name of the camera in ``settings`` whose masks, rate and other settings apply.
        threads: frames analysed in parallel; by default the setting ``workers``. A recording uses at most ``depth``.
        pictures: the images of the folder are unrelated, not consecutive frames.
        detector: finds the faces, in place of the one in the settings. One thread at a time uses it.
        classifier: scores them, in place of the one in the settings. One thread at a time uses it.

    The extra ``analyze`` must be installed. Unlike `fer-stream analyze`, this function holds the tables in memory.

    Raises:
        SourceError: nothing of the input can be read.
        ConfigError: the source is a live camera, a setting of its camera cannot be followed, or several cameras or none
            match the source.
        PluginError: the extra is not installed.
        ValueError: ``source`` is not a path.
    """
    require("polars", "analyze")
    if not isinstance(source, str | os.PathLike):
        what = f"{type(source).__module__}.{type(source).__qualname__}"
        raise ValueError(f"analyze takes the path of a recording, not {what}: pass pictures to fer_stream.recognize")
    address = os.fspath(source)
    settings, given = settings or load(), settings is not None
    name, film = _camera(address, settings, camera, given=given)
    film = film.model_copy(update={"source": address})
    refuse(film)
    calibration = list(of_camera(settings.calibration, name).values())
    update = {"cameras": {"film": film}, "calibration": dict(zip(["film"], calibration, strict=False))}
    settings = settings.model_copy(update=update)
    threads = threads or settings.workers
    run = _pictures if are_pictures(film, asked=pictures) else _recording
    objects = Recognizers(settings, 1, detector, classifier) if detector or classifier else None
    tables = run(settings, threads, objects)
    for name, model in (("detector", detector), ("classifier", classifier)):
        if model:  # it replaces the one in the settings
            tables.provenance["settings"][name] = f"{type(model).__module__}.{type(model).__qualname__}"
    if errors := tables.errors:
        more = f" (and {len(errors) - 1} more, in the tables' `errors`)" if len(errors) > 1 else ""
        warnings.warn(f"{errors[0]}{more}", AnalysisWarning, stacklevel=2)
    return tables


def _camera(address: str, settings: Settings, name: str | None, *, given: bool) -> tuple[str, CameraSettings]:
    """Return the name and the settings of the camera that belongs to a recording.

    If none does, defaults are used, unless the settings were ``given`` for this recording and define cameras.

    Raises:
        ConfigError: several cameras match, or the settings were ``given`` and none matches.
    """
    cameras = settings.cameras
    if name is not None and name not in cameras:
        raise ConfigError(f"there is no camera {name!r} in the settings; there are: {', '.join(cameras) or 'none'}")
    path = _path(address)
    same = [other for other, camera in cameras.items() if camera.source == address or _path(camera.source) == path]
    if name is None and len(same) > 1:
        raise ConfigError(f"{' and '.join(same)} have the source {address!r}: choose one with camera=")
    chosen = name or (same[0] if same else path.stem)
    if chosen in cameras:
        return chosen, cameras[chosen]
    if cameras and given:
        raise ConfigError(
            f"none of the settings' cameras ({', '.join(cameras)}) has the source {address!r}: choose one with "
            "camera=, or remove the cameras from the settings"
        )
    return chosen, CameraSettings(source=address)


def _path(address: str) -> Path:
    path = folders.expand(Path(address.removeprefix("file://")))
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # not a valid file name; opening the file reports that
        return path


def _pictures(settings: Settings, threads: int, recognizers: Recognizers | None) -> Tables:
    images = Pictures(settings, "film", threads, recognizers)
    found = list(images)
    if len(images.broken) == images.count:
        raise images.broken[0]
    made, layout = provenance.about(settings, images.model), images.layout
    return Tables(
        faces=frame([row for picture in found for row in picture.faces], layout.faces),
        events=frame([], Layout(layout.labels, (), layout.measures).events),
        frames=frame([picture.row for picture in found], layout.frames),
        errors=tuple(images.broken),
        provenance=provenance.provenance(made, settings.cameras["film"]),
    )


def _recording(settings: Settings, threads: int, recognizers: Recognizers | None) -> Tables:
    observer = Observer(settings, "film", threads, recognizers=recognizers)
    measures = [measure.name for measure in observer.measures]
    layout = Layout(observer.label_set.labels, observer.labels, measures)
    rows = Rows(observer.reader.clock.start, layout)
    faces: list[Row] = []
    events: list[Row] = []
    frames: list[Row] = []
    errors: list[SourceError] = []
    count = 0
    with closing(iter(observer)) as found:
        try:
            for seen in found:
                count += seen.frame is not None
                events += [rows.event(event) for event, _ in seen.events]
                for ready in rows.of(seen):
                    frames.append(ready.row)
                    faces += [face.row for face in ready.faces]
        except SourceError as error:
            if not count:
                raise
            errors.append(error)
    if observer.rejected:
        name = Path(settings.cameras["film"].source).name
        many = f"{observer.rejected} frame{'s' if observer.rejected > 1 else ''} of {name!r}"
        errors.append(SourceError(f"{many} could not be analysed and have no faces"))
    made = provenance.about(settings, observer.model, observer.smoother)
    return Tables(
        faces=frame(faces, layout.faces),
        events=frame(events, layout.events),
        frames=frame(frames, layout.frames),
        errors=tuple(errors),
        provenance=provenance.provenance(made, settings.cameras["film"]),
    )
