"""Third-party packages: imports those of an extra where they are used, and reads versions.

Versions are read from modules, not from distributions: ``cv2`` comes from opencv-python-headless, opencv-python or
opencv-contrib-python, ``onnxruntime`` from onnxruntime, onnxruntime-gpu or onnxruntime-openvino, and both may be custom
builds.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions
from importlib.metadata import version as distribution_version
from typing import Any

from fer_stream.errors import PluginError


def require(module: str, extra: str) -> Any:
    """Import a module that comes with an extra of fer-stream, and return it.

    Raises:
        PluginError: it cannot be imported; the message names the extra to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PluginError(f"this needs {package} ({error}): pip install 'fer-stream[{extra}]'") from error


def version(module: str) -> str:
    """Return the version that an importable module or else its distribution states, or ``unknown``.

    Raises:
        Exception: whatever importing the module raises.
    """
    stated = getattr(import_module(module), "__version__", None)
    if stated is None:
        try:
            stated = next(map(distribution_version, packages_distributions().get(module, ())), None)
        except PackageNotFoundError:
            stated = None
    return str(stated or "unknown")
