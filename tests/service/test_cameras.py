"""Which cameras a service has: where each comes from, which one counts, and that a refused change changes nothing."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.service.cameras import Cameras, Given
from fer_stream.service.registry import FileRegistry
from fer_stream.settings import tree
from fer_stream.settings.tree import CameraSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSWORD = "rtsp://user:secret@192.0.2.10/stream"


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "cameras.json")


class Inputs:
    """The settings file and the command line of one service."""

    def __init__(self, folder: Path, registry: FileRegistry) -> None:
        self.file = folder / "settings.toml"
        self.file.write_text("")
        self.registry = registry
        self.sources: dict[str, str] = {}

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def given(self) -> Given:
        cameras = {name: {"source": source} for name, source in self.sources.items()}
        loaded = tree.explain({"cameras": cameras}, self.file, {"cameras": "argument SOURCE"})
        return Given.of(loaded, self.file, only=self.sources)

    def cameras(self) -> Cameras:
        """The cameras of a service that starts now."""
        return Cameras(self.given(), self.given, self.registry)


@pytest.fixture
def inputs(tmp_path: Path, registry: FileRegistry) -> Inputs:
    return Inputs(tmp_path, registry)


def refused(action: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    return str(caught.value)


def test_what_was_added_is_there_after_a_restart(inputs: Inputs) -> None:
    cameras = inputs.cameras()
    cameras.add("door", {"source": "demo", "rate": "5", "loop": "true"})
    assert cameras.homes == {"door": "run time"}
    again = inputs.cameras()
    assert again.now == cameras.now
    assert again.now["door"].rate == 5.0
    assert again.change("door", {"rate": "6"}, ["loop"]) is True
    assert again.change("door", {"rate": "6.0"}) is False
    assert inputs.registry.read() == {"door": {"source": "demo", "rate": 6.0}}, "only what differs"
    again.remove("door")
    assert inputs.cameras().now == {}
    assert inputs.registry.read() == {}


def test_where_cameras_come_from(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_STREAM_CAMERAS__HALL__SOURCE", "demo")
    inputs.write('[cameras.door]\nsource = "demo"\n[cameras."front.door"]\nrate = 5')
    cameras = inputs.cameras()
    cameras.add("yard", {"source": "demo"})
    assert cameras.homes == {"hall": "environment", "door": "file", "front.door": "file", "yard": "run time"}
    assert [cameras.lasts(name) for name in cameras.homes] == [False, False, False, True]
    inputs.sources = {"door": "x.mp4"}
    assert inputs.cameras().homes == {"door": "command line", "yard": "run time"}


def test_a_camera_of_the_file_is_changed_there(inputs: Inputs) -> None:
    inputs.write('[cameras.door]\nsource = "demo"')
    cameras = inputs.cameras()
    for action in (lambda: cameras.change("door", {"rate": 5}), lambda: cameras.remove("door")):
        assert refused(action) == (
            f"camera door is in the settings file {inputs.file}: change it there, then run `fer-stream cameras reload`"
        )
    inputs.write('[cameras.door]\nsource = "demo"\nrate = 5')
    changes = cameras.reload()
    assert (changes.added, changes.changed, changes.removed, changes.restart) == ([], ["door"], [], [])
    assert cameras.now["door"].rate == 5


def test_a_change_of_a_given_camera_lasts_until_the_service_ends(inputs: Inputs) -> None:
    inputs.sources = {"door": "demo", "hall": "demo"}
    cameras = inputs.cameras()
    cameras.change("door", {"rate": 5})
    cameras.remove("hall")
    inputs.write("[cameras.door]\nloop = true")
    cameras.reload()
    assert cameras.now.keys() == {"door"}
    assert cameras.now["door"].rate == 5, "reading the file again does not undo it"
    assert inputs.cameras().now.keys() == {"door", "hall"}
    assert inputs.registry.read() is None


def test_the_file_counts_where_the_registry_has_a_camera_of_the_same_name(
    inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    cameras = inputs.cameras()
    cameras.add("door", {"source": "demo", "rate": 5})
    inputs.write('[cameras.Door]\nsource = "demo"\nrate = 7')
    changes = cameras.reload()
    assert (changes.added, changes.removed) == (["Door"], ["door"])
    assert cameras.now["Door"].rate == 7
    assert cameras.unused == {"door": "Door is given by the file, which counts"}
    assert "camera door in the registry" in caplog.text
    assert "`fer-stream cameras remove door`" in refused(lambda: cameras.add("door", {"source": "demo"}))
    inputs.write("")
    assert cameras.reload().added == ["door"], "it has waited"
    inputs.write('[cameras.Door]\nsource = "demo"')
    cameras.reload()
    cameras.remove("door")
    assert inputs.registry.read() == {}
    assert cameras.now.keys() == {"Door"}


def test_each_refusal_has_its_own_sentence_and_changes_nothing(inputs: Inputs) -> None:
    inputs.write("max_cameras = 2")
    cameras = inputs.cameras()
    cameras.add("door", {"source": "demo"})
    before = dict(cameras.now), inputs.registry.read()
    sentences = [
        refused(lambda: cameras.add("door", {"source": "x"})),
        refused(lambda: cameras.add("DOOR", {"source": "x"})),
        refused(lambda: cameras.add("yard", {"source": "x", "rate": "fast"})),
        refused(lambda: cameras.add("yard", {"source": "x", "rat": 1})),
        refused(lambda: cameras.add("../yard", {"source": "x"})),
        refused(lambda: cameras.add("yard", {"source": PASSWORD})),
        refused(lambda: cameras.change("door", {"rate": 0})),
        refused(lambda: cameras.change("door", {"source": PASSWORD})),
        refused(lambda: cameras.change("yard", {"rate": 1})),
        refused(lambda: cameras.remove("hall")),
    ]
    assert sentences[0] == sentences[1]
    expected = (
        "there is a camera door already: change it with `fer-stream cameras change door`, or choose another name",
        'cameras.yard.rate = "fast" is not allowed: it must be a number above 0, at most 1000',
        "there is no setting cameras.yard.rat; did you mean cameras.yard.rate?",
        "'../yard' cannot be a name in cameras",
        "the source of camera yard contains a password, and passwords are not stored",
        "cameras.door.rate = 0 is not allowed",
        "the source of camera door contains a password",
        "there is no camera yard: the cameras are door",
        "there is no camera hall: the cameras are door",
    )
    for sentence, words in zip(sentences[1:], expected, strict=True):
        assert words in sentence
        assert "secret" not in sentence
    assert "user:file:/home/me/yard.password@" in sentences[5], "it shows the reference"
    assert (cameras.now, inputs.registry.read()) == before
    cameras.add("yard", {"source": "rtsp://user:env:YARD@192.0.2.10/"})
    assert refused(lambda: cameras.add("hall", {"source": "demo"})) == (
        "3 cameras are too many: max_cameras is 2; remove some, or raise it and restart"
    )
    inputs.write('max_cameras = 2\n[cameras.a]\nsource = "demo"')
    assert "3 cameras are too many" in refused(cameras.reload)
    assert cameras.now.keys() == {"door", "yard"}
    assert "3 cameras are too many" in refused(inputs.cameras)


JUNK = [
    None, True, -1, 10**400, 1e308, float("inf"), "", "\0", "\ud800", "0" * 400, [], {}, [[]], {"a": 1}, {"": {}},
    ["a"], "demo", "env:X", PASSWORD, [[0, 0, 1, 1]],
]  # fmt: skip
FIELDS = [*CameraSettings.model_fields, "zoom", "", "\ud800", "a.b"]


@given(
    st.sampled_from(["a", "b", "A", "", "\0", "\ud800", "x" * 64, "../x"]),
    st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(JUNK), max_size=4),
    st.lists(st.sampled_from(FIELDS), max_size=2),
)
def test_whatever_is_requested_is_done_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, values: dict[str, Any], unset: list[str]
) -> None:
    """Afterwards the settings can be passed to captures."""
    folder = tmp_path_factory.mktemp("any")
    cameras = Inputs(folder, FileRegistry(folder / "cameras.json")).cameras()
    cameras.add("a", {"source": "demo"})
    for action in (
        lambda: cameras.add(name, values),
        lambda: cameras.change(name, values, unset),
        lambda: cameras.remove(name),
    ):
        with suppress(FerStreamError):
            action()
        tree.save(tree.Settings().model_copy(update={"cameras": cameras.now})).close()
        assert (cameras._registry.read() or {}).keys() == cameras.now.keys()


def test_a_change_that_cannot_be_stored_changes_nothing(inputs: Inputs, tmp_path: Path) -> None:
    cameras = inputs.cameras()
    cameras.add("door", {"source": "demo"})
    before = dict(cameras.now)
    path = tmp_path / "cameras.json"
    path.rename(tmp_path / "old.json")
    (path / "in the way").mkdir(parents=True)
    for action in (
        lambda: cameras.add("yard", {"source": "demo"}),
        lambda: cameras.change("door", {"rate": 1}),
        lambda: cameras.remove("door"),
    ):
        with pytest.raises(FerStreamError, match=r"cameras.json cannot be"):
            action()
    assert cameras.now == before


def test_a_password_of_the_command_line_may_stay_where_it_is(inputs: Inputs) -> None:
    """It is in memory only, so other settings of the camera can be changed."""
    inputs.sources = {"door": PASSWORD}
    cameras = inputs.cameras()
    assert cameras.change("door", {"rate": 5})
    assert inputs.registry.read() is None


def test_a_bad_file_changes_nothing(inputs: Inputs) -> None:
    inputs.write('[cameras.door]\nsource = "demo"')
    cameras = inputs.cameras()
    for text, words in (
        ("[cameras.door", "is not TOML"),
        ("[cameras.door]\nrate = -1", "cameras.door.rate = -1 is not allowed"),
        ("[cameras.door]\n[cameras.Door]", "differ only in case"),
        ("polici = 1", "there is no setting polici"),
    ):
        inputs.write(text)
        assert words in refused(cameras.reload)
    json_file = inputs.file.with_name("settings.json")
    json_file.write_text(r'{"cameras": {"door": {"source": "\udcff.mp4"}}}')
    inputs.file = json_file
    assert "a setting of camera door is not UTF-8" in refused(cameras.reload)
    inputs.file.unlink()
    assert "there is no settings file" in refused(cameras.reload)
    assert cameras.now.keys() == {"door"}
    assert "started without --config" in refused(Cameras(Given.of(tree.explain(), None), None, inputs.registry).reload)


def test_settings_that_need_a_restart_are_named_until_it(inputs: Inputs) -> None:
    cameras = inputs.cameras()
    inputs.write('workers = 3\n[tracker]\npatience = 2\n[cameras.door]\nsource = "demo"')
    assert cameras.reload().restart == ["tracker.patience", "workers"]
    assert cameras.reload().restart == ["tracker.patience", "workers"]
    inputs.write('[cameras.door]\nsource = "demo"')
    assert cameras.reload().restart == []


def test_a_registered_camera_that_is_not_valid_any_more_stops_nothing(
    inputs: Inputs, caplog: pytest.LogCaptureFixture
) -> None:
    inputs.registry.put("door", {"source": "demo", "zoom": 3})
    inputs.registry.put("yard", {"source": "demo"})
    with caplog.at_level(logging.WARNING):
        cameras = inputs.cameras()
    assert cameras.now.keys() == {"yard"}
    assert "there is no setting cameras.door.zoom" in cameras.unused["door"]
    assert "camera door in the registry" in caplog.text
    cameras.remove("door")
    assert inputs.registry.read() == {"yard": {"source": "demo"}}
