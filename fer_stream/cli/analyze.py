"""The command that makes tables, plots and a report of recordings: analyze."""

from __future__ import annotations

import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin
from fer_stream.cli.pipeline import name_sources
from fer_stream.errors import ConfigError, SourceError
from fer_stream.operations.logs import tell_error
from fer_stream.operations.process import INTERRUPTED

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from fer_stream.analysis.folder import Progress

VIDEOS = re.compile(r"\.(mp4|m4v|mov|mkv|webm|avi|gif|mpe?g|m?ts|wmv|flv|3gp|ogv)", re.IGNORECASE)
"""What is taken for a video in a folder, by its suffix; one that is named itself may be called anything."""

PAUSE = 10.0
"""Seconds between lines that tell the progress where there is no terminal."""


def analyze(arguments: Namespace) -> int:
    """Analyse each input into a folder; one that cannot be read does not keep the others from it.

    Raises:
        ConfigError: wrong use, or a folder that cannot be read or written.
    """
    from fer_stream.analysis import Analysis  # noqa: PLC0415

    if arguments.show_faces and not arguments.video:
        raise ConfigError("--show-faces is about the annotated video: give --video, too")
    if arguments.video and arguments.pictures:
        raise ConfigError(
            "there is no video of pictures that do not follow one another: leave out --video or --pictures"
        )
    sources = name_sources(list(_inputs(arguments.sources)))
    settings = begin(arguments, "analyze", sources)
    output = Path(arguments.output)
    failures = 0
    for name in sources:
        folder = output / name if len(sources) > 1 else output
        try:
            analysis = Analysis(
                settings,
                name,
                folder,
                pictures=arguments.pictures,
                video=arguments.video,
                show_faces=arguments.show_faces,
                force=arguments.force,
            )
            if not arguments.force and (told := analysis.finished()):
                _say(f"{analysis.source}: done already, in {folder} (--force does it again)")
                if "error" in told:
                    raise SourceError(told["error"])
                continue
            with _progress(Path(analysis.source).name) as progress:
                told = analysis.run(settings.workers, progress)
        except SourceError as error:
            tell_error(str(error))
            failures += 1
            continue
        except KeyboardInterrupt:
            _say(f"interrupted: the same command goes on where this one was; nothing half-written is in {folder}")
            return INTERRUPTED
        what = f"{told['frames']} frames, {told['tracks']} tracks" if "frames" in told else f"{told['images']} pictures"
        _say(f"{analysis.source}: {what}, {told['faces']} faces -> {folder / 'report.html'}")
    if failures and len(sources) > 1:
        _say(f"{failures} of {len(sources)} could not be read, or not to their ends")
    return 1 if failures else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _inputs(arguments: Iterable[str]) -> Iterator[str]:
    """Return videos, images, and folders of images; a folder with videos stands for them, and for its images.

    Raises:
        ConfigError: a folder with nothing of that in it, or that cannot be read.
    """
    from fer_stream.sources.images import is_image  # noqa: PLC0415

    for argument in arguments:
        path = Path(argument)
        try:
            folder = path.is_dir()
        except OSError:  # as in one that may not be entered; opening it tells
            folder = False
        if not folder:
            yield argument
            continue
        try:
            files = sorted(file for file in path.iterdir() if file.is_file())
        except OSError as error:
            raise ConfigError(
                f"the folder {argument!r} cannot be read: {(error.strerror or 'error').lower()}"
            ) from error
        videos = [str(file) for file in files if VIDEOS.fullmatch(file.suffix)]
        images = any(map(is_image, files))
        if not videos and not images:
            raise ConfigError(f"the folder {argument!r} holds no videos and no images; what lies deeper is to be named")
        yield from ([argument] if images else [])
        yield from videos


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show a bar on a terminal, and elsewhere a line now and then; both tell the time that is left."""
    if sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415  (slow to import)

        with tqdm(desc=name, unit=" frames", file=sys.stderr, dynamic_ncols=True, leave=False, delay=0.5) as bar:

            def move(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield move
        return
    began = told = time.monotonic()

    def tell(done: int, total: int | None) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PAUSE:
            told = now
            left = f" of {total}, {_left((now - began) / done * (total - done))} left" if total else ""
            _say(f"{name}: {done}{left}")

    yield tell


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
