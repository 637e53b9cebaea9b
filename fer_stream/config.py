"""One tree of settings: flags, then ``FER_STREAM_*`` (nested by ``__``), then a TOML file, then the defaults here.

Field descriptions are the documentation: ``fer-stream config --template`` prints them.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from fer_stream.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Policy = Literal["drop_oldest", "wait"]

CAMERA_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


class Section(BaseModel):
    """A part of the tree: unknown keys are refused, so a typing error is told and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraSettings(Section):
    """One camera."""

    source: str = Field("demo", description="webcam index, file, image folder, rtsp:// or http:// address, or 'demo'")
    plugin: str | None = Field(None, description="the source plug-in; by default chosen from the source")
    policy: Policy | None = Field(None, description="overrides the general policy")
    rate: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="frames/s: caps a live camera; sets a file's pace and time stamps"
    )
    loop: bool = Field(False, description="begin a file again at its end")
    masks: list[tuple[Fraction, Fraction, Fraction, Fraction]] = Field(
        default_factory=list,
        description="privacy masks: [x1, y1, x2, y2] as fractions of the picture, blanked before anything else sees it",
    )
    encoding: Literal["auto", "raw", "jpeg"] = Field(
        "auto", description="pixels on the wire; auto: raw on this machine, JPEG beyond it"
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(90, description="of JPEG frames")
    retry: bool = Field(True, description="a live source that fails is opened again, with a growing pause, for ever")
    open_timeout: Seconds = Field(10.0, description="seconds an address may take to open")
    read_timeout: Seconds = Field(5.0, description="seconds without a frame after which a live source has failed")
    start_time: str = Field("1970-01-01T00:00:00Z", description="the capture time of a file's first frame (RFC 3339)")


class DetectorSettings(Section):
    """Face detection."""

    name: str = Field("mtcnn", description="the detector plug-in")
    min_face: Annotated[int, Field(ge=12, le=4096)] = Field(40, description="smallest face found, in pixels")
    thresholds: tuple[Fraction, Fraction, Fraction] = Field(
        (0.6, 0.7, 0.7), description="least scores to pass P-Net, R-Net and O-Net"
    )
    factor: Annotated[float, Field(gt=0.1, lt=0.95)] = Field(0.709, description="ratio of the scan's pyramid levels")


class ClassifierSettings(Section):
    """Expression recognition."""

    name: str = Field("onnx", description="the classifier plug-in")
    model: Path | None = Field(None, description="an ONNX file; by default the one that comes with fer_stream")


class DispatchSettings(Section):
    """Who gets which frame, and when a frame or a peer is given up."""

    deadline: Seconds = Field(10.0, description="seconds a worker may take for a frame before it is replaced")
    max_age: Seconds = Field(2.0, description="seconds after which a live frame that nobody took has expired")
    silence: Seconds = Field(2.0, description="seconds without a sign of life after which a peer is dead")


class TrackerSettings(Section):
    """Following faces by motion and overlap."""

    overlap: Fraction = Field(0.3, description="least overlap (IoU) of a face with where its track should be now")
    confirm: Annotated[float, Field(ge=0)] = Field(0.2, description="seconds a face must be seen before it has entered")
    patience: Seconds = Field(1.0, description="seconds a face may be out of sight before it has left")


class SmootherSettings(Section):
    """From scores over time to intervals of one label."""

    tau: Seconds = Field(0.4, description="seconds in which old evidence fades to 37%")
    enter: Fraction = Field(0.5, description="probability above which a label may start")
    leave: Fraction = Field(0.35, description="probability below which it ends")
    min_dwell: Annotated[float, Field(ge=0)] = Field(0.4, description="seconds it must stay above enter to start")
    update_interval: Seconds = Field(10.0, description="seconds between updates of an open interval")

    @model_validator(mode="after")
    def _ordered(self) -> SmootherSettings:
        if self.leave >= self.enter:
            raise ValueError("leave must be below enter, or labels flicker")
        return self


class JournalSettings(Section):
    """The event log."""

    path: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("fer_stream", appauthor=False)) / "events.db",
        description="the SQLite file",
    )
    retention_days: Annotated[float, Field(gt=0)] = Field(30.0, description="days that events are kept")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="FER_STREAM_", env_nested_delimiter="__", extra="forbid", frozen=True, nested_model_default_partial_update=True
    )

    labels: str = Field(
        "emotions", description="emotions, valence, or a list of best-recognised labels: happy,surprise,neutral"
    )
    policy: Policy = Field(
        "drop_oldest", description="drop_oldest: live, the freshest frame wins; wait: every frame, in order"
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: os.cpu_count() or 1, description="inference workers that run starts"
    )
    depth: Annotated[int, Field(ge=1, le=64)] = Field(4, description="frames of one camera in flight at most")
    address: str = Field(
        default_factory=lambda: "ipc://" + str(Path(platformdirs.user_runtime_dir("fer_stream", appauthor=False))),
        description="the aggregator's address: ipc://FOLDER, or tcp://HOST:PORT (it takes six ports from there on)",
    )
    transport: str = Field("zeromq", description="the transport plug-in")
    metrics: str | None = Field(None, description="HOST:PORT for /metrics, /healthz and /readyz")
    sinks: list[str] = Field(default_factory=list, description="further sinks, as NAME:ARGUMENT, e.g. file:events.jsonl")
    cameras: dict[Annotated[str, Field(pattern=CAMERA_NAME)], CameraSettings] = Field(
        default_factory=dict, description="cameras by name"
    )
    detector: DetectorSettings = DetectorSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    dispatch: DispatchSettings = DispatchSettings()
    tracker: TrackerSettings = TrackerSettings()
    smoother: SmootherSettings = SmootherSettings()
    valence: dict[str, str] = Field(
        default_factory=lambda: {
            "happy": "positive",
            "surprise": "positive",
            "neutral": "neutral",
            "angry": "negative",
            "disgust": "negative",
            "fear": "negative",
            "sad": "negative",
        },
        description="which valence group a label belongs to; a label left out counts for none",
    )
    journal: JournalSettings = JournalSettings()
