"""The answers of the API's operations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class StatusAnswer(Answer):
    """The service in short."""

    version: str = Field(description="the version of the page's server")
    uptime_s: Seconds = Field(description="seconds since the start of the aggregator; in a cell, of one of them")
    cursor: str = Field(description="the cursor of the latest event; opaque: compare cursors for equality only")
    labels: list[str] = Field(description="the labels of the events; none until a worker has connected")
    cameras: dict[str, Count] = Field(description="how many cameras are online, offline and ended")
    workers: Count
    events: dict[str, Count] = Field(description="how many events there were since the start, by type")


class FaceInView(Answer):
    """A face in a camera's latest frame."""

    track: Count = Field(description="its number, until it leaves")
    box: list[float] = Field(min_length=4, max_length=4, description="[x1, y1, x2, y2] in pixels of the picture")
    confidence: Share
    label: str | None = Field(description="the label of its open interval; null: uncertain")
    since: Time | None = Field(description="when that interval began")
    probabilities: dict[str, float] = Field(description="the smoothed probability of each label")
    measures: dict[str, float] = Field({}, description="each smoothed measure; absent if the model has none")


class CameraAnswer(Answer):
    """A camera now."""

    name: str
    state: Literal["online", "offline", "ended"]
    live: bool = Field(description="false: a recording")
    epoch: Count = Field(description="counts the starts of its capture and of its aggregator")
    rate: Seconds = Field(description="frames per second")
    frame_age_s: float = Field(description="how old its latest frame was when its result came")
    ledger: dict[str, Count] = Field(description="the outcome of its frames")
    faces: list[FaceInView]


class CamerasAnswer(Answer):
    """All cameras."""

    cameras: list[CameraAnswer]


class Interval(Answer):
    """An open interval of a face in view."""

    camera: str
    track: Count
    label: str
    since: Time
    probability: Share = Field(description="the smoothed probability of its label now")


class IntervalsAnswer(Answer):
    """What is open now. A face in view without an interval is uncertain."""

    intervals: list[Interval]
    uncertain: Count = Field(description="how many faces in view have no label")


class StatisticsRow(Answer):
    """One camera, track, zone or line in one part of the period: online_s + offline_s + unknown_s is the whole part.

    online_s is unseen_s plus the time in which at least one face was in view, or in the zone. in_view_s is uncertain_s
    plus the labels' times, summed over the faces. Withheld values are absent.
    """

    camera: str
    epoch: Count | None = Field(None, description="the track's epoch, if rows are about tracks")
    track: Count | None = Field(None, description="the track's number in the epoch, if rows are about tracks")
    zone: str | None = Field(None, description="the zone, if rows are about zones")
    line: str | None = Field(None, description="the line, if rows are about lines")
    direction: str | None = Field(None, description="the direction in which the line was crossed")
    start: Time
    end: Time
    online_s: Seconds
    offline_s: Seconds
    unknown_s: Seconds = Field(description="time about which there are no events")
    withheld: bool = Field(description="true: there were faces, but fewer than least_faces")
    faces: Count = Field(0, description="how many were in view; one that leaves and comes back counts twice")
    unseen_s: Seconds = Field(0.0, description="time in which the camera was online and no face was in view")
    in_view_s: Seconds = Field(0.0, description="time in which a face was in view, summed over the faces")
    uncertain_s: Seconds = Field(0.0, description="the part of in_view_s without a label")
    visits: Count = Field(0, description="how many visits to the zone there were")
    median_visit_s: Seconds = Field(0.0, description="the median duration of the visits, within this part")
    longest_visit_s: Seconds = Field(0.0, description="the duration of the longest visit, within this part")
    crossings: Count = Field(0, description="how often the line was crossed in this direction")
    labels_s: dict[str, Seconds] = Field({}, description="the part of in_view_s of each label")
    share: dict[str, Share] = Field({}, description="labels_s as parts of in_view_s")


class StatisticsAnswer(Answer):
    """Statistics of a period."""

    rows: list[StatisticsRow]


class RecognizedFace(Answer):
    """A face in a picture."""

    box: list[float] = Field(min_length=4, max_length=4, description="[x1, y1, x2, y2] in pixels of the picture")
    confidence: Share
    probabilities: dict[str, Share] = Field(description="the probability of each label of the model")
    measures: dict[str, float] = Field({}, description="each measure of the model; absent if it has none")


class RecognitionAnswer(Answer):
    """The faces in a picture."""

    width: Count
    height: Count
    faces: list[RecognizedFace]


class Problem(Answer):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str = Field(description="one sentence: what is wrong, and what to do")


# History


class StateSpan(Answer):
    """The state of a camera from start to end; unknown: there are no events, or they are missing."""

    state: Literal["online", "offline", "unknown"]
    start: Time
    end: Time


class LabelSpan(Answer):
    """An interval of a label on a face; while it is open, its end is the latest known time."""

    label: str
    start: Time
    end: Time
    open: bool = Field(description="true: it has not ended yet")


class Stay(Answer):
    """The time of a face in view, with its labels. Time without a label is uncertain."""

    epoch: Count
    track: Count
    start: Time
    end: Time
    open: bool = Field(description="true: the face is still in view")
    labels: list[LabelSpan]


class CameraHistory(Answer):
    """The history of a camera. Stays and labels that reach beyond the period are whole; states are cut to it."""

    camera: str
    states: list[StateSpan]
    stays: list[Stay]


class HistoryAnswer(Answer):
    """The history of a period: the spans, or rows of statistics in their place if there are too many."""

    start: Time
    end: Time
    aggregated: bool = Field(
        description="true: there are too many spans, or least_faces is above 1, and rows has statistics"
    )
    least_faces: Count = Field(description="the setting; above 1 the answer is aggregated, whatever the period")
    resolution_s: Count = Field(description="the length of a part of the rows, in seconds")
    first: Time | None = Field(description="the time of the oldest event; null: there is none")
    last: Time | None = Field(description="the time of the latest event")
    labels: list[str] = Field(description="the labels of the service; none until a worker has connected")
    colours: dict[str, str] = Field(description="a colour for each label of the service and of the spans, as #rrggbb")
    cameras: list[CameraHistory] = Field(description="the spans, unless aggregated")
    rows: list[StatisticsRow] = Field(description="a row for each camera and part of the period, if aggregated")


class AnnotationAnswer(Answer):
    """An annotation: an annotator's label for a face in an interval."""

    number: Count = Field(description="its place in the sequence of annotations")
    id: str = Field(
        description="chosen by the sender; an annotation that is sent again with its id is not stored again"
    )
    camera: str
    track: Count
    start: Time
    end: Time
    label: str = Field(description="the right label, or the word wrong")
    previous: str | None = Field(description="the label that was shown")
    annotator: str
    note: str
    made: Time = Field(description="when the aggregator received it")


class AnnotationsAnswer(Answer):
    """A page of annotations in the order in which they were stored. The last one of an interval counts."""

    annotations: list[AnnotationAnswer]
    more: Count = Field(description="the number after which the next page begins; 0: there are no more")
    annotator: str | None = Field(description="the name under which this client may annotate; null: it may not")
