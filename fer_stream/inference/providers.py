"""Execution providers of onnxruntime: what runs a model, how it is installed, and sessions on it.

If the requested provider does not start, no session is opened: onnxruntime by itself would continue on the CPU.
OpenVINO and CUDA are set to float32, so that results stay comparable.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ConfigError, ModelError
from fer_stream.system import extras

if TYPE_CHECKING:
    from pathlib import Path

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
"""onnxruntime's names of the execution providers.

OpenVINO is a plug-in for onnxruntime, or part of the build onnxruntime-openvino. CoreML is part of onnxruntime for
macOS. Each of the others needs its own build of onnxruntime, which is installed in place of the usual one.
"""

_PLUGIN = "onnxruntime_ep_openvino"

_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]'"

_INSTALL = {
    "cuda": f"run pip uninstall --yes onnxruntime, then {_CUDA}",
    "tensorrt": f"run pip uninstall --yes onnxruntime, then {_CUDA}, and install TensorRT",
    "openvino": "run pip install 'fer-stream[openvino]'",
    "coreml": "use onnxruntime for macOS, which has it",
    "directml": "run pip uninstall --yes onnxruntime, then pip install onnxruntime-directml",
}

_LIBRARIES = {"cuda": f"for example with {_CUDA}", "tensorrt": "TensorRT among them"}

_OPENVINO = {
    "INFERENCE_PRECISION_HINT": "f32",  # a CPU that has bfloat16 would use it
    "INFERENCE_NUM_THREADS": "1",
    "NUM_STREAMS": "1",
    "ENABLE_CPU_PINNING": "NO",  # the workers would be pinned to the same core
    "CPU_RUNTIME_CACHE_CAPACITY": "500",  # kernels, one for each input shape; with 5000, the default, memory grows
}

_OPTIONS: dict[str, dict[str, str]] = {
    # Searched parts of a picture have any size. An exhaustive search for kernels for each new size takes seconds.
    "cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    "openvino": {"device_type": "CPU", "load_config": json.dumps({"CPU": _OPENVINO})},
}


def versions() -> dict[str, str]:
    """Return the versions of onnxruntime and, if it is installed, of OpenVINO's plug-in, by module name."""
    _runtime()
    found = {"onnxruntime": extras.version("onnxruntime")}
    with contextlib.suppress(ImportError):
        found[_PLUGIN] = extras.version(_PLUGIN)
    return found


def builds() -> dict[str, str]:
    """Return the versions of the installed packages that contain onnxruntime, by name: there should be only one."""
    return {name: version(name) for name in sorted(set(packages_distributions().get("onnxruntime", ())))}


def available() -> list[str]:
    """Return those of `PROVIDERS` that are installed. Whether one starts is known only when a session is opened."""
    found = _runtime().get_available_providers()
    here = {name for name, theirs in PROVIDERS.items() if theirs in found}
    with contextlib.suppress(ImportError):
        extras.version(_PLUGIN)
        here.add("openvino")
    return [name for name in PROVIDERS if name in here]


def open_session(path: Path, content: bytes, provider: str) -> Any:
    """Return a session of the ONNX file ``path`` with this ``content`` on one of `PROVIDERS`.

    It runs on the calling thread only, without spinning while it waits: a second thread changes the last digits of a
    result, and gains less than a second process.

    Raises:
        ConfigError: the provider is not installed, or does not start on this machine.
        ModelError: this is not a model, or the provider cannot run any part of it.
    """
    onnxruntime = _runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # an arena per session costs 35 MB; a shared one affects the whole process
    options.enable_mem_pattern = False  # a plan per input size costs memory and saves no time
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent.absolute())
    )
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 4  # fatal only: we report failures ourselves
    asked = _prepared(provider, options)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=asked, enable_fallback=False)
    except RuntimeError as error:  # from the provider; for errors in models onnxruntime has its own types
        raise _not_started(provider) from error
    except Exception as error:
        raise ModelError(f"{path} is not a model that onnxruntime can open: {sentence(error)}") from error
    wanted = PROVIDERS[provider]
    if wanted not in session.get_providers():
        raise _not_started(provider)
    parts = getattr(session, "get_provider_graph_assignment_info", None)  # from onnxruntime 1.24 on
    if provider != "cpu" and parts is not None and wanted not in {part.ep_name for part in parts()}:
        raise ModelError(f"the provider {provider} cannot run any part of {path}: leave --provider out")
    return session


def sentence(error: Exception) -> str:
    """Return the sentence in a message of onnxruntime, without "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :"."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if "EP_FAIL" in lines[0] else lines[0]  # OpenVINO names its source files first
    return line.rpartition(" : ")[2].rstrip(". ")


@cache
def _runtime() -> Any:
    """Import onnxruntime without its telemetry.

    Builds from 1.29 on report every session to the vendor over the network, unless a variable is set at import. It is
    restored afterwards, because the process may not be ours.

    Raises:
        ConfigError: onnxruntime is missing, or parts of it are.
    """
    before = os.environ.get(TELEMETRY)
    if "onnxruntime" not in sys.modules:
        os.environ[TELEMETRY] = "1"
    try:
        import onnxruntime  # noqa: PLC0415 - slow to import, and only processes that infer need it
    except ImportError as error:
        raise ConfigError(f"onnxruntime cannot be imported ({error}): run pip install onnxruntime") from error
    finally:
        os.environ.pop(TELEMETRY, None)
        if before is not None:
            os.environ[TELEMETRY] = before
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ConfigError(
            "onnxruntime is incomplete, which happens when one of two builds is removed: run pip install "
            "--force-reinstall with the name of the build"
        )
    return onnxruntime


def _prepared(provider: str, options: Any) -> list[Any] | None:
    """Return the providers for a session, in order; or ``None`` if ``options`` now name a plug-in's device.

    Raises:
        ConfigError: the provider is not installed.
    """
    onnxruntime, wanted, cpu = _runtime(), PROVIDERS[provider], PROVIDERS["cpu"]
    if provider == "cpu":
        return [cpu]
    if provider not in available():
        installed = ", ".join(available())
        advice = _INSTALL.get(provider, "install the build of onnxruntime that has it")
        raise ConfigError(
            f"the provider {provider} is not installed, only {installed}: leave --provider out, or {advice}"
        )
    if provider == "openvino" and onnxruntime.package_name != "onnxruntime-openvino":
        options.add_provider_for_devices(_openvino(), _OPTIONS[provider])
        return None
    if provider in ("cuda", "tensorrt"):
        _start_cuda()
    return [(wanted, _OPTIONS.get(provider, {})), cpu]


@cache
def _openvino() -> list[Any]:
    """Return OpenVINO's device for the CPU, in a list. Registers its plug-in, unless another package has done that.

    Raises:
        ConfigError: the plug-in does not accept this machine's processor.
    """
    onnxruntime, plugin = _runtime(), extras.require(_PLUGIN, "openvino")

    def devices() -> list[Any]:
        found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDERS["openvino"]]
        return [device for device in found if device.ep_metadata.get("ov_device") == "CPU"]

    if not devices():
        onnxruntime.register_execution_provider_library(_PLUGIN, plugin.get_library_path())
    if not devices():
        vendors = {
            device.device.vendor for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDERS["cpu"]
        }
        raise ConfigError(
            f"OpenVINO's plug-in accepts processors of Intel only, and this one is of {'/'.join(vendors)}: leave "
            "--provider out, or run pip uninstall --yes onnxruntime, then pip install onnxruntime-openvino"
        )
    return devices()[:1]


def _not_started(provider: str) -> ConfigError:
    return ConfigError(
        f"the provider {provider} does not start: install the libraries that it needs, "
        f"{_LIBRARIES.get(provider, 'such as those of its driver')}, or leave --provider out"
    )


def _start_cuda() -> None:
    """Load CUDA and cuDNN from NVIDIA's packages, if these are installed: by default onnxruntime does not look there.

    Raises:
        ConfigError: this machine has no driver of NVIDIA.
    """
    driver = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(driver)
    except OSError as error:
        raise ConfigError(
            f"there is no {driver}, so nothing can run on cuda or tensorrt: leave --provider out, install NVIDIA's "
            "driver, or give the container access to the GPU"
        ) from error
    with contextlib.redirect_stdout(sys.stderr):  # it prints the names of libraries that it does not find
        _runtime().preload_dlls()
