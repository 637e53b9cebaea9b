"""The commands that run the pipeline or a part of it: run, capture, worker, aggregator, live."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.cli.options import await_service, begin, explain
from fer_stream.errors import ConfigError
from fer_stream.settings.kinds import CAMERA_NAME

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from fer_stream.service.cameras import Given
    from fer_stream.settings.tree import Settings


def name_sources(arguments: Sequence[str]) -> dict[str, str]:
    """Return ``{camera: source}`` for ``[NAME=]SOURCE`` arguments, in their order.

    A source without a name gets its file's name, or ``camera-N`` if it is not a file. Names are unique without regard
    to case.

    Raises:
        ConfigError: an invalid name, or a name is given twice.
    """
    parts = [_split(argument) for argument in arguments]
    given = [name for name, _ in parts if name]
    if twice := [name for name in given if [other.lower() for other in given].count(name.lower()) > 1]:
        raise ConfigError(f"two cameras are called {twice[0]}: give each camera its own name")
    sources: dict[str, str] = {}
    for number, (name, source) in enumerate(parts, start=1):
        sources[name or _unique(_name_of(source, number), {*given, *sources})] = source
    return sources


def _split(argument: str) -> tuple[str, str]:
    name, equals, source = argument.partition("=")
    # A URL or a path may contain "=" itself.
    if not equals or re.search(r"[:/]", name) or _exists(argument):
        return "", argument
    if not source:
        raise ConfigError(f"camera {name} has no source: give {name}=SOURCE")
    return _checked(name), source


def _exists(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except OSError:  # for example a name that is too long for a file
        return False


def _checked(name: str) -> str:
    if not re.fullmatch(CAMERA_NAME, name):
        rule = "letters, digits, '_', '.' and '-', at most 63, the first a letter or digit"
        raise ConfigError(f"{name!r} cannot be a camera's name; a name has {rule}")
    return name


def _name_of(source: str, number: int) -> str:
    if source.isdigit() or "://" in source or source.startswith("/dev/"):
        return f"camera-{number}"
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(source).resolve().stem)
    return stem.strip("-_.")[:50] or f"camera-{number}"


def _unique(name: str, taken: set[str]) -> str:
    lower = {other.lower() for other in taken}
    candidates = (f"{name}-{n}" if n > 1 else name for n in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate.lower() not in lower)


def run(arguments: Namespace) -> int:
    """Run the whole pipeline on this machine."""
    from fer_stream.delivery.sink import check as check_sinks  # noqa: PLC0415
    from fer_stream.service.run import run as run_all  # noqa: PLC0415

    if arguments.summary is not None:
        _check_summary(arguments.summary)
    sources = name_sources(arguments.sources)
    settings = begin(arguments, "run", sources)
    if arguments.live:
        from fer_stream.live.server import check  # noqa: PLC0415

        check(settings)
    check_sinks(settings, settings.sinks)
    return run_all(
        _given(arguments, sources),
        lambda: _given(arguments, sources),
        duration=arguments.duration,
        form=arguments.format,
        sinks=settings.sinks,
        summary_file=arguments.summary,
        live=arguments.live,
    )


def _given(arguments: Namespace, sources: dict[str, str]) -> Given:
    """Return what the command line, the environment and the settings file give now.

    If ``sources`` are given, these are the only cameras. A camera of the same name in the settings file provides their
    other settings. If nothing has ever named a camera, the demo is one.

    Raises:
        ConfigError: a source of settings or a value is invalid.
    """
    from fer_stream.service.cameras import Given  # noqa: PLC0415
    from fer_stream.service.registry import FileRegistry  # noqa: PLC0415

    loaded = explain(arguments, sources)
    if not loaded.settings.cameras and FileRegistry.of(loaded.settings).read() is None:
        loaded = explain(arguments, {"demo": "demo"})
    return Given.of(loaded, arguments.config, only=sources)


def _check_summary(path: Path) -> None:
    """Check before the run that the summary can be written after it.

    Raises:
        ConfigError: the folder does not exist, the path is not a file, or it is not writable.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"the summary {path} cannot be written: its folder does not exist; make it")
    if path.exists() and not (path.is_file() or path.is_char_device()):
        raise ConfigError(f"the summary {path} cannot be written: it is not a file; give another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"the summary {path} cannot be written: permission denied; give another path")


def capture(arguments: Namespace) -> None:
    """Run one camera's capture process."""
    from fer_stream.capture.process import run as run_role  # noqa: PLC0415

    if arguments.source is None:
        settings = begin(arguments, f"capture {arguments.camera or ''}".strip())
        camera = arguments.camera or _only_camera(settings)
        if camera not in settings.cameras:
            known = ", ".join(settings.cameras) or "none"
            raise ConfigError(
                f"camera {camera} has no source: give one, or a settings file with this camera (known: {known})"
            )
    else:
        camera = _checked(arguments.camera) if arguments.camera else _name_of(arguments.source, 1)
        settings = begin(arguments, f"capture {camera}", {camera: arguments.source})
    run_role(settings, camera)


def _only_camera(settings: Settings) -> str:
    if len(settings.cameras) != 1:
        known = ", ".join(settings.cameras) or "none"
        raise ConfigError(f"which camera? give a SOURCE, or with --camera one of the settings file's: {known}")
    return next(iter(settings.cameras))


def worker(arguments: Namespace) -> None:
    """Run one inference worker."""
    from fer_stream.inference.worker import run as run_role  # noqa: PLC0415

    run_role(begin(arguments, f"worker {arguments.name or ''}".strip()), arguments.name)


def aggregator(arguments: Namespace) -> None:
    """Run the aggregator: dispatch, track, smooth, journal, publish."""
    from fer_stream.aggregator.aggregator import run as run_role  # noqa: PLC0415

    run_role(begin(arguments, "aggregator"))


def live(arguments: Namespace) -> None:
    """Run the live page's server."""
    from fer_stream.live.server import check  # noqa: PLC0415
    from fer_stream.live.server import run as serve  # noqa: PLC0415

    settings = begin(arguments, "live")
    check(settings)  # first, because the next line may wait for a service without limit
    serve(await_service(settings))
