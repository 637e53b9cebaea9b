from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_servers import Server, folder, mjpeg, rtsp
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.errors import SourceError, WireError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source
from fer_stream.sources.video import Stamps

MS = 1_000_000
PATIENT = CameraSettings(open_timeout=20, read_timeout=20)
HASTY = CameraSettings(open_timeout=0.5, read_timeout=0.5)


def read_all(source, limit=10_000):
    pictures = []
    while len(pictures) < limit and (picture := source.read()) is not None:
        pictures.append(picture)
    return pictures


def numbers(pictures):
    """Return the pictures' numbers as `make_video` wrote them; codecs change a grey level by up to three."""
    return [int(picture.image.mean() - 26) // 4 for picture in pictures]


def whole(picture):
    try:
        return bool(picture.size)
    except WireError:
        return False


def offsets(pictures):
    return [picture.offset for picture in pictures]


@pytest.mark.parametrize("name", ["v.avi", "v.mkv", "v.mp4", "v.ts", "12:30 %03d é.mp4"])
def test_a_video_gives_every_frame_once_at_its_own_time(make_video, name):
    source = open_source(str(make_video(name)), CameraSettings())
    assert not source.live
    assert source.frames == 40
    pictures = read_all(source)
    assert numbers(pictures) == list(range(40))
    assert offsets(pictures) == [n * 50 * MS for n in range(40)]
    image = pictures[0].image
    assert image.dtype == np.uint8
    assert image.shape == (48, 64, 3)
    assert image.flags.c_contiguous
    assert source.read() is None


@pytest.mark.parametrize("how", [{"decoder_threads": 1}, {"decoder_threads": 3}, {"hardware_decoding": True}])
def test_decoder_settings_do_not_change_the_pictures(make_video, how):
    """Without decoding hardware, FFmpeg decodes in software."""
    path = str(make_video("v.mp4"))
    usual, other = (read_all(open_source(path, settings)) for settings in (CameraSettings(), CameraSettings(**how)))
    assert offsets(usual) == offsets(other)
    assert all((a.image == b.image).all() for a, b in zip(usual, other, strict=True))


def test_the_number_of_decoder_threads_is_set(make_video):
    path = str(make_video("v.mp4"))
    for threads in (1, 3):
        source = open_source(path, CameraSettings(decoder_threads=threads))
        assert source._container.stream.codec_context.thread_count == threads
        source.close()


def test_uneven_times_of_a_gif_are_kept(tmp_path):
    animation = cv2.Animation()
    animation.frames = [np.full((48, 64, 3), 25 * n, np.uint8) for n in range(5)]
    animation.durations = np.array([100, 50, 400, 100, 100])
    cv2.imwriteanimation(str(tmp_path / "v.gif"), animation)
    assert offsets(read_all(open_source(str(tmp_path / "v.gif"), CameraSettings()))) == [
        0,
        100 * MS,
        150 * MS,
        550 * MS,
        650 * MS,
    ]


def test_a_program_stream_gives_every_frame_at_its_own_time(make_video):
    pictures = read_all(open_source(str(make_video("v.mpg")), CameraSettings()))
    assert numbers(pictures) == list(range(40))
    assert offsets(pictures) == [n * 50 * MS for n in range(40)]


@given(st.lists(st.none() | st.integers(-(2**62), 2**62), max_size=50), st.booleans())
def test_times_increase_with_any_container_stamps(positions, repeat):
    stamps = Stamps(40 * MS)
    given_out = []
    for _ in range(1 + repeat):
        given_out += (
            [stamps.next(*pair) for pair in zip(positions, [*positions[1:], None], strict=True)] if positions else []
        )
        stamps.rewind()
    assert all(a < b for a, b in pairwise(given_out))
    assert all(a >= 0 for a in given_out)


def test_rate_replaces_the_files_own_times(make_video):
    source = open_source(str(make_video("v.avi")), CameraSettings(rate=30))
    assert offsets(read_all(source)) == [round(n * 1e9 / 30) for n in range(40)]


@pytest.mark.parametrize("rate", [None, 10.0])
def test_loop_goes_on_one_period_after_the_last_frame(make_video, rate):
    source = open_source(str(make_video("v.mp4", frames=6)), CameraSettings(loop=True, rate=rate))
    assert source.frames is None
    pictures = read_all(source, 20)
    assert numbers(pictures) == [n % 6 for n in range(20)]
    assert offsets(pictures) == [n * (100 if rate else 50) * MS for n in range(20)]


@pytest.mark.parametrize("name", ["v.avi", "v.mkv"])
def test_a_truncated_video_is_an_error_after_its_last_frame(make_video, name):
    path = make_video(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path), CameraSettings())
    with pytest.raises(
        SourceError, match=r"is truncated: .* missing; picture \d+ is the last that can be read"
    ) as caught:
        read_all(source)
    assert 5 < int(re.search(r"picture (\d+) is", str(caught.value))[1]) < 30


def test_a_truncated_video_in_a_loop_repeats_its_readable_part(make_video):
    path = make_video("v.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = read_all(open_source(str(path), CameraSettings(loop=True)), 80)
    assert len(seen) == 80
    assert numbers(filter(whole, seen)).count(0) > 1


def test_a_varying_rate_is_not_taken_for_truncation(tmp_path):
    # With one long pause, length times rate is more than the number of frames.
    animation = cv2.Animation()
    animation.frames = [np.full((48, 64, 3), 25 * n, np.uint8) for n in range(8)]
    animation.durations = np.array([20] * 4 + [2000] + [20] * 3)
    path = tmp_path / "v.gif"
    cv2.imwriteanimation(str(path), animation)
    assert len(read_all(open_source(str(path), CameraSettings()))) == 8


def headless(path):
    path.write_bytes(path.read_bytes()[:-2000])  # this cuts off an MP4's index


def frameless(path):
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 20])


def text(path):
    path.write_text("this is no video, ça va sans dire\n" * 200)


def binary(path):
    path.write_bytes(np.random.default_rng(1).bytes(50_000))


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("v.mp4", Path.unlink, r"there is no file or folder '.*v\.mp4'; check the path"),
        ("v.mp4", text, "is a text file, not a video"),
        ("v.txt", text, "is a text file, not a video"),
        ("v.mp4", lambda path: path.write_bytes(b""), "is empty"),
        ("v.mp4", headless, r"cannot be read as a video: it is truncated, and at least \d+\.\d% of it is missing"),
        ("v.mkv", binary, "cannot be read as a video: it is truncated, damaged, or of an unknown format"),
        ("v.avi", frameless, "no picture can be read from"),
    ],
)
def test_a_file_that_is_not_a_video_is_an_error_of_one_line(make_video, name, spoil, message):
    path = make_video("v.mp4" if name == "v.txt" else name)
    path = path.rename(path.with_name(name))
    spoil(path)
    with pytest.raises(SourceError, match=message) as caught:
        read_all(open_source(str(path), CameraSettings()))
    assert "\n" not in str(caught.value)


def test_a_path_that_is_neither_file_nor_folder_is_refused():
    with pytest.raises(SourceError, match="'/dev/null' is neither a file nor a folder"):
        open_source("/dev/null", CameraSettings())


def test_a_webcam_that_does_not_exist():
    with pytest.raises(SourceError, match="there is no webcam 97; this machine has: "):
        open_source("97", CameraSettings())
    with pytest.raises(SourceError, match="there is no webcam 98"):
        open_source("/dev/video98", CameraSettings())


def test_mjpeg_over_http_is_live():
    with Server(mjpeg(8)) as server:
        source = open_source(f"http://127.0.0.1:{server.port}/video", PATIENT)
        assert source.live
        assert source.frames is None
        pictures = read_all(source, 8)
        assert [round(picture.image.mean()) for picture in pictures] == [10 * n for n in range(8)]
        assert offsets(pictures) == [None] * 8
        with pytest.raises(SourceError, match="has stopped sending pictures"):
            source.read()
        source.close()


def test_a_stream_that_stalls_is_an_error():
    end = threading.Event()
    with Server(mjpeg(8, then_stall=end)) as server:
        source = open_source(f"http://127.0.0.1:{server.port}/video", CameraSettings(open_timeout=20, read_timeout=2))
        with pytest.raises(SourceError, match=r"has sent no picture for 2 s"):
            read_all(source)
        source.close()
        end.set()


def test_close_from_another_thread_ends_a_waiting_read():
    end, seen, results = threading.Event(), threading.Event(), []
    with Server(mjpeg(8, then_stall=end)) as server:
        source = open_source(f"http://127.0.0.1:{server.port}/video", CameraSettings(open_timeout=20, read_timeout=5))

        def reader():
            for _ in range(8):
                source.read()
            seen.set()
            results.append(source.read())

        thread = threading.Thread(target=reader)
        thread.start()
        assert seen.wait(30)
        source.close()
        source.close()
        thread.join(30)
        end.set()
    assert results == [None]
    assert source.read() is None


def test_close_ends_a_recording(make_video):
    source = open_source(str(make_video("v.avi")), CameraSettings(loop=True))
    read_all(source, 50)
    source.close()
    assert source.read() is None
    source.close()


def test_a_video_file_on_a_server_is_a_recording(make_video):
    path = make_video("v.mkv")
    with Server(folder(path.parent)) as server:
        source = open_source(f"http://127.0.0.1:{server.port}/v.mkv", PATIENT)
        assert not source.live
        assert source.frames == 40
        assert offsets(read_all(source)) == [n * 50 * MS for n in range(40)]
        source.close()
        looped = open_source(f"http://127.0.0.1:{server.port}/v.mkv", CameraSettings(loop=True))
        assert numbers(read_all(looped, 60)) == [n % 40 for n in range(60)]
        looped.close()


def test_a_file_url_is_a_recording_with_an_end(make_video):
    source = open_source(f"file://{make_video('a b%20.avi')}", CameraSettings())
    assert not source.live
    assert source.frames == 40
    assert numbers(read_all(source)) == list(range(40))


@pytest.mark.parametrize(
    ("address", "transient"), [("missing.avi", False), ("file:///missing.avi", False), ("97", True), ("rtsp://[", True)]
)
def test_errors_of_webcams_and_urls_are_transient(address, transient):
    with pytest.raises(SourceError) as caught:
        open_source(address, PATIENT)
    assert caught.value.transient is transient


def test_rtsp_plays_over_tcp(make_video):
    asked = []
    with Server(rtsp(make_video("v.ts", frames=50).read_bytes(), asked)) as server:
        source = open_source(f"rtsp://127.0.0.1:{server.port}/stream", PATIENT)
        assert source.live
        seen = read_all(source, 40)
        source.close()
    shown = numbers(seen)
    assert shown == list(range(shown[0], shown[0] + 40))
    assert offsets(seen) == [None] * 40
    setups = [request for request in asked if request.startswith("SETUP")]
    assert setups
    assert all("RTP/AVP/TCP" in request for request in setups)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https"])
def test_an_address_where_nothing_listens(scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}://admin:s3cret@127.0.0.1:{unused.getsockname()[1]}/stream"
        with pytest.raises(SourceError, match="cannot be opened: connection refused; check the address") as caught:
            open_source(address, PATIENT)
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_an_address_that_accepts_and_never_answers(scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://admin:s3cret@127.0.0.1:{server.getsockname()[1]}/stream"
        with pytest.raises(SourceError, match=r"cannot be opened: no answer within 0\.5 s") as caught:
            open_source(address, HASTY)
    assert "s3cret" not in str(caught.value)


def test_a_server_without_video(tmp_path):
    with (
        Server(folder(tmp_path)) as server,
        pytest.raises(SourceError, match=r"there is nothing at this path \(404\); check the path"),
    ):
        open_source(f"http://127.0.0.1:{server.port}/missing.mjpg", PATIENT)


def test_a_proxy_that_does_not_lead_to_the_camera_is_named(tmp_path, monkeypatch):
    """FFmpeg uses http_proxy, which many machines set; the error must blame the proxy, not the camera."""
    with Server(mjpeg([b"x"])) as camera, Server(folder(tmp_path)) as proxy:
        address = f"http://127.0.0.1:{camera.port}/"
        monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        message = (
            f"the proxy 127.0.0.1:{proxy.port} that http_proxy names: there is nothing at this path .*; set no_proxy"
        )
        with pytest.raises(SourceError, match=message) as caught:
            open_source(address, PATIENT)
        assert "s3cret" not in str(caught.value)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(SourceError, match="there is nothing at this path"):
            open_source(f"http://127.0.0.1:{proxy.port}/missing.mjpg", PATIENT)
    monkeypatch.delenv("no_proxy")
    message = f"the proxy 127.0.0.1:{proxy.port} that http_proxy names: connection refused; .*set no_proxy"
    with pytest.raises(SourceError, match=message):
        open_source("http://camera.example.org/", PATIENT)


def test_a_host_that_does_not_exist():
    with pytest.raises(SourceError, match=r"rtsp://camera\.invalid/x cannot be opened: "):
        open_source("rtsp://camera.invalid/x", PATIENT)


def test_an_invalid_address():
    with pytest.raises(SourceError, match="not a valid address"):
        open_source("rtsp://host:port/x", PATIENT)


def test_opencv_and_ffmpeg_are_silent(make_video, tmp_path):
    cut = make_video("cut.avi")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    headless(make_video("headless.mp4"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    program = """
import sys
from fer_stream.operations import environment
environment.prepare()  # as every command does; a program that uses the library decides itself
from fer_stream.settings.tree import CameraSettings
from fer_stream.errors import SourceError
from fer_stream.sources.media import open_source
for address in sys.argv[1:]:
    try:
        source = open_source(address, CameraSettings(open_timeout=0.5))
        while source.read(): pass
    except SourceError as error:
        print(error)
    else:
        raise SystemExit(f"{address} gave no error")
"""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addresses = [str(cut), str(tmp_path / "headless.mp4"), str(tmp_path / "broken.png"), "97"]
        addresses.append(f"rtsp://127.0.0.1:{unused.getsockname()[1]}/x")
        result = subprocess.run(
            [sys.executable, "-c", program, *addresses], capture_output=True, text=True, check=False, timeout=60
        )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == len(addresses)
