"""Checks an installation, and says what to do about each problem.

No check raises an exception for a problem: each returns findings. No check changes existing files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from fer_stream import plugins
from fer_stream.errors import FerStreamError, RetryError, TransportError
from fer_stream.events.calibration import calibrations
from fer_stream.imaging.pixels import pixels
from fer_stream.inference import models, providers
from fer_stream.operations.process import leave_behind
from fer_stream.settings import deployment
from fer_stream.settings.redaction import redact
from fer_stream.system import machine
from fer_stream.system.extras import version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_stream.delivery.sink import Order
    from fer_stream.delivery.state import SinkState
    from fer_stream.settings.tree import CameraSettings, Settings

MODULES = {"opencv-python-headless": "cv2", "pyzmq": "zmq"}
"""Import names of required packages, where they differ from the package's name."""

PATIENCE = 5.0
"""Most seconds for each timeout of a source that is checked."""

SINK = 20.0
"""Most seconds for a sink."""


class Level(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of output: what was checked, the result and, if it is a problem, what to do."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.text}"


def _ok(text: str) -> Finding:
    return Finding(Level.OK, text)


def _warn(text: str) -> Finding:
    return Finding(Level.WARN, text)


def _fail(text: str) -> Finding:
    return Finding(Level.FAIL, text)


def examine(settings: Settings) -> Iterator[Finding]:
    """Run all checks, and yield their findings in order."""
    yield from _packages()
    yield from _runtime(settings)
    yield from _models(settings)
    for name, camera in settings.cameras.items():
        yield _source(name, camera)
    yield _address(settings)
    yield _journal(settings)
    yield from _sinks(settings)
    if settings.metrics:
        yield _port(settings)
    yield from _machine(settings.workers)


def _packages() -> Iterator[Finding]:
    yield _ok(f"Python {'.'.join(map(str, sys.version_info[:3]))}")
    try:
        requirements = metadata.requires("fer-stream") or []
    except metadata.PackageNotFoundError:
        yield _fail("fer-stream is not installed, so its plug-ins cannot be found: run pip install .")
        return
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9_.-]+)[^;]*(;.*extra\b)?", requirement)
        if match is None or match[2]:
            continue
        module = MODULES.get(match[1], match[1].replace("-", "_"))
        limits = {sign: re.search(rf"{sign}\s*([0-9.]+)", requirement) for sign in (">=", "<")}
        least, below = limits[">="], limits["<"]
        try:
            found = version(module)
        except Exception as error:  # importing an incompatible package may raise anything
            missing = isinstance(error, ModuleNotFoundError) and error.name == module
            what = "is not installed" if missing else f"cannot be imported ({type(error).__name__}: {error})"
            yield _fail(f"{module} {what}: run pip install '{requirement}'")
            continue
        if found != "unknown" and least and _numbers(found) < _numbers(least[1]):
            yield _fail(f"{module} {found} is older than {least[1]}: run pip install '{requirement}'")
        elif found != "unknown" and below and _numbers(found) >= _numbers(below[1]):
            yield _fail(f"{module} {found} is too new, it must be below {below[1]}: run pip install '{requirement}'")
        else:
            yield _ok(f"{module} {found}")


def _runtime(settings: Settings) -> Iterator[Finding]:
    """Check that there is one build of onnxruntime, and tell what it can run models on."""
    builds = providers.builds()
    if len(builds) > 1:
        yield _fail(
            f"{' and '.join(builds)} are installed and overwrite each other's files: run pip uninstall --yes "
            f"{' '.join(builds)}, then pip install with the one that you want"
        )
        return
    with contextlib.suppress(FerStreamError):  # the models cannot be opened then, which is the next check
        here = ", ".join(providers.available())
        used = f"the detector uses {settings.detector.provider}, the classifier {settings.classifier.provider}"
        yield _ok(f"providers of {next(iter(builds), 'onnxruntime')}: {here}; {used}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        for name, digest in models.digests().items():
            try:
                content = (models.folder() / name).read_bytes()
            except OSError as error:
                yield _fail(f"the model file {name} cannot be read ({error.strerror}): install fer-stream again")
                continue
            if hashlib.sha256(content).hexdigest() == digest:
                yield _ok(f"model file {name} {digest[:12]}")
            else:
                yield _fail(f"the model file {name} differs from the shipped one: install fer-stream again")
        plugins.load("detectors", settings.detector.name)(settings.detector)
        yield _ok(f"detector {settings.detector.name}")
        classifier = plugins.load("classifiers", settings.classifier.name)(settings.classifier)
        about = [", ".join(classifier.labels) or "no labels"]
        if measures := getattr(classifier, "measures", ()):
            about.append(f"measures {', '.join(measure.name for measure in measures)}")
        if own := getattr(classifier, "smoother", {}):
            about.append(f"smoother {', '.join(f'{name} {value:g}' for name, value in own.items())}")
        if settings.calibration:
            calibrations(settings.calibration, tuple(classifier.labels))
            about.append(f"calibration of {', '.join(settings.calibration)}")
        yield _ok(f"classifier {settings.classifier.name}: {classifier.version}, {'; '.join(about)}")
    except FerStreamError as error:
        yield _fail(str(error))


def _source(name: str, camera: CameraSettings) -> Finding:
    """Open a camera and read a picture; in a thread, because a device may block for longer than its timeout."""
    from fer_stream.imaging.jpeg import Jpeg  # noqa: PLC0415  (OpenCV is slow to import)
    from fer_stream.imaging.yuv import Yuv  # noqa: PLC0415
    from fer_stream.sources import open_source  # noqa: PLC0415  (OpenCV is slow to import)

    found: list[Finding] = []
    quick = {"open_timeout": min(camera.open_timeout, PATIENCE), "read_timeout": min(camera.read_timeout, PATIENCE)}

    def check() -> None:
        try:
            source = open_source(camera.model_copy(update=quick))
            try:
                picture = source.read()
            finally:
                source.close()
            if picture is None:
                found.append(_fail(f"camera {name}: {redact(camera.source)} opens, but gives no picture"))
            else:
                content = picture.content
                height, width = (content.decode() if isinstance(content, Jpeg | Yuv) else pixels(content)).shape[:2]
                gives = f"camera {name}: {redact(camera.source)} gives {width}x{height} pictures"
                found.append(_ok(gives + _modes(camera)))
        except FerStreamError as error:
            found.append(_fail(f"camera {name}: {redact(str(error))}"))
        except ValueError as error:  # a plug-in's source returned an invalid picture
            found.append(_fail(f"camera {name}: {redact(str(error))}"))
        except Exception as error:  # a plug-in's source may raise anything
            found.append(_fail(f"camera {name}: its source failed: {type(error).__name__}: {redact(str(error))}"))

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    leave_behind(thread, 2 * PATIENCE)
    no_answer = _fail(f"camera {name}: {redact(camera.source)} does not answer; check that it is on and not in use")
    return found[0] if found else no_answer


def _modes(camera: CameraSettings) -> str:
    """Return what a webcam offers, or an empty text."""
    from fer_stream.sources import DEFAULT, choose, media, v4l2  # noqa: PLC0415  (OpenCV is slow to import)

    plug_in, address = choose(camera)
    number = media.webcam_number(address)
    if plug_in != DEFAULT or not number:
        return ""
    try:
        offered = v4l2.modes(Path(f"/dev/video{number}"))
    except OSError:
        return ""
    return "; it offers " + ", ".join(map(str, offered)) if offered else ""


def _address(settings: Settings) -> Finding:
    from fer_stream.client import status  # noqa: PLC0415

    try:
        deployment.check_purpose(settings)
        plugins.transport(settings).bind(settings.own_address).close()
        deployment.check_reach(settings)
    except TransportError as error:
        try:
            status(settings.model_copy(update={"address": settings.address}), timeout=1.0)
        except FerStreamError:
            return _fail(str(error))
        return _ok(f"address {settings.address}: an aggregator runs there")
    except FerStreamError as error:
        return _fail(str(error))
    return _ok(f"address {settings.address} can be bound")


def _journal(settings: Settings) -> Finding:
    try:
        journal = plugins.journal(settings.journal, settings.fleet)
        state, warning = journal.examine()
    except FerStreamError as error:
        return _fail(redact(str(error)))
    return _warn(warning) if warning else _ok(f"journal {journal.name}, {state}")


def _sinks(settings: Settings) -> Iterator[Finding]:
    """Check what `fer-stream deliver` would serve; if it runs, report what it has recorded."""
    from fer_stream.delivery.sink import orders  # noqa: PLC0415

    older = plugins.available("sinks")
    for sink in settings.sinks:
        if sink.partition(":")[0] in older:  # a run opens it, which may make a file
            yield _ok(f"sink {redact(sink)} is installed")
    further = [sink for sink in settings.sinks if sink.partition(":")[0] not in older]
    try:
        found = orders(settings, further) if settings.deliver or further else []
        recorded = _recorded(settings)
    except FerStreamError as error:
        yield _fail(redact(str(error)))
        return
    for order in found:
        yield _progress(recorded[order.name]) if order.name in recorded else _sink(order)


def _recorded(settings: Settings) -> dict[str, SinkState]:
    """Return what is recorded of each sink that a running `fer-stream deliver` serves."""
    from fer_stream.delivery.state import DeliveryState, in_use, path_of  # noqa: PLC0415

    if not in_use(path_of(settings)):
        return {}
    state = DeliveryState(path_of(settings))
    try:
        return {sink.name: sink for sink in state.sinks()}
    finally:
        state.close()


def _progress(sink: SinkState) -> Finding:
    if sink.state == "stopped":
        return _fail(f"sink {sink.name} has stopped: {sink.error}; then run fer-stream deliver retry '{sink.name}'")
    if sink.state == "failing":
        return _warn(f"sink {sink.name} takes no events and is tried again: {sink.error}")
    return _ok(f"sink {sink.name}: fer-stream deliver runs, and has delivered {sink.delivered} events")


def _sink(order: Order) -> Finding:
    """Open a sink and check its receiver; in a thread, because a plug-in may forget a limit."""
    found: list[Finding] = []
    title = f"sink {order.name}: {redact(order.settings.sink)}"

    def check() -> None:
        try:
            sink = order.open()
        except FerStreamError as error:  # it begins with the sink's name
            found.append(_fail(f"sink {redact(str(error))}"))
            return
        try:
            if isinstance(sink, plugins.CheckableSink):
                sink.check()
                found.append(_ok(f"{title} is ready"))
            else:
                found.append(_ok(f"{title} can be opened; its receiver was not asked"))
        except RetryError as error:
            found.append(_warn(f"sink {order.name}: {redact(str(error))}"))
        except FerStreamError as error:
            found.append(_fail(f"sink {order.name}: {redact(str(error))}"))
        finally:
            sink.close()

    def guarded() -> None:
        try:
            check()
        except Exception as error:  # a plug-in may raise anything
            found.append(_fail(f"sink {order.name}: it failed: {type(error).__name__}: {redact(str(error))}"))

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    leave_behind(thread, SINK)
    return found[0] if found else _fail(f"{title} does not answer")


def _port(settings: Settings) -> Finding:
    from fer_stream.operations import metrics  # noqa: PLC0415

    address = settings.metrics
    try:
        server = metrics.serve(settings, lambda: "")
    except FerStreamError as error:
        if _alive(str(address)):
            return _ok(f"metrics port {address}: a fer-stream process serves it")
        return _fail(str(error))
    if server is not None:
        server.close()
    return _ok(f"metrics port {address} is free")


def _alive(address: str) -> bool:
    try:
        with urlopen(f"http://{address}/healthz", timeout=1.0) as answer:
            return bool(json.load(answer).get("status") == "alive")
    except (OSError, ValueError, AttributeError, HTTPException):
        return False


def _machine(workers: int) -> Iterator[Finding]:
    cores, memory = machine.cores(), machine.memory()
    advice = f"set --workers to {machine.workers().amount:.0f}"
    if workers > max(cores.amount, 1):
        yield _warn(
            f"{workers} workers share {cores.amount:g} CPU cores ({cores.by}): "
            f"more than one per core is no faster, {advice}"
        )
    else:
        yield _ok(f"{cores.amount:g} CPU cores for {workers} workers ({cores.by})")
    needed = machine.OTHERS + workers * machine.WORKER
    available = f"{memory.amount / 2**30:.1f} GiB of memory ({memory.by})"
    if needed > memory.amount:
        yield _warn(
            f"{workers} workers and the rest take about {needed / 2**30:.1f} GiB, and there is {available}: {advice}"
        )
    else:
        yield _ok(f"{available} for {workers} workers")
