"""Analyses a recording like the service under ``wait``, in one process and at full speed.

It runs the service's own code without its sockets: the capture's reader, the workers' recognizers in threads, the
rounding of the wire format, and the timeline. The timeline receives the answers in order of capture and gives hints
``depth`` frames ahead. Therefore the events are the same, byte for byte, with any number of threads. Only a camera's
``encoding`` is ignored, because no pixels are sent.

At most ``depth`` frames are analysed in parallel, and one more is decoded ahead, however long the recording is.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_stream.capture.reader import READER_GRACE, Reader
from fer_stream.capture.slot import Slot
from fer_stream.errors import ConfigError, WireError
from fer_stream.events.attention import Attention
from fer_stream.events.calibration import calibrations
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.events.cursor import to_cursor
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.imaging import motion
from fer_stream.imaging.yuv import planar_or_bgr
from fer_stream.inference.recognizer import Recognizer
from fer_stream.operations.process import leave_behind
from fer_stream.protocol import results
from fer_stream.types import Searched

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from fer_stream.analysis.checkpoint import Checkpoint
    from fer_stream.imaging.yuv import Yuv
    from fer_stream.inference.recognizer import Recognition
    from fer_stream.plugins import Classifier, Detector
    from fer_stream.settings.tree import CameraSettings, Settings
    from fer_stream.types import Box, Estimate, Event, Face, Frame, Hints, Track

_log = logging.getLogger(__name__)


class Recognizers:
    """A pool of ``count`` recognizers, each used by one thread at a time; only one if an object is given for it.

    Raises:
        PluginError, ModelError: the detector or the classifier cannot be loaded.
    """

    def __init__(
        self, settings: Settings, count: int, detector: Detector | None = None, classifier: Classifier | None = None
    ) -> None:
        self._idle: queue.SimpleQueue[Recognizer] = queue.SimpleQueue()
        for _ in range(1 if detector or classifier else count):
            recognizer = Recognizer.from_settings(settings, detector=detector, classifier=classifier)
            self._idle.put(recognizer)
        self.labels, self.version = recognizer.labels, recognizer.classifier.version
        self.measures, self.smoother = recognizer.measures, recognizer.smoother

    def recognize(self, image: NDArray[np.uint8] | Yuv, hints: Hints | None = None) -> Recognition:
        """See `fer_stream.inference.recognizer.Recognizer.recognize`."""
        recognizer = self._idle.get()
        try:
            return recognizer.recognize(image, hints)
        finally:
            self._idle.put(recognizer)


@dataclass(frozen=True, slots=True)
class Observation:
    """One frame, the tracks seen in it, their smoothed state by track, and its events with their JSON texts.

    ``candidates`` are the faces in the frame that are not tracks yet, by the tracker's key. ``fates`` maps the key of
    each face that the tracker still follows to its track number, or 0 while it has none.

    ``faces`` are the boxes of all detected faces and of all faces expected in this frame, tracks or not. If the frame
    could not be analysed, ``processed`` is false and ``faces`` is empty. ``searched`` says where new faces were
    searched for: ``whole`` picture, ``part`` of it, or nowhere, as only ``known`` faces were checked. The last
    observation has no ``frame``; its events close all open intervals.
    """

    frame: Frame | None
    tracks: tuple[Track, ...]
    estimates: dict[int, Estimate]
    events: list[tuple[Event, str]]
    faces: tuple[Box, ...] = ()
    processed: bool = True
    searched: str | None = None
    candidates: dict[int, Face] = field(default_factory=dict)
    fates: dict[int, int] = field(default_factory=dict)


class _Job(NamedTuple):
    """A frame that is being analysed, or whose answer came from the checkpoint (``recalled``)."""

    frame: Frame
    hints: Hints | None
    recalled: bool
    answer: Future[results.Result | None]


class Observer:
    """Analyses one recorded camera of the settings. Iterate over it once; close the iterator if you stop early.

    Up to ``threads`` frames are analysed in parallel. After the end, ``rejected`` is the number of frames that could
    not be analysed, and ``recalled`` the number of answers taken from the checkpoint. ``recognizers`` are those of the
    settings, unless others are given.

    Raises:
        PluginError, ModelError: the detector or the classifier cannot be loaded.
        ConfigError: the settings do not fit the model.
        ConfigError: while iterating, the source is a live camera.
        SourceError: while iterating, the source cannot be opened, or it broke off; raised after the last observation.
    """

    def __init__(
        self,
        settings: Settings,
        camera: str,
        threads: int = 1,
        checkpoint: Checkpoint | None = None,
        recognizers: Recognizers | None = None,
    ) -> None:
        self.rejected = self.recalled = 0
        self._bell = threading.Event()
        self._slot = Slot("wait")
        once = settings.cameras[camera].model_copy(update={"loop": False})
        self.reader = Reader(camera, once, "wait", self._slot, self._bell.set, offline=True)
        self._checkpoint = checkpoint
        self._depth = settings.depth
        self._threads = min(threads, self._depth)
        self._recognizers = recognizers or Recognizers(settings, self._threads)
        self.labels, self.model = self._recognizers.labels, self._recognizers.version
        self.measures = self._recognizers.measures
        self.label_set = LabelSet(settings.labels, self.labels, settings.valence)
        self.smoother = settings.smoother.with_model(self._recognizers.smoother)
        attention = Attention(settings.search, "wait", settings.depth)
        calibration, places = (
            calibrations(settings.calibration, self.labels).of(camera),
            settings.cameras[camera].places,
        )
        self._timeline = Timeline(
            camera, 1, self.label_set, settings.tracker, self.smoother, attention, calibration, places
        )
        self._ids: set[str] = set()

    def __iter__(self) -> Generator[Observation]:
        jobs: deque[_Job] = deque()
        self.reader.start()
        try:
            with ThreadPoolExecutor(self._threads, "look") as pool:
                try:
                    for frame in self._frames():
                        seen = self._release(jobs.popleft()) if len(jobs) == self._depth else None
                        jobs.append(self._begin(frame, pool))
                        if seen:  # after the submission, so that the pool works while the caller does
                            yield seen
                    while jobs:
                        yield self._release(jobs.popleft())
                finally:
                    pool.shutdown(cancel_futures=True)
        finally:
            self.reader.stop()
            leave_behind(self.reader, READER_GRACE)
        yield Observation(None, (), {}, self._numbered(self._timeline.offline(self.reader.reason)))
        if self.reader.error:
            raise self.reader.error

    def _frames(self) -> Iterator[Frame]:
        while True:
            ended = self.reader.ended  # read this before the slot: a frame put just before the end is then not missed
            held = self._slot.take()
            if held is not None:
                yield held[0]
            elif ended:
                self.rejected += self._slot.state()[0].rejected
                return
            else:
                self._bell.wait(1.0)
                self._bell.clear()

    def _begin(self, frame: Frame, pool: ThreadPoolExecutor) -> _Job:
        hints = self._timeline.hints(frame.number, frame.time, frame.size)
        stored = self._checkpoint.recall() if self._checkpoint else None
        if stored is None:
            return _Job(frame, hints, recalled=False, answer=pool.submit(self._recognize, frame, hints))
        self.recalled += 1
        return _Job(frame, hints, recalled=True, answer=pool.submit(self._from_stored, frame, stored))

    def _recognize(self, frame: Frame, hints: Hints | None) -> results.Result | None:
        """Return the faces in a frame, or ``None`` if the frame is rejected."""
        # Pack and unpack, because the wire format rounds.
        hints = results.unpack_hints(results.pack_hints(hints)) if hints is not None else None
        for _ in range(2):  # like the service, which gives a frame to a second worker
            try:
                found = self._recognizers.recognize(planar_or_bgr(frame.content), hints)
                result = results.Result(found.faces[: results.MAX_FACES], searched=found.searched)
                return results.unpack_faces(self._packed(result), self.labels, self.measures)
            except WireError as error:  # a JPEG that does not decode, or faces that the wire format cannot hold
                _log.warning("frame %d is rejected: %s", frame.number, error)
                break
            except Exception:  # any error of a model or a plug-in concerns this frame only
                _log.exception("frame %d cannot be recognised", frame.number)
        return None

    def _to_stored(self, result: results.Result | None) -> bytes:
        """Return an answer as bytes for the checkpoint. Its thumbnail is blanked: no pixels are stored on disk."""
        if result is None:
            return b""
        if result.searched is not None:
            blank = np.zeros_like(result.searched.thumbnail)
            result = replace(result, searched=replace(result.searched, thumbnail=blank))
        return self._packed(result)

    def _packed(self, result: results.Result) -> bytes:
        return results.pack_faces(result, self.labels, self.measures)

    def _from_stored(self, frame: Frame, answer: bytes) -> results.Result | None:
        """Invert `_to_stored`; the thumbnail is computed from the frame again."""
        if not answer:
            return None
        result = results.unpack_faces(answer, self.labels, self.measures)
        if result.searched is None:
            return result
        return replace(result, searched=Searched(result.searched.cells, motion.thumbnail(planar_or_bgr(frame.content))))

    def _release(self, job: _Job) -> Observation:
        frame, result, line = job.frame, job.answer.result(), self._timeline
        if self._checkpoint and not job.recalled:
            self._checkpoint.keep(self._to_stored(result))
        if result is None:
            self.rejected += 1
            line.miss(frame.number)
            return Observation(frame, (), {}, [], processed=False)
        events = self._numbered(line.observe(frame.number, frame.time, frame.size, result.faces, result.searched))
        faces = [face.box for face in result.faces] + [face.box for face in (job.hints.faces if job.hints else ())]
        estimates = {estimate.track: estimate for estimate in line.estimates()}
        fates = {course.key: course.track for course in line.courses}
        whole = job.hints is None or job.hints.whole
        searched = "whole" if whole else "known" if result.searched is None else "part"
        return Observation(
            frame,
            line.tracks,
            estimates,
            events,
            tuple(faces),
            searched=searched,
            candidates=line.candidates,
            fates=fates,
        )

    def _numbered(self, events: Iterable[Event]) -> list[tuple[Event, str]]:
        """Return new events, numbered and encoded as a new journal would do it."""
        numbered = []
        for event in events:
            identity, number = event_id(event), len(self._ids) + 1
            if identity not in self._ids:
                self._ids.add(identity)
                whole = replace(event, sequence=number, cursor=to_cursor(number))
                numbered.append((whole, encode(whole, identity)))
        return numbered


def refuse(camera: CameraSettings) -> None:
    """Refuse settings that `analyze` cannot follow.

    Raises:
        ConfigError: ``loop`` is set, or ``policy`` is ``drop_oldest``.
    """
    if camera.loop:
        raise ConfigError(
            f"analyze cannot repeat {camera.source} endlessly, as the camera's settings ask: leave out loop"
        )
    if camera.policy == "drop_oldest":
        raise ConfigError(
            f"analyze processes every frame of {camera.source}, but the camera's policy is drop_oldest: "
            "leave out policy"
        )
