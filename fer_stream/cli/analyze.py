"""The command ``analyze``, which makes tables, plots and a report of recordings."""

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
"""Suffixes of files in a folder that count as videos even if they cannot be opened, so that each gets its error."""

PAUSE = 10.0
"""Seconds between lines of progress if standard error is not a terminal."""


def analyze(arguments: Namespace) -> int:
    """Analyse each input into a folder; after an input that cannot be read, continue with the next.

    Raises:
        ConfigError: wrong use, or a folder cannot be read or written.
    """
    from fer_stream.analysis import Analysis  # noqa: PLC0415

    if arguments.show_faces and not arguments.video:
        raise ConfigError("--show-faces applies to the annotated video: give --video, too")
    if arguments.video and arguments.pictures:
        raise ConfigError("--video does not work with --pictures, which are unrelated images: leave out one of them")
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
            if not arguments.force and (summary := analysis.finished()):
                _print(f"{analysis.source}: done already, in {folder} (--force repeats it)")
                if "error" in summary:
                    raise SourceError(summary["error"])
                continue
            with _progress(Path(analysis.source).name) as progress:
                summary = analysis.run(settings.workers, progress)
        except SourceError as error:
            tell_error(str(error))
            failures += 1
            continue
        except KeyboardInterrupt:
            _print(f"interrupted: the same command continues from here; nothing half-written is in {folder}")
            return INTERRUPTED
        counts = (
            f"{summary['frames']} frames, {summary['tracks']} tracks"
            if "frames" in summary
            else f"{summary['images']} pictures"
        )
        _print(f"{analysis.source}: {counts}, {summary['faces']} faces -> {folder / 'report.html'}")
    if failures and len(sources) > 1:
        _print(f"{failures} of {len(sources)} could not be read, or not to their ends")
    return 1 if failures else 0


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _inputs(arguments: Iterable[str]) -> Iterator[str]:
    """Yield each video, image and folder of images; for a folder with videos, its videos, and itself if it has images.

    The content of a folder's files decides what they are. Other files are skipped, and a message lists them.

    Raises:
        ConfigError: a folder has neither videos nor images, or cannot be read.
    """
    from fer_stream.sources.image_kinds import is_image  # noqa: PLC0415
    from fer_stream.sources.images import listed  # noqa: PLC0415
    from fer_stream.sources.media import is_video  # noqa: PLC0415

    for argument in arguments:
        path = Path(argument)
        try:
            folder = path.is_dir()
        except OSError:  # for example no permission for the parent folder: opening the file reports that
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
        images = [file for file in files if is_image(file)]
        known = set(images)
        others = [file for file in files if file not in known]
        videos = [file for file in others if VIDEOS.fullmatch(file.suffix) or is_video(file)]
        if not videos and not images:
            raise ConfigError(f"the folder {argument!r} has no videos and no images; give its subfolders by name")
        known.update(videos)
        if videos and (skipped := [file.name for file in others if file not in known]):
            _print(f"{argument}: neither video nor image, skipped: {listed(skipped)}")
        yield from ([argument] if images else [])
        yield from map(str, videos)


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show progress and the remaining time: a bar on a terminal, otherwise a line every `PAUSE` seconds."""
    if sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415  (slow to import)

        with tqdm(desc=name, unit=" frames", file=sys.stderr, dynamic_ncols=True, leave=False, delay=0.5) as bar:

            def move(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield move
        return
    began = printed = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed >= PAUSE:
            printed = now
            left = f" of {total}, {_left((now - began) / done * (total - done))} left" if total else ""
            _print(f"{name}: {done}{left}")

    yield report


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
