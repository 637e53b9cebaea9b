"""Opens a project in BORIS, and imports a spreadsheet into its observation, without a screen; run by BORIS's Python.

``boris_reader.py PROJECT SPREADSHEET`` prints JSON. Only what a person does is replaced: pressing OK in a message. The
package's own start is left out, because it opens the players.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

here = importlib.util.find_spec("boris")
assert here is not None
package = types.ModuleType("boris")
package.__path__ = list(here.submodule_search_locations or ())
sys.modules["boris"] = package

from boris import import_observations, project_functions  # type: ignore[import-not-found]  # noqa: E402

said: list[str] = []


class Messages:
    Ok = Default = NoButton = 0

    @staticmethod
    def information(*arguments: object) -> None:
        said.append(str(arguments[2]))

    warning = critical = information


class Window:
    """BORIS's window with an open project and observation."""

    def __init__(self, project: dict, observation: str) -> None:
        self.pj, self.observationId = project, observation

    def load_tw_events(self, observation: str) -> None:
        assert observation == self.observationId

    def project_changed(self) -> None:
        said.append("changed")


import_observations.QMessageBox = Messages
path, spreadsheet = sys.argv[1:]
_, changed, project, message = project_functions.open_project_json(path)
((observation, about),) = project["observations"].items()
problems = project_functions.check_project_integrity(project, "s", path, media_file_available=True)
film = [project_functions.full_path(each, path) for each in about["file"].get("1", ())]
length = project_functions.observed_interval(about)
in_project = [[float(event[0]), *event[1:3]] for event in about["events"]]
about["events"] = []
import_observations.load_observations_from_spreadsheet(Window(project, observation), spreadsheet)
print(  # noqa: T201
    json.dumps(
        {
            "changed": changed,
            "message": message,
            "error": project.get("error"),
            "problems": problems,
            "film": [Path(each).name for each in film if Path(each).is_file()],
            "observed": [float(each) for each in length],
            "project": in_project,
            "said": said,
            "spreadsheet": [event[:3] for event in about["events"]],
        }
    )
)
