"""The commands about this installation: config, schema, version, doctor."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from fer_stream.cli.options import begin, explain

if TYPE_CHECKING:
    from argparse import Namespace


def config(arguments: Namespace) -> None:
    """Print the effective settings and where each came from, or a template of a settings file."""
    from fer_stream.settings.tree import template  # noqa: PLC0415

    text = template() if arguments.template else "\n".join(explain(arguments).lines()) + "\n"
    sys.stdout.write(text)


def schema(arguments: Namespace) -> None:
    """Print the JSON Schema of every event, or a document of the links that carry them, or of the HTTP API."""
    from fer_stream.events.schema import asyncapi, event_schema  # noqa: PLC0415

    if arguments.openapi:
        from fer_stream.live.api.contract import openapi as document  # noqa: PLC0415
    else:
        document = asyncapi if arguments.asyncapi else event_schema
    sys.stdout.write(json.dumps(document(), indent=2) + "\n")


def version(arguments: Namespace) -> None:
    """Print the version, the models with their digests, and the model that the settings name, if it is another one."""
    from fer_stream.inference import models  # noqa: PLC0415
    from fer_stream.system.version import __version__  # noqa: PLC0415

    sys.stdout.write(f"fer-stream {__version__}\n")
    for name, digest in models.digests().items():
        sys.stdout.write(f"{name}  sha256:{digest}\n")
    sys.stdout.flush()
    path = explain(arguments).settings.classifier.model
    if path is not None and path.exists():
        files = models.files(path)
        beside = f" (with {', '.join(list(files)[1:])})" if len(files) > 1 else ""
        sys.stdout.write(f"{path}  sha256:{models.combined(files)}{beside}\n")


def doctor(arguments: Namespace) -> int:
    """Print what every check finds; return 1 if a check fails."""
    from fer_stream.cli.doctor import Level, examine  # noqa: PLC0415

    failed = False
    for finding in examine(begin(arguments, "doctor")):
        failed |= finding.level is Level.FAIL
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
    return 1 if failed else 0
