"""Writes the intervals of a recording into files of other programs: ELAN, BORIS, BIDS, and subtitles.

| kind    | files                        | format                                                                     |
|---------|------------------------------|----------------------------------------------------------------------------|
| `eaf`   | ``NAME.eaf``                 | ELAN Annotation Format 3.0                                                 |
| `boris` | ``NAME.boris``               | project of BORIS, format 7.0, as BORIS 7 to 9 open it                      |
|         | ``NAME_boris.xlsx``          | events for *Import observations* into an open observation of BORIS 8 and 9 |
| `bids`  | ``NAME_events.tsv``, ``.json`` | task events of BIDS 1.10, with their sidecar                             |
| `vtt`   | ``NAME.vtt``                 | WebVTT                                                                     |

``NAME`` is the camera's name, which is the recording's file name without its suffix. All times are those of the film's
clock, which begins at 0 where a player begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.analysis.exports import bids, boris, eaf, vtt
from fer_stream.analysis.exports.recording import Recording, Span, media_path, read_events

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["KINDS", "Recording", "Span", "media_path", "names", "read_events", "write"]

KINDS = {"eaf": eaf.files, "boris": boris.files, "bids": bids.files, "vtt": vtt.files}
"""For each kind, the function that returns the contents of its files, as bytes by name."""


def names(kinds: Iterable[str], name: str) -> list[str]:
    """Return the names of the files of these kinds, for a recording with this camera's name."""
    empty = Recording(name, name, None, 0.0, 0, "", "", (), ())
    return [file for kind in kinds for file in KINDS[kind](empty)]


def write(kinds: Iterable[str], recording: Recording, folder: Path) -> list[str]:
    """Write the files of these kinds into a folder, and return their names.

    Raises:
        OSError: a file cannot be written.
        PluginError: the extra ``analyze`` is not installed.
    """
    written = []
    for kind in kinds:
        for name, content in KINDS[kind](recording).items():
            (folder / name).write_bytes(content)
            written.append(name)
    return written
