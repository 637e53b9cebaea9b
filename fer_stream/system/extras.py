"""The packages of others: those of an extra are imported where they are used, and all are asked for their versions.

Modules are asked, not distributions: ``cv2`` comes from opencv-python-headless, opencv-python or opencv-contrib-python,
``onnxruntime`` from onnxruntime, onnxruntime-gpu or onnxruntime-openvino, and either may have been built by hand.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions
from importlib.metadata import version as distribution_version
from typing import Any

from fer_stream.errors import PluginError


def require(module: str, extra: str) -> Any:
    """Import a module that comes with an extra of fer-stream.

    Raises:
        PluginError: it is not installed; the message says which extra to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PluginError(f"this needs {package} ({error}): pip install 'fer-stream[{extra}]'") from error


def version(module: str) -> str:
    """Return the version of a module that can be imported, as it says itself; ``unknown`` where nothing tells it.

    Raises:
        Exception: whatever importing it raises.
    """
    told = getattr(import_module(module), "__version__", None)
    if told is None:  # some leave it to their distribution, whichever that is
        try:
            told = next(map(distribution_version, packages_distributions().get(module, ())), None)
        except PackageNotFoundError:
            told = None
    return str(told or "unknown")
