"""Finds faces in a picture that a request brings. The picture stays in memory, and is dropped with the answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fer_stream.errors import WireError
from fer_stream.imaging import jpeg
from fer_stream.live.api.answers import RecognitionAnswer
from fer_stream.live.api.contract import MOST_BYTES

if TYPE_CHECKING:
    from starlette.requests import Request

    from fer_stream.inference.recognizer import Recognizer
    from fer_stream.settings.tree import Settings

MOST_PICTURES = 4
"""Most pictures in memory at the same time, one of which is being analysed."""

SECONDS = 30.0
"""Seconds in which a picture must arrive."""


class Recognition:
    """The models, which are loaded for the first picture, in a thread of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(1, "recognize")
        self._recognizer: Recognizer | None = None
        self._pictures = 0

    def close(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: Request) -> RecognitionAnswer:
        """Return the faces in the picture that is the request's body.

        Raises:
            HTTPException: the body is refused before it is read, takes too long, or is no picture.
            ModelError, PluginError, ConfigError: the models cannot be loaded.
        """
        _check(request)
        if self._pictures >= MOST_PICTURES:
            raise HTTPException(503, f"{MOST_PICTURES} pictures are being analysed already: try again")
        self._pictures += 1
        try:
            data = await _body(request)
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._recognize, data)
        except WireError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            self._pictures -= 1

    def _recognize(self, data: bytes) -> RecognitionAnswer:
        image = jpeg.decode(data)
        if self._recognizer is None:
            from fer_stream.inference.recognizer import Recognizer  # noqa: PLC0415  (loads onnxruntime)

            self._recognizer = Recognizer.from_settings(self._settings)
        faces = [face.as_dict() for face in self._recognizer.recognize(image).faces]
        height, width = image.shape[:2]
        return RecognitionAnswer.model_validate({"width": width, "height": height, "faces": faces})


def _check(request: Request) -> None:
    """Refuse what is not a picture, or is too large, by the headers alone."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/octet-stream" and not kind.startswith("image/"):
        raise HTTPException(
            415, f"the body is of the type {kind!a:.60}: send the picture itself, such as image/jpeg, and no form"
        )
    length = request.headers.get("content-length", "")
    if not length:
        raise HTTPException(411, "the request has no Content-Length: send the picture as a whole, not in chunks")
    if int(length) > MOST_BYTES:  # the server refuses a length that is no number
        raise HTTPException(413, f"the picture has {length:.20} bytes, at most {MOST_BYTES} may be sent: scale it down")


async def _body(request: Request) -> bytes:
    """Return the body, held in memory alone."""
    data = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:  # in chunks, whatever the header says
                    raise HTTPException(413, f"the picture has more than {MOST_BYTES} bytes: scale it down")
    except TimeoutError:
        raise HTTPException(408, f"the picture has not arrived within {SECONDS:.0f} s: scale it down") from None
    except ClientDisconnect:
        raise HTTPException(400, "the picture is incomplete: send it again") from None
    return bytes(data)
