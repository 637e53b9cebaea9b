"""Which folders of images count as unrelated photographs, and which as frames. The photographs and films are real."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import fer_stream
from fer_stream.sources.images import unrelated_hint
from fer_stream.sources.unrelated import unrelated

if TYPE_CHECKING:
    from beside import Beside
    from numpy.typing import NDArray

PORTRAITS = sorted((Path(fer_stream.__file__).parent / "assets").glob("*.jpg"))


def _save(images: list[NDArray[np.uint8]], folder: Path, name: str = "frame{:05}.jpg") -> list[Path]:
    paths = [folder / name.format(number) for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    return paths


def _frames(film: Path, step: int) -> list[NDArray[np.uint8]]:
    with av.open(str(film)) as file:
        return [frame.to_ndarray(format="bgr24") for frame in islice(file.decode(video=0), 0, 200, step)]


def test_portraits_of_different_people() -> None:
    assert unrelated(PORTRAITS) == "neighbours look different, their sizes differ and their names are not numbered"


def test_numbers_and_one_size_do_not_make_photographs_a_recording(tmp_path: Path) -> None:
    images = [cv2.resize(cv2.imread(str(path)), (320, 240)) for path in PORTRAITS]
    assert unrelated(_save(images, tmp_path)) == "neighbours look different"


def test_photographs_of_different_cameras_and_out_of_order(tmp_path: Path) -> None:
    images = [cv2.resize(cv2.imread(str(path)), (320, 240)) for path in PORTRAITS]
    paths = _save(images, tmp_path, "IMG_{:04}.jpg")
    for path, model, time in zip(paths, ("K-1", "D40"), ("2026:01:02 10:00:00", "2026:01:01 10:00:00"), strict=True):
        with Image.open(path) as image:
            exif = image.getexif()
            exif[0x0110], exif[0x0132] = model, time
            image.save(path, exif=exif)
    assert unrelated(paths) == (
        "neighbours look different, their cameras differ and they are not in the order of their times"
    )


@pytest.mark.parametrize("step", [1, 5])
def test_frames_of_a_film_are_no_photographs(step: int, clip: Path, tmp_path: Path) -> None:
    assert unrelated(_save(_frames(clip, step), tmp_path)) is None


@pytest.mark.parametrize("step", [1, 5])
def test_frames_of_real_films_are_no_photographs(step: int, beside: Beside, tmp_path: Path) -> None:
    for film in beside.clips():
        (folder := tmp_path / film.stem).mkdir()
        assert unrelated(_save(_frames(film, step), folder)) is None, film.name


def test_stills_of_different_films_are_unrelated(beside: Beside, tmp_path: Path) -> None:
    stills = [_frames(film, 20)[1] for film in beside.clips()]
    assert unrelated(_save(stills, tmp_path, "IMG_{:04}.jpg")) == "neighbours look different and their sizes differ"


def test_a_cut_and_black_frames_are_part_of_a_recording(clip: Path, tmp_path: Path) -> None:
    frames = _frames(clip, 2)
    portrait = cv2.resize(cv2.imread(str(PORTRAITS[0])), (640, 480))
    black = np.zeros_like(portrait)
    assert unrelated(_save([*frames[:10], *[portrait] * 10, *[black] * 10], tmp_path)) is None


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_not_compared(count: int) -> None:
    assert unrelated(PORTRAITS[:count]) is None


def test_images_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    broken = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in broken:
        path.write_bytes(PORTRAITS[0].read_bytes()[:500])
    assert unrelated([*broken, tmp_path / "missing.jpg"]) is None
    assert unrelated([*PORTRAITS, broken[0]]) is not None


def test_the_hint_for_a_folder_names_the_option(tmp_path: Path) -> None:
    for path in PORTRAITS:
        shutil.copy(path, tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    hint = unrelated_hint(tmp_path, "album")
    assert hint is not None
    assert hint.startswith(
        "the images in 'album' seem to be unrelated pictures (neighbours look different, their sizes"
    )
    assert "fer-stream analyze --pictures analyses each by itself" in hint
