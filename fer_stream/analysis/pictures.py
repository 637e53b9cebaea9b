"""Pictures that have nothing to do with one another: each face is scored once, and there are no tracks or events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fer_stream import __version__
from fer_stream.analysis import tables
from fer_stream.config import CameraSettings
from fer_stream.recognizer import Recognizer
from fer_stream.sources.images import Images, is_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_stream.config import Settings


def is_pictures(path: Path) -> bool:
    """Whether a path is an image, or a folder with images."""
    return is_image(path) or (path.is_dir() and any(map(is_image, path.iterdir())))


class Pictures:
    """An image, or the images of a folder."""

    def __init__(self, settings: Settings, path: Path) -> None:
        self._recognizer = Recognizer.from_settings(settings)
        self._path = path
        self._images = Images(path, CameraSettings(source=str(path)))

    def write(self, folder: Path, progress: Callable[[int, int | None], None]) -> dict[str, Any]:
        """Write ``faces.csv`` and ``faces.parquet`` into a folder, and return a summary.

        Raises:
            SourceError: an image cannot be read.
        """
        labels = self._recognizer.labels
        types: dict[str, type] = {"image": str} | dict.fromkeys(("x1", "y1", "x2", "y2", "detection"), float)
        types |= {"label": str, "quality": float} | dict.fromkeys(labels, float)
        table, found, number = tables.CsvTable(folder / "faces.csv", types), Counter[str](), 0
        try:
            for number, name in enumerate(self._images.names, 1):
                picture = self._images.read()
                for face in self._recognizer.recognize(picture.image).faces if picture else ():
                    scores = face.scores.as_dict() if face.scores else {}
                    label = max(scores, key=scores.__getitem__)
                    found[label] += 1
                    box = [round(side, 1) for side in face.box]
                    probabilities = [round(value, tables.PLACES) for value in scores.values()]
                    score, quality = round(face.score, tables.PLACES), round(face.quality, tables.PLACES)
                    table.write([name, *box, score, label, quality, *probabilities])
                progress(number, self._images.frames)
        finally:
            table.close()
        tables.to_parquet(folder / "faces.csv", folder / "faces.parquet", types)
        return {
            "source": self._path.name,
            "images": number,
            "faces": found.total(),
            "labels": dict(found.most_common()),
            "version": __version__,
            "model": self._recognizer.classifier.version,
        }
