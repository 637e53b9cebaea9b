"""The settings tree, and where its values come from.

Flags override ``FER_STREAM_*`` variables (nested by ``__``), which override a settings file, which overrides the
defaults in this code. Field descriptions are the documentation: ``fer-stream config --template`` prints them.
`load` reads all sources, `save` hands the tree to a child process. A variable can name only cameras in lower case.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fer_stream.errors import ConfigError
from fer_stream.settings import schema
from fer_stream.settings.kinds import CAMERA_NAME, Address, FilePath, HostPort, Labels, Policy, Sink
from fer_stream.settings.layers import Layers, read_environment, read_file, variable
from fer_stream.settings.redaction import redact
from fer_stream.settings.sections import (
    CameraSettings,
    ClassifierSettings,
    DeploymentSettings,
    DetectorSettings,
    DispatchSettings,
    JournalSettings,
    LiveSettings,
    SearchSettings,
    SmootherSettings,
    TrackerSettings,
)
from fer_stream.system import folders, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "CameraSettings",
    "ClassifierSettings",
    "DeploymentSettings",
    "DetectorSettings",
    "DispatchSettings",
    "JournalSettings",
    "LiveSettings",
    "Loaded",
    "SearchSettings",
    "Settings",
    "SmootherSettings",
    "TrackerSettings",
    "explain",
    "load",
    "redact",
    "save",
    "template",
]


def _default_address() -> str:
    return f"ipc://{folders.runtime()}"


def _differ(cameras: dict[str, CameraSettings]) -> dict[str, CameraSettings]:
    seen: dict[str, str] = {}
    for name in cameras:
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other} and {name} differ in case alone; rename one")
    return cameras


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="FER_STREAM_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        nested_model_default_partial_update=True,
    )

    labels: Labels = Field(
        "emotions", description="emotions, valence, or a list of best-recognised labels: happy,surprise,neutral"
    )
    policy: Policy = Field(
        "drop_oldest", description="drop_oldest: live, the freshest frame wins; wait: every frame, in order"
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: int(machine.workers().amount),
        description="inference workers that run starts; by default one for each CPU core that this process may use "
        "(affinity and the quota of a container count), where memory has room for them",
    )
    depth: Annotated[int, Field(ge=1, le=64)] = Field(3, description="frames of one camera in flight at most")
    address: Address = Field(
        default_factory=_default_address,
        description="the aggregator's: ipc://FOLDER, or tcp://HOST:PORT (it takes six ports from there on); where none "
        "is given each run has its own, and readers find what runs",
    )
    transport: str = Field("zeromq", description="the transport plug-in")
    key: FilePath | None = Field(
        None, description="this process's key file, for an aggregator on another machine", examples=["door.key"]
    )
    keys: FilePath | None = Field(
        None, description="the aggregator's folder of keys; by default in the user's configuration", examples=["keys"]
    )
    metrics: HostPort | None = Field(
        None, description="HOST:PORT for /metrics, /healthz and /readyz", examples=["127.0.0.1:9108"]
    )
    metrics_token: FilePath | None = Field(
        None,
        description="a file (mode 0600) with the token that who asks for /metrics must send (Authorization: Bearer)",
        examples=["metrics.token"],
    )
    sinks: list[Sink] = Field(
        default_factory=list, description="further sinks, as NAME:ARGUMENT", examples=[["file:events.jsonl"]]
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe message logged"
    )
    cameras: Annotated[dict[Annotated[str, Field(pattern=CAMERA_NAME)], CameraSettings], AfterValidator(_differ)] = (
        Field(default_factory=dict, description="cameras by name")
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
        description="which valence group a label belongs to; a label left out counts for none",
    )
    journal: JournalSettings = JournalSettings()
    deployment: DeploymentSettings = DeploymentSettings()
    live: LiveSettings = LiveSettings()


@dataclass(frozen=True)
class Loaded:
    """Settings, and for each of them (by its dotted path) where its value came from."""

    settings: Settings
    origins: dict[str, str]

    def lines(self) -> list[str]:
        """Return every setting as a line of TOML with its origin behind it, without passwords."""
        flat = {schema.dotted(path): value for path, value in _flat(self.settings)}
        shown = {
            key: f"# {key} is not set" if value is None else f"{key} = {redact(schema.toml(value))}"
            for key, value in flat.items()
        }
        width = min(60, max(map(len, shown.values())))
        return [f"{text:{width}}  # {self.origins[key]}" for key, text in shown.items()]


def load(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Return the settings in force; see `explain`."""
    return explain(flags, file).settings


def explain(
    flags: Mapping[str, Any] | None = None, file: Path | None = None, names: Mapping[str, str] | None = None
) -> Loaded:
    """Return the settings in force and where each came from: flags, else ``FER_STREAM_*``, else the file.

    Args:
        flags: values by setting. A key may be a dotted path, whose part ``*`` is every camera there is; in a nested
            mapping keys stand as they are.
        file: TOML, or JSON as `save` writes it.
        names: what to call the origin of a flag, by its key in ``flags``; by default ``flag KEY``.

    Raises:
        ConfigError: anything wrong, one sentence a problem.
    """
    layers = Layers()
    if file is not None:
        layers.add(read_file(Settings, file), lambda _: f"file {file}")
    environment, problems = read_environment(Settings)
    layers.add(environment, lambda path: f"env {variable(path)}")
    flags = flags or {}
    for key in sorted(flags, key=lambda key: "*" in key):  # so that "*" finds the cameras of the other flags
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


def template() -> str:
    """Return a commented TOML file of every setting, which loads as the defaults."""
    defaults = Settings.model_construct().model_dump(mode="json")
    return schema.template(_schema(), defaults)


def save(settings: Settings) -> int:
    """Return the descriptor of nameless memory that holds settings, for a child process to `load` as ``/dev/fd/N``.

    Addresses hold passwords: so they lie in no file, and nothing is left of them however the processes end.
    """
    memory = os.memfd_create("fer_stream_settings")
    with os.fdopen(os.dup(memory), "w", encoding="utf-8") as stream:
        stream.write(settings.model_dump_json())
    return memory


@cache
def _schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def _flat(settings: Settings) -> Iterator[tuple[schema.KeyPath, Any]]:
    return schema.flatten(settings.model_dump(mode="json"))
