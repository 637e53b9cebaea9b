"""Finds faces and scores their apparent expressions in one picture, with a detector and a classifier."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream import plugins
from fer_stream.errors import ConfigError, PluginError
from fer_stream.imaging import motion, quality
from fer_stream.imaging.pixels import pixels
from fer_stream.imaging.yuv import Yuv
from fer_stream.plugins import FollowingDetector, MeasuringClassifier
from fer_stream.settings.deployment import check_purpose
from fer_stream.settings.sections import SmootherSettings
from fer_stream.types import THUMBNAIL, Box, Face, Measures, Probabilities, Region, Searched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fer_stream.plugins import Classifier, Detector
    from fer_stream.settings.tree import Settings
    from fer_stream.types import Hints, Measure


@dataclass(frozen=True, slots=True)
class Recognition:
    """The result for one image."""

    faces: tuple[Face, ...]
    seconds: dict[str, float]
    """Seconds for each stage: ``detect`` and ``classify``."""
    searched: Searched | None = None
    """The cells of the image that were searched for new faces; ``None``: none, or there were no hints."""


_last_unpickled: tuple[str, Recognizer] | None = None


def _unpickled(kind: type[Recognizer], settings: Settings) -> Recognizer:
    """Return the recognizer that was unpickled last, if it has the same settings, or else a new one."""
    global _last_unpickled  # noqa: PLW0603
    key = f"{kind!r} {settings.model_dump_json()}"
    if _last_unpickled is None or _last_unpickled[0] != key:
        _last_unpickled = key, kind.from_settings(settings)
    return _last_unpickled[1]


@cache
def _default() -> Recognizer:
    from fer_stream.settings.tree import load  # noqa: PLC0415  (slow to import, not always needed)

    return Recognizer.from_settings(load())


def recognize(image: NDArray[np.uint8]) -> tuple[Face, ...]:
    """Return the faces in one picture (uint8 ``[H, W, 3]``, BGR, as OpenCV reads it), each with its probabilities.

    ::

        for face in fer_stream.recognize(cv2.imread("portrait.jpg")):
            print(face.box, face.probabilities.top())

    The settings in force at the first call choose the models, which are loaded once per process.

    Raises:
        PluginError: the detector or the classifier is not installed.
        ModelError: a model file is missing or breaks its contract.
        ValueError: ``image`` is not such an array. The message says what it appears to be, and how to convert it.
    """
    return _default().recognize(image).faces


def _as_accepted(image: NDArray[np.uint8] | Yuv, model: Detector | Classifier) -> Any:
    """Return a picture for a detector or classifier: as BGR, unless the model has ``planar = True``."""
    return image.decode() if isinstance(image, Yuv) and not getattr(model, "planar", False) else image


def _finite(found: Any, faces: int, columns: int, what: str) -> list[list[float]]:
    """Return what a classifier gives, after a check.

    Raises:
        PluginError: it is not one row of finite numbers per face.
    """
    rows = np.asarray(found)
    if rows.shape != (faces, columns) or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        wanted = f"finite numbers [{faces}, {columns}]: one row per face, one column per {what}"
        raise PluginError(f"the classifier gives {rows.dtype} {list(rows.shape)}, and must give {wanted}")
    listed: list[list[float]] = rows.tolist()
    return listed


class Recognizer:
    """Finds faces and scores their apparent expressions; keeps no state between images.

    A recognizer made by `from_settings` of settings alone can be pickled, for example for a process pool: each process
    loads the models.
    """

    def __init__(self, detector: Detector, classifier: Classifier) -> None:
        self.detector = detector
        self.classifier = classifier
        self._settings: Settings | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, *, detector: Detector | None = None, classifier: Classifier | None = None
    ) -> Recognizer:
        """Load the detector and the classifier that the settings name, unless an object is given in place of one.

        Raises:
            PluginError: one of them is not installed.
            ModelError: a model file is missing or breaks its contract.
            ConfigError: the purpose given in the settings is prohibited.
        """
        check_purpose(settings)
        made = cls(
            detector or plugins.load("detectors", settings.detector.name)(settings.detector),
            classifier or plugins.load("classifiers", settings.classifier.name)(settings.classifier),
        )
        made._settings = None if detector or classifier else settings
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings, because loaded models cannot be moved to another process.

        A process that unpickles the same settings several times in a row loads the models once.

        Raises:
            TypeError: the recognizer was not made by `from_settings`.
        """
        if self._settings is None:
            raise TypeError(
                "a Recognizer can be pickled only if it was made by Recognizer.from_settings; "
                "make one in each process instead"
            )
        return _unpickled, (type(self), self._settings)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classifier's labels."""
        return self.classifier.labels

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The classifier's measures; none if it is no `fer_stream.plugins.MeasuringClassifier`."""
        return self.classifier.measures if isinstance(self.classifier, MeasuringClassifier) else ()

    @property
    def smoother(self) -> Mapping[str, float]:
        """The classifier's own smoother settings, by name; none if it has no attribute ``smoother``.

        Raises:
            PluginError: they are not valid.
        """
        own: Mapping[str, float] = getattr(self.classifier, "smoother", {})
        try:
            SmootherSettings().with_model(own)
        except ConfigError as error:
            raise PluginError(str(error)) from error
        return own

    @property
    def concurrent(self) -> bool:
        """Whether `recognize` may run in several threads at once (`fer_stream.plugins.Detector`)."""
        return all(getattr(model, "concurrent", False) is True for model in (self.detector, self.classifier))

    def recognize(self, image: NDArray[np.uint8] | Yuv, hints: Hints | None = None) -> Recognition:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR; or planar), in the detector's order.

        Without hints, the whole image is searched, and all faces are scored. With hints, expected faces are checked,
        and new faces are searched for only where the hints say; only new faces and faces that are due are scored. With
        a detector that is not a `fer_stream.plugins.FollowingDetector`, hints are ignored.

        Raises:
            ValueError: ``image`` is not such an array. The message says what it appears to be, and how to convert it.
            PluginError: the classifier does not return one row of finite numbers per face, one column per label, or
                per measure.
        """
        image = image if isinstance(image, Yuv) else pixels(image)
        start = time.perf_counter()
        faces, due, searched = self._detect(image, hints)
        detected = time.perf_counter()
        rows, levels = self._classify(image, [faces[i] for i in due])
        names = tuple(measure.name for measure in self.measures)
        for i, row, level in zip(due, rows, levels, strict=True):
            faces[i] = replace(
                faces[i],
                probabilities=Probabilities(self.labels, tuple(row)),
                quality=quality.of(image, faces[i]),
                measures=Measures(names, tuple(level)) if names else None,
            )
        classified = time.perf_counter()
        return Recognition(tuple(faces), {"detect": detected - start, "classify": classified - detected}, searched)

    def _classify(
        self, image: NDArray[np.uint8] | Yuv, faces: list[Face]
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Return a row of probabilities and one of measures for each face."""
        given = _as_accepted(image, self.classifier)
        if not isinstance(self.classifier, MeasuringClassifier):
            rows = _finite(self.classifier.classify(given, faces), len(faces), len(self.labels), "label")
            return rows, [[] for _ in faces]
        probabilities, measures = self.classifier.assess(given, faces)
        return (
            _finite(probabilities, len(faces), len(self.labels), "label"),
            _finite(measures, len(faces), len(self.measures), "measure"),
        )

    def _detect(
        self, image: NDArray[np.uint8] | Yuv, hints: Hints | None
    ) -> tuple[list[Face], list[int], Searched | None]:
        """Return the faces, the indices of those to be scored, and the part of the image that was searched."""
        height, width = image.shape[:2]
        if not isinstance(self.detector, FollowingDetector) or hints is None:
            faces = self.detector.detect(_as_accepted(image, self.detector))
            return faces, list(range(len(faces))), None
        searched, now, regions = None, None, []
        if hints.whole:
            regions = [Region(0, 0, width, height)]
            searched = Searched(np.ones(THUMBNAIL, np.bool_), motion.thumbnail(image))
        elif hints.seen is not None:
            now = motion.thumbnail(image)
            changed = motion.changed(now, hints.seen)
            cells = changed.copy()
            motion.cover(cells, (face.box for face in hints.faces), height, width)
            regions = motion.regions(cells, height, width)
        found, new = self.detector.look(_as_accepted(image, self.detector), hints.faces, regions)
        if now is not None:
            # Changed cells under a face that was found need no search. Those under a face that is gone come up again.
            elsewhere = changed.copy()
            motion.cover(elsewhere, (face.box for face in found if face is not None), height, width)
            searched = Searched(cells | (changed & ~elsewhere), now)
        faces, due = [], []
        for expected, face in zip(hints.faces, found, strict=True):
            if face is not None:
                if expected.due:
                    due.append(len(faces))
                faces.append(face)
        due += range(len(faces), len(faces) + len(new))
        return faces + new, due, searched

    def warm_up(self, height: int = 480, width: int = 640) -> None:
        """Run the detector and the classifier once, because the first runs are slow.

        ``height`` and ``width`` should be the size of the frames, if it is known.
        """
        blank = np.zeros((height, width, 3), np.uint8)
        self.recognize(blank)
        # A coarse pattern passes a detector's first net, so that the second one runs, too.
        cell = max(min(height, width) // 20, 1)
        pattern = np.random.default_rng(0).integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
        image = pattern.repeat(cell, 0).repeat(cell, 1)[:height, :width]
        self.recognize(image)
        self.classifier.classify(image, [Face(Box(width / 4, height / 4, width / 2, height / 2), 1.0)])
