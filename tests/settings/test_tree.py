"""The settings tree: sources and their precedence, error messages, and secrets that are never shown."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.errors import ConfigError
from fer_stream.events.cloudevents import decode, encode
from fer_stream.settings import tree
from fer_stream.settings.schema import dotted, flatten, toml
from fer_stream.settings.sections import CameraSettings
from fer_stream.settings.tree import Settings
from fer_stream.types import CameraData, Event, EventType, Nanoseconds


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("FER_STREAM_")]:
        monkeypatch.delenv(name)


def write(folder: Path, text: str, name: str = "cameras.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def problem(flags: dict[str, Any] | None = None, file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        tree.load(flags, file)
    assert caught.value.exit_code == 2
    return str(caught.value)


# Precedence and provenance


def test_defaults_come_from_nowhere_else() -> None:
    loaded = tree.explain()
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "depth = 1\nworkers = 1\npolicy = 'wait'\n[detector]\nmin_face = 21\n")
    monkeypatch.setenv("FER_STREAM_WORKERS", "2")
    monkeypatch.setenv("FER_STREAM_DETECTOR__MIN_FACE", "22")
    loaded = tree.explain({"detector.min_face": 23}, file, {"detector.min_face": "flag --min-face"})
    settings = loaded.settings
    assert (settings.depth, settings.workers, settings.detector.min_face) == (1, 2, 23)
    assert settings.detector.factor == Settings().detector.factor
    assert loaded.origins["depth"] == f"file {file}"
    assert loaded.origins["workers"] == "env FER_STREAM_WORKERS"
    assert loaded.origins["detector.min_face"] == "flag --min-face"
    assert loaded.origins["detector.factor"] == "default"


def test_tables_merge_key_by_key_across_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "[cameras.front]\nsource = '0'\nrate = 5\njpeg_quality = 50\n")
    monkeypatch.setenv("FER_STREAM_CAMERAS__FRONT__RATE", "6")
    loaded = tree.explain({"cameras": {"front": {"jpeg_quality": 60}}}, file)
    front = loaded.settings.cameras["front"]
    assert (front.source, front.rate, front.jpeg_quality) == ("0", 6.0, 60)
    assert loaded.origins["cameras.front.rate"] == "env FER_STREAM_CAMERAS__FRONT__RATE"


def test_a_table_in_one_variable_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_STREAM_DETECTOR", '{"min_face": 60}')
    monkeypatch.setenv("FER_STREAM_SINKS", '["file:a", "file:b"]')
    loaded = tree.explain()
    assert loaded.settings.detector.min_face == 60
    assert loaded.settings.sinks == ["file:a", "file:b"]
    assert loaded.origins["detector.min_face"] == "env FER_STREAM_DETECTOR"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_STREAM_METRICS", "")
    assert tree.load().metrics is None


def test_a_star_is_every_camera_also_those_of_other_flags(tmp_path: Path) -> None:
    file = write(tmp_path, "[cameras.a]\nrate = 3\n[cameras.b]\n")
    settings = tree.load({"cameras.*.rate": 7, "cameras": {"c.d": {"source": "0"}}}, file)
    assert {name: camera.rate for name, camera in settings.cameras.items()} == {"a": 7, "b": 7, "c.d": 7}
    assert settings.cameras["c.d"].source == "0"


@pytest.mark.parametrize("cameras", ["cameras = 3", "[cameras]\ndoor = 'rtsp://192.0.2.1/'"])
def test_a_star_makes_no_table_of_what_is_none(tmp_path: Path, cameras: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, cameras)
    assert problem({"cameras.*.rate": 7}, file) == problem(file=file)
    monkeypatch.setenv("FER_STREAM_CAMERAS__DOOR__RATE", "5")
    assert problem(file=file).startswith(f"file {file}: cameras")


def test_a_valence_table_replaces_the_default_mapping(tmp_path: Path) -> None:
    settings = tree.load(file=write(tmp_path, "[valence]\nhappy = 'good'\n"))
    assert settings.valence == {"happy": "good"}


def test_paths_know_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tree.load({"journal.path": "~/events.db"}).journal.path == tmp_path / "events.db"


# Error messages


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[detector]\nmin_face = 5", ["detector.min_face = 5 is not allowed", "a whole number from 12 to 4096"]),
        ("[detector]\nmin_face = 'big'", ['detector.min_face = "big"', "a whole number from 12 to 4096"]),
        ("[detector]\nfactor = 1", ["detector.factor = 1", "above 0.1 and below 0.95"]),
        ("[detector]\nthresholds = [1, 2]", ["detector.thresholds = [1, 2]", "a list of 3, each a number from 0 to 1"]),
        ("detector = 3", ["detector = 3", "a table"]),
        ("policy = 'wai'", ['policy = "wai"', "'drop_oldest' or 'wait'"]),
        ("labels = 3", ["labels = 3", "text"]),
        ("[cameras.a]\nrate = 0", ["cameras.a.rate = 0", "above 0, at most 1000"]),
        ("[cameras.a]\nretry = 'perhaps'", ['cameras.a.retry = "perhaps"', "true or false"]),
        ("[cameras.a]\nmasks = [[0, 0, 0, 1]]", ["cameras.a.masks = [[0, 0, 0, 1]]", "x1 below x2"]),
        (
            "[cameras.a.zones]\ntill = [[0, 0], [1, 0]]",
            ["cameras.a.zones.till = [[0, 0], [1, 0]]", "a zone needs at least 3 points, and has 2"],
        ),
        (
            "[cameras.a.zones]\ntill = [[0, 0], [1, 1], [1, 0], [0, 1]]",
            ["the sides 1 and 3 of a zone cross or touch: give the points in their order around the zone"],
        ),
        (
            "[cameras.a.zones]\ntill = [[0, 0], [1, 0], [0.5, 0], [0.5, 1]]",
            ["the sides 1 and 2 of a zone cross or touch"],
        ),
        (
            "[cameras.a.zones]\ntill = [[0, 0], [1, 0], [1, 1], [0, 0]]",
            ["the points 4 and 1 of a zone are the same: leave out the last one, the zone closes by itself"],
        ),
        (
            "[cameras.a.zones]\ntill = [[0, 0], [1, 0], [1, 0], [0, 1]]",
            ["the points 2 and 3 of a zone are the same: leave out one of them"],
        ),
        ("[cameras.a.zones]\ntill = [[0, 0], [640, 0], [0, 480]]", ["cameras.a.zones.till", "from 0 to 1"]),
        (
            "[cameras.a.zones]\n'the till' = [[0, 0], [1, 0], [1, 1]]",
            ["'the till' cannot be a name in cameras.a.zones"],
        ),
        (
            "[cameras.a.zones]\ntill = [[0, 0], [1, 0], [1, 1]]\nTill = [[0, 0], [1, 0], [1, 1]]",
            ["till and Till differ only in case"],
        ),
        ("[cameras.a.lines]\ndoor = {points = [[0, 0], [0, 0]]}", ["a line needs two different points"]),
        ("[cameras.a.lines]\ndoor = {points = [[0, 0], [1, 0], [1, 1]]}", ["cameras.a.lines.door.points"]),
        (
            "[cameras.a.lines]\ndoor = {points = [[0, 0], [1, 0]], to_left = 'right'}",
            ["to_right and to_left are both right: give the directions different names"],
        ),
        ("[cameras.a]\nstart_time = '2026-01-01'", ["cameras.a.start_time", "zone"]),
        ("[cameras.a]\nstart_time = '3000-01-01T00:00:00Z'", ["cameras.a.start_time", "from 1700 to 2200"]),
        ("update_interval = inf", ["there is no setting update_interval"]),
        ("[journal]\nretention_days = inf", ["journal.retention_days = Infinity is not allowed", "a number above 0"]),
        ("metrics = '..:9108'", ["HOST:PORT"]),
        ("[cameras.'b c']", ["'b c' cannot be a name in cameras"]),
        ("[cameras.Door]\n[cameras.door]", ["Door and door differ only in case"]),
        ("[smoother]\nleave = 0.9", ["smoother", "leave must be below enter"]),
        ("metrics = 'here'", ['metrics = "here"', "HOST:PORT"]),
        ("metrics = '127.0.0.1:99999'", ["HOST:PORT"]),
        ("address = 'localhost'", ["ipc://FOLDER or tcp://HOST:PORT"]),
        ("sinks = [':x']", ["NAME:ARGUMENT"]),
        ("labels = 'happy,,sad'", ["labels separated by commas"]),
        ("labels = ''", ["labels separated by commas"]),
        ("labels = 'happy, sad,happy'", ["names happy twice"]),
        ("labels = 'happy,valence'", ["valence is a whole label set"]),
        ("lables = 'x'", ["there is no setting lables", "did you mean labels?"]),
        ("[detector]\nminface = 20", ["there is no setting detector.minface", "did you mean detector.min_face?"]),
        ("min_face = 20", ["there is no setting min_face", "did you mean detector.min_face?"]),
        (
            "[detector]\nscan_interval = 0",
            ["there is no setting detector.scan_interval", "did you mean search.scan_interval?"],
        ),
        ("[cameras.a]\nsorce = '0'", ["there is no setting cameras.a.sorce", "did you mean cameras.a.source?"]),
        ("[tracker]\nxyzzy = 1", ["there is no setting tracker.xyzzy", "overlap, confirm, patience"]),
        ("_env_file = 'x'", ["there is no setting _env_file"]),
        ("labels = [\n\n]]", ["is not TOML", "line 3"]),
        ("labels = 'a'\nlabels = 'b'", ["is not TOML"]),
    ],
)
def test_one_sentence_says_where_what_and_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = write(tmp_path, text)
    message = problem(file=file)
    assert "\n" not in message
    for part in (str(file), *parts):
        assert part in message


def test_a_line_needs_points(tmp_path: Path) -> None:
    message = problem(file=write(tmp_path, "[cameras.a.lines]\ndoor = {to_left = 'in'}"))
    assert "cameras.a.lines.door.points" in message
    assert "it must be a list of 2" in message
    assert "\n" not in message


def test_places_are_few_enough_for_an_event() -> None:
    """The event that tells them may have 64 KiB."""
    zone = [[0.1234 + number / 1000, 0.1234 + number**2 / 10000] for number in range(32)]
    names = [f"{number:063d}" for number in range(33)]
    line = {"points": [[0.1234, 0.1234], [0.1235, 0.1234]], "to_right": "r" * 63, "to_left": "l" * 63}
    camera = CameraSettings.model_validate(
        {"zones": dict.fromkeys(names[:32], zone), "lines": dict.fromkeys(names[:32], line)}
    )
    assert camera.places is not None
    about = CameraData("first frame", 1, 1, zones=camera.places.zones, lines=camera.places.lines)
    event = Event(EventType.CAMERA_ONLINE, "a" * 63, 1, 1, 0, Nanoseconds(0), about)
    found = decode(encode(event)).data
    assert isinstance(found, CameraData)
    assert (list(found.zones or ()), list(found.lines or ())) == (names[:32], names[:32])
    for wrong in (
        {"zones": dict.fromkeys(names, zone)},
        {"zones": {"a": [*zone, [0, 0.9]]}},
        {"lines": dict.fromkeys(names, line)},
    ):
        with pytest.raises(ValueError, match="32"):
            CameraSettings.model_validate(wrong)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    lines = problem({"workers": "many"}, write(tmp_path, "lables = 'x'\ndepth = 0\n")).splitlines()
    assert len(lines) == 3
    assert sum("file " in line for line in lines) == 2
    assert any(line.startswith("flag workers: ") for line in lines)


def test_a_fault_between_two_sources_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_STREAM_SMOOTHER__ENTER", "0.4")
    message = problem(file=write(tmp_path, "[smoother]\nleave = 0.5\n"))
    assert "cameras.toml" in message
    assert "env FER_STREAM_SMOOTHER__ENTER" in message


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("FER_STREAM_LABLES", "FER_STREAM_LABELS"),
        ("FER_STREAM_DETECTOR_MIN_FACE", "FER_STREAM_DETECTOR__MIN_FACE"),
    ],
)
def test_a_variable_that_sets_nothing_is_told(monkeypatch: pytest.MonkeyPatch, name: str, near: str) -> None:
    monkeypatch.setenv(name, "1")
    assert problem() == f"env {name}: there is no such setting; did you mean {near}?"


def test_variables_of_kubernetes_and_of_our_supervisor_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "FER_STREAM_PORT",
        "FER_STREAM_PORT_7000_TCP_ADDR",
        "FER_STREAM_SERVICE_HOST",
        "FER_STREAM_AGGREGATOR_SERVICE_PORT_METRICS",
        "FER_STREAM_PARENT",
        "FER_STREAM_LAST_WORDS",
        "FER_STREAM_NOTES",
        "FER_STREAM_REPORTS",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:7000")
    assert tree.load() == Settings()


def test_a_list_that_is_not_json_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_STREAM_SINKS", "file:x")
    message = problem()
    assert "env FER_STREAM_SINKS" in message
    assert "JSON" in message


def test_a_wrong_value_in_the_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("fer_stream_workers", "0")
    assert problem().startswith("env fer_stream_workers: workers = ")


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    assert "there is no settings file" in problem(file=tmp_path / name)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in problem(file=file)


@pytest.mark.parametrize("text", ["{", "3", "\x00"])
def test_a_json_file_that_is_none(tmp_path: Path, text: str) -> None:
    assert "is not JSON" in problem(file=write(tmp_path, text, "x.json"))


# Secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:secret@10.0.0.2:554/s?x=1", "rtsp://admin:***@10.0.0.2:554/s?x=1"),
        ("rtsp://admin:sec@re/t:#@10.0.0.2/s", "rtsp://admin:***@10.0.0.2/s"),
        ("http://h/v.cgi?user=a&pwd=secret&n=2", "http://h/v.cgi?user=a&pwd=***&n=2"),
        ("http://h/?api_key=secret#f", "http://h/?api_key=***#f"),
        ("rtsp://h/user=a_password=secret_channel=1.sdp", "rtsp://h/user=a_password=***"),
        ("cannot open rtsp://u:secret@h/x, retrying", "cannot open rtsp://u:***@h/x, retrying"),
        ("rtsp://10.0.0.2:554/stream", "rtsp://10.0.0.2:554/stream"),
        ("film@home.mp4", "film@home.mp4"),
        ("0", "0"),
    ],
)
def test_passwords_are_not_shown(address: str, shown: str) -> None:
    assert tree.redact(address) == shown


def test_no_error_and_no_listing_shows_a_password(tmp_path: Path) -> None:
    file = write(tmp_path, "[cameras.a]\nsource = 'rtsp://u:secret@h/x'\n")
    listing = "\n".join(tree.explain(file=file).lines())
    assert "rtsp://u:***@h/x" in listing
    assert "secret" not in listing
    assert "secret" not in problem(file=write(tmp_path, "[cameras.a]\nsource = ['rtsp://u:secret@h/x']\n"))
    assert "secret" not in problem({"metrics": "http://u:secret@h"})


# Text: the listing, the template, the hand-over


def test_the_listing_is_toml_with_origins() -> None:
    loaded = tree.explain({"workers": 3, "cameras": {"front.door": {"source": 'a "quoted" film.mp4'}}})
    lines = loaded.lines()
    assert any(re.fullmatch(r"workers = 3 +# flag workers", line) for line in lines)
    assert any(line.startswith("# metrics is not set") for line in lines)
    parsed = tomllib.loads("\n".join(lines))
    assert parsed["cameras"]["front.door"]["source"] == 'a "quoted" film.mp4'
    assert Settings.model_validate(parsed) == loaded.settings


def test_the_template_loads_as_the_defaults(tmp_path: Path) -> None:
    assert tree.load(file=write(tmp_path, tree.template())) == Settings()


def test_the_template_holds_every_setting_with_its_default(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^#(?=[a-z_\[])", "", tree.template())
    examples = {"metrics", "sinks", "classifier.model", "cameras", "key", "keys", "metrics_token", "registry"}
    examples |= {"deployment.purpose", "deployment.exception", "live.token_file", "live.hosts", "live.frame_ancestors"}
    examples |= {"live.annotators"}
    examples |= {"journal.credentials", "journal.ca", "fleet.advertise", "deliveries", "deliver", "batch"}
    examples |= {"detector.rotations", "calibration"}
    loaded = tree.explain(file=write(tmp_path, text))
    defaults = {dotted(path): value for path, value in flatten(Settings().model_dump(mode="json"))}
    given = {dotted(path): value for path, value in flatten(loaded.settings.model_dump(mode="json"))}
    assert {key: given[key] for key in defaults.keys() - examples} == {
        key: value for key, value in defaults.items() if key not in examples
    }
    assert "default" not in {origin for key, origin in loaded.origins.items()}
    assert set(loaded.settings.cameras) == {"front"}
    assert set(loaded.settings.deliver) == {"archive"}


def test_the_template_describes_every_setting() -> None:
    lines = tree.template().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            assert re.match(r"# \S", lines[number - 1]), line


def test_where_no_folder_is_safe_the_default_address_is_one_that_nobody_else_can_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container /tmp may be an emptyDir that everybody can write to; a command without an address works."""
    open_to_all = tmp_path / "tmp"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(open_to_all))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(os, "geteuid", lambda: 1_000_660_000)
    assert tree.load().address == "ipc:///run/user/1000660000/fer_stream"
    assert tree.load({"address": "ipc:///tmp/x"}).address == "ipc:///tmp/x"


def test_settings_survive_the_way_to_a_child() -> None:
    settings = tree.load(
        {
            "labels": "happy,sad",
            "metrics": "[::1]:0",
            "cameras": {"a": {"source": "rtsp://u:secret@h", "masks": [[0, 0, 0.5, 1]], "rate": 2.5}},
            "valence": {"happy": "good"},
        }
    )
    saved = tree.save(settings)
    path = Path(saved.argument)
    assert tree.load(file=path) == settings
    assert tree.load(file=path) == settings, "a second child can read it too"
    assert str(path.resolve()).startswith("/memfd:"), "it has no path in a file system"
    saved.close()


json_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_what_is_written_as_toml_reads_back(tree: dict[str, Any]) -> None:
    text = "\n".join(f"{dotted((key,))} = {toml(value)}" for key, value in tree.items())
    assert tomllib.loads(text) == tree


@given(st.dictionaries(st.sampled_from(["labels", "depth", "detector", "cameras", "sinks", "x", "_x"]), json_values))
def test_any_tree_gives_settings_or_one_of_our_errors(values: dict[str, Any]) -> None:
    try:
        loaded = tree.explain(json.loads(json.dumps(values)))
    except ConfigError:
        return
    assert set(loaded.origins.values()) <= {"default", *(f"flag {key}" for key in values)}
