"""Run every benchmark and write their output into docs/benchmarks.md, with the commands and the machine.

python tests/bench/report.py ../shared/media        # `make bench`; the machine should be otherwise idle
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import cv2
import onnxruntime

ROOT = Path(__file__).parents[2]

INTRODUCTION = """# Benchmarks

`make bench` writes this page, except the summary: it runs the commands below one after the other. `MEDIA` is the folder
of clips. Where a figure has a reference, both were measured in turn in the same run, so their ratio also holds on other
machines. The first lines of each script explain its output.

"""

KEPT = re.compile(r"<!-- written by hand: .*?<!-- end -->\n", re.DOTALL)
"""The part of the page that is written by hand."""


def machine() -> str:
    """Return a description of this machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, "
        f"OpenCV {cv2.__version__}, onnxruntime {onnxruntime.__version__}\n"
    )


def kept(page: Path) -> str:
    """Return the part of a page that is written by hand; empty text if there is none."""
    found = KEPT.search(page.read_text()) if page.is_file() else None
    return f"{found[0]}\n" if found else ""


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("media", type=Path, help="folder of clips")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/benchmarks.md")
    arguments = parser.parse_args()
    clips = sorted(arguments.media.glob("*.gif"))
    film = arguments.media / "facenet_video.mp4"
    if not film.is_file():
        parser.error(f"there is no {film}: the clips are not part of the repository; name their folder (MEDIA=FOLDER)")
    sections: list[tuple[str, list[object]]] = [
        ("From a file to events", ["pipeline.py", film]),
        ("The same at 640x480", ["pipeline.py", film, "--size", "640x480"]),
        ("A camera that sends JPEGs, to another machine", ["pipeline.py", film, "--mjpeg", "--encoding", "jpeg"]),
        ("A search of a whole picture", ["scan.py", film]),
        ("Following faces, against a search of every frame", ["following.py", film, *clips]),
        ("One aggregator", ["capacity.py"]),
        ("Delivery to other systems", ["delivery.py"]),
        ("A receiver that was away for an hour", ["catch_up.py"]),
        ("Latency, several cameras, and overload", ["load.py", "--seconds", 8]),
        ("The live page's viewers", ["viewers.py", "--seconds", 12]),
        ("Start", ["start.py"]),
        ("Growth", ["growth.py", "--plot", "docs/images/growth.svg"]),
        ("A camera faster than the workers", ["live.py", film, "--seconds", 60]),
    ]
    text = INTRODUCTION + kept(arguments.output) + "## Machine\n\n" + machine()
    for title, (script, *rest) in sections:
        command = [sys.executable, str(Path(__file__).with_name(str(script))), *map(str, rest)]
        print(title, "...", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{script} failed:\n{done.stderr}")
        shown = " ".join(str(part).replace(str(arguments.media), "MEDIA") for part in (f"tests/bench/{script}", *rest))
        text += f"\n## {title}\n\n    python {shown}\n\n```\n{done.stdout.rstrip()}\n```\n"
        if title == "Growth":
            text += "\n[Drawn and explained](explanation/figures.md#growth).\n"
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    print(arguments.output)


if __name__ == "__main__":
    main()
