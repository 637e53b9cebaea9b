"""Measure how well heads that lean are found and recognised: PublicTest faces, turned in the picture plane.

    python -m training.turned data/fer2013.csv --plus data/fer2013new.csv

It prints three tables:

- **The classifier**: every face, turned around its centre, at its known position. Its landmarks are those that MTCNN
  finds in the picture that is not turned, or where it finds none the median of the others; they are turned with it.
  `as before` is without landmarks: the crop is not turned.
- **End to end**: every `--every`th face, in scenes of six, found by MTCNN, with and without `--rotations`. `found` is
  the share of faces found at their place. `sure but wrong` is the share of all faces, found or not, with a wrong label
  and a probability above 0.7. `followed` is the share that is found again by a look at the boxes of those found.
- **Cost**: the processor time of a crop and of the classifier's run, of one face, measured alternately.

A face is extended by half its size on every side (by repeating its border), and enlarged. So nothing of it is cut off
when it is turned, and it is interpolated as a camera's picture is.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import FerStreamError
from fer_stream.imaging import quality
from fer_stream.imaging.geometry import centre, roll, size
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from fer_stream.types import Box, Expected, Face
from training import data
from training.data import SIDE
from training.manifest import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Image = NDArray[np.uint8]
    Points = tuple[tuple[float, float], ...]

ANGLES = (0, 15, 30, 45, 60, 90, 135, 180)
"""Degrees by which the faces are turned, clockwise."""

ROTATIONS = (-60.0, -30.0, 30.0, 60.0)
"""`detector.rotations` in the second table, by default."""

SURE = 0.7
"""Probability from which a wrong label counts as sure."""

LARGE, SMALL = 192, 96
"""Side of a face in pixels: where its place is known, and in a scene."""

RUN = "the classifier's run"

COLUMNS, ROWS = 3, 2
"""Faces of a scene."""


def enlarged(face: Image, side: int) -> Image:
    """Return a face, uint8 ``[48, 48]``, with its surroundings: uint8 ``[2 * side, 2 * side]``."""
    margin = SIDE // 2
    wide = cv2.copyMakeBorder(face, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(wide, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC), np.uint8)


def turned(image: Image, degrees: float) -> Image:
    """Return a square picture, turned clockwise around its centre."""
    middle = (len(image) - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -degrees, 1)
    how = cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(image, matrix, image.shape[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE))


def turned_points(points: NDArray[np.float64], degrees: float, around: float) -> NDArray[np.float64]:
    """Return points ``[N, 2]``, turned clockwise around ``(around, around)``."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    result: NDArray[np.float64] = (points - around) @ np.array([[cosine, sine], [-sine, cosine]]) + around
    return result


def true_landmarks(faces: Sequence[Image]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the landmarks of faces enlarged to `LARGE`, float64 ``[N, 5, 2]``, and which of them were found."""
    detector, found = MTCNN(min_face=LARGE // 3), []
    for face in faces:
        seen = detector.detect(_bgr(enlarged(face, LARGE)))
        here = [other for other in seen if _is_at(other.box, (LARGE, LARGE), LARGE)]
        found.append(np.array(here[0].landmarks) if here else np.full((5, 2), np.nan))
    marks = np.array(found)
    known = ~np.isnan(marks[:, 0, 0])
    marks[~known] = np.median(marks[known], axis=0)
    return marks, known


def _bgr(grey: Image) -> Image:
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def _is_at(box: Box, middle: tuple[float, float], side: float) -> bool:
    """Return whether a box is that of a face of this side, in pixels, around ``middle``."""
    x, y = centre(box)
    return max(abs(x - middle[0]), abs(y - middle[1])) < side / 4 and 0.5 < size(box) / side < 1.6


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What was made of N faces: their probabilities, float64 ``[N, C]``, NaN where none was found; and the truth."""

    rows: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which faces were found."""
        return ~np.isnan(self.rows[:, 0])

    @property
    def right(self) -> NDArray[np.bool_]:
        """Of the faces that were found."""
        return np.asarray(self.rows[self.found].argmax(axis=1) == self.labels[self.found])

    @property
    def sure(self) -> NDArray[np.float64]:
        """The highest probability of the faces that were found."""
        return np.asarray(self.rows[self.found].max(axis=1))

    @property
    def misled(self) -> float:
        """The share of all faces that have a wrong label and a probability above `SURE`."""
        return float((~self.right & (self.sure > SURE)).sum() / len(self.labels))


def at_known_places(
    classifier: OnnxClassifier,
    faces: Sequence[Image],
    labels: NDArray[np.int64],
    marks: NDArray[np.float64],
    angles: Sequence[int] = ANGLES,
) -> Iterator[tuple[int, Reading, Reading]]:
    """Yield for each angle what the classifier makes of the faces, without landmarks and with them."""
    crop, large = classifier.crop, [enlarged(face, LARGE) for face in faces]
    half = LARGE / crop.side / 2
    for angle in angles:
        ((x, y),) = turned_points(np.array([[-crop.x, -crop.y]]) * 2 * half, angle, 0) + LARGE
        face = Face(Box(x - half, y - half, x + half, y + half), 1.0)
        before, after = [], []
        for image, points in zip(large, marks, strict=True):
            shown = _bgr(turned(image, angle))
            there = turned_points(points, angle, LARGE - 0.5)
            landmarks = tuple((x, y) for x, y in there.tolist())
            before.append(classifier.classify(shown, [face])[0])
            after.append(classifier.classify(shown, [replace(face, landmarks=landmarks)])[0])
        first, second = (Reading(np.array(rows, np.float64), labels) for rows in (before, after))
        yield angle, first, second


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What a detector and the classifier make of turned faces in scenes."""

    reading: Reading
    plain: Reading
    """The same without landmarks."""
    others: int
    """Boxes where no face is."""
    leans: NDArray[np.float64]
    """The measured lean minus the true one, in degrees, of the faces that were found."""
    qualities: NDArray[np.float64]
    """Of the faces that were found."""
    followed: float
    """The share of those found that a look at their boxes finds again, with landmarks."""


def scenes(faces: Sequence[Image], degrees: float) -> Iterator[tuple[Image, list[tuple[int, tuple[float, float]]]]]:
    """Yield pictures of turned faces, BGR, with the index and the centre of each face in them."""
    for start in range(0, len(faces), COLUMNS * ROWS):
        scene = np.full((2 * SMALL * ROWS, 2 * SMALL * COLUMNS), 127, np.uint8)
        places: list[tuple[int, tuple[float, float]]] = []
        for i, face in enumerate(faces[start : start + COLUMNS * ROWS]):
            y, x = (2 * SMALL * part for part in divmod(i, COLUMNS))
            scene[y : y + 2 * SMALL, x : x + 2 * SMALL] = turned(enlarged(face, SMALL), degrees)
            places.append((start + i, (x + SMALL, y + SMALL)))
        yield _bgr(scene), places


def search(
    detector: MTCNN,
    classifier: OnnxClassifier,
    faces: Sequence[Image],
    labels: NDArray[np.int64],
    lean: NDArray[np.float64],
    degrees: float,
) -> Search:
    """Return what is made of faces in scenes; ``lean`` is theirs before they are turned, in degrees."""
    rows = np.full((2, len(faces), len(classifier.labels)), np.nan)
    others, again, leans, qualities = 0, 0, [], []
    for image, places in scenes(faces, degrees):
        found = detector.detect(image)
        here: list[tuple[int, Face]] = []
        for i, middle in places:
            matches = [face for face in found if _is_at(face.box, middle, SMALL)]
            here += [(i, matches[0])] if matches else []
        others += len(found) - len(here)
        seen, _ = detector.look(image, [Expected(face.box, due=True) for _, face in here], [])
        again += sum(face is not None and len(face.landmarks) == 5 for face in seen)
        looks = [face for _, face in here]
        for k, shown in enumerate((looks, [replace(face, landmarks=()) for face in looks])):
            rows[k, [i for i, _ in here]] = classifier.classify(image, shown)
        leans += [(roll(face.landmarks) - lean[i] - degrees + 180) % 360 - 180 for i, face in here]
        qualities += [quality.of(image, face) for face in looks]
    reading, plain = (Reading(part, labels) for part in rows)
    return Search(reading, plain, others, np.array(leans), np.array(qualities), again / max(len(leans), 1))


def costs(
    classifier: OnnxClassifier, image: Image, face: Face, leaning: Face, rotations: tuple[float, ...]
) -> dict[str, float]:
    """Return milliseconds of processor time: medians of 100 measurements, taken alternately."""
    upright, more = MTCNN(SMALL // 2), MTCNN(SMALL // 2, rotations=rotations)
    inputs = classifier.sample(image, face)[None]
    what: dict[str, Callable[[], object]] = {
        "crop, upright": lambda: classifier.sample(image, face),
        "crop, turned": lambda: classifier.sample(image, leaning),
        RUN: lambda: classifier.run(inputs),
        "a search of a scene": lambda: upright.detect(image),
        f"a search with {len(rotations)} rotations": lambda: more.detect(image),
    }
    took: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(100):
        for name, call in what.items():
            begin = time.process_time_ns()
            call()
            took[name].append((time.process_time_ns() - begin) / 1e6)
    return {name: float(np.median(values)) for name, values in took.items()}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Measure how well heads that lean are found and recognised.")
    data.add_arguments(parser)
    parser.add_argument("--model", type=Path, default=MODELS / "emotion-ferplus.onnx", help="ONNX file")
    parser.add_argument("--rotations", type=float, nargs="+", default=ROTATIONS, help="detector.rotations")
    parser.add_argument("--every", type=int, default=2, help="take one of so many faces for the scenes")
    parser.add_argument("--angles", type=int, nargs="+", help="only these angles, in the scenes")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        classifier = OnnxClassifier(arguments.model)
        public = data.load(arguments.data, arguments.plus).split(data.PUBLIC)
        shown, labels = data.truth(public, classifier.labels)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    marks, known = true_landmarks(list(shown.images))
    print(f"{len(shown)} faces; landmarks of {known.sum()}")
    if not arguments.angles:
        print(
            "\n| turned by | as before: right | mean probability | sure but wrong | aligned: right | mean probability "
            "| sure but wrong |\n|---|---|---|---|---|---|---|"
        )
        for angle, *both in at_known_places(classifier, list(shown.images), labels, marks):
            cells = [f"{r.right.mean():.1%} | {r.sure.mean():.2f} | {r.misled:.1%}" for r in both]
            print(f"| {angle}° | {' | '.join(cells)} |", flush=True)
    few = slice(None, None, arguments.every)
    lean = np.array([roll(points) for points in marks.tolist()])
    print(
        "\n| rotations | turned by | found | right, of those | as before | mean probability | sure but wrong "
        "| as before | lean: error | followed | other boxes | quality |\n" + "|---" * 12 + "|"
    )
    for rotations in ((), tuple(arguments.rotations)):
        detector = MTCNN(min_face=SMALL // 2, rotations=rotations)
        for angle in arguments.angles or ANGLES:
            found = search(detector, classifier, list(shown.images[few]), labels[few], lean[few], angle)
            r, plain = found.reading, found.plain
            print(
                f"| {' '.join(f'{a:g}' for a in rotations) or 'off'} | {angle}° | {r.found.mean():.1%} "
                f"| {r.right.mean():.1%} | {plain.right.mean():.1%} | {r.sure.mean():.2f} | {r.misled:.1%} "
                f"| {plain.misled:.1%} | {np.median(np.abs(found.leans)):.1f}° | {found.followed:.1%} "
                f"| {found.others} | {found.qualities.mean():.2f} |",
                flush=True,
            )
    scene, places = next(scenes(list(shown.images), 0))
    (x, y), half = places[0][1], SMALL / 2
    face = Face(Box(x - half, y - half, x + half, y + half), 1.0)
    leaning = replace(face, landmarks=((x - 15, y - 15), (x + 15, y + 15)))
    print("\n| | ms | of the run |\n|---|---|---|")
    took = costs(classifier, scene, face, leaning, tuple(arguments.rotations))
    for name, value in took.items():
        print(f"| {name} | {value:.3f} | {value / took[RUN]:.2f} |")


if __name__ == "__main__":
    main()
