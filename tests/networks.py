"""The roles on two machines with a link between them (`slow_link`): the aggregator at its far end, the others near."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.settings.tree import CameraSettings
from fer_stream.sources.demo import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Cli, Process
    from slow_link import SlowLink, ThrottledProxy

NAMED = 'mount --bind "$0" /etc/hosts && exec "$@"'
"""A shell script that runs a command with a file mounted as its ``/etc/hosts``."""


def write_film(path: Path, width: int = 1920, height: int = 1080, frames: int = 30, noise: int = 12) -> Path:
    """Write a film with a face and a camera's noise: a JPEG of a 1080p frame has about 450 kB."""
    scene, draw = open_source("demo", CameraSettings()), np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 15, (width, height))
    for number in range(45 + frames):
        picture = scene.read()
        if number >= 45 and picture is not None:
            image = cv2.resize(picture.image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
            image += draw.integers(-noise, noise + 1, image.shape, np.int16)
            writer.write(image.clip(0, 255).astype(np.uint8))
    writer.release()
    return path


class Machines:
    """Starts commands of `Cli` at the ends of a link, and makes the keys for them."""

    def __init__(self, cli: Cli, link: SlowLink | ThrottledProxy) -> None:
        self.cli, self.link = cli, link
        self.folder = cli.folder / "keys"
        for role in ("capture", "worker", "client"):
            cameras = ("--camera", "door") if role == "capture" else ()
            made = cli.run("keys", "new", role, "--role", role, "--keys", self.folder, *cameras)
            assert made.popen.returncode == 0, made.err

    def aggregator(self, bind: str = "", *more: object) -> Process:
        bind = bind or self.link.bind
        started = self._start(self.link.far, "aggregator", "--bind", bind, *self._hub(), *more)
        started.until_said("ready at")
        return started

    def far(self, *command: object) -> Process:
        """Start a command on the aggregator's machine, with the key ``local`` that the aggregator made."""
        return self._start(self.link.far, *command, "--connect", self.link.bind, "--key", self.folder / "local.key")

    def near(self, role: str, *command: object, address: str = "", hosts: Path | None = None) -> Process:
        """Start a command on the other machine, with the key of a role."""
        under = (*self.link.near, *(("unshare", "--mount", "sh", "-c", NAMED, str(hosts)) if hosts else ()))
        key = self.folder / f"{role}.key"
        return self._start(under, *command, "--connect", address or self.link.address, "--key", key)

    def status(self) -> dict[str, Any]:
        asked = self.far("status", "--format", "jsonl")
        assert asked.end() == 0, asked.err
        found: dict[str, Any] = json.loads(asked.out)
        return found

    def ledger(self, camera: str = "door") -> dict[str, int]:
        found: dict[str, int] = self.status()["cameras"][camera]["ledger"]
        return found

    def _hub(self) -> tuple[object, ...]:
        return ("--keys", self.folder, "--journal", "events.db", "--purpose", "research")

    def _start(self, under: tuple[str, ...], *command: object) -> Process:
        self.cli.under = under
        try:
            return self.cli.start(*command)
        finally:
            self.cli.under = ()
