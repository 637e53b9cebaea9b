"""Whole analyses by the command and the function, on real recordings and with real output files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import polars
import pytest
from camera_servers import Server, folder, mjpeg
from tiny import write_beside

import fer_stream
from fer_stream.analysis import Analysis
from fer_stream.errors import ConfigError
from fer_stream.imaging import motion
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from processes import Cli

PORTRAITS = Path(fer_stream.__file__).parent / "assets"


def test_the_command_writes_all_files_of_a_recording(cli: Cli, clip: Path, tiny_model: Path) -> None:
    out = cli.folder / "out"
    done = cli.run("analyze", clip, "-o", out)
    assert (done.popen.returncode, done.out) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "events.csv", "events.jsonl", "events.parquet", "faces.csv", "faces.parquet", "frames.csv", "frames.parquet",
        "openface.csv", "report.html", "shares.svg", "statistics.csv", "summary.json", "timeline.svg",
        "uncertain.svg", "valence.svg",
    ]  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert summary["model"] == "tiny 1"
    assert summary["models"]["tiny.onnx"] == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert summary["settings"]["detector"]["min_face"] == 40
    assert summary["pace"]["frames_per_s"] > 0
    assert str(cli.folder) not in json.dumps(summary), "it contains no path of this machine, so it can be published"
    table = polars.read_parquet(out / "faces.parquet")
    assert summary["frames"] == 60
    assert summary["faces"] == table["found"].sum() == polars.read_csv(out / "faces.csv")["found"].sum()
    assert summary["tracks"] == table["track"].n_unique() == 2
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert summary["events"]["face.entered"] == sum(event["type"] == "face.entered" for event in events) == 2
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event["type"] in ("emotion.ended", "face.left"):
            seconds[event["data"].get("label", "")] += event["data"]["duration_ms"] / 1000
    in_view = seconds.pop("")
    assert summary["face_seconds"] == pytest.approx(in_view, abs=0.01)
    shares = {label: duration / in_view for label, duration in seconds.items()}
    assert summary["share"] == pytest.approx(shares | {"uncertain": 1 - sum(shares.values())}, abs=0.001)
    scored = table.filter(polars.col("quality").is_not_null())
    assert 0 < len(scored) < len(table)
    assert (scored["scored_happy"] > 0.7).all()
    assert table["time"][-1] == pytest.approx(59 / 15, abs=1e-5)
    assert clip.name in (out / "report.html").read_text()


def test_a_finished_analysis_is_reused_unless_something_changed(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    film, out = tmp_path / "film.avi", tmp_path / "out"
    shutil.copy(clip, film)

    def analysis(name: str = "film", video: bool = False, **others: object) -> Analysis:
        how = {"cameras": {name: {"source": str(film)}}, "classifier": {"model": tiny_model}} | others
        return Analysis(Settings(**how), name, out, video=video)  # type: ignore[arg-type]

    assert analysis().finished() is None
    summary = analysis().run(2, lambda done, total: None)
    assert analysis().finished() == summary
    unrelated = analysis(workers=7, policy="drop_oldest", log_level="debug")
    assert unrelated.finished() == summary, "these settings do not affect the result"
    assert analysis("door").finished() is None
    assert analysis(video=True).finished() is None
    assert analysis(detector={"min_face": 50}).finished() is None
    assert analysis(classifier={"model": "emotion.onnx"}).finished() is None
    assert analysis(cameras={"film": {"source": str(film), "masks": [(0, 0, 0.5, 1)]}}).finished() is None
    (out / "report.html").rename(out / "elsewhere.html")
    assert analysis().finished() is None
    (out / "elsewhere.html").rename(out / "report.html")
    assert analysis().finished() == summary
    film.write_bytes(clip.read_bytes() + b"\0")
    assert analysis().finished() is None


def test_a_retrained_model_of_the_same_name_is_another_analysis(clip: Path, tmp_path: Path) -> None:
    """Also if the ONNX file is unchanged, and only the weights in a file beside it differ."""
    model, out = write_beside(tmp_path / "own.onnx"), tmp_path / "out"
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": model})  # type: ignore[arg-type]
    summary = Analysis(how, "film", out).run(2, lambda done, total: None)
    assert set(summary["models"]) > {"own.onnx", "own.onnx.data"}
    assert Analysis(how, "film", out).finished() == summary
    before = model.read_bytes()
    write_beside(model, likely="sad")
    assert model.read_bytes() == before
    assert Analysis(how, "film", out).finished() is None
    Analysis(how, "film", out).run(2, lambda done, total: None)
    labels = polars.read_parquet(out / "faces.parquet")["label"].drop_nulls().unique().to_list()
    assert labels == ["sad"]


def test_changed_code_or_packages_are_another_analysis(
    clip: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(**others: object) -> str:
        how = {"cameras": {"film": {"source": str(clip)}}, "classifier": {"model": tiny_model}} | others
        return Analysis(Settings(**how), "film", tmp_path / "out").identity()  # type: ignore[arg-type]

    package = tmp_path / "theirs"
    (package / "mine").mkdir(parents=True)
    (package / "mine-1.dist-info").mkdir()
    (package / "mine-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (package / "mine-1.dist-info/entry_points.txt").write_text("[fer_stream.detectors]\nmine = mine.faces:load\n")
    (package / "mine/__init__.py").write_text("")
    (package / "mine/faces.py").write_text("from fer_stream.inference.detectors.mtcnn import load\n")
    monkeypatch.syspath_prepend(package)
    with_plugin = identity(detector={"name": "mine"})
    assert with_plugin == identity(detector={"name": "mine"})
    (package / "mine/faces.py").write_text("from fer_stream.inference.detectors.mtcnn import load  # retuned\n")
    assert identity(detector={"name": "mine"}) != with_plugin
    before = identity()
    monkeypatch.setattr(cv2, "__version__", "3.0")
    assert identity() != before


def test_an_annotated_video_can_be_analysed_and_is_not_overwritten(cli: Cli, clip: Path) -> None:
    out = cli.folder / "v"
    cli.run("analyze", clip, "-o", out, "--video")
    film = out / "annotated.mp4"
    before = film.read_bytes()
    links = cli.folder / "links"
    links.mkdir()
    (links / "soft.mp4").symlink_to(film)
    os.link(film, links / "hard.mp4")
    (cli.folder / "way").symlink_to(out)
    names = (film, out / ".." / "v" / "annotated.mp4", f"file://{film}", links / "soft.mp4", links / "hard.mp4")
    for name in (*names, cli.folder / "way" / "annotated.mp4"):
        done = cli.run("analyze", name, "-o", out, "--video", "--force")
        assert done.popen.returncode == 2
        assert len(done.errors) == 1
        assert "annotated.mp4' is an input, and would be overwritten: choose another folder" in done.errors[0]
    # Without --video nothing would overwrite the input.
    assert cli.run("analyze", film, clip, "-o", out, "--force").popen.returncode == 0
    assert cli.run("analyze", links / "hard.mp4", "-o", out).popen.returncode == 0
    assert film.read_bytes() == before


def test_foreign_files_are_kept_unless_force_is_given(cli: Cli, clip: Path) -> None:
    out = cli.folder / "out"
    out.mkdir()
    (out / "faces.csv").write_text("years of work")
    refused = cli.run("analyze", clip, "-o", out)
    assert refused.popen.returncode == 2
    assert len(refused.errors) == 1
    assert "faces.csv' was not written by fer-stream analyze" in refused.errors[0]
    assert [path.read_text() for path in out.iterdir()] == ["years of work"]
    assert cli.run("analyze", clip, "-o", out, "--force").popen.returncode == 0
    assert (out / "faces.csv").read_text().startswith("frame,time,")
    assert cli.run("analyze", clip, "-o", out, "--labels", "valence").popen.returncode == 0, "our own file is replaced"
    with (out / "report.html").open("a") as page:
        page.write("<p>notes of mine</p>")
    refused = cli.run("analyze", clip, "-o", out)
    assert "report.html' was not written by fer-stream analyze, or was changed since" in refused.errors[0]
    assert "notes of mine" in (out / "report.html").read_text()


def test_a_new_analysis_replaces_the_old_one_only_when_complete(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    how = Settings(cameras={"film": {"source": str(clip)}}, classifier={"model": tiny_model})  # type: ignore[arg-type]
    whole = Analysis(how, "film", tmp_path, video=True)
    summary = whole.run(2, lambda done, total: None)
    assert (tmp_path / "annotated.mp4").exists()

    def stop(done: int, total: int | None) -> None:
        if done == 30:
            raise KeyboardInterrupt

    again = Analysis(how.model_copy(update={"labels": "valence"}), "film", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        again.run(2, stop)
    assert whole.finished() == summary
    summary = again.run(2, lambda done, total: None)
    assert summary["pace"]["recalled"] == 30
    assert again.finished() == summary
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*summary["files"], "summary.json"])


def test_an_interrupted_analysis_leaves_only_its_checkpoint_and_resumes(cli: Cli, clip: Path) -> None:
    out = cli.folder / "out"
    slow = {"FER_STREAM_SEARCH__SCAN_INTERVAL": "0"}
    cut = cli.start("analyze", clip, "-o", out, **slow)
    answers = out / ".answers"
    cut.until(lambda: answers.exists() and answers.stat().st_size > 1000)
    cut.signal(signal.SIGINT)
    assert cut.end() == 130
    assert "interrupted" in cut.err
    assert "Traceback" not in cut.err
    assert [path.name for path in out.iterdir()] == [".answers"]
    cli.run("analyze", clip, "-o", out, **slow)
    cli.run("analyze", clip, "-o", cli.folder / "whole", **slow)
    for name in ("events.jsonl", "faces.csv", "frames.csv", "events.csv", "openface.csv", "report.html"):
        assert (out / name).read_bytes() == (cli.folder / "whole" / name).read_bytes()
    assert not answers.exists()


def test_an_interrupted_analysis_of_several_recordings_skips_the_finished_ones(cli: Cli, clip: Path) -> None:
    films = cli.folder / "films"
    films.mkdir()
    for name in ("a", "b"):
        shutil.copy(clip, films / f"{name}.avi")
    out = cli.folder / "out"
    answers = out / "b/.answers"
    cut = cli.start("analyze", films, "-o", out)
    cut.until(lambda: answers.exists() and answers.stat().st_size > 200)  # its head and an answer
    cut.signal(signal.SIGTERM)
    assert cut.end() == 130
    done = (json.loads(path.read_text()) for path in out.glob("*/summary.json"))
    assert [summary["source"] for summary in done] == ["a.avi"]
    assert [path.name for path in answers.parent.iterdir()] == [".answers"]
    shutil.copy(clip, films / "c.avi")  # another recording does not affect the first two
    again = cli.run("analyze", films, "-o", out)
    assert again.popen.returncode == 0, again.err
    assert again.err.count("done already") == 1
    assert {path.parent.name for path in out.glob("*/summary.json")} == {"a", "b", "c"}
    assert "done already" not in cli.run("analyze", films / "c.avi", "-o", out / "c", "--force").err


def test_each_recording_has_a_folder_and_a_broken_one_does_not_stop_the_others(cli: Cli, clip: Path) -> None:
    films = cli.folder / "films"
    films.mkdir()
    shutil.copy(clip, films / "a")
    (films / "b.avi").write_bytes(b"no film at all")
    (films / "notes.txt").write_text("not a recording: skipped")
    (films / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")  # macOS stores attributes of a.jpg there
    done = cli.run("analyze", films, PORTRAITS / "grace_hopper.jpg", "-o", cli.folder / "out")
    assert done.popen.returncode == 1
    assert len(done.errors) == 1
    assert "b.avi" in done.errors[0]
    found = {path.parent.name: json.loads(path.read_text()) for path in (cli.folder / "out").glob("*/summary.json")}
    assert set(found) == {"a", "grace_hopper"}
    assert (found["a"]["frames"], found["grace_hopper"]["images"]) == (60, 1)
    assert "1 of 3 not complete: see the errors above" in done.err
    assert "neither video nor image, skipped: ._a.jpg, notes.txt" in done.err


def test_an_animation_is_a_recording(cli: Cli) -> None:
    picture = cv2.resize(cv2.imread(str(PORTRAITS / "grace_hopper.jpg")), None, fx=0.5, fy=0.5)
    animation = cv2.Animation()
    animation.frames = [np.roll(picture, shift, 1) for shift in range(12)]
    animation.durations = np.array([100] * 11 + [400])
    path = cli.folder / "moving.webp"
    cv2.imwriteanimation(str(path), animation)
    done = cli.run("analyze", path, "-o", cli.folder / "out")
    assert done.popen.returncode == 0
    summary = json.loads((cli.folder / "out/summary.json").read_text())
    assert (summary["frames"], summary["tracks"]) == (12, 1)


def test_a_recording_that_breaks_off_is_an_error_every_time_and_its_results_are_kept(cli: Cli) -> None:
    frames, out = cli.folder / "frames", cli.folder / "out"
    frames.mkdir()
    for number in range(5):
        shutil.copy(PORTRAITS / "grace_hopper.jpg", frames / f"{number}.jpg")
    (frames / "5.jpg").write_bytes((frames / "4.jpg").read_bytes()[:3000])
    for _ in range(2):
        done = cli.run("analyze", frames, "-o", out)
        assert done.popen.returncode == 1
        assert len(done.errors) == 1
        assert "5.jpg" in done.errors[0]
        assert json.loads((out / "summary.json").read_text())["frames"] == 5
    assert "done already" in done.err
    assert "5.jpg" in (out / "report.html").read_text()


def test_pictures_have_neither_tracks_nor_events(cli: Cli) -> None:
    out, album = cli.folder / "out", cli.folder / "album"
    shutil.copytree(PORTRAITS, album, ignore=shutil.ignore_patterns("*.md", "models"))
    (album / "broken.jpg").write_bytes((album / "grace_hopper.jpg").read_bytes()[:3000])
    done = cli.run("analyze", album, "-o", out, "--pictures")
    assert done.popen.returncode == 1
    assert len(done.errors) == 1
    assert "broken.jpg" in done.errors[0]
    table = polars.read_csv(out / "faces.csv")
    assert table["image"].to_list() == ["eileen_collins.jpg", "grace_hopper.jpg"]
    assert set(table["label"]) == {"happy"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["images"], summary["faces"], summary["share"]) == (3, 2, {"happy": 1.0})
    assert sorted(path.name for path in out.iterdir()) == [
        "faces.csv", "faces.parquet", "frames.csv", "frames.parquet", "report.html", "shares.svg", "summary.json",
    ]  # fmt: skip


def test_images_of_a_folder_are_consecutive_frames_as_in_the_service(cli: Cli, clip: Path) -> None:
    frames = cli.folder / "frames"
    frames.mkdir()
    for number, picture in enumerate(_pictures(clip)[:20]):
        cv2.imwrite(str(frames / f"{number}.png"), picture)
    journal = cli.folder / "events.db"
    service = cli.run("run", frames, "--policy", "wait", "--format", "jsonl", "--journal", journal)
    cli.run("analyze", frames, "-o", cli.folder / "out")
    assert "face.entered" in service.out
    assert (cli.folder / "out/events.jsonl").read_text() == service.out


@pytest.mark.parametrize("flags", [[], ["--show-faces"]])
def test_the_annotated_video_hides_faces_unless_show_faces_is_given(cli: Cli, clip: Path, flags: list[str]) -> None:
    out = cli.folder / "out"
    cli.run("analyze", clip, "-o", out, "--video", *flags)
    seen, source = _pictures(out / "annotated.mp4"), _pictures(clip)
    assert len(seen) == len(source) == 60
    table = polars.read_parquet(out / "faces.parquet").filter(polars.col("frame") == 40)
    x, y, width, height = (int(table[name][0]) for name in ("x", "y", "width", "height"))
    inner = slice(max(y, 0) + 12, y + height - 4), slice(max(x, 0) + 4, x + width - 4)
    detail = [cv2.Laplacian(picture[inner], cv2.CV_64F).var() for picture in (seen[39], source[39])]
    likeness = np.corrcoef(*(cv2.cvtColor(p[inner], cv2.COLOR_BGR2GRAY).ravel() for p in (seen[39], source[39])))[0, 1]
    if flags:
        assert likeness > 0.95
    else:
        assert likeness < 0.9
        assert detail[0] < detail[1]
    # Regions without a face are unchanged.
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
    with av.open(str(out / "annotated.mp4")) as video:
        kinds = [packet.stream.type for packet in video.demux() if packet.size]
    changes = sum(one != other for one, other in pairwise(kinds))
    assert changes > 6, "picture and sound are interleaved, so that the file can be streamed"


def test_no_pixels_are_written_without_the_option_video(cli: Cli, clip: Path) -> None:
    """No file contains an image, or raw rows of a frame, of its thumbnail, or of the frame at 48 x 48 pixels.

    Neither after a kill, nor after the end.
    """
    rows = set()
    for picture in _pictures(clip):
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        for image in (picture, grey, motion.thumbnail(picture), cv2.resize(grey, (48, 48))):
            rows |= {row.tobytes()[:32] for row in image[::4] if np.ptp(row) > 20}
    assert len(rows) > 1000
    out = cli.folder / "out"
    cut = cli.start("analyze", clip, "-o", out, FER_STREAM_SEARCH__MOTION_INTERVAL="0")
    cut.until(lambda: (out / ".answers").exists() and (out / ".answers").stat().st_size > 5000)
    cut.popen.kill()  # so that temporary files remain
    cut.end()
    _no_pixels(cli.folder, out, rows)
    assert (out / ".answers").exists()
    cli.run("analyze", clip, "-o", out)
    _no_pixels(cli.folder, out, rows)


def _no_pixels(home: Path, out: Path, rows: set[bytes]) -> None:
    for path in home.rglob("*"):
        if not path.is_file() or path.suffix in (".out", ".err") or ".cache" in path.parts:  # matplotlib's fonts
            continue
        assert out in path.parents
        content = path.read_bytes()
        assert not any(mark in content for mark in (b"\xff\xd8\xff", b"\x89PNG", b"data:image", b"ftyp", b"RIFF"))
        assert not {content[i : i + 32] for i in range(len(content) - 31)} & rows


def test_a_live_camera_is_refused(cli: Cli) -> None:
    with Server(mjpeg(8)) as server:
        address = f"http://user:secret@127.0.0.1:{server.port}/x"
        done = cli.run("analyze", address, "-o", cli.folder / "out")
        assert done.popen.returncode == 2
        assert len(done.errors) == 1
        assert "live camera" in done.errors[0]
        assert "secret" not in done.err
        with pytest.raises(ConfigError, match="live camera"):
            fer_stream.analyze(address)


def test_a_recording_on_a_server_is_analysed(clip: Path) -> None:
    with Server(folder(clip.parent)) as server:
        there = fer_stream.analyze(f"http://127.0.0.1:{server.port}/{clip.name}")
    assert there.faces.equals(fer_stream.analyze(clip).faces)
    assert there.faces.equals(fer_stream.analyze(f"file://{clip}").faces)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4", "-o", "out"], "missing.mp4"),
        (["{clip}", "-o", "{clip}"], "is a file: give a folder to write into"),
        (["{empty}", "-o", "out"], "has no videos and no images"),
        (["{clip}", "-o", "out", "--show-faces"], "give --video, too"),
        (["{empty}", "-o", "out", "--pictures", "--video"], "leave out one of them"),
        (["x" * 300, "-o", "out"], "cannot be read: file name too long"),
    ],
)
def test_wrong_use_gives_one_error_line(cli: Cli, clip: Path, arguments: list[str], message: str) -> None:
    (cli.folder / "empty").mkdir()
    done = cli.run("analyze", *(a.format(clip=clip, empty=cli.folder / "empty") for a in arguments))
    assert done.popen.returncode in (1, 2)
    assert len(done.errors) == 1
    assert message in done.errors[0]


def test_three_thousand_frames_take_no_more_memory_than_five_hundred(cli: Cli, tiny_model: Path) -> None:
    """The limit is 400 MB, for small pictures. Up to `depth` + 2 decoded pictures are held in addition."""
    face = cv2.resize(cv2.imread(str(PORTRAITS / "grace_hopper.jpg")), (60, 72), interpolation=cv2.INTER_AREA)
    peaks = []
    for count in (500, 3000):
        film = cli.folder / f"{count}.avi"
        writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 15, (128, 96))
        for number in range(count):
            picture = np.full((96, 128, 3), 90, np.uint8)
            left = 34 + round(20 * np.sin(number / 30))
            picture[12:84, left : left + 60] = face
            writer.write(picture)
        writer.release()
        # Not ru_maxrss: a child process inherits the peak of its parent.
        code = (
            "import re, sys; from fer_stream.cli.main import main; code = main(sys.argv[1:]); "
            "print(code, re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
        )
        arguments = ["analyze", str(film), "-o", str(cli.folder / str(count)), "--min-face", "30"]
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=True)
        code, peak = map(int, done.stdout.split())
        assert code == 0
        peaks.append(peak / 1024)
        table = polars.scan_parquet(cli.folder / str(count) / "faces.parquet")
        assert table.select(polars.len()).collect().item() > 0.99 * count
    assert peaks[1] < min(peaks[0] + 40, 400), f"peak RSS in MB: {peaks}"


def test_the_example_runs(cli: Cli, clip: Path) -> None:
    example = Path(__file__).parents[2] / "docs/examples/analyze.py"
    command = [sys.executable, str(example), str(clip)]
    done = subprocess.run(command, env=cli.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(r"2 +┆ \d\.\d+ +┆ happy", done.stdout), "the second track is happy"
    assert re.search(r"scored_happy +┆ 0\.[78]", done.stdout), "the tiny model always gives this"


def test_the_error_names_a_missing_extra(cli: Cli, clip: Path) -> None:
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
    """Add four seconds of a tone to a clip."""
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
