"""The sections of the settings tree. Each field's description is its documentation."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fer_stream.errors import ConfigError
from fer_stream.settings.kinds import (
    MACHINE,
    MOST_PLACES,
    Address,
    Ancestor,
    BasePath,
    EventTypes,
    FilePath,
    Fraction,
    HostPort,
    JournalPath,
    Mask,
    Moment,
    Name,
    PageName,
    Policy,
    Polygon,
    Provider,
    Purpose,
    Rotation,
    Seconds,
    Sink,
    TwoPoints,
    distinct,
)
from fer_stream.system import folders
from fer_stream.types import LineShape, Outline, Places

if TYPE_CHECKING:
    from collections.abc import Mapping


class Section(BaseModel):
    """A part of the tree. Unknown keys are refused, so that a typing error is reported and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LineSettings(Section):
    """A line in a camera's picture."""

    points: TwoPoints = Field(
        description="its two ends [x, y], in fractions of the picture's width and height",
        examples=[[[0.5, 0.0], [0.5, 1.0]]],
    )
    to_right: Name = Field(
        "right", description="name of the direction from left to right, as seen from the first point to the second"
    )
    to_left: Name = Field("left", description="name of the opposite direction")

    @model_validator(mode="after")
    def _two_directions(self) -> LineSettings:
        if self.to_right == self.to_left:
            raise ValueError(f"to_right and to_left are both {self.to_right}: give the directions different names")
        return self


class CameraSettings(Section):
    """One camera."""

    source: str = Field(
        "demo",
        description="webcam index, file, image folder, rtsp:// or http:// address, or demo; env:NAME or file:PATH in "
        "place of its password names a variable or a file that holds it",
        examples=["rtsp://user:password@192.0.2.10/stream"],
    )
    machine: Annotated[str, Field(pattern=rf"{MACHINE}|^\*$")] | None = Field(
        None,
        description="in a cell: the machine whose node captures this camera, or * for any; by default the one at which "
        "it was added if the source is a webcam, a file or otherwise of that machine, and any for a source in the "
        "network; on one machine it has no effect",
        examples=["kitchen"],
    )
    plugin: str | None = Field(
        None, description="the source plug-in; by default derived from `source`", examples=["media"]
    )
    policy: Policy | None = Field(None, description="overrides the general `policy` for this camera", examples=["wait"])
    rate: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None,
        description="frames per second: the upper limit for a live camera; the pace and time stamps of a file",
        examples=[10.0],
    )
    loop: bool = Field(False, description="play a file again from its beginning when it ends")
    masks: list[Mask] = Field(
        default_factory=list,
        description="privacy masks: rectangles [x1, y1, x2, y2] in fractions of the picture; they are blanked before "
        "the picture is processed or sent",
        examples=[[[0.0, 0.0, 0.25, 1.0]]],
    )
    zones: Annotated[dict[Name, Polygon], Field(max_length=MOST_PLACES), AfterValidator(distinct)] = Field(
        default_factory=dict,
        description="zones by name, for events and statistics: polygons [[x, y], ...], in fractions of the picture's "
        "width and height; the centre of its box decides where a face is",
        examples=[{"till": [[0.5, 0.4], [1.0, 0.4], [1.0, 1.0], [0.5, 1.0]]}],
    )
    lines: Annotated[dict[Name, LineSettings], Field(max_length=MOST_PLACES), AfterValidator(distinct)] = Field(
        default_factory=dict,
        description="lines by name: faces that cross them are counted in each direction",
        examples=[{"door": {"points": [[0.5, 0.0], [0.5, 1.0]], "to_right": "in", "to_left": "out"}}],
    )
    encoding: Literal["auto", "raw", "jpeg"] = Field(
        "auto",
        description="how frames are sent; auto: shared memory or raw pixels to an aggregator on this machine, JPEG to "
        "another machine; JPEGs from the camera are forwarded unchanged, unless they are masked or scaled, or this "
        "is raw",
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(
        90, description="JPEG quality of the frames that the capture encodes"
    )
    max_width: Annotated[int, Field(ge=64, le=16_384)] | None = Field(
        None,
        description="pixels: wider pictures are scaled down to this width before they are sent; boxes refer to the "
        "scaled picture",
        examples=[960],
    )
    transfer_time: Seconds | None = Field(
        None,
        description="seconds that a frame may take to reach the aggregator: if frames take longer, JPEG quality and "
        "then picture size are adapted to the link; if not set, neither changes",
        examples=[0.5],
    )
    format: Annotated[str, Field(pattern=r"^[!-~]{4}$")] | None = Field(
        None,
        description="a webcam's pixel format, such as MJPG or YUYV; `fer-stream doctor` lists what it offers",
        examples=["MJPG"],
    )
    size: Annotated[str, Field(pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$")] | None = Field(
        None, description="a webcam's picture size, WIDTHxHEIGHT", examples=["1280x720"]
    )
    stream: Annotated[int, Field(ge=0, le=99)] | None = Field(
        None,
        description="which video stream of a file that has several, from 0; by default its own default",
        examples=[1],
    )
    rtsp_transport: Literal["auto", "tcp", "udp"] = Field(
        "auto", description="how an RTSP camera sends its pictures; auto: TCP, and UDP if the camera refuses TCP"
    )
    retry: bool = Field(True, description="reopen a live source that fails, after growing pauses, without limit")
    open_timeout: Seconds = Field(
        10.0, description="seconds that opening an address may take; webcams have no such limit"
    )
    read_timeout: Seconds = Field(5.0, description="seconds without a frame after which a stream counts as failed")
    decoder_threads: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None,
        description="decoder threads; by default one for a stream, because each further thread delays FFmpeg's output "
        "by one picture; for a file one per CPU core, at most 16",
        examples=[2],
    )
    hardware_decoding: bool = Field(
        False, description="decode on the GPU, also MJPEG, where FFmpeg supports it; otherwise in software"
    )
    start_time: Moment = Field(
        "1970-01-01T00:00:00Z", description="the capture time of a file's first frame (RFC 3339)"
    )

    @property
    def places(self) -> Places | None:
        """The zones and lines; ``None`` without any."""
        if not self.zones and not self.lines:
            return None
        return Places(
            {name: Outline(tuple(points)) for name, points in self.zones.items()},
            {name: LineShape(Outline(line.points), line.to_right, line.to_left) for name, line in self.lines.items()},
        )


class DetectorSettings(Section):
    """Face detection."""

    name: str = Field("mtcnn", description="the detector plug-in")
    provider: Provider = Field(
        "cpu", description="execution provider of the detector's networks: " + ", ".join(get_args(Provider))
    )
    min_face: Annotated[int, Field(ge=12, le=4096)] = Field(
        40,
        description="size in pixels of the smallest faces that are searched for; some faces of half this size are "
        "found too",
    )
    thresholds: tuple[Fraction, Fraction, Fraction] = Field(
        (0.6, 0.7, 0.7),
        description="minimum scores of P-Net, R-Net and O-Net; if faces are followed (search.scan_interval above 0), "
        "P-Net's is at least 0.8, and a face that is already known is kept above 0.5",
    )
    factor: Annotated[float, Field(gt=0.1, lt=0.95)] = Field(
        0.709,
        description="scale ratio between the levels of the image pyramid in searches of the whole picture; it is "
        "0.5 in those of changed regions",
    )
    rotations: Annotated[list[Rotation], Field(max_length=11)] = Field(
        default_factory=list,
        description="angles in degrees, clockwise as seen in the picture: a further search for each, in a turned "
        "picture in which heads that lean by about this angle are upright; without them, only heads are "
        "found that lean by up to about 30 degrees; for people who lie, "
        "and cameras at the ceiling; each angle costs as much as a search",
        examples=[[-60.0, -30.0, 30.0, 60.0]],
    )


class SearchSettings(Section):
    """How often the detector searches for faces and looks at known ones."""

    scan_interval: Annotated[float, Field(ge=0)] = Field(
        2.0,
        description="seconds between searches of the whole picture; 0: search every frame completely, and follow no "
        "face",
    )
    motion_interval: Annotated[float, Field(ge=0)] = Field(
        0.2, description="seconds between searches of the regions that changed in the picture"
    )
    look_interval: Annotated[float, Field(ge=0)] = Field(
        0.15,
        description="seconds between close looks at a followed face, which classify its expression; a quarter of this "
        "while its label may be changing; 0: every frame",
    )


class ClassifierSettings(Section):
    """Expression recognition."""

    name: str = Field("onnx", description="the classifier plug-in")
    provider: Provider = Field("cpu", description="execution provider of the model, as for the detector")
    model: FilePath | None = Field(
        None,
        description="an ONNX file, or an included model: emotion-ferplus.onnx (the default), emotion-tiny.onnx, "
        "emotion.onnx",
        examples=["model.onnx"],
    )


class DispatchSettings(Section):
    """Time limits for frames, workers and captures."""

    deadline: Seconds = Field(
        10.0,
        description="seconds that a worker may take for a frame it has received, including the time for frames before "
        "it; a slower worker is replaced",
    )
    transfer: Seconds = Field(
        60.0,
        description="seconds that a frame may be in transit over a network, from the capture that was asked for it or "
        "to a worker; during this time the capture does not count as silent, and the worker not as late, while its "
        "connection is up",
    )
    max_age: Seconds = Field(2.0, description="age in seconds at which a live frame that no worker has taken expires")
    silence: Seconds = Field(
        2.0, description="seconds without a message after which a capture or worker counts as dead"
    )
    offline_after: Seconds = Field(
        5.0,
        description="seconds without a frame after which a live camera is offline; at a low `rate`, at least two frame "
        "intervals",
    )

    forget_after: Seconds = Field(
        600.0, description="seconds until a camera whose capture has ended is removed from status, metrics and alerts"
    )
    forget_silent_after: Seconds = Field(
        86_400.0,
        description="the same for a capture that fell silent without signing off (BYE), which may be a fault",
    )


class TrackerSettings(Section):
    """Following faces by motion and overlap."""

    overlap: Fraction = Field(0.3, description="minimum overlap (IoU) of a face with its track's predicted box")
    confirm: Annotated[float, Field(ge=0)] = Field(
        0.2, description="seconds for which a face must be seen before it counts as entered"
    )
    patience: Seconds = Field(
        1.0,
        description="seconds for which a face may be missing before it counts as left; at least three frame intervals",
    )


class SmootherSettings(Section):
    """Smoothing over time, and the resulting intervals of a label. A model may have values for what is not set."""

    tau: Seconds = Field(
        0.25, description="time constant of the average, in seconds: after it an observation's weight is 37%"
    )
    enter: Fraction = Field(0.65, description="average probability from which on an interval of a label may start")
    leave: Fraction = Field(0.25, description="average probability below which an open interval may end")
    min_dwell: Annotated[float, Field(ge=0)] = Field(
        0.1, description="seconds for which the average must stay at or above enter before an interval starts"
    )
    patience: Annotated[float, Field(ge=0)] = Field(
        1.0, description="seconds for which the average must stay below leave before an interval ends"
    )
    update_interval: Seconds = Field(10.0, description="seconds between updates of an open interval")

    @model_validator(mode="after")
    def _ordered(self) -> SmootherSettings:
        if self.leave >= self.enter:
            raise ValueError("leave must be below enter, or labels flicker")
        return self

    def with_model(self, own: Mapping[str, float]) -> SmootherSettings:
        """Return these settings; those that nobody has set are a model's ``own``, where it has any.

        Raises:
            ConfigError: they do not fit each other.
        """
        given = self.model_dump(exclude_unset=True)
        try:
            return SmootherSettings(**(dict(own) | given))
        except ValidationError as error:
            theirs = f"the model's own smoother settings, {_pairs(own)},"
            what = f"the smoother settings {_pairs(given)} do not fit {theirs}" if given else f"{theirs} are not valid"
            fault = error.errors()[0]
            reason = str(fault["msg"]).removeprefix("Value error, ")
            raise ConfigError(": ".join([what.rstrip(","), *map(str, fault["loc"]), reason])) from error


def _pairs(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())


class CalibrationSettings(Section):
    """Corrects the classifier's probabilities on one camera. `fer-stream agree --calibrate` fits it."""

    temperature: Annotated[float, Field(ge=0.05, le=20)] = Field(
        1.0, description="the logarithms of the probabilities are divided by it: above 1, the model becomes less sure"
    )
    bias: dict[str, Annotated[float, Field(ge=-20, le=20)]] = Field(
        default_factory=dict,
        description="by label, a number that is added to the divided logarithm; 0 for labels that are left out",
        examples=[{"neutral": 0.4, "sad": -0.3}],
    )


class JournalSettings(Section):
    """The event log."""

    path: JournalPath = Field(
        default_factory=lambda: folders.state() / "events.db",
        description="the SQLite file, or the NATS servers: nats://HOST:PORT, nats://USER:PASSWORD@HOST,HOST,HOST, or "
        "tls:// for an encrypted connection",
    )
    retention_days: Annotated[float, Field(gt=0)] = Field(30.0, description="days for which events are kept")
    max_gib: Annotated[float, Field(gt=0)] = Field(
        10.0, description="NATS only: GiB of events on each server; when they are full, events are held, not replaced"
    )
    credentials: FilePath | None = Field(
        None, description="NATS only: a credentials file, or a file with an nkey seed", examples=["fer-stream.creds"]
    )
    ca: FilePath | None = Field(
        None,
        description="NATS only: file with the certificate authority of the servers, for tls:// (default: the system's)",
        examples=["ca.pem"],
    )


class FleetSettings(Section):
    """Several aggregators that share their cameras (a cell). All its processes have the same cell and partitions."""

    cell: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = Field(
        "",
        description="the name of the cell that this process belongs to, letters, digits, '_' and '-'; empty: the "
        "aggregator is alone; a cell needs a journal in NATS",
    )
    partitions: Annotated[int, Field(ge=1, le=256)] = Field(
        16,
        description="the number of partitions into which the cell's cameras fall, at least as many as aggregators; it "
        "cannot be changed later",
    )
    advertise: Address | None = Field(
        None,
        description="the address at which others reach this aggregator, if it is not the one at which it listens "
        "(as in a container, or if it listens at 0.0.0.0)",
        examples=["tcp://10.0.0.1:5560"],
    )
    machine: Annotated[str, Field(pattern=rf"{MACHINE}|^$")] = Field(
        "", description="the name of this machine in the cell; empty: its host name"
    )

    @property
    def here(self) -> str:
        """The name of this machine in the cell."""
        name = self.machine or re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip("_.-")[:63]
        return name or "machine"


class DeploymentSettings(Section):
    """The purpose of this installation (`fer_stream.settings.deployment`)."""

    purpose: Purpose | None = Field(
        None,
        description="required if other machines can reach the aggregator or the live page: "
        + ", ".join(get_args(Purpose)),
        examples=["research"],
    )
    exception: Literal["medical", "safety"] | None = Field(
        None,
        description="the exception of the EU AI Act, Art. 5(1)(f), that permits the purposes workplace and education",
        examples=["medical"],
    )


class LiveSettings(Section):
    """The live page."""

    bind: HostPort = Field("127.0.0.1:8090", description="HOST:PORT of the page; port 0 selects a free port")
    token_file: FilePath | None = Field(
        None,
        description="file with the token that the page asks for; required if other machines can reach the page",
        examples=["live.token"],
    )
    hosts: list[PageName] = Field(
        default_factory=list,
        description="further host names of the page in browsers, such as the proxy's; with the port, unless it is 80 "
        "for http or 443 for https; if one is set, the page asks for the token",
        examples=[["cameras.example.org:8443"]],
    )
    base_path: BasePath = Field(
        "/",
        description="path under which a proxy publishes the page, such as /fer/; the proxy must forward it unchanged",
    )
    frame_ancestors: list[Ancestor] = Field(
        default_factory=list,
        description="origins whose pages may embed this page in a frame; self is the page's own origin; by default no "
        "page may",
        examples=[["https://home.example.org:8123"]],
    )
    annotators: dict[Name, FilePath] = Field(
        default_factory=dict,
        description="who may mark wrong labels on the history page: a name, and the file with this annotator's token",
        examples=[{"anna": "anna.token"}],
    )
    show_faces: bool = Field(False, description="show faces unblurred")


class DeliverSettings(Section):
    """One sink of `fer-stream deliver`, and the events that it gets."""

    sink: Sink = Field(
        description="where events go, as NAME:ARGUMENT; env:NAME or file:PATH in place of a password in an address "
        "names a variable or a file that holds it",
        examples=["nats://127.0.0.1:4222"],
    )
    cameras: list[str] = Field(
        default_factory=list, description="only events of these cameras; by default of all", examples=[["door"]]
    )
    types: list[EventTypes] = Field(
        default_factory=list,
        description="only events of these types (emotion.started) or families (emotion); by default all",
        examples=[["emotion", "camera"]],
    )
    labels: list[str] = Field(
        default_factory=list,
        description="of the events of expressions, only those with these labels; by default all",
        examples=[["happy", "surprise"]],
    )
    min_probability: Fraction = Field(
        0.0,
        description="of the events of expressions, only those whose highest probability so far is at least this; so "
        "every interval whose start is delivered is also closed",
    )
    begin: Literal["now", "beginning"] = Field(
        "now",
        description="where a sink begins that has delivered nothing yet: with the next event, or with the oldest one "
        "in the journal",
    )
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="options of the sink; the page on each sink lists them",
        examples=[{"daily": True}],
    )
