"""Measure how steady a model's predictions are, on clips and on faces whose boxes move a little; needs no labels.

    python -m training.steadiness models/emotion-ferplus.onnx --clips ../shared/media/facenet_video.mp4
    python -m training.steadiness models/emotion*.onnx --data data/fer2013.csv

In a clip, every frame is searched whole and every face is scored. The scores of a face in two adjacent frames are
compared: how often the most probable label changes, and the mean total variation of the two distributions (half the sum
of the absolute differences: 0 if they are equal, 1 if they have nothing in common). The rows of the table are ways to
cut the face out:

- from the detector's box, as the service does
- from the track's filtered box (`fer_stream.events.tracker`)
- each of the two, with the mean of the scores of the face and of its mirror image
- twice from one frame, from the detector's box with noise: this is the unsteadiness of net and box, without the face's

PublicTest's faces are compared in the last way: each is cut out twice. The noise of a box has a standard deviation of
`NOISE` of its size in x, in y, and in the logarithm of its size, as detectors' boxes have from frame to frame.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import FerStreamError
from fer_stream.events.tracker import Tracker
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN
from fer_stream.settings.tree import TrackerSettings
from fer_stream.types import Box, Nanoseconds
from training import clips, data
from training.crop import frame_face

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data import Faces

NOISE = 0.02
"""Standard deviation of a box's noise: share of its size."""

AT_ONCE = 64
"""Faces scored in one run."""


@dataclass(frozen=True)
class Steadiness:
    """How much the scores differ in some pairs of crops of the same face.

    ``variation`` is the mean total variation, 0 to 1; ``changes`` the share of the pairs with different most probable
    labels. Both are NaN without pairs.
    """

    pairs: int
    variation: float
    changes: float


def compare(before: NDArray[np.float64], after: NDArray[np.float64]) -> Steadiness:
    """Return how much two predictions for each of N faces differ: probabilities, float64 ``[N, C]``."""
    if not len(before):
        return Steadiness(0, math.nan, math.nan)
    variation = np.abs(before - after).sum(axis=1).mean() / 2
    changes = (before.argmax(axis=1) != after.argmax(axis=1)).mean()
    return Steadiness(len(before), float(variation), float(changes))


def moved(box: Box, random: np.random.Generator, noise: float = NOISE) -> Box:
    """Return a box with noise of a standard deviation of ``noise``, as a share of its size."""
    x, y, growth = random.normal(0, noise, 3)
    width, height = box.x2 - box.x1, box.y2 - box.y1
    size, factor = math.sqrt(width * height), math.exp(growth) / 2
    middle_x, middle_y = (box.x1 + box.x2) / 2 + x * size, (box.y1 + box.y2) / 2 + y * size
    return Box(
        middle_x - width * factor, middle_y - height * factor, middle_x + width * factor, middle_y + height * factor
    )


def of_faces(model: Path, faces: Faces, seed: int = 0, noise: float = NOISE) -> Steadiness:
    """Compare the predictions for two crops of each of FER2013's faces, from boxes with noise.

    Raises:
        ModelError: the file breaks the contract.
    """
    classifier, random, face = OnnxClassifier(model), np.random.default_rng(seed), frame_face()
    looks = []
    for _ in range(2):
        boxes = [moved(face.box, random, noise) for _ in range(len(faces))]
        crops = [
            classifier.sample(np.repeat(image[..., None], 3, axis=2), replace(face, box=box))
            for image, box in zip(faces.images, boxes, strict=True)
        ]
        looks.append(_scores(classifier, crops))
    return compare(*looks)


def of_clip(path: Path, models: Sequence[Path], min_face: int, seed: int = 0) -> dict[Path, dict[str, Steadiness]]:
    """Compare the predictions for each face in adjacent frames of a clip, by model and by way to cut faces out.

    Raises:
        ModelError: a file breaks the contract.
        SourceError: the file is neither a picture nor a video.
    """
    classifiers = {model: OnnxClassifier(model) for model in models}
    detector, tracker, random = MTCNN(min_face=min_face), Tracker(TrackerSettings()), np.random.default_rng(seed)
    crops: dict[Path, dict[str, list[NDArray[np.float32]]]] = {model: {} for model in models}
    keys: list[tuple[int, int]] = []  # of the frame and of the course, for each crop
    for frame, (seconds, image) in enumerate(clips.frames(path)):
        now = Nanoseconds(round(seconds * 1e9))
        tracking = tracker.update(now, detector.detect(image))
        confirmed = {track.id: track.face for track in tracking.seen}
        for course in tracker.courses:
            if course.seen != now:
                continue
            face = confirmed[course.track] if course.track else tracking.candidates[course.key]
            ways = {
                "box": face,
                "track": replace(face, box=course.at(now)),
                "one": replace(face, box=moved(face.box, random)),
                "two": replace(face, box=moved(face.box, random)),
            }
            keys.append((frame, course.key))
            for model, classifier in classifiers.items():
                for way, cut in ways.items():
                    crops[model].setdefault(way, []).append(classifier.sample(image, cut))
    at = {key: i for i, key in enumerate(keys)}
    pairs = np.array([(at[frame - 1, key], i) for (frame, key), i in at.items() if (frame - 1, key) in at], np.int64)
    return {model: _by_way(classifiers[model], crops[model], pairs.reshape(-1, 2)) for model in models}


def _by_way(
    classifier: OnnxClassifier, crops: dict[str, list[NDArray[np.float32]]], pairs: NDArray[np.int64]
) -> dict[str, Steadiness]:
    """Return the steadiness of each way to cut a face out; ``pairs`` ``[P, 2]`` are indices of crops."""
    found = {}
    for way, name in (("box", "detector's box"), ("track", "track's filtered box")):
        plain = _scores(classifier, crops.get(way, []))
        mirrored = _scores(classifier, [crop[:, ::-1] for crop in crops.get(way, [])])
        for scores, title in ((plain, name), ((plain + mirrored) / 2, f"{name}, mirrored too")):
            found[title] = compare(scores[pairs[:, 0]], scores[pairs[:, 1]])
    one, two = (_scores(classifier, crops.get(way, [])) for way in ("one", "two"))
    return found | {f"one frame twice, boxes with {NOISE:.0%} noise": compare(one, two)}


def _scores(classifier: OnnxClassifier, crops: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    parts = [np.stack(crops[i : i + AT_ONCE]) for i in range(0, len(crops), AT_ONCE)]
    empty = np.empty((0, len(classifier.labels)))
    return np.concatenate([empty, *(classifier.run(part) for part in parts)]).astype(np.float64)


def row(title: str, found: Steadiness) -> str:
    """Return a row of the table, as Markdown."""
    return f"| {title} | {found.pairs:,} | {found.variation:.3f} | {found.changes:.1%} |"


HEAD = "| compared crops | pairs | total variation | label changes |\n|---|---|---|---|"


def report(model: Path, faces: Faces) -> str:
    """Return the steadiness on PublicTest as Markdown, for the model card.

    Raises:
        ModelError: the file breaks the contract.
        SourceError: the data lacks PublicTest.
    """
    found = of_faces(model, faces.split(data.PUBLIC))
    return f"{HEAD}\n{row(f'{data.PUBLIC} twice, boxes with {NOISE:.0%} noise', found)}\n"


def main() -> None:
    """Print a table for every model."""
    parser = argparse.ArgumentParser(description="Measure how steady models' predictions are.")
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files")
    parser.add_argument("--clips", type=Path, nargs="+", default=(), help="videos or GIFs with faces")
    parser.add_argument("--data", type=Path, help="Kaggle's fer2013.csv or a folder of sheets; PublicTest is used")
    parser.add_argument("--min-face", type=int, default=40, help="smallest face in the clips, in pixels")
    arguments = parser.parse_args()
    if not (arguments.clips or arguments.data):
        parser.error("give --clips or --data")
    try:
        in_clips = {clip: of_clip(clip, arguments.models, arguments.min_face) for clip in arguments.clips}
        faces = arguments.data and data.load(arguments.data)
        for model in arguments.models:
            print(f"{model.name}\n\n{HEAD}")
            for clip, found in in_clips.items():
                for title, each in found[model].items():
                    print(row(f"{clip.name}: {title}", each))
            if faces is not None:
                print(report(model, faces).splitlines()[-1])
            print(flush=True)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
