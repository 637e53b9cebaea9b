"""A recording in; tables, events, plots, a report and an annotated video out. What `fer-stream analyze` runs.

`observe` looks (the service's own code, under ``wait``), `tables`, `summary`, `plots`, `report` and `video` write down,
and `folder` puts all of it together.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import folders, machine
from fer_stream.analysis import tables
from fer_stream.analysis.folder import Analysis
from fer_stream.analysis.observe import Observer, refuse_live
from fer_stream.analysis.pictures import Pictures
from fer_stream.config import CameraSettings, load
from fer_stream.extras import require
from fer_stream.sources.images import is_image

if TYPE_CHECKING:
    from fer_stream.config import Settings

__all__ = ["Analysis", "analyze"]


def analyze(
    source: str | Path, settings: Settings | None = None, *, threads: int | None = None, pictures: bool = False
) -> Any:
    """Return the faces of a recording as a ``polars.DataFrame``, a row a face and frame (`fer_stream.analysis.tables`).

    ::

        faces = fer_stream.analyze("talk.mp4")
        faces.group_by("label").len()

    Args:
        source: a video, an image, or a folder of images that follow one another.
        settings: by default those in force (`fer_stream.config.load`).
        threads: frames looked at at once; by default one a core. More than the setting ``depth`` are of no use.
        pictures: the images of the folder have nothing to do with one another.

    It needs the extra ``analyze``, and memory for the whole table; `fer-stream analyze` does not.

    Raises:
        SourceError: it cannot be read.
        ConfigError: it is a live camera.
        PluginError: the extra is not installed.
    """
    require("polars", "analyze")
    refuse_live(str(source))
    path, threads = folders.expand(Path(source)), threads or machine.threads()
    settings = (settings or load()).model_copy(update={"cameras": {"film": CameraSettings(source=str(source))}})
    if pictures or is_image(path):
        images = Pictures(settings, "film", threads)
        table = tables.frame([row for rows in images for row in rows], images.columns)
        for error in images.broken:
            raise error
        return table
    observer = Observer(settings, "film", threads)
    labels, start = observer.label_set.labels, observer.reader.clock.start
    with closing(iter(observer)) as found:
        rows = [row for seen in found for row in tables.rows(seen, start, labels, observer.labels)]
    return tables.frame(rows, tables.columns(labels, observer.labels))
