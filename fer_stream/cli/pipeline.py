"""The commands that are the pipeline: run, capture, worker, aggregator; and the page that shows it: live."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.cli.options import await_service, begin
from fer_stream.errors import ConfigError
from fer_stream.settings.kinds import CAMERA_NAME

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from fer_stream.settings.tree import Settings


def name_sources(arguments: Sequence[str]) -> dict[str, str]:
    """Return ``{camera: source}`` for ``[NAME=]SOURCE`` arguments, in their order.

    A source without a name is called after its file, or ``camera-N`` where it is none; names stay unique.

    Raises:
        ConfigError: a name that cannot be one, or one given twice.
    """
    parts = [_split(argument) for argument in arguments]
    given = [name for name, _ in parts if name]
    if twice := [name for name in given if [other.lower() for other in given].count(name.lower()) > 1]:
        raise ConfigError(f"two cameras are called {twice[0]}: give each a name of its own")
    sources: dict[str, str] = {}
    for number, (name, source) in enumerate(parts, start=1):
        sources[name or _unique(_name_of(source, number), {*given, *sources})] = source
    return sources


def _split(argument: str) -> tuple[str, str]:
    name, equals, source = argument.partition("=")
    # An address or a path may hold a "=" of its own.
    if not equals or re.search(r"[:/]", name) or _there(argument):
        return "", argument
    if not source:
        raise ConfigError(f"camera {name} has no source: give {name}=SOURCE")
    return _checked(name), source


def _there(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except OSError:  # such as a name longer than any file's
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
    """Everything on this machine."""
    from fer_stream.service.run import run as run_all  # noqa: PLC0415

    if arguments.summary is not None:
        _check_summary(arguments.summary)
    sources = name_sources(arguments.sources)
    settings = begin(arguments, "run", sources)
    if not settings.cameras:
        settings = begin(arguments, "run", {"demo": "demo"})
    if sources:
        # What was named here is what runs; a file's camera of the same name lends it its other settings.
        settings = settings.model_copy(update={"cameras": {name: settings.cameras[name] for name in sources}})
    if arguments.live:
        from fer_stream.live.server import check  # noqa: PLC0415

        check(settings)
    return run_all(
        settings,
        duration=arguments.duration,
        sinks=(f"stdout:{arguments.format}", *settings.sinks),
        summary_file=arguments.summary,
        live=arguments.live,
    )


def _check_summary(path: Path) -> None:
    """Refuse, before anything runs, what cannot become a summary when all has run.

    Raises:
        ConfigError: see above.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"the summary {path} cannot be written: there is no folder for it; make it")
    if path.exists() and not (path.is_file() or path.is_char_device()):
        raise ConfigError(f"the summary {path} cannot be written: it is not a file; give another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"the summary {path} cannot be written: permission denied; give another path")


def capture(arguments: Namespace) -> None:
    """One camera's process."""
    from fer_stream.capture.process import run as run_role  # noqa: PLC0415

    if arguments.source is None:
        settings = begin(arguments, f"capture {arguments.camera or ''}".strip())
        camera = arguments.camera or _only_camera(settings)
        if camera not in settings.cameras:
            known = ", ".join(settings.cameras) or "none"
            raise ConfigError(
                f"camera {camera} has no source: give one, or a settings file that has it (known: {known})"
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
    """One inference worker."""
    from fer_stream.inference.worker import run as run_role  # noqa: PLC0415

    run_role(begin(arguments, f"worker {arguments.name or ''}".strip()), arguments.name)


def aggregator(arguments: Namespace) -> None:
    """Dispatch, track, smooth, journal, publish."""
    from fer_stream.aggregator.aggregator import run as run_role  # noqa: PLC0415

    run_role(begin(arguments, "aggregator"))


def live(arguments: Namespace) -> None:
    """Show it all in a browser."""
    from fer_stream.live.server import check  # noqa: PLC0415
    from fer_stream.live.server import run as serve  # noqa: PLC0415

    settings = begin(arguments, "live")
    check(settings)  # before the wait
    serve(await_service(settings))
