"""Measure events on a film with known changes of expression, with the real detector and the service's timeline.

    python -m training.acted models/emotion-ferplus.onnx data/fer2013.csv
    python -m training.acted models/emotion-ferplus.onnx data/fer2013.csv --film acted.mp4     # to look at it

``acted.csv`` beside this module has the cues: which face is shown, its label, and for how many seconds. A face is a row
of PublicTest, or a picture in ``fer_stream/assets``. The labels were assigned by hand, to faces with a clear expression
only. The faces are cut together into one film: a head that sways, with a quarter of a second for each change, light
that flickers, and a camera's noise and JPEG coding. The person changes with the expression, which is harder than a film
of one person.

A change is found if an event of its label starts before the next change. Its delay is from the begin of the change to
the capture time of the frame at which the event is published. Label changes are counted in the events (each start
after the first), and in the most probable label of every frame. The film has no ground truth between changes, so
nothing else is reported.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import ConfigError, FerStreamError, SourceError
from fer_stream.events.attention import Attention
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import ClassifierSettings, SearchSettings, Settings
from fer_stream.types import EventType, ExpressionData, Nanoseconds
from training import data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.data import Faces

    Image = NDArray[np.uint8]

CUES = Path(__file__).with_name("acted.csv")

ASSETS = Path(data.__file__).parents[1] / "fer_stream/assets"

RATE = 15.0
"""Frames per second."""

SIZE = (480, 360)
"""Width and height of the film, in pixels."""

HEAD = 240
"""Side of a face with its surroundings, in pixels; the face's frame is half of it."""

CHANGE = 0.25
"""Duration of a change in seconds."""


@dataclass(frozen=True)
class Cue:
    """A face of the film: the name of its source, its label, and for how long it is shown, in seconds."""

    face: str
    label: str
    seconds: float


@dataclass(frozen=True)
class Acted:
    """The changes that were found and missed.

    ``delays`` are those of the changes found, in seconds, ``missed`` the labels of the others with their times.
    """

    delays: tuple[float, ...]
    missed: tuple[str, ...]
    events: int
    frames: int


def read(path: Path = CUES) -> list[Cue]:
    """Return the cues in a CSV file with the columns ``face``, ``label`` and ``seconds``.

    Raises:
        ConfigError: it cannot be read, or a line is wrong.
    """
    cues = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                try:
                    cue = Cue(line["face"], line["label"], float(line["seconds"]))
                except (KeyError, TypeError, ValueError) as error:
                    raise ConfigError(f"{path}, line {number}: it must have a face, a label and seconds") from error
                if not CHANGE < cue.seconds < math.inf:
                    raise ConfigError(f"{path}, line {number}: seconds must be above {CHANGE:g}")
                cues.append(cue)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}") from error
    if len(cues) < 2:
        raise ConfigError(f"{path} needs at least two cues")
    return cues


def heads(cues: Sequence[Cue], faces: Faces) -> list[Image]:
    """Return each cue's face with its surroundings, uint8 ``[HEAD, HEAD]``.

    Raises:
        SourceError: a face is not in the data, or a picture is not in the assets.
    """
    found = []
    for cue in cues:
        if cue.face.isdecimal():
            rows = np.flatnonzero(faces.rows == int(cue.face))
            if not len(rows):
                raise SourceError(f"the data has no row {cue.face}, which the cues name")
            small = faces.images[rows[0]]
            edge = data.SIDE // 2
            wide = cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        else:
            wide = _portrait(ASSETS / cue.face)
        found.append(np.asarray(cv2.resize(wide, (HEAD, HEAD), interpolation=cv2.INTER_CUBIC), np.uint8))
    return found


def _portrait(path: Path) -> Image:
    """Return a picture's face with its surroundings, grey and square, as small as FER2013's."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise SourceError(f"{path} is not a picture")
    found = Recognizer.from_settings(Settings.model_construct()).recognize(np.asarray(picture, np.uint8)).faces
    box = max((face.box for face in found), key=lambda box: box.x2 - box.x1)
    side = 2 * max(box.x2 - box.x1, box.y2 - box.y1)
    middle = ((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2)
    part = cv2.getRectSubPix(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (round(side), round(side)), middle)
    return np.asarray(cv2.resize(part, (2 * data.SIDE, 2 * data.SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def film(
    shown: Sequence[Image], cues: Sequence[Cue], rate: float = RATE, seed: int = 0
) -> Iterator[tuple[float, Image]]:
    """Yield the film's frames with their times in seconds: uint8 ``[H, W, 3]``, BGR."""
    random = np.random.default_rng(seed)
    ends = list(accumulate(cue.seconds for cue in cues))
    starts = [0.0, *ends]
    speed, phase = random.uniform(0.5, 2.0, 4), random.uniform(0, 2 * np.pi, 4)  # radians/s: x, y, scale, angle
    for number in range(math.floor(ends[-1] * rate)):
        time = number / rate
        at = int(np.searchsorted(ends, time, side="right"))
        share = min((time - starts[at]) / CHANGE, 1.0) if at else 1.0
        head = cv2.addWeighted(shown[at], share, shown[max(at - 1, 0)], 1 - share, 0)
        x, y, scale, angle = np.sin(speed * time + phase) * (12, 8, 0.06, 4)
        matrix = cv2.getRotationMatrix2D((HEAD / 2, HEAD / 2), float(angle), math.exp(float(scale)))
        matrix[:, 2] += (SIZE[0] - HEAD) / 2 + x, (SIZE[1] - HEAD) / 2 + y
        picture = cv2.warpAffine(head, matrix, SIZE, borderMode=cv2.BORDER_CONSTANT, borderValue=110)
        picture = picture * random.normal(1, 0.01) + random.normal(0, 4, picture.shape)
        grey = np.clip(picture, 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        yield time, np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def watch(model: Path, shown: Sequence[Image], cues: Sequence[Cue]) -> Acted:
    """Return which of the film's changes the service finds with a model.

    Raises:
        ModelError: the file breaks the contract.
    """
    how = Settings.model_construct(search=SearchSettings(), classifier=ClassifierSettings(model=model))
    recognizer = Recognizer.from_settings(how)
    labels = LabelSet("emotions", recognizer.labels, how.valence)
    smoother = how.smoother.with_model(recognizer.smoother)
    line = Timeline("film", 1, labels, how.tracker, smoother, Attention(how.search, "wait", 1))
    started: list[tuple[float, str]] = []
    tops: list[str] = []
    for seq, (seconds, image) in enumerate(film(shown, cues), 1):
        time, size = Nanoseconds(round(seconds * 1e9)), (image.shape[1], image.shape[0])
        seen = recognizer.recognize(image, line.hints(seq, time, size))
        events = line.observe(seq, time, size, seen.faces, seen.searched)
        started += [
            (seconds, event.data.label)
            for event in events
            if event.type is EventType.EMOTION_STARTED and isinstance(event.data, ExpressionData)
        ]
        scores = recognizer.classifier.classify(image, seen.faces[:1])
        tops += [recognizer.labels[int(row.argmax())] for row in scores]
    return judge(cues, started, tops)


def judge(cues: Sequence[Cue], started: Sequence[tuple[float, str]], tops: Sequence[str]) -> Acted:
    """Compare events with the cues.

    Args:
        cues: what the film shows.
        started: when each event was published, in seconds, and its label; in order.
        tops: the most probable label of each frame.
    """
    ends = list(accumulate(cue.seconds for cue in cues))
    delays, missed = [], []
    for cue, start, end in zip(cues[1:], ends, ends[1:], strict=False):
        published = next((time for time, label in started if start <= time < end and label == cue.label), None)
        if published is None:
            missed.append(f"{cue.label} at {start:g} s")
        else:
            delays.append(published - start)
    return Acted(
        tuple(delays), tuple(missed), max(len(started) - 1, 0), sum(one != other for one, other in pairwise(tops))
    )


def report(model: Path, found: Acted) -> str:
    """Return a model's row of the table, as Markdown."""
    changes = len(found.delays) + len(found.missed)
    median, most = np.percentile(found.delays, [50, 95]) if found.delays else (math.nan, math.nan)
    soon = sum(delay <= 1.0 for delay in found.delays)
    return (
        f"| {model.name} | {len(found.delays)} of {changes} | {soon} of {changes} | {median:.2f} s | {most:.2f} s | "
        f"{found.events} | {found.frames} | {', '.join(found.missed)} |"
    )


def main() -> None:
    """Print a row for every model."""
    parser = argparse.ArgumentParser(description="Measure events on a film with known changes of expression.")
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files")
    data.add_arguments(parser, plus=False)
    parser.add_argument("--cues", type=Path, default=CUES, help="CSV file: face, label, seconds")
    parser.add_argument("--film", type=Path, help="also write the film into this file (.mp4); do not publish it")
    arguments = parser.parse_args()
    try:
        cues = read(arguments.cues)
        shown = heads(cues, data.load(arguments.data))
        if arguments.film:
            writer = cv2.VideoWriter(str(arguments.film), cv2.VideoWriter.fourcc(*"mp4v"), RATE, SIZE)
            for _, image in film(shown, cues):
                writer.write(image)
            writer.release()
        print("| model | found | within 1 s | delay, median | 95% below | label changes | of single frames | missed |")
        print("|---|---|---|---|---|---|---|---|")
        for model in arguments.models:
            print(report(model, watch(model, shown, cues)), flush=True)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
