"""Write two short films of the demo scene for docs/how-to/study.md: morning.mp4 and evening.mp4.

    python docs/examples/study_films.py films

The argument is the folder to write them into.
"""

import sys
from fractions import Fraction
from pathlib import Path

import av

from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.demo import HEIGHT, RATE, WIDTH, Demo


def write(path: Path, begin: float, end: float) -> Path:
    """Write the scene from one second to another as an H.264 film; return its path."""
    scene = Demo(CameraSettings())
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(end * RATE)):
            picture = scene.read()
            if picture is None or number < begin * RATE:
                continue
            frame = av.VideoFrame.from_ndarray(picture.image, format="bgr24")
            frame.pts, frame.time_base = number - round(begin * RATE), Fraction(1, RATE)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "morning.mp4", 0, 30)
    write(folder / "evening.mp4", 30, 60)
