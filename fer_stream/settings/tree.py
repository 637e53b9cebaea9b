"""The settings tree, and where its values come from.

Flags override ``FER_STREAM_*`` environment variables (nested by ``__``), which override a settings file, which
overrides the defaults in this code. Field descriptions are the documentation: ``fer-stream config --template`` prints
them. `load` reads all sources; `save` passes the tree to a child process. Variables can set only cameras whose names
are in lower case.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fer_stream.errors import ConfigError
from fer_stream.settings import schema
from fer_stream.settings.kinds import (
    CAMERA_NAME,
    MAX_BATCH,
    Address,
    FilePath,
    HostPort,
    Labels,
    Policy,
    Sink,
    addresses,
    distinct,
)
from fer_stream.settings.layers import Layers, read_environment, read_file, variable
from fer_stream.settings.redaction import redact
from fer_stream.settings.sections import (
    CalibrationSettings,
    CameraSettings,
    ClassifierSettings,
    DeliverSettings,
    DeploymentSettings,
    DetectorSettings,
    DispatchSettings,
    FleetSettings,
    JournalSettings,
    LiveSettings,
    SearchSettings,
    SmootherSettings,
    TrackerSettings,
)
from fer_stream.system import folders, local, machine
from fer_stream.system.handover import Handover

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "CalibrationSettings",
    "CameraSettings",
    "ClassifierSettings",
    "DeliverSettings",
    "DeploymentSettings",
    "DetectorSettings",
    "DispatchSettings",
    "FleetSettings",
    "JournalSettings",
    "LiveSettings",
    "Loaded",
    "SearchSettings",
    "Settings",
    "SmootherSettings",
    "TrackerSettings",
    "cameras",
    "changed",
    "check_text",
    "explain",
    "load",
    "redact",
    "save",
    "template",
]


def _default_address() -> str:
    return local.address(folders.runtime())


Cameras = Annotated[dict[Annotated[str, Field(pattern=CAMERA_NAME)], CameraSettings], AfterValidator(distinct)]


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="FER_STREAM_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    labels: Labels = Field(
        "emotions",
        description="emotions, valence, or a list of labels; the best-recognised labels are happy,surprise,neutral",
    )
    policy: Policy = Field(
        "drop_oldest",
        description="drop_oldest: for live cameras, the freshest frame replaces older ones; wait: every frame is "
        "processed, in order",
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: int(machine.workers().amount),
        description="number of inference workers that run starts; by default one per CPU core that this process may "
        "use (CPU affinity and a container's quota count), as far as memory suffices",
    )
    batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] | None = Field(
        None,
        description="maximum number of frames that a worker takes at a time, to run the networks on all of them "
        "together; under `wait` it takes one; by default 8 if an accelerator runs both models, else 1",
        examples=[8],
    )
    depth: Annotated[int, Field(ge=1, le=64)] = Field(3, description="maximum number of frames of one camera in flight")
    address: Address = Field(
        default_factory=_default_address,
        description="the aggregator's address: ipc://FOLDER, or tcp://HOST:PORT, which uses six ports from PORT on; "
        "if it is not set, each run uses its own address, and readers find the running service; captures, workers and "
        "readers may be given several, with commas between them; where an aggregator's key is not the one in the key "
        "file, its public half follows its address, as in tcp://HOST:PORT#KEY",
    )
    transport: str = Field("zeromq", description="the transport plug-in")
    key: FilePath | None = Field(
        None, description="this process's key file, for an aggregator on another machine", examples=["door.key"]
    )
    keys: FilePath | None = Field(
        None,
        description="the aggregator's folder of keys; by default in the user's configuration folder",
        examples=["keys"],
    )
    metrics: HostPort | None = Field(
        None, description="HOST:PORT that serves /metrics, /healthz and /readyz", examples=["127.0.0.1:9108"]
    )
    metrics_token: FilePath | None = Field(
        None,
        description="file (mode 0600) with the token that requests for /metrics must send (Authorization: Bearer)",
        examples=["metrics.token"],
    )
    sinks: list[Sink] = Field(
        default_factory=list,
        description="sinks to which `fer-stream run` delivers events, as NAME:ARGUMENT; see also deliver.NAME",
        examples=[["file:events.jsonl"]],
    )
    deliveries: FilePath | None = Field(
        None,
        description="the file in which `fer-stream deliver` records what it has delivered; by default beside the "
        "journal, with .deliveries.db added to its name",
        examples=["deliveries.db"],
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="minimum severity of logged messages"
    )
    registry: FilePath | None = Field(
        None,
        description="the file of the cameras that were added at run time (`fer-stream cameras`); by default beside the "
        "journal, with .cameras.json added to its name",
        examples=["cameras.json"],
    )
    max_cameras: Annotated[int, Field(ge=1, le=4096)] = Field(
        256, description="maximum number of cameras of `fer-stream run`; each has a process of its own"
    )
    cameras: Cameras = Field(default_factory=dict, description="cameras by name")
    least_faces: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1,
        description="statistics of a camera and a period say nothing of its faces if there were some, but fewer than "
        "this; a face that leaves and comes back counts twice",
    )
    detector: DetectorSettings = DetectorSettings()
    search: SearchSettings = SearchSettings()
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
            "contempt": "negative",
            "sad": "negative",
        },
        description="the valence group of each label; a label that is not listed belongs to no group",
    )
    calibration: dict[Annotated[str, Field(pattern=rf"{CAMERA_NAME}|^\*$")], CalibrationSettings] = Field(
        default_factory=dict,
        description="corrections of the classifier's probabilities before they are smoothed, by camera; * is for "
        "cameras without one of their own",
    )
    journal: JournalSettings = JournalSettings()
    fleet: FleetSettings = FleetSettings()
    deployment: DeploymentSettings = DeploymentSettings()
    live: LiveSettings = LiveSettings()
    deliver: dict[Annotated[str, Field(pattern=CAMERA_NAME)], DeliverSettings] = Field(
        default_factory=dict, description="sinks of `fer-stream deliver`, by name"
    )

    @property
    def networked(self) -> bool:
        """Whether messages to or from the aggregator may cross a network."""
        return not all(address.startswith("ipc://") for address in self.addresses)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses in ``address``."""
        return addresses(self.address)

    @property
    def own_address(self) -> str:
        """The address at which an aggregator listens.

        Raises:
            ConfigError: there are several.
        """
        if len(self.addresses) > 1:
            raise ConfigError(f"an aggregator listens at one address, not at {self.address}: choose one with --bind")
        return self.address


@dataclass(frozen=True)
class Loaded:
    """Settings, and the origin of each value by its dotted path."""

    settings: Settings
    origins: dict[str, str]

    def lines(self) -> list[str]:
        """Return each setting as a line of TOML, with its origin as a comment and without passwords."""
        flat = {schema.dotted(path): value for path, value in _flat(self.settings)}
        shown = {
            key: f"# {key} is not set" if value is None else f"{key} = {redact(schema.toml(value))}"
            for key, value in flat.items()
        }
        width = min(60, max(map(len, shown.values())))
        return [f"{text:{width}}  # {self.origins[key]}" for key, text in shown.items()]


def load(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Return the effective settings; see `explain`."""
    return explain(flags, file).settings


def explain(
    flags: Mapping[str, Any] | None = None, file: Path | None = None, names: Mapping[str, str] | None = None
) -> Loaded:
    """Return the effective settings and the origin of each: flags, else ``FER_STREAM_*``, else the file.

    Args:
        flags: values by setting. A key may be a dotted path, in which ``*`` stands for every configured camera; keys in
            nested mappings are not split.
        file: TOML, or JSON as `save` writes it.
        names: the name of a flag's origin, by its key in ``flags``; by default ``flag KEY``.

    Raises:
        ConfigError: a source or value is invalid; the message has one line per problem.
    """
    layers = Layers()
    if file is not None:
        layers.add(read_file(Settings, file), lambda _: f"file {file}")
    environment, problems = read_environment(Settings)
    layers.add(environment, lambda path: f"env {variable(path)}")
    flags = flags or {}
    for key in sorted(
        flags, key=lambda key: "*" in key
    ):  # "*" comes last, so that it includes the other flags' cameras
        layers.add_at(tuple(key.split(".")), flags[key], (names or {}).get(key, f"flag {key}"))

    root = _schema()
    for key in sorted(layers.values.keys() - Settings.model_fields.keys()):
        problems.append(f"{layers.origin((key,))}: {schema.unknown(root, (key,))}")
        del layers.values[key]
    try:
        settings = Settings(**layers.values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path, text = schema.sentence(root, layers.values, detail)
            problems.append(f"{layers.origin(path)}: {text}")
    if problems:
        raise ConfigError(redact("\n".join(dict.fromkeys(problems))))
    return Loaded(settings, {schema.dotted(path): layers.origin(path) for path, _ in _flat(settings)})


def cameras(values: Mapping[str, Mapping[str, Any]]) -> dict[str, CameraSettings]:
    """Return cameras from their values alone, by name; no other source of settings is read.

    Raises:
        ConfigError: a name or value is invalid; the message has one line per problem.
    """
    try:
        found = _CAMERAS.validate_python(values)
    except ValidationError as error:
        tree = {"cameras": {name: dict(camera) for name, camera in values.items()}}
        details: list[Any] = [
            detail | {"loc": ("cameras", *detail["loc"])} for detail in error.errors(include_url=False)
        ]
        problems = (schema.sentence(_schema(), tree, detail)[1] for detail in details)
        raise ConfigError(redact("\n".join(dict.fromkeys(problems)))) from error
    check_text(found)
    return found


def check_text(cameras: Mapping[str, CameraSettings]) -> None:
    """Check that cameras can be passed to other processes (`save`); file names may have any bytes.

    Raises:
        ConfigError: a value is not UTF-8.
    """
    for name, camera in cameras.items():
        try:
            camera.model_dump_json()
        except ValueError as error:
            raise ConfigError(f"a setting of camera {name} is not UTF-8: rename the file, for example") from error


def changed(camera: CameraSettings) -> dict[str, Any]:
    """Return the source of a camera, and its settings that differ from the defaults, as JSON values."""
    return {"source": camera.source, **camera.model_dump(mode="json", exclude_defaults=True)}


def template() -> str:
    """Return a TOML file that documents every setting; all of them are commented out, so it loads as the defaults."""
    defaults = Settings.model_construct().model_dump(mode="json")
    return schema.template(_schema(), defaults)


def save(settings: Settings) -> Handover:
    """Return the settings for processes that this one starts. Addresses may contain passwords, so no file has them."""
    unset = set(SmootherSettings.model_fields) - settings.smoother.model_fields_set  # what the model may say
    return Handover(settings.model_dump_json(exclude={"smoother": unset}))


_CAMERAS: TypeAdapter[dict[str, CameraSettings]] = TypeAdapter(Cameras)


@cache
def _schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def _flat(settings: Settings) -> Iterator[tuple[schema.KeyPath, Any]]:
    return schema.flatten(settings.model_dump(mode="json"))
