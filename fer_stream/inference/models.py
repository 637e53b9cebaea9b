"""Model files: where the shipped ones lie, whether they are what we shipped, and how onnxruntime opens them.

A checkout has them in ``models/``, an installed wheel in ``fer_stream/assets/models/``; either way ``SHA256SUMS``
beside them (written by ``training/manifest.py``) says what they must be.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ModelError
from fer_stream.inference import external
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "SHA256SUMS"

TELEMETRY = "ORT_DISABLE_TELEMETRY"

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}
"""onnxruntime's names of what may run a model. Each but the first comes with an onnxruntime of its own."""

_INSTALLED = Path(__file__).parents[1] / "assets" / "models"
_CHECKOUT = Path(__file__).resolve().parents[2] / "models"


def folder() -> Path:
    """Return where the shipped model files lie."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def digests() -> dict[str, str]:
    """Return the SHA-256 each shipped file must have, by file name, in the order of the manifest.

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
    """An ONNX file, opened for one thread.

    ``digest`` is the SHA-256 of its bytes, in hexadecimal; where its weights lie in other files, one of all of them.
    """

    path: Path
    digest: str
    session: Any

    @property
    def metadata(self) -> dict[str, str]:
        """The file's own custom metadata.

        Raises:
            ModelError: it is not text.
        """
        try:
            return dict(self.session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise ModelError(f"{self.path} cannot be used: its metadata is not UTF-8 text") from error

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the named outputs for the named inputs.

        Raises:
            ModelError: onnxruntime cannot run the graph on them.
        """
        try:
            return list(self.session.run(outputs, inputs))
        except Exception as error:
            raise ModelError(f"{self.path} cannot be run by onnxruntime: {_sentence(error)}") from error


def shipped(name: str, provider: str = "cpu") -> Model:
    """Open one of the model files that come with fer_stream, by its file name, for one of `PROVIDERS`.

    Raises:
        ModelError: it is missing or damaged, or the provider is not there: the message names it.
    """
    return load(folder() / name, provider, digests().get(name, ""))


def find(path: Path, provider: str = "cpu") -> Model:
    """Open a model file, or, where there is no such file, the one of that name that comes with fer_stream.

    Raises:
        ModelError: as `load` and `shipped`.
    """
    name = str(path)
    return shipped(name, provider) if name in digests() and not path.exists() else load(path, provider)


def load(path: Path, provider: str = "cpu", digest: str | None = None) -> Model:
    """Open a model file for one of `PROVIDERS`; where ``digest`` is given, only if it is the SHA-256 of its bytes.

    Its session runs on the calling thread alone, because a second thread changes the last digits of a result and loses
    to a second process; nothing in it spins while it waits.

    Raises:
        ModelError: the file cannot be read, has another digest, is not a model, or the provider is not there.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"the model file {path} cannot be read: it is not a file")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if digest not in (None, found):  # before anything parses it
        raise ModelError(f"{path} is not the file that was shipped ({MANIFEST} beside it): install fer-stream again")
    if beside := _beside(path, content):
        found = hashlib.sha256("".join([found, *beside.values()]).encode()).hexdigest()
    return Model(path, found, _open(path, content, provider))


def files(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model, by its name: of an ONNX file, of others that it names, of a folder.

    Raises:
        ModelError: one of them is missing, or cannot be read.
    """
    try:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            return {file.relative_to(path.parent).as_posix(): _digest(file) for file in inside}
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror}") from error
    return {path.name: hashlib.sha256(content).hexdigest()} | _beside(path, content)


def _beside(path: Path, content: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file that an ONNX file names, by its name there.

    Raises:
        ModelError: one is missing, or lies elsewhere than beside the model.
    """
    found = {}
    for name in external.locations(content):
        other = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path} keeps weights in {name!r}, outside its folder: put them beside it")
        try:
            found[name] = _digest(other)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no name of a file"
            raise ModelError(f"{path} keeps weights in {name!r}, which cannot be read ({reason}): copy both") from error
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the modules of others that compute what is found, by their names."""
    _runtime()
    return {name: extras.version(name) for name in ("numpy", "cv2", "onnxruntime")}


@cache
def _runtime() -> Any:
    if "onnxruntime" not in sys.modules:
        # Its builds (from 1.29 on) report every session to their maker over the network, unless this is set when they
        # are loaded; nothing of ours may leave. The environment of the program that uses us stays as it is.
        before = os.environ.get(TELEMETRY)
        os.environ[TELEMETRY] = "1"
        try:
            import onnxruntime  # noqa: PLC0415 - slow to import, and only processes that infer need it
        finally:
            if before is None:
                del os.environ[TELEMETRY]
            else:
                os.environ[TELEMETRY] = before
    import onnxruntime  # noqa: PLC0415

    return onnxruntime


def _open(path: Path, content: bytes, provider: str) -> Any:
    onnxruntime = _runtime()
    wanted, there = PROVIDERS[provider], onnxruntime.get_available_providers()
    if wanted not in there:
        known = ", ".join(name for name, its in PROVIDERS.items() if its in there)
        raise ModelError(
            f"there is no provider {provider} in this onnxruntime, which has {known}: install the onnxruntime package "
            "that has it in place of this one, or leave --provider out"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # one for each session costs 35 MB, one for all is the whole process's
    options.enable_mem_pattern = False  # plans for each size of a picture; they cost memory and gain no time
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent.absolute())
    )
    options.log_severity_level = 4  # a failure is told once, by us
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[wanted, *{PROVIDERS["cpu"]} - {wanted}])
    except Exception as error:
        raise ModelError(f"{path} is not a model that onnxruntime can open: {_sentence(error)}") from error
    if session.get_providers()[0] != wanted:  # it goes on without one that does not start, and says so in a log
        raise ModelError(f"the provider {provider} does not start on this machine: check its driver and libraries")
    return session


def _sentence(error: Exception) -> str:
    """Return the first line of a foreign message without its "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :"."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition(" : ")[2].rstrip(". ")
