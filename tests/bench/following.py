"""Measure the accuracy and CPU time of following faces, compared with searching every frame completely.

    python tests/bench/following.py ../shared/media/*.mp4 ../shared/media/*.gif

Each clip goes through detector, classifier and timeline twice, as in `fer-stream run --policy wait`: once with
``search.scan_interval`` 0 (the reference), and once with the default settings. The passes take turns frame by frame, so
that other load on the machine affects both. As there are few clips, each is also processed mirrored, backwards, and
mirrored backwards. For each variant, this prints:

- faces: faces per frame in the reference; then recall, precision and F1 of the boxes (IoU 0.5) against the reference
- new: the longest delay until a new face is found, against the reference, for faces seen for at least 0.5 s
- events: F1 of the emotion intervals, and the number of intervals of both passes. Two intervals match if they have the
  same label, a temporal IoU of at least 0.5, and overlapping boxes
- CPU: milliseconds per frame for detection and classification: the reference, the default settings, and the ratio
- frames: in how many frames the whole picture, only changed regions, or only known faces were searched
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from fer_stream import plugins
from fer_stream.events.attention import Attention
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.imaging.geometry import overlap
from fer_stream.imaging.yuv import Yuv, planar_or_bgr
from fer_stream.inference.recognizer import Recognizer
from fer_stream.settings.tree import CameraSettings, Settings
from fer_stream.types import EventType, ExpressionData, Face, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fer_stream.inference.recognizer import Recognition
    from fer_stream.types import Event

VARIANTS = "", "mirrored", "backwards", "mirrored backwards"

SMALL = 640
"""In clips up to this width in pixels, faces of 20 instead of 40 pixels are searched for."""


@dataclass
class Pass:
    """The processing of a clip with one set of settings."""

    settings: Settings
    recognizer: Recognizer
    depth: int
    """Frames in flight: so many frames later, a result is known to the hints."""
    faces: list[tuple[Face, ...]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    """Numbers of frames, by what was searched in them."""

    def __post_init__(self) -> None:
        how = self.settings
        labels = LabelSet(how.labels, self.recognizer.labels, how.valence)
        attention = Attention(how.search, "wait", self.depth)
        self._line = Timeline("clip", 1, labels, how.tracker, how.smoother, attention)
        self._under_way: list[tuple[int, Nanoseconds, tuple[int, int], Recognition]] = []

    def take(self, seq: int, when: Nanoseconds, image: NDArray[np.uint8] | Yuv) -> None:
        """Process a frame; its result is released as late as the depth allows."""
        self._release(self.depth - 1)
        hints = self._line.hints(seq, when, (image.shape[1], image.shape[0]))
        before = time.process_time()
        found = self.recognizer.recognize(image, hints)
        self.seconds += time.process_time() - before
        kind = "whole" if hints is None or hints.whole else "changed" if hints.seen is not None else "faces"
        self.kinds[kind] += 1
        self.faces.append(found.faces)
        self._under_way.append((seq, when, (image.shape[1], image.shape[0]), found))

    def end(self) -> None:
        """Release the results of the last frames."""
        self._release(0)
        self.events += self._line.offline("end of stream")

    def _release(self, left: int) -> None:
        while len(self._under_way) > left:
            seq, when, size, found = self._under_way.pop(0)
            self.events += self._line.observe(seq, when, size, found.faces, found.searched)


def frames(clip: Path, variant: str) -> Iterator[tuple[Nanoseconds, NDArray[np.uint8] | Yuv]]:
    """Yield a clip's pictures, as capture processes give them, with their times in one of `VARIANTS`."""
    source = plugins.load("sources", "media")(str(clip), CameraSettings(source=str(clip)))
    read = list(iter(source.read, None))
    source.close()
    contents = [planar_or_bgr(frame.content) for frame in read]
    if "backwards" in variant:
        contents.reverse()
    for frame, content in zip(read, contents, strict=True):  # backwards: the pictures, not the times
        yield Nanoseconds(10**15 + (frame.offset or 0)), _mirrored(content) if "mirrored" in variant else content


def _mirrored(content: NDArray[np.uint8] | Yuv) -> NDArray[np.uint8] | Yuv:
    if isinstance(content, Yuv):
        y, u, v = (np.ascontiguousarray(plane[:, ::-1]) for plane in (content.y, content.u, content.v))
        return Yuv(y, u, v, content.colour)
    return np.ascontiguousarray(content[:, ::-1])


def pairs(ours: Sequence[Face], reference: Sequence[Face]) -> list[tuple[int, int]]:
    """Return pairs of matching faces (their indices) of two sets, each face at most once, the best overlap first."""
    ranked = sorted(
        ((-overlap(a.box, b.box), i, j) for i, a in enumerate(ours) for j, b in enumerate(reference)),
        key=lambda p: p[0],
    )
    found: list[tuple[int, int]] = []
    for value, i, j in ranked:
        if value <= -0.5 and all(i != a and j != b for a, b in found):
            found.append((i, j))
    return found


def f1(right: int, ours: int, reference: int) -> float:
    """Return the F1 score from three counts: matches, found, and reference."""
    return 2 * right / (ours + reference) if ours + reference else 1.0


def intervals(events: Sequence[Event]) -> list[ExpressionData]:
    """Return the emotion intervals that ended."""
    ended = (EventType.EMOTION_ENDED, EventType.VALENCE_ENDED)
    return [event.data for event in events if event.type in ended and isinstance(event.data, ExpressionData)]


def same(a: ExpressionData, b: ExpressionData) -> bool:
    """Return whether two intervals have the same label, overlapping boxes, and a temporal IoU of at least 0.5."""
    if a.label != b.label or overlap(a.box, b.box) <= 0 or a.end_time is None or b.end_time is None:
        return False
    common = min(a.end_time, b.end_time) - max(a.start_time, b.start_time)
    return common >= 0.5 * (max(a.end_time, b.end_time) - min(a.start_time, b.start_time))


class Sighting(NamedTuple):
    """A face that the reference saw in consecutive frames, given by their indices."""

    begin: int
    last: int
    face: Face
    """The face in the last frame."""
    found: int | None
    """The first frame in which we found it, too."""


def delays(ours: Pass, reference: Pass, times: Sequence[int]) -> list[float]:
    """Return the delay of each new face, compared with the reference, in seconds; for faces seen for at least 0.5 s."""
    ended: list[Sighting] = []
    current: list[Sighting] = []
    for at, (found, truth) in enumerate(zip(ours.faces, reference.faces, strict=True)):
        matched = {j for _, j in pairs(found, truth)}
        before, current = current, []
        for j, face in enumerate(truth):
            known = next((one for one in before if overlap(one.face.box, face.box) > 0.3), None)
            begin, first = (known.begin, known.found) if known else (at, None)
            current.append(Sighting(begin, at, face, at if first is None and j in matched else first))
        ended += [one for one in before if all(overlap(one.face.box, face.box) <= 0.3 for face in truth)]
    long = [one for one in ended + current if times[one.last] - times[one.begin] >= 5e8]
    return [float("inf") if one.found is None else (times[one.found] - times[one.begin]) / 1e9 for one in long]


@dataclass
class Comparison:
    """The result for one variant of a clip."""

    frames: int
    right: int
    """Number of our faces that match one of the reference."""
    ours: int
    """Number of faces that we found."""
    reference: int
    late: float
    """The longest delay until a new face was found, in seconds."""
    intervals: tuple[int, int, int]
    """Numbers of intervals: those that match, ours, those of the reference."""
    cost: tuple[float, float]
    """CPU milliseconds per frame: of the reference, and ours."""
    kinds: dict[str, int]
    """Numbers of our frames, by what was searched in them."""

    @property
    def faces_f1(self) -> float:
        """F1 of the boxes."""
        return f1(self.right, self.ours, self.reference)

    @property
    def ratio(self) -> float:
        """CPU time of the reference, divided by that of following."""
        return self.cost[0] / self.cost[1]


def compare(clip: Path, depth: int, variant: str = "") -> Comparison:
    """Process a variant of a clip with both settings, which take turns frame by frame."""
    times: list[int] = []
    passes: list[Pass] = []
    for seq, (when, image) in enumerate(frames(clip, variant), 1):
        if not passes:
            smallest = 20 if image.shape[1] <= SMALL else 40
            for changed in ({"scan_interval": 0}, {}):
                settings = Settings(detector={"min_face": smallest}, search=changed)  # type: ignore[arg-type]
                recognizer = Recognizer.from_settings(settings)
                recognizer.warm_up(*image.shape[:2])
                passes.append(Pass(settings, recognizer, depth))
        times.append(when)
        for one in passes if seq % 2 else reversed(passes):
            one.take(seq, when, image)
    reference, ours = passes
    reference.end()
    ours.end()
    found, truth = (sum(map(len, one.faces)) for one in (ours, reference))
    mine, theirs = intervals(ours.events), intervals(reference.events)
    return Comparison(
        frames=len(times),
        right=sum(len(pairs(a, b)) for a, b in zip(ours.faces, reference.faces, strict=True)),
        ours=found,
        reference=truth,
        late=max(delays(ours, reference, times), default=0.0),
        intervals=(sum(any(same(a, b) for b in theirs) for a in mine), len(mine), len(theirs)),
        cost=(1e3 * reference.seconds / len(times), 1e3 * ours.seconds / len(times)),
        kinds=dict(ours.kinds),
    )


def main() -> None:
    """Compare both settings for each clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--depth", type=int, default=Settings.model_fields["depth"].default, help="frames in flight")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # as in our own processes
    row = "{:31.31} {:>5} | {:>6} {:>9} {:>5} | {:>6} | {:>12} | {:>14} {:>6} | {}"
    print(
        row.format("clip", "faces", "recall", "precision", "F1", "new", "events", "CPU ms a frame", "ratio", "frames")
    )
    found = []
    for clip, variant in itertools.product(arguments.clips, VARIANTS):
        it = compare(clip, arguments.depth, variant)
        found.append(it)
        print(
            row.format(
                f"{clip.name[:12]} {variant}",
                f"{it.reference / it.frames:.1f}",
                f"{it.right / max(it.reference, 1):.3f}",
                f"{it.right / max(it.ours, 1):.3f}",
                f"{it.faces_f1:.3f}",
                f"{it.late:.2f} s",
                f"{f1(*it.intervals):.2f} ({it.intervals[1]}, {it.intervals[2]})",
                f"{it.cost[0]:.1f} -> {it.cost[1]:.1f}",
                f"{it.ratio:.1f}x",
                it.kinds,
            )
        )
    scores = [it.faces_f1 for it in found]
    agreed, mine, theirs = (sum(it.intervals[i] for it in found) for i in range(3))
    print(f"faces: mean F1 {sum(scores) / len(scores):.3f}, least {min(scores):.3f}; "
          f"events: F1 {f1(agreed, mine, theirs):.2f} of {mine} and {theirs}")  # fmt: skip


if __name__ == "__main__":
    main()
