"""Analyses unrelated pictures: each face is scored once, and there are no tracks or events."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_stream.analysis import rows
from fer_stream.analysis.columns import PictureLayout
from fer_stream.analysis.observe import Recognizers
from fer_stream.errors import ConfigError, SourceError
from fer_stream.imaging.privacy import mask
from fer_stream.sources import DEFAULT, choose
from fer_stream.sources.image_kinds import is_animation, is_image
from fer_stream.sources.images import Images, load
from fer_stream.system import folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.analysis.rows import Row
    from fer_stream.settings.tree import CameraSettings, Settings
    from fer_stream.types import Face

_log = logging.getLogger(__name__)


def are_pictures(camera: CameraSettings, *, asked: bool) -> bool:
    """Return whether a camera's images are unrelated: if this is ``asked`` for, or if the source is a single image.

    Raises:
        ConfigError: it is asked for, but the camera's source plug-in is not the default, which reads picture folders.
    """
    plugin, address = choose(camera)
    if plugin == DEFAULT:
        path = Path(address.removeprefix("file://")).expanduser()
        return asked or (is_image(path) and not is_animation(path))
    if asked:
        raise ConfigError(f"the source plug-in {plugin!r} does not read picture folders: leave out pictures or plugin")
    return False


class PictureRows(NamedTuple):
    """A picture's row in the table of frames, and the rows of its faces."""

    row: Row
    faces: list[Row]


class Pictures:
    """The image, or the images of a folder, of one camera of the settings. Iterate over it once to get each one's rows.

    ``threads`` images are analysed in parallel, by the recognizers of the settings unless others are given. After the
    end, ``broken`` holds an error for each image that could not be analysed.

    Raises:
        SourceError: the folder holds no image.
        PluginError, ModelError: the detector or the classifier cannot be loaded.
    """

    def __init__(self, settings: Settings, camera: str, threads: int, recognizers: Recognizers | None = None) -> None:
        self._camera = settings.cameras[camera].model_copy(update={"loop": False})
        path = folders.expand(Path(self._camera.source.removeprefix("file://")))
        images = Images(path, self._camera)
        self._paths = [path / name if path.is_dir() else path for name in images.names]
        self._threads = threads
        self._recognizers = recognizers or Recognizers(settings, threads)
        self.count = len(self._paths)
        self.model = self._recognizers.version
        measures = tuple(measure.name for measure in self._recognizers.measures)
        self.layout = PictureLayout(self._recognizers.labels, measures)
        self.faces: Counter[str] = Counter()
        """Number of faces by their most probable label; an empty text where the model has no labels."""
        self.broken: list[SourceError] = []

    def __iter__(self) -> Iterator[PictureRows]:
        with ThreadPoolExecutor(self._threads, "look") as pool:
            try:
                for path, found in zip(self._paths, pool.map(self._look, self._paths), strict=True):
                    if isinstance(found, SourceError):
                        self.broken.append(found)
                        yield PictureRows([path.name, None, None, None, False], [])
                        continue
                    (width, height), faces = found
                    seen: Row = [path.name, width, height, len(faces), True]
                    yield PictureRows(seen, [self._row(path.name, face) for face in faces])
            finally:
                pool.shutdown(cancel_futures=True)

    def _look(self, path: Path) -> tuple[tuple[int, int], tuple[Face, ...]] | SourceError:
        """Return the width and height of a picture, and its faces."""
        try:
            image = load(path)
        except SourceError as error:
            return error
        try:
            return image.shape[1::-1], self._recognizers.recognize(mask(image, self._camera.masks)).faces
        except Exception as error:  # any error of a model or a plug-in concerns this picture only
            _log.debug("traceback of the failed recognition", exc_info=True)
            return SourceError(f"the image {str(path)!r} cannot be recognised: {type(error).__name__}: {error}")

    def _row(self, name: str, face: Face) -> Row:
        probabilities = face.probabilities.as_dict() if face.probabilities else {}
        label = max(probabilities, key=probabilities.__getitem__, default=None)
        self.faces[label or ""] += 1
        levels = face.measures.values if face.measures else ()
        rounded = [round(value, rows.PLACES) for value in (*probabilities.values(), *levels)]
        confidence, quality = round(face.confidence, rows.PLACES), round(face.quality, rows.PLACES)
        return [name, *rows.box(face.box), confidence, *rows.pose(face), label, quality, *rounded]

    @property
    def shares(self) -> dict[str, float]:
        """The share of the faces with each label, 0 to 1, the largest first."""
        return {label: count / self.faces.total() for label, count in self.faces.most_common() if label}

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return {
            "images": self.count,
            "faces": self.faces.total(),
            "share": {label: round(share, 4) for label, share in self.shares.items()},
        }
