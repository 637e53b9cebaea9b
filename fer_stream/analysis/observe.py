"""A recording -> what the service makes of it under ``wait``, in one process and as fast as it goes.

It is the service's own code, without its sockets: the capture's reader, workers' recognizers in threads, the wire's
rounding, and the timeline, which is told answers in order of capture and asked for hints ``depth`` frames ahead. So the
events are the same, byte for byte.
"""

from __future__ import annotations

import logging
import os
import queue
import struct
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from fer_stream import wire
from fer_stream.attention import Attention
from fer_stream.capture import Reader, Slot
from fer_stream.cloudevents import encode, event_id
from fer_stream.recognizer import Recognizer
from fer_stream.smooth import LabelSet
from fer_stream.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from fer_stream.config import Settings
    from fer_stream.types import Box, Estimate, Event, Frame, Hints, Track

_log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Observation:
    """One frame, the tracks seen in it, their smoothed state, and the events that it caused, with their texts.

    ``faces`` is where faces are or should be, whether or not they are tracks (yet), or could be seen in this frame.
    After the last frame comes one without a ``frame``: the events that close what was open.
    """

    frame: Frame | None
    tracks: tuple[Track, ...]
    estimates: dict[int, Estimate]
    events: list[tuple[Event, str]]
    faces: tuple[Box, ...] = ()


class _Look(NamedTuple):
    """A frame that is looked at, or the answer that was ``known``."""

    frame: Frame
    hints: Hints | None
    known: bytes | None
    answer: Future[bytes]


class Answers:
    """What was found in each frame, on disk, without a pixel: an analysis that was cut off goes on from it.

    ``identity`` says what they are answers to; those to anything else are thrown away.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        head = identity.encode() + b"\n"
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._left = self._whole(head)
        if not self._left:
            self._file.seek(0)
            self._file.write(head)
        self._file.truncate()
        self._file.seek(len(head))

    def _whole(self, head: bytes) -> int:
        """Return how many whole answers the file holds, and stand behind the last of them."""
        if self._file.read(len(head)) != head:
            return 0
        count, end = 0, len(head)
        while len(length := self._file.read(_LENGTH.size)) == _LENGTH.size:
            (size,) = _LENGTH.unpack(length)
            if len(self._file.read(size)) < size:
                break
            count, end = count + 1, self._file.tell()
        self._file.seek(end)
        return count

    def recall(self) -> bytes | None:
        """Return the next answer that was kept, in the order of `keep`; ``None`` after the last."""
        if not self._left:
            return None
        self._left -= 1
        (size,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
        return self._file.read(size)

    def keep(self, answer: bytes) -> None:
        """Add an answer. All kept ones have been recalled."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(_LENGTH.pack(len(answer)) + answer)
        self._file.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file, and delete it once it is of no more use."""
        self._file.close()
        if finished:
            self._path.unlink(missing_ok=True)


class Observer:
    """Looks at one recorded camera of the settings; iterate over it once.

    ``threads`` frames are looked at at once. After the end, ``rejected`` counts frames that could not be looked at.

    Raises:
        PluginError, ModelError: detector or classifier cannot be loaded.
        ConfigError: the settings do not fit the model.
        SourceError: while iterating, after what came before it: the source cannot be opened, or broke.
    """

    def __init__(self, settings: Settings, camera: str, threads: int = 1, answers: Answers | None = None) -> None:
        self.rejected = 0
        self._bell = threading.Event()
        self._slot = Slot("wait")
        self.reader = Reader(camera, settings.cameras[camera], "wait", self._slot, self._bell.set)
        self._answers = answers
        self._threads = threads
        self._depth = settings.depth
        self._recognizers: queue.SimpleQueue[Recognizer] = queue.SimpleQueue()
        for _ in range(threads):
            self._recognizers.put(recognizer := Recognizer.from_settings(settings))
        self.labels, self.model = recognizer.labels, recognizer.classifier.version
        self.label_set = LabelSet(settings.labels, self.labels, settings.valence)
        attention = Attention(settings.detector, "wait", settings.depth)
        self._timeline = Timeline(camera, 1, self.label_set, settings.tracker, settings.smoother, attention)
        self._ids: set[str] = set()

    def __iter__(self) -> Iterator[Observation]:
        under_way: deque[_Look] = deque()
        self.reader.start()
        try:
            with ThreadPoolExecutor(self._threads, "look") as pool:
                try:
                    for frame in self._frames():
                        if len(under_way) == self._depth:
                            yield self._release(under_way.popleft())
                        height, width = frame.image.shape[:2]
                        hints = self._timeline.hints(frame.seq, frame.time, (width, height))
                        known = self._answers.recall() if self._answers else None
                        under_way.append(_Look(frame, hints, known, pool.submit(self._look, frame, hints, known)))
                    while under_way:
                        yield self._release(under_way.popleft())
                finally:
                    pool.shutdown(cancel_futures=True)
        finally:
            self.reader.stop()
        reason = "source failed" if self.reader.error else "end of stream"
        yield Observation(None, (), {}, self._numbered(self._timeline.offline(reason)))
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

    def _look(self, frame: Frame, hints: Hints | None, known: bytes | None) -> bytes:
        """Return what is found in a frame, as it goes over the wire; nothing where it cannot be looked at."""
        if known is not None:
            return known
        # There and back, as over the wire: it rounds.
        hints = wire.unpack_hints(wire.pack_hints(hints)) if hints is not None else None
        recognizer = self._recognizers.get()
        try:
            for _ in range(2):  # as the service does, which gives a frame to a second worker
                try:
                    found = recognizer.recognize(frame.image, hints)
                    return wire.pack_faces(
                        wire.Result(found.faces[: wire.MAX_FACES], searched=found.searched), self.labels
                    )
                except Exception:
                    _log.exception("frame %d cannot be recognised", frame.seq)
            return b""
        finally:
            self._recognizers.put(recognizer)

    def _release(self, look: _Look) -> Observation:
        frame, payload, line = look.frame, look.answer.result(), self._timeline
        if self._answers and look.known is None:
            self._answers.keep(payload)
        if not payload:
            self.rejected += 1
            line.miss(frame.seq)
            return Observation(frame, (), {}, [])
        result = wire.unpack_faces(payload, self.labels)
        height, width = frame.image.shape[:2]
        events = self._numbered(line.observe(frame.seq, frame.time, (width, height), result.faces, result.searched))
        faces = [face.box for face in result.faces] + [face.box for face in (look.hints.faces if look.hints else ())]
        estimates = {estimate.track: estimate for estimate in line.estimates()}
        return Observation(frame, line.tracks, estimates, events, tuple(faces))

    def _numbered(self, events: Iterable[Event]) -> list[tuple[Event, str]]:
        """Return events as a new journal would number them."""
        numbered = []
        for event in events:
            identity, number = event_id(event), len(self._ids) + 1
            if identity not in self._ids:
                self._ids.add(identity)
                whole = replace(event, sequence=number, cursor=number)
                numbered.append((whole, encode(whole, identity)))
        return numbered
