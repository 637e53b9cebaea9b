"""Modules of Python's standard library that not every operating system has."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def module(name: str) -> Any:
    """Return a module, such as ``fcntl``, or ``None`` where there is none."""
    try:
        return import_module(name)
    except ImportError:
        return None
