"""Describes how the tables of an analysis were made: program, packages, models, settings and source."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.inference import models
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from fer_stream.settings.tree import CameraSettings, Settings, SmootherSettings

GLOBAL_SETTINGS = (
    "labels", "depth", "search", "detector", "classifier", "tracker", "smoother", "valence", "calibration",
    "least_faces",
)  # fmt: skip
"""Settings that affect the result."""

CAMERA_SETTINGS = ("plugin", "stream", "rate", "masks", "zones", "lines", "start_time", "hardware_decoding")
"""Settings of a camera that affect the result."""


def path_of(address: str) -> Path:
    """Return the path of a source; of one that is no file, a path that does not exist."""
    return Path(address.removeprefix("file://")).expanduser()


def title(address: str) -> str:
    """Return the name of a source, without its folder."""
    return path_of(address).name or address


def digest(path: Path) -> bytes:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def settings_used(settings: Settings, smoother: SmootherSettings | None = None) -> dict[str, Any]:
    """Return the settings that affect the result as JSON values, with the ``smoother`` in force if it is known."""
    used = settings.model_dump(mode="json", include=set(GLOBAL_SETTINGS))
    if model := settings.classifier.model:  # without its folder: `model_digests` has the digest of its content
        used["classifier"]["model"] = model.name
    if smoother:
        used["smoother"] = smoother.model_dump(mode="json")
    return used


def camera_settings(camera: CameraSettings) -> dict[str, Any]:
    """Return the settings of a camera that affect the result as JSON values."""
    return camera.model_dump(mode="json", include=set(CAMERA_SETTINGS))


def model_files(settings: Settings) -> list[Path]:
    """Return the files of the user's own model, if the settings name one."""
    model = settings.classifier.model
    return [model.parent / name for name in _own_model(settings)] if model else []


def _own_model(settings: Settings) -> dict[str, str]:
    model = settings.classifier.model
    return models.files(model) if model and model.exists() else {}


def about(settings: Settings, model: str, smoother: SmootherSettings | None = None) -> dict[str, Any]:
    """Return the versions, the models with the SHA-256 of each file, and the settings, as JSON values.

    Args:
        settings: those of the analysis.
        model: the classifier's name and version.
        smoother: the settings in force of the smoother, if there is one: a model may have its own.
    """
    return {
        "version": __version__,
        "versions": {"python": platform.python_version()} | models.versions(),
        "model": model,
        "models": model_digests(settings),
        "settings": settings_used(settings, smoother),
    }


def model_digests(settings: Settings) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of each model file by its name."""
    return models.digests() | _own_model(settings)


def provenance(made: dict[str, Any], camera: CameraSettings, sha256: str | None = None) -> dict[str, Any]:
    """Return the provenance of the tables of one analysis, as JSON values.

    Args:
        made: the result of `about`.
        camera: the camera's settings.
        sha256: the SHA-256 of the source, in hexadecimal, if it is known; by default it is computed if the source is a
            file, and ``None`` for a folder or an address.

    Raises:
        OSError: the source is a file and cannot be read.
    """
    path = path_of(camera.source)
    if sha256 is None and path.is_file():
        sha256 = digest(path).hex()
    source = {"name": title(camera.source), "sha256": sha256}
    return made | {"source": source, "camera": camera_settings(camera)}
