"""A capture's messages to the aggregator, over each transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from camera_servers import Camera
from jpegs import jpeg
from processes import free_port, wait_for

from fer_stream import Jpeg, plugins
from fer_stream.capture.session import Capture
from fer_stream.errors import ConfigError
from fer_stream.fleet.link import Link
from fer_stream.imaging.privacy import mask
from fer_stream.imaging.yuv import Yuv
from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Encoding, Kind, Message
from fer_stream.settings.tree import CameraSettings, DispatchSettings, Settings
from fer_stream.sources.media import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PICTURES = [jpeg(seed=seed) for seed in range(3)]


class Aggregator:
    """The other side of one capture's link."""

    def __init__(self, transport: str, address: str, **camera: Any) -> None:
        self._hub = plugins.load("transports", transport)().bind(address)
        self._link = Link(plugins.load("transports", transport)(), [address], "frames")
        self._from = b""
        settings = Settings(
            transport=transport,
            address=address,
            cameras={"door": CameraSettings(**camera)},
            dispatch=DispatchSettings(silence=0.1),
        )
        self.capture = Capture(settings, "door", self._link)
        self.capture.reader.start()

    def hear(self, kind: Kind) -> Message:
        """Return the next message of a kind."""

        def heard() -> list[Message]:
            self.capture.step(0.02)
            came = self._hub.receive(0.02)
            self._from = next((peer for _, peer, _ in came), self._from)
            found = [messages.unpack(parts) for _, _, parts in came]
            return [message for message in found if message.kind is kind]

        return wait_for(heard, kind.name)[0]

    def welcome(self) -> None:
        """Know the capture, and share memory with it; return once it has a frame."""
        self.hear(Kind.HELLO)
        self.say(Kind.WELCOME, {"memory": True})
        while not self.hear(Kind.OFFER).body()["full"]:
            pass

    def say(self, kind: Kind, body: dict[str, Any]) -> None:
        self._hub.send("frames", self._from, messages.json_message(kind, body))

    def close(self) -> None:
        self.capture.reader.stop()
        self.capture.reader.join()
        self.capture.close()
        self._link.close()
        self._hub.close()


@pytest.fixture
def clip_of_noise(tmp_path: Path) -> Path:
    """A film that FFmpeg decodes."""
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 20, (64, 48))
    for seed in range(24):
        writer.write(Jpeg(jpeg(seed=seed)).decode())
    writer.release()
    return tmp_path / "film.mp4"


@pytest.fixture
def camera() -> Iterator[Camera]:
    found = Camera(PICTURES[:1], rate=100)
    yield found
    found.vanish()


@pytest.mark.parametrize("link", ["memory", "ipc", "tcp", "raw"])
def test_a_camera_s_picture_goes_to_the_aggregator_as_it_came(
    link: str, camera: Camera, tmp_path: Path, short_folder: Path
) -> None:
    address = {"ipc": f"ipc://{short_folder}", "tcp": f"tcp://127.0.0.1:{free_port()}"}.get(
        link, f"memory://{tmp_path.name}"
    )
    encoding = {"tcp": "jpeg", "raw": "raw"}.get(link, "auto")
    it = Aggregator(
        "memory" if link in ("memory", "raw") else "zeromq",
        address,
        source=f"http://127.0.0.1:{camera.port}/",
        encoding=encoding,
    )
    try:
        it.welcome()
        it.say(Kind.NEXT, {})
        message = it.hear(Kind.FRAME)
    finally:
        it.close()
    assert (message.width, message.height) == (64, 48)
    assert message.encoding is (Encoding.RAW if link == "raw" else Encoding.JPEG)
    pixels = Jpeg(PICTURES[0]).decode()
    assert bytes(message.payload) == (pixels.tobytes() if link == "raw" else PICTURES[0])
    np.testing.assert_array_equal(shared.MappedFrames().picture(message), pixels)


@pytest.mark.parametrize("masks", [[], [(0, 0, 0.5, 1)]])
def test_a_film_is_decoded_into_the_memory_that_is_shared(
    masks: list[tuple[float, ...]], clip_of_noise: Path, short_folder: Path
) -> None:
    it = Aggregator("zeromq", f"ipc://{short_folder}", source=str(clip_of_noise), policy="wait", masks=masks)
    reader, seen = shared.MappedFrames(), open_source(str(clip_of_noise), CameraSettings())
    try:
        it.welcome()
        for number in range(20):
            waiting = wait_for(lambda: it.capture.slot._held, "a frame")
            rings = it.capture._encoder._memory._rings
            # The first ones were read before it was known whether there is anybody to share with.
            assert number < 4 or rings[-1].holding(waiting[0].content.i420()) is not None
            del waiting
            it.say(Kind.NEXT, {"done": number})
            message = it.hear(Kind.FRAME)
            assert message.encoding is Encoding.SHARED_YUV
            picture, shown = seen.read(), reader.picture(message)
            assert picture is not None
            assert isinstance(picture.content, Yuv)
            assert isinstance(shown, Yuv)
            expected = mask(picture.content, masks)
            assert isinstance(expected, Yuv)
            np.testing.assert_array_equal(shown.i420(), expected.i420())
            assert not masks or shown.decode()[:, :32].max() == 0
    finally:
        it.close()


def test_a_capture_asks_on_while_an_earlier_one_of_its_camera_is_silent(tmp_path: Path, clip_of_noise: Path) -> None:
    aggregator = Aggregator("zeromq", f"ipc://{tmp_path}", source=str(clip_of_noise))
    try:
        for _ in range(6):  # in three seconds, which is longer than its patience with an earlier capture that is alive
            aggregator.hear(Kind.HELLO)
            aggregator.say(Kind.REFUSED, {"reason": "captured already", "final": False, "silent": True})
        aggregator.hear(Kind.HELLO)
        aggregator.say(Kind.REFUSED, {"reason": "captured already", "final": True, "silent": False})
        with pytest.raises(ConfigError, match="captured already"):
            aggregator.hear(Kind.HELLO)
    finally:
        aggregator.close()


def test_outcomes_of_frames_never_become_fewer(clip_of_noise: Path) -> None:
    """An aggregator where the capture was before may answer with what it knew then."""
    aggregator = Aggregator("memory", "memory://outcomes", source=str(clip_of_noise))
    try:
        for count in (7, 3):
            aggregator.hear(Kind.HELLO)
            nowhere = {"place": None, "wait": 10, "others": [], "reported": {"done": count}}
            aggregator.say(Kind.MOVED, nowhere)
        assert aggregator.hear(Kind.HELLO).body()["reported"] == {"done": 7}
    finally:
        aggregator.close()
