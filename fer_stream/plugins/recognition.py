"""The interfaces of sources, detectors and classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.types import Expected, Face, Measure, Picture, Region

    Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8] | None]


class Source(Protocol):
    """Delivers pictures. Used by one thread, except that another thread may call `close`.

    A factory that cannot open its source raises `SourceError`. With ``transient=True`` a later attempt may succeed, and
    the capture retries, unless ``retry = false``.
    """

    live: bool
    """Whether pictures arrive in real time and cannot be read again (a camera); ``False``: recorded (a file)."""
    frames: int | None
    """Number of pictures of a recorded source; ``None`` if unknown."""

    def read(self) -> Picture | None:
        """Return the next picture, blocking until it arrives; ``None`` at the end.

        It holds pixels, planar or BGR, or the camera's own JPEG as `fer_stream.Jpeg`, which the capture validates.

        Raises:
            SourceError: the source failed.
        """
        ...

    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
        ...


@runtime_checkable
class AllocatingSource(Source, Protocol):
    """A source that can write a picture into memory that the capture provides, which saves a copy."""

    allocate: Allocate | None
    """Called with a shape, ``(H, W, 3)`` or for planar pixels ``(H * 3 / 2, W)``; returns memory for a picture (uint8,
    C-contiguous), or ``None`` if none is free."""


@runtime_checkable
class DamageCountingSource(Source, Protocol):
    """A source that leaves out damaged pictures, and counts them."""

    damaged: int
    """Number of pictures left out so far. The capture counts them as captured and rejected."""


class Detector(Protocol):
    """Finds faces. It keeps no state between frames: the result depends only on the image.

    A detector or classifier with an attribute ``planar = True`` also gets pictures as `fer_stream.Yuv`, as video
    decoders give them. For others these are converted to BGR. A worker calls them for several frames at once (the
    setting ``batch``), each in a thread of its own, only if both have ``concurrent = True``.
    """

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces in ``image`` (uint8 ``[H, W, 3]``, BGR), without expression scores."""
        ...


@runtime_checkable
class FollowingDetector(Detector, Protocol):
    """A detector that can also verify expected faces and search parts of an image, which saves most of its work."""

    def look(
        self, image: NDArray[np.uint8], expected: Sequence[Expected], regions: Sequence[Region]
    ) -> tuple[list[Face | None], list[Face]]:
        """Return each expected face at its new position, or ``None`` if it is gone; and the new faces in ``regions``.

        An expected face that is ``due`` is returned with landmarks, if the detector has any.
        """
        ...


class Classifier(Protocol):
    """Scores apparent expressions. It crops the faces itself: the crop's margins around a box depend on its model.

    An attribute ``smoother``, a mapping of names to numbers such as ``{"tau": 0.4}``, replaces default values of the
    settings in the section ``smoother``. What the user sets takes precedence.
    """

    labels: tuple[str, ...]
    version: str
    """The model's name and version, for display."""

    def classify(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.float32]:
        """Return probabilities, float32 ``[len(faces), len(labels)]``, each row summing to 1."""
        ...


@runtime_checkable
class MeasuringClassifier(Classifier, Protocol):
    """A classifier that also gives measures: numbers on scales, such as valence and arousal."""

    measures: tuple[Measure, ...]
    """Their names and scales; may be empty."""

    def assess(
        self, image: NDArray[np.uint8], faces: Sequence[Face]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the probabilities as `classify`, and measures, float32 ``[len(faces), len(measures)]``."""
        ...
