"""An aggregator of several, whose `Home` is a file: ``python -m homes FILE ADDRESS JOURNAL``.

The file has a JSON object: ``cameras`` and ``workers`` each name the address of the aggregator that they belong to.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.aggregator import aggregator
from fer_stream.aggregator.membership import Alone
from fer_stream.fleet.records import Moved, Place, Welcome
from fer_stream.operations.logs import setup_logging
from fer_stream.settings.tree import JournalSettings, Settings

if TYPE_CHECKING:
    from fer_stream.fleet.records import Answer
    from fer_stream.plugins import JournalWriter


def write(path: Path, cameras: str, workers: str = "") -> None:
    """Assign all cameras to the aggregator at one address, and workers to another; by default they stay."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"cameras": cameras, "workers": workers}))
    draft.replace(path)


class HomeFile(Alone):
    """See the module docstring."""

    def __init__(self, path: Path, address: str, journal: JournalWriter) -> None:
        super().__init__(journal)
        self._path, self._address = path, address

    def answer(self, camera: str) -> Answer:
        return self._answer(self._read("cameras"))

    def gives(self, camera: str) -> bool:
        return isinstance(self.answer(camera), Moved)

    def answer_worker(self) -> Answer:
        return self._answer(self._read("workers"))

    def _read(self, what: str) -> str:
        return str(json.loads(self._path.read_text())[what])

    def _answer(self, address: str) -> Answer:
        return Welcome() if address in ("", self._address) else Moved(Place(address))


if __name__ == "__main__":
    path, address, journal = sys.argv[1:]
    setup_logging("info", "aggregator")
    settings = Settings(address=address, journal=JournalSettings(path=Path(journal)))
    aggregator.run(settings, alone=partial(HomeFile, Path(path), address))
