"""Finds model files, checks the SHA-256 of the shipped ones, and opens them with onnxruntime.

A checkout has the shipped files in ``models/``, an installed wheel in ``fer_stream/assets/models/``. In both,
``SHA256SUMS`` in the same folder (written by ``training/manifest.py``) lists their digests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_stream.errors import ModelError
from fer_stream.inference import batching, external, providers
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MANIFEST = "SHA256SUMS"

_INSTALLED = Path(__file__).parents[1] / "assets" / "models"
_CHECKOUT = Path(__file__).resolve().parents[2] / "models"


def folder() -> Path:
    """Return the folder of the shipped model files."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def digests() -> dict[str, str]:
    """Return the SHA-256 (hexadecimal) of each shipped file, by file name, in the order of the manifest.

    Raises:
        ModelError: the manifest is missing or unreadable.
    """
    path = folder() / MANIFEST
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the manifest of the model files, {path}, cannot be read: install fer-stream again"
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An opened ONNX file.

    ``digest`` is the SHA-256 of its bytes, in hexadecimal. If its weights are in other files, or if it has a sidecar
    (`sidecar_of`), it covers these, too.
    """

    path: Path
    digest: str
    session: Any
    sidecar: str | None = None
    """The text of its sidecar, if there is one."""

    @property
    def metadata(self) -> dict[str, str]:
        """The custom metadata in the file.

        Raises:
            ModelError: the metadata is not UTF-8 text.
        """
        try:
            return dict(self.session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise ModelError(f"{self.path} cannot be used: its metadata is not UTF-8 text") from error

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], *, joint: bool = False
    ) -> list[NDArray[np.float32]]:
        """Return the outputs with these names, given the inputs by name.

        ``joint``: each row of an output depends on one row of the inputs only, and their number is free, so this run
        may be combined with those of other frames (`fer_stream.inference.batching`).

        Raises:
            ModelError: onnxruntime cannot run the model on these inputs.
        """

        def compute(*values: NDArray[Any]) -> list[NDArray[np.float32]]:
            try:
                return self._compute(outputs, dict(zip(inputs, values, strict=True)))
            except Exception as error:
                raise ModelError(f"{self.path} cannot be run by onnxruntime: {providers.sentence(error)}") from error

        if joint:
            return batching.joint((self, *outputs, *inputs), compute, list(inputs.values()))
        return compute(*inputs.values())

    def _compute(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        if all(map(len, inputs.values())) or self.session.get_providers()[0] == providers.PROVIDERS["cpu"]:
            return list(self.session.run(outputs, inputs))
        # OpenVINO returns a row even for an empty batch.
        one = {name: np.zeros((1, *value.shape[1:]), value.dtype) for name, value in inputs.items()}
        return [output[:0] for output in self.session.run(outputs, one)]


def shipped(name: str, provider: str = "cpu") -> Model:
    """Open a model file shipped with fer_stream, by its file name, with one of `providers.PROVIDERS`.

    Raises:
        ModelError: the file is missing or damaged.
        ConfigError: the provider is not available (`providers.open_session`).
    """
    return load(folder() / name, provider, digests().get(name, ""))


def find(path: Path, provider: str = "cpu") -> Model:
    """Open a model file or, if there is no such file, the shipped file of that name.

    Raises:
        FerStreamError: as `load` and `shipped`.
    """
    name = str(path)
    return shipped(name, provider) if name in digests() and not path.exists() else load(path, provider)


def sidecar_of(path: Path) -> Path:
    """Return the path of the file in which a model's author says what is not in the model: ``NAME.toml``."""
    return path.with_suffix(".toml")


def load(path: Path, provider: str = "cpu", digest: str | None = None) -> Model:
    """Open a model file with one of `providers.PROVIDERS`; if ``digest`` is given, it must be the SHA-256 of the file.

    Raises:
        ModelError: the file cannot be read, has another digest, or is not a model.
        ConfigError: the provider is not available (`providers.open_session`).
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"the model file {path} cannot be read: it is not a file")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if digest not in (None, found):  # checked before onnxruntime parses the file
        raise ModelError(f"{path} is not the file that was shipped ({MANIFEST} beside it): install fer-stream again")
    sidecar = _sidecar(path)
    try:
        text = None if sidecar is None else sidecar.decode("utf-8-sig")  # Windows may write a BOM
    except UnicodeDecodeError as error:
        raise ModelError(f"the sidecar {sidecar_of(path)} is not UTF-8 text: save it as UTF-8") from error
    return Model(path, combined(_parts(path, content, sidecar)), providers.open_session(path, content, provider), text)


def _sidecar(path: Path) -> bytes | None:
    """Return the content of a model's sidecar, or ``None`` if it has none.

    Raises:
        ModelError: there is one, but it cannot be read.
    """
    try:
        return sidecar_of(path).read_bytes() if path.suffix != ".toml" else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"the sidecar {sidecar_of(path)} cannot be read: {error.strerror}") from error


def files(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model, by name: an ONNX file and those that belong to it, or a whole folder.

    Raises:
        ModelError: a file is missing, or cannot be read.
    """
    try:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            return {file.relative_to(path.parent).as_posix(): _digest(file) for file in inside}
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror}") from error
    return _parts(path, content, _sidecar(path))


def combined(digests: Mapping[str, str]) -> str:
    """Return one digest for the files of a model, as of `files`: that of the only file, or one over all digests."""
    first, *further = digests.values()
    return hashlib.sha256("".join([first, *further]).encode()).hexdigest() if further else first


def _parts(path: Path, content: bytes, sidecar: bytes | None) -> dict[str, str]:
    found = {path.name: hashlib.sha256(content).hexdigest()} | _beside(path, content)
    if sidecar is not None:
        found[sidecar_of(path).name] = hashlib.sha256(sidecar).hexdigest()
    return found


def _beside(path: Path, content: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file that an ONNX file refers to, by the name it uses.

    Raises:
        ModelError: a file is missing, or is outside the model's folder.
    """
    found = {}
    for name in external.locations(content):
        other = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path} keeps weights in {name!r}, outside its folder: put them beside it")
        try:
            found[name] = _digest(other)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a valid file name"
            raise ModelError(f"{path} keeps weights in {name!r}, which cannot be read ({reason}): copy both") from error
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the third-party packages that affect results, by package name."""
    return {name: extras.version(name) for name in ("numpy", "cv2")} | providers.versions()
