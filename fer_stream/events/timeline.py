"""Turns one camera's observations into its events. The aggregator and `analyze` both use it.

The same observations give the same events, byte for byte: this module uses no clock, socket or file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.events.smoother import Change, LabelSet, Smoother
from fer_stream.events.tracker import Tracker
from fer_stream.events.zones import PlaceTracker
from fer_stream.imaging.geometry import overlap
from fer_stream.settings.sections import SmootherSettings
from fer_stream.types import (
    BEGINNING,
    Box,
    CameraData,
    Estimate,
    Event,
    EventData,
    EventType,
    ExpressionData,
    Face,
    FaceData,
    Hints,
    Level,
    MeasureData,
    Milliseconds,
    Nanoseconds,
    Probability,
    Searched,
    Setting,
    Track,
    ZoneData,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fer_stream.events.attention import Attention
    from fer_stream.events.calibration import Calibration
    from fer_stream.events.smoother import Levels
    from fer_stream.events.tracker import Course
    from fer_stream.events.zones import PlaceEvent
    from fer_stream.settings.tree import TrackerSettings
    from fer_stream.types import Places


HERE = 0.5
"""Minimum overlap (IoU) at which a found face counts as the face that was expected at a position."""


class Timeline:
    """Follows one camera through one epoch.

    Call `observe` for every frame in order of capture, `tick` regularly while no frames arrive, and `offline` when the
    camera ended or died. Each returns the resulting events in order; they are not journaled yet.
    """

    def __init__(
        self,
        camera: str,
        epoch: int,
        labels: LabelSet,
        tracker: TrackerSettings,
        smoother: SmootherSettings,
        attention: Attention,
        calibration: Calibration | None = None,
        places: Places | None = None,
    ) -> None:
        self.camera = camera
        self.epoch = epoch
        self.online = False
        self.time = Nanoseconds(0)
        self.tracks: tuple[Track, ...] = ()
        """The tracks seen in the latest frame."""
        self.frame = 0
        """The latest frame's number."""
        self.size = (0, 0)
        """Width and height of the latest frame, in pixels."""
        self.searched = False
        """Whether the latest frame was searched for new faces, not only checked for known ones."""
        self.candidates: dict[int, Face] = {}
        """Faces in the latest frame that are not confirmed tracks yet, by the keys of their courses."""
        self.courses: Sequence[Course] = ()
        """Positions and velocities of all faces that are still followed."""
        self._found: tuple[Box, ...] = ()
        self._labels = labels
        self._kinds = {what: EventType(f"{labels.family}.{what}") for what in ("started", "updated", "ended")}
        self._tracker_settings = tracker
        self._smoother_settings = smoother
        self._tracker = Tracker(tracker)
        self._attention = attention
        self._calibration = calibration
        self._smoothers: dict[int, Smoother] = {}
        self._places = places
        self._place_tracker: PlaceTracker | None = None

    @property
    def face_regions(self) -> tuple[Box, ...]:
        """Boxes of the faces found in the latest frame, and predicted boxes of followed faces that were not found."""
        # Compares boxes, not times: if a source's clock stands still, a missed face has the same time as a found one.
        expected = [course.at(self.time) for course in self.courses]
        missed = [box for box in expected if all(overlap(box, other) < HERE for other in self._found)]
        return (*self._found, *missed)

    def hints(self, frame: int, time: Nanoseconds, size: tuple[int, int]) -> Hints | None:
        """Return what to look at in a frame; ``None`` means the whole frame. Call `observe` or `miss` for it next."""
        return self._attention.hints(frame, time, size)

    def miss(self, frame: int) -> None:
        """Note that `observe` will not be called for a frame."""
        self._attention.miss(frame)

    def observe(
        self,
        frame: int,
        time: Nanoseconds,
        size: tuple[int, int],
        faces: Sequence[Face],
        searched: Searched | None = None,
    ) -> list[Event]:
        """Take the result of one frame, and return the events that follow.

        Args:
            frame: the frame's number.
            time: its capture time.
            size: its width and height, in pixels.
            faces: the faces found; those that were due have probabilities.
            searched: what was searched; ``None``: nothing, or the worker does not report it.
        """
        events: list[Event] = []
        # The times of a plug-in's source may go back; a track's time must not.
        self.time, self.frame = max(time, self.time), frame
        if not self.online:
            self.online, self.size = True, size
            about = CameraData("first frame", *size, self._own_settings(), self._own_calibration())
            if self._places:
                about = replace(about, zones=self._places.zones or None, lines=self._places.lines or None)
                self._place_tracker = PlaceTracker(self._places, size)
            events.append(self._event(EventType.CAMERA_ONLINE, 0, about))
        elif size != self.size:
            events += self._close_all()
            self.size = size
            if self._place_tracker:
                self._place_tracker.resize(size)
            events.append(self._event(EventType.CAMERA_RESET, 0, CameraData("resolution changed", *size)))
        tracking = self._tracker.update(self.time, faces)
        events += self._leave(tracking.left)
        for track in tracking.entered:
            self._smoothers[track.id] = Smoother(self._labels, self._smoother_settings)
            events.append(self._event(EventType.FACE_ENTERED, track.id, self._stay(track, None)))
        for track in tracking.seen:
            if (face := track.face).probabilities is not None:
                scored = self._calibration.apply(face.probabilities) if self._calibration else face.probabilities
                changes = self._smoothers[track.id].observe(self.time, scored, face.quality, face.measures)
                events += self._expressions(track, changes)
        if self._place_tracker:
            for track in tracking.seen:
                events += self._place_events(self._place_tracker.observe(track))
        self.tracks = tracking.seen
        self.searched = searched is not None or not self._attention.following
        self.candidates, self.courses = tracking.candidates, self._tracker.courses
        self._found = tuple(face.box for face in faces)
        unsettled = (track for track, smoother in self._smoothers.items() if smoother.unsettled)
        self._attention.take(frame, self.time, self.courses, searched, unsettled)
        return events

    def tick(self, time: Nanoseconds, offline_after: float) -> list[Event]:
        """Advance the time without a frame: faces leave, and after ``offline_after`` seconds the camera is offline."""
        if not self.online:
            return []
        if time - self.time > offline_after * 1e9:
            return self.offline("no frames")
        return self._leave(self._tracker.advance(max(time, self.time)))

    def offline(self, reason: str) -> list[Event]:
        """End the epoch: every open interval closes at the time its face was last seen."""
        if not self.online:
            return []
        events = self._close_all()
        self.online = False
        events.append(self._event(EventType.CAMERA_OFFLINE, 0, CameraData(reason, *self.size)))
        return events

    def estimates(self) -> list[Estimate]:
        """Return the smoothed state of the tracks in the latest frame."""
        found = []
        for track in self.tracks:
            smoother = self._smoothers.get(track.id)
            if smoother is not None and (smoother.probabilities.values or smoother.measures):
                label = smoother.interval.label if smoother.interval else None
                found.append(Estimate(track.id, smoother.probabilities, label, smoother.measures))
        return found

    def open_intervals(self) -> list[tuple[int, str, Nanoseconds]]:
        """Return ``(track, label, start)`` of every open interval."""
        return [(t, s.interval.label, s.interval.start) for t, s in self._smoothers.items() if s.interval]

    def _own_settings(self) -> dict[str, Setting] | None:
        """Return the smoother's settings, if they are not the defaults."""
        settings = self._smoother_settings
        return None if settings == SmootherSettings() else {name: Setting(value) for name, value in settings}

    def _own_calibration(self) -> dict[str, Setting] | None:
        return self._calibration.as_dict() if self._calibration else None

    def _close_all(self) -> list[Event]:
        events = self._leave(self._tracker.tracks)
        self._tracker.forget()
        self.tracks = ()
        return events

    def _leave(self, tracks: Iterable[Track]) -> list[Event]:
        events = []
        for track in tracks:
            smoother = self._smoothers.pop(track.id)
            events += self._expressions(track, smoother.close(track.last_seen))
            if self._place_tracker:
                events += self._place_events(self._place_tracker.leave(track))
            stay = replace(self._stay(track, track.last_seen), measures=_measures(smoother.levels))
            events.append(self._event(EventType.FACE_LEFT, track.id, stay))
        return events

    def _stay(self, track: Track, end: Nanoseconds | None) -> FaceData:
        duration = _milliseconds(track.first_seen, track.last_seen)
        return FaceData(track.first_seen, end, duration, track.face.box, track.face.confidence)

    def _expressions(self, track: Track, changes: Iterable[Change]) -> list[Event]:
        events = []
        for change in changes:
            interval = change.interval
            data = ExpressionData(
                start_time=interval.start,
                end_time=interval.last if change.what == "ended" else None,
                duration_ms=_milliseconds(interval.start, interval.last),
                label=interval.label,
                previous=interval.previous,
                probability=Probability(interval.mean, interval.peak),
                probabilities=change.probabilities.as_dict(),
                box=track.face.box,
                confidence=track.face.confidence,
                measures=_measures(interval.levels),
            )
            events.append(self._event(self._kinds[change.what], track.id, data))
        return events

    def _place_events(self, events: Iterable[PlaceEvent]) -> list[Event]:
        return [self._event(kind, track.id, data) for kind, track, data in events]

    def _event(self, kind: EventType, track: int, data: EventData) -> Event:
        return Event(kind, self.camera, self.epoch, self.frame, track, self.time, data)


def _measures(levels: Mapping[str, Levels]) -> dict[str, MeasureData] | None:
    """Return what events say about measures: nothing where there are none."""
    found = {
        name: MeasureData(Level(each.mean), Level(each.lowest), Level(each.highest)) for name, each in levels.items()
    }
    return found or None


def _milliseconds(start: Nanoseconds, end: Nanoseconds) -> Milliseconds:
    return Milliseconds((end - start) // 1_000_000)


def closing(event: Event) -> Event:
    """Return the event that closes a stay or interval that a killed aggregator left open.

    ``event`` is its last journaled event. The end is the time of that event, as nothing is known about later times.
    """
    family = event.type.partition(".")[0]
    kinds = {"camera": EventType.CAMERA_OFFLINE, "face": EventType.FACE_LEFT, "zone": EventType.ZONE_LEFT}
    kind = kinds.get(family) or EventType(f"{family}.ended")
    data = event.data
    if isinstance(data, FaceData | ExpressionData | ZoneData):
        end = max(event.time, data.start_time)
        data = replace(data, end_time=end, duration_ms=_milliseconds(data.start_time, end))
    elif isinstance(data, CameraData):
        data = replace(data, reason="aggregator restarted", smoother=None, calibration=None, zones=None, lines=None)
    return replace(event, type=kind, data=data, sequence=0, cursor=BEGINNING)
