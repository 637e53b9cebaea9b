"""Whole analyses, as the command and as a function: real recordings in, real files out."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import polars
import pytest

import fer_stream
from fer_stream.config import Settings
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from processes import Cli

PORTRAITS = Path(fer_stream.__file__).parent / "assets"


def test_a_recording_becomes_a_folder(cli: Cli, clip: Path) -> None:
    out = cli.folder / "out"
    done = cli.run("analyze", clip, "-o", out)
    assert (done.popen.returncode, done.out) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "events.jsonl", "faces.csv", "faces.parquet", "report.html", "summary.json",
    ]  # fmt: skip
    told = json.loads((out / "summary.json").read_text())
    table = polars.read_parquet(out / "faces.parquet")
    assert told["frames"] == 60
    assert told["faces"] == len(table) == len(polars.read_csv(out / "faces.csv"))
    assert told["tracks"] == table["track"].n_unique() == 2
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert told["events"]["face.entered"] == sum(event["type"] == "face.entered" for event in events) == 2
    assert sum(told["share"].values()) == pytest.approx(1, abs=0.001)
    scored = table.filter(polars.col("quality").is_not_null())
    assert 0 < len(scored) < len(table)
    assert (scored["scored_happy"] > 0.7).all()
    assert table["time"][-1] == pytest.approx(59 / 15, abs=1e-5)
    report = (out / "report.html").read_text()
    assert clip.name in report
    assert not re.search(r"(?<!xmlns=\")(?<!xlink=\")https?://(?!www\.w3\.org|purl\.org|creativecommons\.org)", report)
    assert not re.search(r"<(script|img|link|iframe)|url\((?!#)|@import", report)
    assert report.count("<svg") == 4


def test_what_is_done_is_not_done_again_unless_something_changed(cli: Cli, clip: Path) -> None:
    out, film = cli.folder / "out", cli.folder / "film.avi"
    shutil.copy(clip, film)
    cli.run("analyze", film, "-o", out)
    before = (out / "summary.json").stat().st_mtime_ns
    again = cli.run("analyze", film, "-o", out)
    assert "done already" in again.err
    assert (out / "summary.json").stat().st_mtime_ns == before
    for changed in (["--force"], ["--min-face", "50"]):
        assert "done already" not in cli.run("analyze", film, "-o", out, *changed).err
    film.write_bytes(clip.read_bytes() + b"\0")
    assert "done already" not in cli.run("analyze", film, "-o", out, "--min-face", "50").err


def test_cut_off_it_leaves_nothing_half_written_and_goes_on_where_it_was(cli: Cli, clip: Path) -> None:
    out = cli.folder / "out"
    slow = {"FER_STREAM_DETECTOR__SCAN_INTERVAL": "0", "FER_STREAM_DETECTOR__MIN_FACE": "12"}
    cut = cli.start("analyze", clip, "-o", out, **slow)
    answers = out / ".answers"
    cut.until(lambda: answers.exists() and answers.stat().st_size > 2000)
    cut.signal(signal.SIGINT)
    assert cut.end() == 130
    assert "interrupted" in cut.err
    assert "Traceback" not in cut.err
    assert [path.name for path in out.iterdir()] == [".answers"]
    cli.run("analyze", clip, "-o", out, **slow)
    cli.run("analyze", clip, "-o", cli.folder / "whole", **slow)
    for name in ("events.jsonl", "faces.csv", "report.html"):
        assert (out / name).read_bytes() == (cli.folder / "whole" / name).read_bytes()
    assert not answers.exists()


def test_several_recordings_have_a_folder_each_and_a_broken_one_stops_no_other(cli: Cli, clip: Path) -> None:
    films = cli.folder / "films"
    films.mkdir()
    shutil.copy(clip, films / "a.avi")
    (films / "b.avi").write_bytes(b"no film at all")
    (films / ".hidden").write_bytes(b"")
    done = cli.run("analyze", films, PORTRAITS / "grace_hopper.jpg", "-o", cli.folder / "out")
    assert done.popen.returncode == 1
    assert len(done.errors) == 1
    assert "b.avi" in done.errors[0]
    told = {path.parent.name: json.loads(path.read_text()) for path in (cli.folder / "out").glob("*/summary.json")}
    assert set(told) == {"a", "grace_hopper"}
    assert (told["a"]["frames"], told["grace_hopper"]["images"]) == (60, 1)


def test_images_have_neither_tracks_nor_events(cli: Cli) -> None:
    out = cli.folder / "out"
    done = cli.run("analyze", PORTRAITS, "-o", out)
    assert done.popen.returncode == 0
    table = polars.read_csv(out / "faces.csv")
    assert sorted(table["image"].to_list()) == ["eileen_collins.jpg", "grace_hopper.jpg"]
    assert set(table["label"]) == {"happy"}
    assert json.loads((out / "summary.json").read_text())["labels"] == {"happy": 2}
    assert not (out / "events.jsonl").exists()


@pytest.mark.parametrize("flags", [[], ["--show-faces"]])
def test_the_annotated_video_hides_faces_unless_it_is_told_to_show_them(cli: Cli, clip: Path, flags: list[str]) -> None:
    out = cli.folder / "out"
    cli.run("analyze", clip, "-o", out, "--video", *flags)
    seen, source = _pictures(out / "annotated.mp4"), _pictures(clip)
    assert len(seen) == len(source) == 60
    table = polars.read_parquet(out / "faces.parquet").filter(polars.col("frame") == 40)
    x1, y1, x2, y2 = (int(table[name][0]) for name in ("x1", "y1", "x2", "y2"))
    inner = slice(y1 + 12, y2 - 4), slice(x1 + 4, x2 - 4)
    detail = [cv2.Laplacian(picture[inner], cv2.CV_64F).var() for picture in (seen[39], source[39])]
    likeness = np.corrcoef(*(cv2.cvtColor(p[inner], cv2.COLOR_BGR2GRAY).ravel() for p in (seen[39], source[39])))[0, 1]
    if flags:
        assert likeness > 0.95
    else:
        assert likeness < 0.9
        assert detail[0] < detail[1]
    # The frame before a face is first found already hides it.
    corner = slice(0, 40), slice(0, 40)
    assert np.abs(seen[39][corner].astype(int) - source[39][corner]).mean() < 6


def test_the_annotated_video_keeps_the_sound(cli: Cli, clip: Path) -> None:
    film, out = cli.folder / "film.mp4", cli.folder / "out"
    _with_sound(clip, film)
    cli.run("analyze", film, "-o", out, "--video")
    with av.open(str(out / "annotated.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        sound = sum(frame.samples for frame in video.decode(audio=0)) / video.streams.audio[0].rate
    assert sound == pytest.approx(4, abs=0.3)


def test_no_pixel_is_written_unless_a_video_is_asked_for(cli: Cli, clip: Path) -> None:
    out = cli.folder / "out"
    cli.run("analyze", clip, "-o", out)
    for path in cli.folder.rglob("*"):
        if path.is_file() and path.suffix not in (".out", ".err") and ".cache" not in path.parts:  # matplotlib's fonts
            assert path.parent == out
            content = path.read_bytes()
            assert b"\xff\xd8\xff" not in content
            assert b"\x89PNG" not in content
            assert b"data:image" not in content
            assert len(content) < 640 * 480


def test_as_a_function_it_gives_a_data_frame(clip: Path, tiny_model: Path) -> None:
    faces = fer_stream.analyze(clip, Settings(classifier={"model": tiny_model}))  # type: ignore[arg-type]
    assert faces["frame"].max() == 60
    assert faces.group_by("track").len().height == 2
    assert faces.filter(polars.col("label").is_not_null())["label"].unique().to_list() == ["happy"]


def test_a_live_camera_is_refused(cli: Cli) -> None:
    done = cli.run("analyze", "rtsp://user:secret@192.0.2.1/x", "-o", cli.folder / "out")
    assert done.popen.returncode == 2
    assert len(done.errors) == 1
    assert "live camera" in done.errors[0]
    assert "secret" not in done.err
    with pytest.raises(ConfigError, match="live camera"):
        fer_stream.analyze("0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.mp4", "-o", "out"], "missing.mp4"),
        (["{clip}", "-o", "{clip}"], "cannot be written"),
        (["{empty}", "-o", "out"], "holds no files"),
        (["{clip}", "-o", "out", "--show-faces"], "give --video, too"),
    ],
)
def test_wrong_use_is_one_sentence(cli: Cli, clip: Path, arguments: list[str], said: str) -> None:
    (cli.folder / "empty").mkdir()
    done = cli.run("analyze", *(a.format(clip=clip, empty=cli.folder / "empty") for a in arguments))
    assert done.popen.returncode in (1, 2)
    assert len(done.errors) == 1
    assert said in done.errors[0]


def test_without_its_extra_it_says_which_one_is_missing(cli: Cli, clip: Path) -> None:
    (cli.folder / "polars.py").write_text("raise ImportError('no polars here')\n")
    done = cli.run("analyze", clip, "-o", "out", PYTHONPATH=f"{cli.folder}")
    assert done.popen.returncode == 2
    assert "pip install 'fer-stream[analyze]'" in done.errors[0]


def _pictures(path: Path) -> list[np.ndarray]:
    video, found = cv2.VideoCapture(str(path)), []
    while True:
        there, image = video.read()
        if not there:
            return found
        found.append(image)


def _with_sound(source: Path, target: Path) -> None:
    """Put four seconds of a tone under a clip."""
    with av.open(str(target), "w") as out:
        video, audio = out.add_stream("mpeg4", rate=15), out.add_stream("aac", rate=44_100)
        video.width, video.height, video.pix_fmt = 640, 480, "yuv420p"
        for image in _pictures(source):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        wave = (np.sin(np.arange(4 * 44_100) / 20) * 8000).astype(np.int16)
        for begin in range(0, len(wave) - 1023, 1024):
            sound = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="s16", layout="mono")
            sound.sample_rate, sound.pts = 44_100, begin
            out.mux(audio.encode(sound))
        for stream in (video, audio):
            out.mux(stream.encode(None))
