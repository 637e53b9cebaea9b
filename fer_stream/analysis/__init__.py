"""A recording in; tables, events, plots, a report and an annotated video out. What `fer-stream analyze` runs.

`observe` looks (the service's own code, under ``wait``), `tables`, `summary`, `plots`, `report` and `video` write down,
`output` knows what in a folder is ours, and `folder` puts all of it together.
"""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.analysis import tables
from fer_stream.analysis.folder import Analysis
from fer_stream.analysis.observe import Observer, refuse
from fer_stream.analysis.pictures import Pictures, are_pictures
from fer_stream.errors import AnalysisWarning, ConfigError, SourceError
from fer_stream.settings.tree import CameraSettings, load
from fer_stream.system import folders
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from fer_stream.settings.tree import Settings

__all__ = ["Analysis", "analyze"]


def analyze(
    source: str | Path,
    settings: Settings | None = None,
    *,
    camera: str | None = None,
    threads: int | None = None,
    pictures: bool = False,
) -> Any:
    """Return the faces of a recording as a ``polars.DataFrame``, a row a face and frame (`fer_stream.analysis.tables`).

    ::

        faces = fer_stream.analyze("talk.mp4")
        faces.group_by("label").len()

    What could not be analysed is told by an `AnalysisWarning`, and stands in the table's attribute ``errors``: a tuple
    of `SourceError`, empty where all is well. A recording that breaks has the rows before, and of many pictures those
    that cannot be read have none. ``warnings.simplefilter("error", fer_stream.AnalysisWarning)`` makes errors of them.

    Of the settings, those of the models, of tracks and of labels apply, ``depth``, ``workers`` (as ``threads``), and of
    the recording's camera ``plugin``, ``rate`` (which gives the frames their times; nothing waits), ``masks``,
    ``start_time`` and what concerns decoding. Its camera is the one that ``camera`` names, or else the one with this
    ``source``, or with the name of the file without its suffix. ``loop`` and a camera's policy ``drop_oldest`` are
    refused. What concerns a running service (addresses, keys, journal, sinks, metrics, deadlines) has no part in it.

    Args:
        source: a video, an image, or a folder of images that follow one another.
        settings: by default those in force (`fer_stream.settings.tree.load`).
        camera: the name of the camera in ``settings`` whose masks, rate and other settings apply.
        threads: frames looked at at once; by default the setting ``workers``. More than ``depth`` are of no use.
        pictures: the images of the folder have nothing to do with one another.

    It needs the extra ``analyze``, and memory for the whole table; `fer-stream analyze` does not.

    Raises:
        SourceError: it cannot be read, none of it.
        ConfigError: it is a live camera, or a setting of its camera cannot be heeded, or it is not clear which one its
            camera is.
        PluginError: the extra is not installed.
        ValueError: ``source`` is no path.
    """
    require("polars", "analyze")
    if not isinstance(source, str | os.PathLike):
        what = f"{type(source).__module__}.{type(source).__qualname__}"
        raise ValueError(f"analyze takes the path of a recording, not {what}: pictures go to fer_stream.recognize")
    address = os.fspath(source)
    settings, given = settings or load(), settings is not None
    film = _camera(address, settings, camera, given=given).model_copy(update={"source": address})
    refuse(film)
    settings, threads = settings.model_copy(update={"cameras": {"film": film}}), threads or settings.workers
    found = _pictures if are_pictures(film, asked=pictures) else _recording
    table, errors = found(settings, threads)
    table.errors = errors
    if errors:
        more = f" (and {len(errors) - 1} more, in the table's `errors`)" if len(errors) > 1 else ""
        warnings.warn(f"{errors[0]}{more}", AnalysisWarning, stacklevel=2)
    return table


def _camera(address: str, settings: Settings, name: str | None, *, given: bool) -> CameraSettings:
    """Return the settings of a recording's camera; those of others are nothing to it.

    Raises:
        ConfigError: it is not clear which one it is, though the settings were ``given`` for this recording.
    """
    cameras = settings.cameras
    if name is not None and name not in cameras:
        raise ConfigError(f"there is no camera {name!r} in the settings; there are: {', '.join(cameras) or 'none'}")
    path = _path(address)
    same = [other for other, its in cameras.items() if its.source == address or _path(its.source) == path]
    if name is None and len(same) > 1:
        raise ConfigError(f"{' and '.join(same)} have the source {address!r}: name the one that applies by camera=")
    chosen = name or (same[0] if same else path.stem)
    if chosen in cameras:
        return cameras[chosen]
    if cameras and given:
        raise ConfigError(
            f"none of the settings' cameras ({', '.join(cameras)}) has the source {address!r}: name the one that "
            "applies by camera=, or leave them out"
        )
    return CameraSettings(source=address)


def _path(address: str) -> Path:
    path = folders.expand(Path(address.removeprefix("file://")))
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # no name that a file can have; opening it tells
        return path


def _pictures(settings: Settings, threads: int) -> tuple[Any, tuple[SourceError, ...]]:
    images = Pictures(settings, "film", threads)
    table = tables.frame([row for rows in images for row in rows], images.columns)
    if len(images.broken) == images.count:
        raise images.broken[0]
    return table, tuple(images.broken)


def _recording(settings: Settings, threads: int) -> tuple[Any, tuple[SourceError, ...]]:
    observer = Observer(settings, "film", threads)
    labels = observer.label_set.labels
    table = tables.Rows(observer.reader.clock.start, labels, observer.labels)
    rows: list[tables.Row] = []
    errors: list[SourceError] = []
    count = 0
    with closing(iter(observer)) as found:
        try:
            for seen in found:
                count += seen.frame is not None
                rows += table.of(seen)
        except SourceError as error:
            if not count:
                raise
            errors.append(error)
    if observer.rejected:
        name = Path(settings.cameras["film"].source).name
        frames = f"{observer.rejected} frame{'s' if observer.rejected > 1 else ''} of {name!r}"
        errors.append(SourceError(f"{frames} could not be looked at: no rows are of them"))
    return tables.frame(rows, tables.columns(labels, observer.labels)), tuple(errors)
