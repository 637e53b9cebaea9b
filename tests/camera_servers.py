"""Simulated cameras: real servers on loopback, MJPEG over HTTP and MPEG-TS over RTSP."""

from __future__ import annotations

import base64
import functools
import http.server
import re
import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


class Server:
    """Serves connections with ``handler`` until the ``with`` block ends."""

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def mjpeg(pictures: int, *, then_stall: threading.Event | None = None) -> type[http.server.BaseHTTPRequestHandler]:
    """Send some pictures, each slightly brighter; then close the connection, or wait for the event."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for n in range(pictures):
                jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 10 * n, np.uint8))[1].tobytes()
                part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(part + jpeg + b"\r\n")
                time.sleep(0.02)
            if then_stall is not None:
                then_stall.wait()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class Camera:
    """A camera on one port that can fail: it serves its pictures, sends nothing, or refuses connections."""

    def __init__(self, pictures: list[bytes], rate: float = 15) -> None:
        self.pictures = pictures
        self._pause = 1 / rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._silent = threading.Event()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """Accept connections and send pictures, also on open connections."""
        self._silent.clear()
        if not self._thread.is_alive():
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
            self._thread.start()

    def hang(self) -> None:
        """Accept connections, and send nothing."""
        self._silent.set()

    def cut(self) -> None:
        """Close all connections."""
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def vanish(self) -> None:
        """Close all connections, and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self._open.add(sock)
                threading.Thread(target=self._send, args=(sock,), daemon=True).start()

    def _send(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            number = 0
            self._wait()
            sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            while True:
                self._wait()
                jpeg = self.pictures[number % len(self.pictures)]
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                sock.sendall(head + jpeg + b"\r\n")
                number += 1
                time.sleep(self._pause)
        self._open.discard(sock)

    def _wait(self) -> None:
        while self._silent.is_set():
            time.sleep(0.01)


def folder(path: Path) -> functools.partial[http.server.SimpleHTTPRequestHandler]:
    """Serve the files of a folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    return functools.partial(Handler, directory=str(path))


def rtsp(
    transport_stream: bytes, asked: list[str], login: str = "", pause: float = 0.001, udp: bool = False
) -> type[socketserver.BaseRequestHandler]:
    """Send a recorded MPEG transport stream over RTSP; append requests to ``asked``.

    With a ``login`` (``user:password``), clients must send it. The stream is interleaved in the TCP connection, or sent
    only by UDP.
    """
    pass_on = f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while request := self._request():
                asked.append(request)
                method = request.split()[0]
                headers, body = "", ""
                if method == "OPTIONS":
                    headers = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    headers, body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n", sdp
                elif method == "SETUP" and udp and (ports := re.search(r"client_port=(\d+)-(\d+)", request)):
                    self._port = int(ports[1])
                    pair = f"client_port={ports[1]}-{ports[2]};server_port={self._port + 1000}-{self._port + 1001}"
                    headers = f"Transport: RTP/AVP/UDP;unicast;{pair}\r\nSession: 1\r\n"
                elif method == "SETUP" and not udp:
                    headers = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                elif method == "PLAY":
                    headers = "Session: 1\r\n"
                number = re.search(r"CSeq: *(\d+)", request)
                assert number
                if login and method != "OPTIONS" and pass_on not in request:
                    refusal = 'WWW-Authenticate: Basic realm="camera"\r\n'
                    self.wfile.write(f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number[1]}\r\n{refusal}\r\n".encode())
                    continue
                if method == "SETUP" and not headers:
                    self.wfile.write(f"RTSP/1.0 461 Unsupported transport\r\nCSeq: {number[1]}\r\n\r\n".encode())
                    continue
                self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {number[1]}\r\n{headers}\r\n{body}".encode())
                if method == "PLAY":
                    self._play()
                    return

        def _request(self) -> str:
            lines = []
            while (line := self.rfile.readline().decode().strip()) or not lines:
                if not line:
                    return ""
                lines.append(line)
            return "\n".join(lines)

        def _play(self) -> None:
            size = 7 * 188
            sender = socket.socket(type=socket.SOCK_DGRAM)
            try:
                for n, begin in enumerate(range(0, len(transport_stream), size)):
                    packet = struct.pack("!BBHII", 0x80, 33, n & 0xFFFF, n * 900, 1)
                    packet += transport_stream[begin : begin + size]
                    if udp:
                        sender.sendto(packet, ("127.0.0.1", self._port))
                    else:
                        self.wfile.write(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
                    time.sleep(pause)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has closed the connection
            finally:
                sender.close()

    return Handler
