"""Writes two films of 24 s of the demo scene, for the tutorial for researchers.

    python docs/examples/films.py films

A face is in view at most times, two at some. The faces are prints of public-domain portraits that move.
"""

import sys
from pathlib import Path

import av

from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.demo import RATE, open_source

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "films")
folder.mkdir(parents=True, exist_ok=True)
scene = open_source("demo", CameraSettings())
for name in ("p01", "p02"):
    with av.open(str(folder / f"{name}.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for _ in range(24 * RATE):
            picture = scene.read()
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture.image, format="bgr24")))
        film.mux(stream.encode(None))
    print(folder / f"{name}.mp4")
