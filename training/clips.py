r"""Run models on real faces in video: one row for each clip and model, to compare with what a person sees.

    python -m training.clips ../shared/media/*.gif fer_stream/assets/*.jpg \
        --models models/emotion.onnx models/emotion-ferplus.onnx

Every frame is searched whole and every face is scored; smoothing and events are the service's. A picture is shown for
two seconds. Columns: seconds of faces in view, share of this time in which a label was open (in the rest the state is
uncertain), intervals per minute of faces, mean highest probability of a single score, and share of each label.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_stream.errors import FerStreamError, SourceError
from fer_stream.events.attention import Attention
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import ClassifierSettings, DetectorSettings, SearchSettings, Settings
from fer_stream.types import EventType, ExpressionData, FaceData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PICTURE, RATE = 2.0, 10.0
"""Seconds for which a picture is shown, and its frames per second."""


def frames(path: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield ``(seconds, image)`` of a video, or of a picture shown for `PICTURE` seconds; uint8 ``[H, W, 3]``, BGR.

    Raises:
        SourceError: the file is neither.
    """
    image = cv2.imread(str(path)) if path.suffix.lower() in (".jpg", ".jpeg", ".png") else None
    if image is not None:
        yield from zip(np.arange(0, PICTURE, 1 / RATE).tolist(), repeat(np.asarray(image, np.uint8)), strict=False)
        return
    video = cv2.VideoCapture(str(path))
    rate, count = video.get(cv2.CAP_PROP_FPS) or 25.0, 0
    while True:
        there, picture = video.read()
        if not there:
            break
        yield count / rate, np.asarray(picture, np.uint8)
        count += 1
    if not count:
        raise SourceError(f"{path} is neither a picture nor a video")


def watch(path: Path, model: Path, min_face: int) -> str:
    """Return the row of one clip and one model, as Markdown."""
    how = Settings.model_construct(
        detector=DetectorSettings(min_face=min_face),
        search=SearchSettings(scan_interval=0),
        classifier=ClassifierSettings(model=model),
    )
    recognizer = Recognizer.from_settings(how)
    labels = LabelSet("emotions", recognizer.labels, how.valence)
    smoother = how.smoother.with_model(recognizer.smoother)
    line = Timeline("clip", 1, labels, how.tracker, smoother, Attention(how.search, "wait", 1))
    events, sure = [], []
    for seq, (seconds, image) in enumerate(frames(path), 1):
        faces = recognizer.recognize(image).faces
        sure += [face.probabilities.top()[1] for face in faces if face.probabilities]
        size = image.shape[1], image.shape[0]
        events += line.observe(seq, Nanoseconds(round(seconds * 1e9)), size, faces)
    events += line.offline("end of stream")
    seen = sum(e.data.duration_ms for e in events if e.type is EventType.FACE_LEFT and isinstance(e.data, FaceData))
    open_: Counter[str] = Counter()
    count = 0
    for event in events:
        if event.type is EventType.EMOTION_ENDED and isinstance(event.data, ExpressionData):
            open_[event.data.label] += event.data.duration_ms
            count += 1
    total = sum(open_.values())
    shares = ", ".join(f"{label} {time / total:.0%}" for label, time in open_.most_common() if total)
    return (
        f"| {path.name} | {model.name} | {seen / 1000:.1f} s | {total / max(seen, 1):.0%} | "
        f"{60_000 * count / max(seen, 1):.1f} | {np.mean(sure) if sure else 0:.0%} | {shares} |"
    )


def main() -> None:
    """Print a row for every clip and every model."""
    parser = argparse.ArgumentParser(description="Show the results of models on clips and pictures.")
    parser.add_argument("clips", type=Path, nargs="+", help="videos, GIFs or pictures")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="ONNX files")
    parser.add_argument("--min-face", type=int, default=20, help="smallest face, in pixels")
    arguments = parser.parse_args()
    print("| clip | model | faces in view | with a label | intervals a minute | a look's certainty | labels |")
    print("|---|---|---|---|---|---|---|")
    try:
        for clip in arguments.clips:
            for model in arguments.models:
                print(watch(clip, model, arguments.min_face), flush=True)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
