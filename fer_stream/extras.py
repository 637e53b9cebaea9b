"""What is not in the plain install: imported where it is used, and named where it is missing."""

from __future__ import annotations

from importlib import import_module
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
