"""The sections of the settings tree. Each field's description is its documentation."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fer_stream.settings.kinds import (
    Ancestor,
    BasePath,
    FilePath,
    Fraction,
    HostPort,
    Mask,
    Moment,
    PageName,
    Policy,
    Provider,
    Purpose,
    Seconds,
)
from fer_stream.system import folders


class Section(BaseModel):
    """A part of the tree: unknown keys are refused, so a typing error is told and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CameraSettings(Section):
    """One camera."""

    source: str = Field(
        "demo",
        description="webcam index, file, image folder, rtsp:// or http:// address, or demo",
        examples=["rtsp://user:password@192.0.2.10/stream"],
    )
    plugin: str | None = Field(
        None, description="the source plug-in; by default chosen from the source", examples=["opencv"]
    )
    policy: Policy | None = Field(None, description="overrides the general policy", examples=["wait"])
    rate: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="frames/s: caps a live camera; sets a file's pace and time stamps", examples=[10.0]
    )
    loop: bool = Field(False, description="begin a file again at its end")
    masks: list[Mask] = Field(
        default_factory=list,
        description="privacy masks: [x1, y1, x2, y2] as fractions of the picture, blanked before anything else sees it",
        examples=[[[0.0, 0.0, 0.25, 1.0]]],
    )
    encoding: Literal["auto", "raw", "jpeg"] = Field(
        "auto",
        description="pixels on the wire; auto: in shared memory on this machine, or raw, and JPEG beyond it; the JPEGs "
        "of a camera are passed on as they are, unless there are masks or this is raw",
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(90, description="of JPEG frames that the capture makes")
    max_width: Annotated[int, Field(ge=64, le=16_384)] | None = Field(
        None,
        description="pixels: wider pictures are scaled down to it before they are sent; boxes are in that size, too",
        examples=[960],
    )
    transfer_time: Seconds | None = Field(
        None,
        description="seconds that a frame may take to the aggregator: where it takes longer, JPEG quality, and then "
        "size, follow the link by themselves; not set, they stay as they are",
        examples=[0.5],
    )
    retry: bool = Field(True, description="a live source that fails is opened again, with a growing pause, for ever")
    open_timeout: Seconds = Field(10.0, description="seconds an address may take to open; a webcam has no such limit")
    read_timeout: Seconds = Field(5.0, description="seconds without a frame after which a stream has failed")
    decoder_threads: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None,
        description="threads that decode; by default one for a stream (FFmpeg holds back a picture for each further "
        "one), one a core for a file, 16 at most",
        examples=[2],
    )
    hardware_decoding: bool = Field(False, description="let the GPU decode, MJPEG too, where FFmpeg can")
    start_time: Moment = Field(
        "1970-01-01T00:00:00Z", description="the capture time of a file's first frame (RFC 3339)"
    )


class DetectorSettings(Section):
    """Face detection."""

    name: str = Field("mtcnn", description="the detector plug-in")
    provider: Provider = Field("cpu", description="what runs its nets: " + ", ".join(get_args(Provider)))
    min_face: Annotated[int, Field(ge=12, le=4096)] = Field(
        40, description="size in pixels of the smallest faces that are searched for; of half of it some are found"
    )
    thresholds: tuple[Fraction, Fraction, Fraction] = Field(
        (0.6, 0.7, 0.7),
        description="least scores to pass P-Net, R-Net and O-Net; where faces are followed (search.scan_interval above "
        "0), P-Net's is 0.8 at least, and a face that is known already stays above 0.5",
    )
    factor: Annotated[float, Field(gt=0.1, lt=0.95)] = Field(
        0.709,
        description="ratio of the pyramid's levels where every frame is searched (search.scan_interval 0); else it is "
        "0.5",
    )


class SearchSettings(Section):
    """When the aggregator has a detector search for faces and look at known ones."""

    scan_interval: Annotated[float, Field(ge=0)] = Field(
        2.0, description="seconds between searches of the whole picture; 0: every frame, and no face is followed"
    )
    motion_interval: Annotated[float, Field(ge=0)] = Field(
        0.2, description="seconds between searches of what changed in the picture"
    )
    look_interval: Annotated[float, Field(ge=0)] = Field(
        0.15,
        description="seconds between close looks at a face that is followed, in which it is scored, a quarter of that "
        "while its label may be changing; 0: every frame",
    )


class ClassifierSettings(Section):
    """Expression recognition."""

    name: str = Field("onnx", description="the classifier plug-in")
    provider: Provider = Field("cpu", description="what runs the model, as the detector's")
    model: FilePath | None = Field(
        None,
        description="an ONNX file, or one that comes along: emotion-ferplus.onnx (the default), emotion-tiny.onnx, "
        "emotion.onnx",
        examples=["model.onnx"],
    )


class DispatchSettings(Section):
    """Who gets which frame, and when a frame or a peer is given up."""

    deadline: Seconds = Field(
        10.0, description="seconds a worker may take for a frame that it has before it is replaced"
    )
    transfer: Seconds = Field(
        60.0,
        description="seconds that a frame may be on its way, from a capture that was asked for it or to a worker; for "
        "so long neither counts as silent or late as long as its connection lives",
    )
    max_age: Seconds = Field(2.0, description="seconds after which a live frame that nobody took has expired")
    silence: Seconds = Field(2.0, description="seconds without a sign of life after which a peer is dead")
    offline_after: Seconds = Field(
        5.0,
        description="seconds without a frame after which a live camera is offline; at a low `rate`, two frames' time",
    )

    forget_after: Seconds = Field(
        600.0, description="seconds until a camera whose capture has ended leaves status, metrics and alerts"
    )
    forget_silent_after: Seconds = Field(
        86_400.0, description="the same for a capture that fell silent without taking leave, which may be a fault"
    )


class TrackerSettings(Section):
    """Following faces by motion and overlap."""

    overlap: Fraction = Field(0.3, description="least overlap (IoU) of a face with where its track should be now")
    confirm: Annotated[float, Field(ge=0)] = Field(0.2, description="seconds a face must be seen before it has entered")
    patience: Seconds = Field(
        1.0, description="seconds a face may be out of sight before it has left; three frames, where that is longer"
    )


class SmootherSettings(Section):
    """From scores over time to intervals of one label."""

    tau: Seconds = Field(0.25, description="seconds in which what was seen fades to 37%")
    enter: Fraction = Field(0.65, description="probability above which a label may start")
    leave: Fraction = Field(0.25, description="probability below which it may end")
    min_dwell: Annotated[float, Field(ge=0)] = Field(0.1, description="seconds it must stay above enter to start")
    patience: Annotated[float, Field(ge=0)] = Field(1.0, description="seconds it must stay below leave to end")
    update_interval: Seconds = Field(10.0, description="seconds between updates of an open interval")

    @model_validator(mode="after")
    def _ordered(self) -> SmootherSettings:
        if self.leave >= self.enter:
            raise ValueError("leave must be below enter, or labels flicker")
        return self


class JournalSettings(Section):
    """The event log."""

    path: FilePath = Field(
        default_factory=lambda: folders.state() / "events.db",
        description="the SQLite file",
    )
    retention_days: Annotated[float, Field(gt=0)] = Field(30.0, description="days that events are kept")


class DeploymentSettings(Section):
    """What this installation is for (`fer_stream.settings.deployment`)."""

    purpose: Purpose | None = Field(
        None,
        description="must be set where other machines can reach the aggregator: " + ", ".join(get_args(Purpose)),
        examples=["research"],
    )
    exception: Literal["medical", "safety"] | None = Field(
        None,
        description="the reason for which the EU AI Act, Art. 5(1)(f), lets it run in workplace or education",
        examples=["medical"],
    )


class LiveSettings(Section):
    """The live page."""

    bind: HostPort = Field("127.0.0.1:8090", description="HOST:PORT of the page; port 0 takes a free one")
    token_file: FilePath | None = Field(
        None,
        description="file with the token that the page asks for; needed where other machines can reach it",
        examples=["live.token"],
    )
    hosts: list[PageName] = Field(
        default_factory=list,
        description="further names by which browsers call the page, as behind a proxy, with the port where it is not "
        "the usual one; with one it asks for the token",
        examples=[["cameras.example.org:8443"]],
    )
    base_path: BasePath = Field("/", description="a path that a proxy leaves before those of the page, such as /fer/")
    frame_ancestors: list[Ancestor] = Field(
        default_factory=list,
        description="origins whose pages may show this one in a frame; self is its own; by default none may",
        examples=[["https://home.example.org:8123"]],
    )
    show_faces: bool = Field(False, description="show faces as they are, rather than blurred")
