"""Cameras over HTTP and RTSP that send something else than their headers say, and servers that refuse."""

from __future__ import annotations

import base64
import gzip
import http.server
import itertools
import socketserver
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from camera_servers import Server, rtsp
from films import Film
from jpegs import jpeg

from fer_stream import Jpeg
from fer_stream.errors import SourceError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.media import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_stream import Picture

PICTURES = [jpeg(seed=seed) for seed in range(3)]
MULTIPART = "multipart/x-mixed-replace; boundary="


def answering(
    kind: str, send: Callable[[], Iterator[bytes]], status: int = 200, length: int | None = None, login: str = ""
) -> type[http.server.BaseHTTPRequestHandler]:
    """Answer each request with what ``send`` yields."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if login and self.headers["Authorization"] != f"Basic {base64.b64encode(login.encode()).decode()}":
                self.send_response(HTTPStatus.UNAUTHORIZED)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            try:
                for data in send():
                    self.wfile.write(data)
                    time.sleep(0.01)
            except OSError:
                pass  # the client has closed the connection

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def read(address: str, count: int, **settings: object) -> list[Picture]:
    limits = {"open_timeout": 6.0, "read_timeout": 20.0}
    source = open_source(address, CameraSettings(**limits, **settings))  # type: ignore[arg-type]
    try:
        found = [source.read() for _ in range(count)]
        assert source.live
        return [picture for picture in found if picture is not None]
    finally:
        source.close()


def endless(part: Callable[[bytes], bytes], first: bytes = b"") -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.chain([first], map(part, itertools.cycle(PICTURES)))


def header(data: bytes) -> bytes:
    return b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)


STREAMS = {
    "quoted boundary": (MULTIPART + '"x"', endless(lambda data: b"--x\r\n" + header(data) + data + b"\r\n")),
    "dashes in the header": (MULTIPART + "--x", endless(lambda data: b"--x\r\n" + header(data) + data + b"\r\n")),
    "no length": (
        MULTIPART + "x",
        endless(lambda data: b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n"),
    ),
    "no dashes": (MULTIPART + "x", endless(lambda data: b"x\r\n" + header(data) + data + b"\r\n")),
    "no dashes, no length": (
        MULTIPART + "x",
        endless(lambda data: b"x\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n"),
    ),
    "boundary after the part": (MULTIPART + "x", endless(lambda data: header(data) + data + b"\r\n--x\r\n")),
    "preamble": (MULTIPART + "x", endless(lambda data: b"--x\r\n" + header(data) + data + b"\r\n", b"hello\r\n")),
    "no headers": (MULTIPART + "x", endless(lambda data: b"--x\r\n\r\n" + data + b"\r\n")),
    "line feeds": (MULTIPART + "x", endless(lambda data: b"--x\nContent-Type: image/jpeg\n\n" + data + b"\n")),
    "other text between the pictures": (
        MULTIPART + "x",
        endless(
            lambda data: b"--x\r\n" + header(data) + data + b"\r\n--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
        ),
    ),
    "raw, of a rare type": ("video/mjpeg", endless(lambda data: data)),
    "raw": ("video/x-motion-jpeg", endless(lambda data: data)),
    "raw, as an image": ("image/jpeg", endless(lambda data: data)),
    "raw, of no type": ("application/octet-stream", endless(lambda data: data)),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_every_kind_of_jpeg_stream_gives_the_camera_s_own_jpegs(kind: str) -> None:
    with Server(answering(*STREAMS[kind])) as server:
        pictures = read(f"http://127.0.0.1:{server.port}/video", 6)
    sent = [picture.content.data for picture in pictures if isinstance(picture.content, Jpeg)]
    sent = sent[1:]  # after text that FFmpeg cannot read, the stream is opened again
    first = PICTURES.index(sent[0])
    assert sent == [PICTURES[(first + n) % 3] for n in range(5)]


def test_an_address_of_a_single_picture_is_requested_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    served = itertools.cycle(PICTURES)
    handler = answering("image/jpeg", lambda: iter([next(served)]), length=len(PICTURES[0]), login="me:s3cret pass")
    assert len({len(data) for data in PICTURES[:1]}) == 1
    with Server(handler) as server:
        begin = time.monotonic()
        pictures = read(f"http://me:s3cret%20pass@127.0.0.1:{server.port}/now.jpg", 4, rate=20)
        assert time.monotonic() - begin >= 3 / 20
    assert [picture.size for picture in pictures] == [(64, 48)] * 4
    assert [picture.offset for picture in pictures] == [None] * 4
    (notice,) = caplog.messages
    assert "gives a single picture; it is requested 20 times a second" in notice
    assert "s3cret" not in notice


def test_a_single_picture_of_another_format() -> None:
    png = cv2.imencode(".png", np.full((30, 40, 3), 7, np.uint8))[1].tobytes()
    with Server(answering("image/png", lambda: iter([png]), length=len(png))) as server:
        (picture,) = read(f"http://127.0.0.1:{server.port}/now.png", 1)
    assert picture.image.mean() == 7


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (401, "text/html", r"wrong or missing user name or password \(401\)"),
        (403, "text/html", r"access is forbidden to this user \(403\)"),
        (404, "text/html", r"there is nothing at this path \(404\)"),
        (418, "text/html", r"the server answers 418"),
        (503, "text/html", r"the server answers 503 Service Unavailable"),
        (200, "text/html", r"it delivers no readable video \(the server sends text/html\)"),
        (200, "audio/mpeg", r"it delivers no readable video \(the server sends audio/mpeg\)"),
    ],
)
def test_each_refusal_has_its_own_sentence(status: int, kind: str, sentence: str) -> None:
    page = b"<html>not here</html>" * 100
    with Server(answering(kind, lambda: iter([page]), status, len(page))) as server:
        address = f"http://me:s3cret@127.0.0.1:{server.port}/video"
        with pytest.raises(SourceError, match=f"cannot be opened: {sentence}") as caught:
            read(address, 1)
    assert caught.value.transient
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("difference", [-50, 50])
def test_wrong_lengths_of_the_parts(difference: int) -> None:
    def part(data: bytes) -> bytes:
        return b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(data) + difference, data)

    with Server(answering(MULTIPART + "x", endless(part))) as server:
        pictures = read(f"http://127.0.0.1:{server.port}/video", 5)
    assert all(isinstance(picture.content, Jpeg) and picture.content.data in PICTURES for picture in pictures[1:])


def test_a_single_picture_of_unknown_length_packed_and_behind_a_redirect() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != f"Basic {base64.b64encode(b'me:s3cret').decode()}":
                self.send_response(HTTPStatus.UNAUTHORIZED)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            elif self.path == "/now":
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", "/other/picture")
            else:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Encoding", "gzip")
                self.end_headers()
                self.wfile.write(gzip.compress(PICTURES[0]))
                return
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with Server(Handler) as server:
        pictures = read(f"http://me:s3cret@127.0.0.1:{server.port}/now", 2, rate=50)
    assert [picture.content.data for picture in pictures if isinstance(picture.content, Jpeg)] == 2 * PICTURES[:1]


def exhaust(address: str) -> None:
    source = open_source(address, CameraSettings(open_timeout=0.5, read_timeout=0.5))
    try:
        while source.read():
            pass
    finally:
        source.close()


def test_a_server_that_answers_without_a_picture_or_stops() -> None:
    released = threading.Event()

    def send(count: int, stall: bool) -> Iterator[bytes]:
        for data in PICTURES[:count]:
            yield b"--x\r\n" + header(data) + data + b"\r\n"
        if stall:
            released.wait(20)
            yield b""

    def error(count: int, stall: bool, kind: str = MULTIPART + "x") -> str:
        with Server(answering(kind, lambda: send(count, stall))) as server:
            with pytest.raises(SourceError) as caught:
                exhaust(f"http://127.0.0.1:{server.port}/video")
            released.set()
        released.clear()
        return str(caught.value)

    assert "cannot be opened: the server answers, but sends no picture within 0.5 s" in error(0, stall=True)
    assert "has sent no picture for 0.5 s" in error(2, stall=True)
    assert "has stopped sending pictures: the connection was closed" in error(2, stall=False)
    assert "cannot be opened: the server sends no picture" in error(0, stall=False, kind="image/jpeg")


def test_a_redirect_to_itself() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.path)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with Server(Handler) as server, pytest.raises(SourceError, match=r"the server redirects in a circle$"):
        read(f"http://127.0.0.1:{server.port}/video", 1)


def test_rtsp_plays_over_udp_if_the_camera_refuses_tcp(make_video: Callable[..., Path]) -> None:
    asked: list[str] = []
    stream = make_video("v.ts", frames=60).read_bytes()
    with Server(rtsp(stream, asked, udp=True, pause=0.005)) as server:
        pictures = read(f"rtsp://127.0.0.1:{server.port}/stream", 20)
        assert len(pictures) == 20
        with pytest.raises(SourceError, match=r"the camera refuses rtsp_transport = 'tcp' \(461\); set another one"):
            read(f"rtsp://127.0.0.1:{server.port}/stream", 1, rtsp_transport="tcp")
    assert any("RTP/AVP/TCP" in request for request in asked)
    assert any("RTP/AVP/UDP" in request for request in asked)


def test_a_wrong_password_of_an_rtsp_camera(make_video: Callable[..., Path]) -> None:
    with Server(rtsp(make_video("v.ts").read_bytes(), [], login="me:right")) as server:
        with pytest.raises(SourceError, match=r"wrong or missing user name or password \(401\)"):
            read(f"rtsp://me:wrong@127.0.0.1:{server.port}/stream", 1)
        assert read(f"rtsp://me:right@127.0.0.1:{server.port}/stream", 1)


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_a_file_over_http_without_a_length_is_complete_if_its_index_is(tmp_path: Path, part: float) -> None:
    data = Film(count=20).write(tmp_path / "a.mp4", {"movflags": "faststart"}).read_bytes()
    with Server(answering("video/mp4", lambda: iter([data[: int(part * len(data))]]))) as server:
        source = open_source(f"http://127.0.0.1:{server.port}/a", CameraSettings())
        if part == 1:
            assert sum(1 for _ in iter(source.read, None)) == 20
        else:
            with pytest.raises(SourceError, match=r"is truncated: [0-9]+ of its 20 pictures are incomplete"):
                list(iter(source.read, None))
        assert not source.live
        source.close()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("RTSP/1.0 461 Unsupported transport", r"the camera sends its stream neither by TCP nor by UDP \(461\)"),
        (
            "RTSP/1.0 453 Not Enough Bandwidth",
            r"refuses the request \(status 4xx\); check the path, and whether others",
        ),
        ("RTSP/1.0 503 Service Unavailable", r"the camera has failed or is busy \(status 5xx\)"),
        ("HTTP/1.1 400 Bad Request", r"the camera closed the connection, or its answer is not RTSP; check the port"),
        ("", r"the camera closed the connection, or its answer is not RTSP; check the port and the path"),
    ],
)
def test_each_refusal_of_an_rtsp_camera_has_its_own_sentence(answer: str, sentence: str) -> None:
    sdp = b"v=0\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:1\r\n"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while method := self.rfile.readline().split(b" ")[0]:
                lines = list(iter(self.rfile.readline, b"\r\n"))
                (number,) = (line for line in lines if line.startswith(b"CSeq"))
                if method != b"SETUP":
                    head = b"RTSP/1.0 200 OK\r\n%bContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n"
                    self.wfile.write(head % (number, len(sdp)) + sdp)
                elif answer:
                    self.wfile.write(f"{answer}\r\n".encode() + number + b"\r\n")
                else:
                    return

    with Server(Handler) as server, pytest.raises(SourceError, match=f"cannot be opened: .*{sentence}"):
        read(f"rtsp://me:s3cret@127.0.0.1:{server.port}/stream", 1)
