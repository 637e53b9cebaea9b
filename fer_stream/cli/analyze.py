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
from fer_stream.errors import AnnotationError, ConfigError, FerStreamError, SourceError
from fer_stream.operations.logs import tell_error
from fer_stream.operations.process import INTERRUPTED

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fer_stream.analysis.folder import Progress
    from fer_stream.interchange.markers import Marker
    from fer_stream.settings.tree import Settings

VIDEOS = re.compile(r"\.(mp4|m4v|mov|mkv|webm|avi|gif|mpe?g|m?ts|wmv|flv|3gp|ogv)", re.IGNORECASE)
"""Suffixes of files in a folder that count as videos even if they cannot be opened, so that each gets its error."""

PAUSE = 10.0
"""Seconds between lines of progress if standard error is not a terminal."""


def analyze(arguments: Namespace) -> int:
    """Analyse each input into a folder; after an input that cannot be read, continue with the next.

    Raises:
        ConfigError: wrong use, or a folder cannot be read or written.
        AnnotationError: the markers cannot be used.
    """
    try:
        return 1 if _analyze(arguments) else 0
    except KeyboardInterrupt:
        _print(f"interrupted: the same command continues from here; nothing half-written is in {arguments.output}")
        return INTERRUPTED


def _analyze(arguments: Namespace) -> int:
    """Analyse all inputs, and return how many of them are not complete."""
    if arguments.show_faces and not arguments.video:
        raise ConfigError("--show-faces applies to the annotated video: give --video, too")
    for option in ("video", "export", "markers"):
        if arguments.pictures and getattr(arguments, option):
            raise ConfigError(
                f"--{option} does not work with --pictures, which are unrelated images: leave out one of them"
            )
    kinds = _kinds(arguments.export)
    sources = name_sources(list(_inputs(arguments.sources)))
    if len(sources) > 1:
        from fer_stream.analysis import study  # noqa: PLC0415  (slow to import)

        study.check_names(sources)
    trials = _trials(arguments.markers, sources)
    settings = begin(arguments, "analyze", sources)
    output = Path(arguments.output)
    failures = 0
    for name in sources:
        folder = output / name if len(sources) > 1 else output
        try:
            _analyze_one(arguments, settings, name, folder, kinds, trials.get(name))
        except (SourceError, AnnotationError) as error:
            tell_error(str(error))
            failures += 1
    if failures and len(sources) > 1:
        _print(f"{failures} of {len(sources)} not complete: see the errors above")
    if len(sources) > 1:
        _join(settings, output, list(sources), force=arguments.force)
    return failures


def _analyze_one(
    arguments: Namespace,
    settings: Settings,
    name: str,
    folder: Path,
    kinds: Sequence[str],
    trials: Sequence[Marker] | None,
) -> None:
    """Analyse one input, unless its folder has the analysis already, and add exports and trials.

    Raises:
        SourceError: the input cannot be read, or broke off; the results up to there are written.
        AnnotationError: the exports or trials do not fit the input.
    """
    from fer_stream.analysis import Analysis  # noqa: PLC0415

    how = {option: getattr(arguments, option) for option in ("pictures", "video", "show_faces", "force")}
    analysis = Analysis(settings, name, folder, **how)
    broken: SourceError | None = None
    if not arguments.force and (summary := analysis.finished()):
        _print(f"{analysis.source}: done already, in {folder} (--force repeats it)")
        broken = SourceError(summary["error"]) if "error" in summary else None
        before = {}
    else:
        before = analysis.earlier()
        try:
            with _progress(Path(analysis.source).name) as progress:
                summary = analysis.run(settings.workers, progress)
        except SourceError as error:
            summary, broken = analysis.finished() or {}, error
            if not summary:
                raise
        if not broken:
            counts = (
                f"{summary['frames']} frames, {summary['tracks']} tracks"
                if "frames" in summary
                else f"{summary['images']} pictures"
            )
            _print(f"{analysis.source}: {counts}, {summary['faces']} faces -> {folder / 'report.html'}")
    try:
        added = analysis.supplement(summary, kinds, trials)
        if new := sorted(name for name in added["files"] if name not in summary["files"]):
            _print(f"{analysis.source}: exported {', '.join(new)} -> {folder}")
        if added.get("trials") != summary.get("trials"):
            _print(f"{analysis.source}: {len(added['trials'])} trials in its tables -> {folder}")
        given = {"--export": "exports", "--markers": "trials"}
        if lost := [option for option, key in given.items() if before.get(key) and not added.get(key)]:
            without = " and ".join(given[option] for option in lost)
            _print(f"{analysis.source}: analysed again, without {without}: give {' and '.join(lost)} again")
    except FerStreamError:
        if broken:
            tell_error(str(broken))
        raise
    if broken:
        raise broken


def _join(settings: Settings, output: Path, films: Sequence[str], *, force: bool) -> None:
    from fer_stream.analysis import provenance, study  # noqa: PLC0415

    sources = [provenance.path_of(camera.source) for camera in settings.cameras.values()]
    joined = study.join(output, films, [*sources, *provenance.model_files(settings)], force=force)
    if joined:
        count = sum("digest" in film for film in joined["films"])
        tables = sorted({name.partition(".")[0] for name in joined["files"] if name != study.REPORT})
        _print(f"{count} of {len(films)} films in common tables: {', '.join(tables)} -> {output / study.REPORT}")


def _kinds(text: str | None) -> list[str]:
    """Return the kinds of exports in a list separated by commas.

    Raises:
        ConfigError: one is unknown.
    """
    from fer_stream.analysis.exports import KINDS  # noqa: PLC0415

    kinds = list(dict.fromkeys(part.strip().lower() for part in text.split(","))) if text is not None else []
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"--export {wrong[0]!r} is unknown: give one or more of {', '.join(KINDS)}, with commas")
    return kinds


def _trials(path: str | None, sources: Mapping[str, str]) -> dict[str, list[Marker]]:
    """Return the trials of each input, by its camera's name; an empty dict without a file of markers.

    Raises:
        AnnotationError: the file cannot be read, or the trials do not fit the inputs' names or each other.
    """
    if path is None:
        return {}
    from fer_stream.analysis import provenance, trials  # noqa: PLC0415
    from fer_stream.interchange.markers import read_markers  # noqa: PLC0415

    films = {name: provenance.title(source) for name, source in sources.items()}
    return trials.by_film(read_markers(Path(path)), films)


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
