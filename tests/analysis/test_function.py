"""`fer_stream.analyze`: the tables, their ``errors``, and settings, which are applied or refused."""

from __future__ import annotations

import shutil
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import jpegs
import numpy as np
import polars
import pytest

import fer_stream
from fer_stream import AnalysisWarning
from fer_stream.errors import ConfigError, SourceError
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

PORTRAITS = Path(fer_stream.__file__).parent / "assets"

Make = Any  # the type of the fixture `make`


@pytest.fixture
def make(tiny_model: Path) -> Callable[..., Settings]:
    """Return a function that makes settings: the tiny model, and the given values."""

    def made(**how: Any) -> Settings:
        return Settings(classifier={"model": tiny_model}, **how)  # type: ignore[arg-type]

    return made


def test_analyze_returns_tables(clip: Path, make: Make) -> None:
    film = fer_stream.analyze(clip, make())
    faces = film.faces
    assert faces["frame"].max() == 60
    assert faces.group_by("track").len().height == 2
    assert faces.filter(polars.col("label").is_not_null())["label"].unique().to_list() == ["happy"]
    assert faces.columns[:8] == ["frame", "time", "track", "x", "y", "width", "height", "detection"]
    album = fer_stream.analyze(PORTRAITS, make(), pictures=True)
    assert album.faces.columns[:6] == ["image", "x", "y", "width", "height", "detection"]
    assert len(album.faces) == len(album.frames) == 2
    assert len(album.events) == 0
    assert film.frames["frame"].to_list() == list(range(1, 61))
    assert film.frames["faces"].sum() == faces["found"].sum()
    entered = film.events.filter(polars.col("type") == "face.entered")
    assert entered["track"].to_list() == [1, 2]
    assert film.errors == album.errors == ()


def test_a_calibration_is_that_of_the_recording_s_camera(clip: Path, make: Make) -> None:
    def labels(camera: str, **calibration: Any) -> set[str | None]:
        settings = make(cameras={"door": {"source": str(clip)}}, calibration=calibration)
        faces = fer_stream.analyze(clip, settings, camera=camera).faces
        return set(faces["label"].drop_nulls())

    sad = {"bias": {"sad": 9.0}}
    assert labels("door", door=sad) == {"sad"}
    assert labels("door", **{"*": sad}) == {"sad"}
    assert labels("door", **{"*": sad, "door": {}}) == {"happy"}
    assert labels("door", hall=sad) == {"happy"}
    with pytest.raises(ConfigError, match=r"calibration\..*bias: the model has no label 'joy'"):
        labels("door", door={"bias": {"joy": 1.0}})


# Errors


def test_a_broken_picture_does_not_affect_the_others(make: Make, tmp_path: Path) -> None:
    album = tmp_path / "album"
    shutil.copytree(PORTRAITS, album, ignore=shutil.ignore_patterns("*.md", "models"))
    for name in ("a broken one.jpg", "z.png"):
        data = cv2.imencode(name[-4:], np.zeros((90, 90, 3), np.uint8))[1].tobytes()
        (album / name).write_bytes(data[: len(data) * 3 // 4])
    with pytest.warns(AnalysisWarning, match=r"a broken one\.jpg.* cannot be read.*\(and 1 more, in") as warned:
        tables = fer_stream.analyze(album, make(), pictures=True)
    assert tables.faces["image"].to_list() == ["eileen_collins.jpg", "grace_hopper.jpg"]
    assert tables.frames.filter(~polars.col("processed"))["image"].to_list() == ["a broken one.jpg", "z.png"]
    assert [type(error) for error in tables.errors] == [SourceError] * 2
    assert "z.png" in str(tables.errors[1])
    assert warned[0].filename == __file__, "the warning points at the caller"
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnalysisWarning)
        with pytest.raises(AnalysisWarning):
            fer_stream.analyze(album, make(), pictures=True)


def test_an_exception_of_a_model_affects_one_picture_only(make: Make, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "fails-1.dist-info").mkdir()
    (tmp_path / "fails-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: fails\nVersion: 1\n")
    (tmp_path / "fails-1.dist-info/entry_points.txt").write_text("[fer_stream.detectors]\nfails = fails:Fails\n")
    (tmp_path / "fails.py").write_text(
        "from fer_stream.inference.detectors.mtcnn import MTCNN\n"
        "class Fails:\n"
        "    def __init__(self, settings): self.real = MTCNN()\n"
        "    def detect(self, image):\n"
        "        if image.shape[:2] == (50, 50): raise RuntimeError('out of memory')\n"
        "        return self.real.detect(image)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (album := tmp_path / "album").mkdir()
    shutil.copy(PORTRAITS / "grace_hopper.jpg", album)
    cv2.imwrite(str(album / "black.png"), np.zeros((50, 50, 3), np.uint8))
    with pytest.warns(AnalysisWarning, match=r"black\.png' cannot be recognised: RuntimeError: out of memory"):
        faces = fer_stream.analyze(album, make(detector={"name": "fails"}), pictures=True).faces
    assert faces["image"].to_list() == ["grace_hopper.jpg"]


def test_a_truncated_recording_has_rows_up_to_the_break(make: Make, clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.avi"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    whole = fer_stream.analyze(clip, make()).faces
    with pytest.warns(AnalysisWarning, match="cut.avi"):
        tables = fer_stream.analyze(cut, make())
    (error,) = tables.errors
    faces = tables.faces
    assert isinstance(error, SourceError)
    last = faces["frame"].max()
    assert 10 < last < 50
    common = faces.filter(polars.col("frame") < last - 5)  # faces too new to be tracks at the break have no rows
    assert common.equals(whole.head(len(common)))


def test_frames_that_cannot_be_analysed_are_reported(make: Make, tmp_path: Path) -> None:
    picture = cv2.resize(cv2.imread(str(PORTRAITS / "grace_hopper.jpg")), (320, 240))
    packets = [cv2.imencode(".jpg", picture)[1].tobytes()] * 20
    film = jpegs.film(tmp_path / "film.avi", [*packets, jpegs.undecodable(packets[0]), *packets], 320, 240, 15)
    with pytest.warns(AnalysisWarning, match=r"1 frames? of 'film\.avi' could not be analysed"):
        tables = fer_stream.analyze(film, make())
    assert len(tables.errors) == 1
    assert 21 not in tables.faces["frame"]
    assert tables.faces["frame"].max() == 41
    lost = tables.frames.row(20, named=True)
    assert (lost["frame"], lost["processed"], lost["faces"], lost["searched"]) == (21, False, None, None)


@pytest.mark.parametrize("pictures", [False, True])
def test_an_input_without_a_readable_image_raises(pictures: bool, make: Make, tmp_path: Path) -> None:
    (tmp_path / "only.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"only\.jpg"):
        fer_stream.analyze(tmp_path, make(), pictures=pictures)


# Settings of the camera


def right_half(faces: polars.DataFrame) -> bool:
    return bool((faces["x"] + faces["width"] / 2 > 320).all())


LEFT = [(0.0, 0.0, 0.5, 1.0)]


@pytest.mark.parametrize("how", ["the source", "another spelling", "the name", "by name"])
def test_the_masks_of_the_matching_camera_apply(how: str, make: Make, clip: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    shutil.copy(clip, film)
    (tmp_path / "deep").mkdir()
    name, source = {
        "the source": ("x", str(film)),
        "another spelling": ("x", f"file://{tmp_path}/deep/../film.avi"),
        "the name": ("film", "demo"),
        "by name": ("door", "rtsp://192.0.2.1/door"),
    }[how]
    settings = make(cameras={name: {"source": source, "masks": LEFT}, "other": {"source": "0"}})
    with_masks = fer_stream.analyze(film, settings, camera="door" if how == "by name" else None).faces
    assert len(with_masks)
    assert right_half(with_masks)
    assert not right_half(fer_stream.analyze(film, make()).faces)


def test_masks_and_plug_in_apply_to_pictures(make: Make, tmp_path: Path) -> None:
    camera = {"source": str(PORTRAITS), "masks": [(0.0, 0.0, 1.0, 1.0)]}
    assert len(fer_stream.analyze(PORTRAITS, make(cameras={"x": camera}), pictures=True).faces) == 0
    with pytest.raises(ConfigError, match="the source plug-in 'demo' does not read picture folders"):
        fer_stream.analyze(PORTRAITS, make(cameras={"x": camera | {"plugin": "demo"}}), pictures=True)
    picture = PORTRAITS / "grace_hopper.jpg"
    film = make(cameras={"x": {"source": str(picture), "plugin": "demo", "rate": 1000}})
    assert "track" in fer_stream.analyze(picture, film).faces.columns, (
        "the frames come from the plug-in, not the picture"
    )


def test_the_rate_sets_the_times_of_frames_without_waiting(make: Make, clip: Path) -> None:
    before = time.monotonic()
    faces = fer_stream.analyze(clip, make(cameras={"x": {"source": str(clip), "rate": 0.01}})).faces
    assert faces["time"].max() == pytest.approx(59 / 0.01)
    assert time.monotonic() - before < 1 / 0.01, "less than one frame interval"


@pytest.mark.parametrize(
    ("cameras", "named", "message"),
    [
        ({"x": {"source": "{clip}", "loop": True}}, None, "leave out loop"),
        ({"x": {"source": "{clip}", "policy": "drop_oldest"}}, None, "leave out policy"),
        ({"door": {"masks": LEFT}}, None, r"none of the settings' cameras \(door\) has the source '.*portraits.avi'"),
        ({"door": {"masks": LEFT}}, "gate", "there is no camera 'gate' in the settings; there are: door"),
        ({"a": {"source": "{clip}"}, "b": {"source": "{clip}"}}, None, "a and b have the source '.*': choose one"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    cameras: dict[str, Any], named: str | None, message: str, make: Make, clip: Path
) -> None:
    filled = {
        name: {key: str(clip) if value == "{clip}" else value for key, value in camera.items()}
        for name, camera in cameras.items()
    }
    with pytest.raises(ConfigError, match=message):
        fer_stream.analyze(clip, make(cameras=filled), camera=named)


def test_of_cameras_in_the_environment_only_the_one_named_like_the_file_applies(
    clip: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_STREAM_CAMERAS__DOOR__SOURCE", "rtsp://192.0.2.1/door")
    monkeypatch.setenv("FER_STREAM_CAMERAS__PORTRAITS__MASKS", "[[0, 0, 0.5, 1]]")
    monkeypatch.setenv("FER_STREAM_CLASSIFIER__MODEL", str(tiny_model))
    assert right_half(fer_stream.analyze(clip).faces), "the camera named like the file applies, as on the command line"


def test_threads_default_to_the_setting_workers(make: Make, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = fer_stream.analysis.Observer

    def observer(settings: Settings, camera: str, threads: int, **others: Any) -> object:
        made.append(threads)
        return real(settings, camera, threads, **others)

    monkeypatch.setattr(fer_stream.analysis, "Observer", observer)
    fer_stream.analyze(clip, make(workers=3))
    fer_stream.analyze(clip, make(workers=3), threads=2)
    assert made == [3, 2]
