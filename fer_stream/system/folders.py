"""The default folders of this user's files, and the expansion of ``~``.

A process in a container may run with any user id, with no entry in passwd and no ``HOME``. Docker and CRI-O give such a
user the home folder ``/``. This module does the same, so nothing here fails without a home folder. If the folder is not
writable, the error of the code that writes names the path.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = "fer_stream"


def state() -> Path:
    """Return the folder for data that survive a restart: ``~/.local/state/fer_stream``, or in ``XDG_STATE_HOME``."""
    return _user_folder(platformdirs.user_state_dir, ".local/state")


def config() -> Path:
    """Return the folder for the user's configuration: ``~/.config/fer_stream``, or in ``XDG_CONFIG_HOME``."""
    return _user_folder(platformdirs.user_config_dir, ".config")


def runtime() -> Path:
    """Return the folder for sockets and locks; it may not exist yet.

    If the session has no runtime folder, the temporary folder may be writable by everybody, or by nobody. Not every
    command needs a runtime folder, so this does not fail: it returns a path that no other user can have created. An
    error follows only if the folder is used.
    """
    with warnings.catch_warnings():  # platformdirs warns if the session has no runtime folder; it then uses /tmp
        warnings.simplefilter("ignore")
        try:
            return Path(platformdirs.user_runtime_dir(_NAME, appauthor=False))
        except OSError:
            return Path(f"/run/user/{os.geteuid() if hasattr(os, 'geteuid') else 0}", _NAME)


def _user_folder(find: Callable[..., str], below_home: str) -> Path:
    try:
        return Path(find(_NAME, appauthor=False))
    except RuntimeError:  # no home folder
        return Path("/", below_home, _NAME)


def expand(path: Path) -> Path:
    """Return a path with a leading ``~`` or ``~NAME`` expanded; the name of an unknown user stays, as in a shell."""
    expanded = Path(os.path.expanduser(path))  # noqa: PTH111  (Path.expanduser raises if there is no home folder)
    return Path("/", *expanded.parts[1:]) if expanded.parts[:1] == ("~",) else expanded
