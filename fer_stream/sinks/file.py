"""Events as JSON lines at the end of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError, FerStreamError

if TYPE_CHECKING:
    from fer_stream.plugins import Sink
    from fer_stream.types import Event


def open_sink(argument: str) -> Sink:
    """Open the file named ``argument``, which is made if it is missing.

    Raises:
        ConfigError: no file is named.
        FerStreamError: it cannot be written.
    """
    if not argument:
        raise ConfigError("the file sink needs the name of a file, as in file:events.jsonl")
    return JsonLines(Path(argument).expanduser())


class JsonLines:
    """Appends each event at once, so that a reader may follow the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, event: Event, text: str) -> None:  # noqa: ARG002
        """Append one event.

        Raises:
            FerStreamError: the disk is full, or gone.
        """
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> FerStreamError:
        return FerStreamError(f"events cannot be written to {str(self._path)!r}: {error.strerror}")
