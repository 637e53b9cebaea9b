"""A recording -> what the service makes of it under ``wait``, in one process and as fast as it goes.

It is the service's own code, without its sockets: the capture's reader, workers' recognizers in threads, the wire's
rounding, and the timeline, which is told answers in order of capture and asked for hints ``depth`` frames ahead. So the
events are the same, byte for byte, with any number of threads. (A camera's ``encoding`` alone is ignored: pixels that
go nowhere are looked at as they are.)

At most ``depth`` frames are looked at at once, and one more is decoded ahead, however long the recording is.
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
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.events.cursor import to_cursor
from fer_stream.events.smoother import LabelSet
from fer_stream.events.timeline import Timeline
from fer_stream.imaging import motion
from fer_stream.inference.recognizer import Recognizer
from fer_stream.operations.process import leave_behind
from fer_stream.protocol import results
from fer_stream.types import Searched

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from fer_stream.analysis.checkpoint import Checkpoint
    from fer_stream.inference.recognizer import Recognition
    from fer_stream.settings.tree import CameraSettings, Settings
    from fer_stream.types import Box, Estimate, Event, Face, Frame, Hints, Track

_log = logging.getLogger(__name__)


class Recognizers:
    """As many recognizers as threads, each used by one at a time.

    Raises:
        PluginError, ModelError: detector or classifier cannot be loaded.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self._idle: queue.SimpleQueue[Recognizer] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(recognizer := Recognizer.from_settings(settings))
        self.labels, self.version = recognizer.labels, recognizer.classifier.version

    def recognize(self, image: NDArray[np.uint8], hints: Hints | None = None) -> Recognition:
        """See `fer_stream.inference.recognizer.Recognizer.recognize`."""
        recognizer = self._idle.get()
        try:
            return recognizer.recognize(image, hints)
        finally:
            self._idle.put(recognizer)


@dataclass(frozen=True, slots=True)
class Observation:
    """One frame, the tracks seen in it, their smoothed state, and the events that it caused, with their texts.

    ``candidates`` are the faces in it that are no tracks yet, by their keys; ``fates`` has, for each face that is not
    given up, its track's number by its key, 0 while it has none.

    ``faces`` is where faces are or should be, whether or not they are tracks (yet) or could be seen in this frame;
    nothing is known of them where it could not be ``looked_at``. After the last frame comes one without a ``frame``:
    the events that close what was open.
    """

    frame: Frame | None
    tracks: tuple[Track, ...]
    estimates: dict[int, Estimate]
    events: list[tuple[Event, str]]
    faces: tuple[Box, ...] = ()
    looked_at: bool = True
    candidates: dict[int, Face] = field(default_factory=dict)
    fates: dict[int, int] = field(default_factory=dict)


class _Look(NamedTuple):
    """A frame that is looked at; ``known`` says that it was before."""

    frame: Frame
    hints: Hints | None
    known: bool
    answer: Future[results.Result | None]


class Observer:
    """Looks at one recorded camera of the settings; iterate over it once, and close the iterator where you leave early.

    Up to ``threads`` frames are looked at at once. After the end, ``rejected`` counts frames that could not be looked
    at, and ``recalled`` those whose answers were there already.

    Raises:
        PluginError, ModelError: detector or classifier cannot be loaded.
        ConfigError: the settings do not fit the model.
        ConfigError: while iterating, the source is a live camera.
        SourceError: while iterating, after what came before it: the source cannot be opened, or broke.
    """

    def __init__(self, settings: Settings, camera: str, threads: int = 1, checkpoint: Checkpoint | None = None) -> None:
        self.rejected = self.recalled = 0
        self._bell = threading.Event()
        self._slot = Slot("wait")
        once = settings.cameras[camera].model_copy(update={"loop": False})
        self.reader = Reader(camera, once, "wait", self._slot, self._bell.set, offline=True)
        self._checkpoint = checkpoint
        self._depth = settings.depth
        self._threads = min(threads, self._depth)
        self._recognizers = Recognizers(settings, self._threads)
        self.labels, self.model = self._recognizers.labels, self._recognizers.version
        self.label_set = LabelSet(settings.labels, self.labels, settings.valence)
        attention = Attention(settings.search, "wait", settings.depth)
        self._timeline = Timeline(camera, 1, self.label_set, settings.tracker, settings.smoother, attention)
        self._ids: set[str] = set()

    def __iter__(self) -> Generator[Observation]:
        under_way: deque[_Look] = deque()
        self.reader.start()
        try:
            with ThreadPoolExecutor(self._threads, "look") as pool:
                try:
                    for frame in self._frames():
                        seen = self._release(under_way.popleft()) if len(under_way) == self._depth else None
                        under_way.append(self._begin(frame, pool))
                        if seen:  # what is done with it is done while the next ones are looked at
                            yield seen
                    while under_way:
                        yield self._release(under_way.popleft())
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
            ended = self.reader.ended  # first: what is put before the end is still taken
            held = self._slot.take()
            if held is not None:
                yield held[0]
            elif ended:
                self.rejected += self._slot.state()[0].rejected
                return
            else:
                self._bell.wait(1.0)
                self._bell.clear()

    def _begin(self, frame: Frame, pool: ThreadPoolExecutor) -> _Look:
        hints = self._timeline.hints(frame.seq, frame.time, frame.size)
        known = self._checkpoint.recall() if self._checkpoint else None
        if known is None:
            return _Look(frame, hints, known=False, answer=pool.submit(self._look, frame, hints))
        self.recalled += 1
        return _Look(frame, hints, known=True, answer=pool.submit(self._remember, frame, known))

    def _look(self, frame: Frame, hints: Hints | None) -> results.Result | None:
        """Return what is found in a frame; nothing where it cannot be looked at."""
        # There and back, as over the wire: it rounds.
        hints = results.unpack_hints(results.pack_hints(hints)) if hints is not None else None
        for _ in range(2):  # as the service does, which gives a frame to a second worker
            try:
                found = self._recognizers.recognize(frame.image, hints)
                result = results.Result(found.faces[: results.MAX_FACES], searched=found.searched)
                return results.unpack_faces(results.pack_faces(result, self.labels), self.labels)
            except WireError as error:  # a JPEG that does not decode, or faces that cannot be told
                _log.warning("frame %d is rejected: %s", frame.seq, error)
                break
            except Exception:  # whatever a model or a plug-in does with this frame, the next one may be fine
                _log.exception("frame %d cannot be recognised", frame.seq)
        return None

    def _keep(self, result: results.Result | None) -> bytes:
        """Return an answer for the disk, where no picture lies, and be it a thumbnail: it is blank there."""
        if result is None:
            return b""
        if result.searched is not None:
            blank = np.zeros_like(result.searched.thumbnail)
            result = replace(result, searched=replace(result.searched, thumbnail=blank))
        return results.pack_faces(result, self.labels)

    def _remember(self, frame: Frame, answer: bytes) -> results.Result | None:
        """Return what `_keep` was given."""
        if not answer:
            return None
        result = results.unpack_faces(answer, self.labels)
        if result.searched is None:
            return result
        return replace(result, searched=Searched(result.searched.cells, motion.thumbnail(frame.image)))

    def _release(self, look: _Look) -> Observation:
        frame, result, line = look.frame, look.answer.result(), self._timeline
        if self._checkpoint and not look.known:
            self._checkpoint.keep(self._keep(result))
        if result is None:
            self.rejected += 1
            line.miss(frame.seq)
            return Observation(frame, (), {}, [], looked_at=False)
        events = self._numbered(line.observe(frame.seq, frame.time, frame.size, result.faces, result.searched))
        faces = [face.box for face in result.faces] + [face.box for face in (look.hints.faces if look.hints else ())]
        estimates = {estimate.track: estimate for estimate in line.estimates()}
        fates = {course.key: course.track for course in line.courses}
        return Observation(frame, line.tracks, estimates, events, tuple(faces), candidates=line.candidates, fates=fates)

    def _numbered(self, events: Iterable[Event]) -> list[tuple[Event, str]]:
        """Return events as a new journal would number them."""
        numbered = []
        for event in events:
            identity, number = event_id(event), len(self._ids) + 1
            if identity not in self._ids:
                self._ids.add(identity)
                whole = replace(event, sequence=number, cursor=to_cursor(number))
                numbered.append((whole, encode(whole, identity)))
        return numbered


def refuse(camera: CameraSettings) -> None:
    """Refuse settings that `analyze` cannot follow: an endless repetition, and dropped frames.

    Raises:
        ConfigError: see above.
    """
    if camera.loop:
        raise ConfigError(
            f"analyze needs an end, and the settings begin {camera.source} again at its end: leave out loop"
        )
    if camera.policy == "drop_oldest":
        raise ConfigError(
            f"analyze looks at every frame of {camera.source}, and its settings want drop_oldest: leave out policy"
        )
