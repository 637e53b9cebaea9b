"""The command that makes tables, plots and a report of recordings: analyze."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.commands.options import begin
from fer_stream.commands.pipeline import name_sources
from fer_stream.errors import ConfigError, SourceError
from fer_stream.process import tell_error

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from fer_stream.analysis import Analysis


def analyze(arguments: Namespace) -> int:
    """Analyse each input into a folder; one that cannot be read does not keep the others from it."""
    from fer_stream.analysis import Analysis  # noqa: PLC0415

    if arguments.show_faces and not arguments.video:
        raise ConfigError("--show-faces is about the annotated video: give --video, too")
    sources = name_sources(list(_inputs(arguments.sources)))
    settings = begin(arguments, "analyze", sources)
    output = Path(arguments.output)
    failures = 0
    for name in sources:
        folder = output / name if len(sources) > 1 else output
        try:
            analysis = Analysis(settings, name, folder, video=arguments.video, show_faces=arguments.show_faces)
            if not arguments.force and (told := analysis.finished()):
                _say(f"{analysis.source}: done already, in {folder} (--force does it again)")
                continue
            told = _with_progress(analysis, settings.workers)
        except SourceError as error:
            tell_error(str(error))
            failures += 1
            continue
        except KeyboardInterrupt:
            _say(f"\ninterrupted: the same command goes on where this one was; nothing half-written is in {folder}")
            return 128 + signal.SIGINT
        counted = (
            f"{told['frames']} frames, {told['tracks']} tracks" if "frames" in told else f"{told['images']} images"
        )
        _say(f"{analysis.source}: {counted}, {told['faces']} faces -> {folder}")
    return 1 if failures else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _inputs(arguments: Iterable[str]) -> Iterable[str]:
    """Return videos, and folders of images; a folder without images stands for the files in it.

    Raises:
        ConfigError: a folder with nothing in it.
    """
    from fer_stream.analysis.pictures import is_pictures  # noqa: PLC0415

    for argument in arguments:
        path = Path(argument)
        if not path.is_dir() or is_pictures(path):
            yield argument
            continue
        files = sorted(str(file) for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            raise ConfigError(f"the folder {argument!r} holds no files: give videos, images, or folders of them")
        yield from files


def _with_progress(analysis: Analysis, workers: int) -> dict[str, Any]:
    from tqdm import tqdm  # noqa: PLC0415  (slow to import)

    terminal = sys.stderr.isatty()
    # Where nobody watches, a line now and then is enough.
    with tqdm(
        desc=Path(analysis.source).name, unit=" frames", file=sys.stderr, dynamic_ncols=terminal, leave=False,
        mininterval=0.2 if terminal else 30.0, delay=0.5 if terminal else 20.0,
    ) as bar:  # fmt: skip

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return analysis.run(workers, progress)
