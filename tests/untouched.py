"""Compares the process-wide state of a program before and after it uses fer_stream as a library.

`test_library.py` runs it in a separate process: ``untouched.py FOLDER settled|with|without`` prints JSON (see `main`).
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import decimal
import faulthandler
import gc
import importlib
import json
import locale
import logging
import multiprocessing
import os
import pkgutil
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHERS = (
    "cv2", "numpy", "onnxruntime", "prometheus_client", "prometheus_client.values", "prometheus_client.metrics",
    "prometheus_client.registry", "zmq", "pydantic", "pydantic_settings", "platformdirs", "matplotlib", "polars", "av",
    "matplotlib.backends.backend_svg", "starlette", "uvicorn", "websockets", "urllib3", "sqlite3", "tqdm", "os", "json",
    "socket", "subprocess", "threading", "logging",
)  # fmt: skip


def state() -> dict[str, object]:
    """Return the process-wide state of Python and of the loaded packages, for comparison."""
    numbers = sorted(set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    mask = os.umask(0o77)
    os.umask(mask)
    found: dict[str, object] = {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "mask": mask,
        "signals": {number.name: str(signal.getsignal(number)) for number in numbers},
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT" in name},
        "title": Path("/proc/self/cmdline").read_bytes().hex() + Path("/proc/self/comm").read_text(),
        "logging": [logging.root.level, list(map(repr, logging.root.handlers)), logging.root.filters,
                    logging.raiseExceptions, repr(logging.lastResort), logging.getLoggerClass().__name__,
                    repr(logging.getLogRecordFactory()), logging.root.manager.disable],
        "warnings": [sorted(map(repr, warnings.filters)), repr(warnings.showwarning)],
        "hooks": [repr(hook) for hook in (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook)],
        "path": [sorted(sys.path), list(map(repr, sys.meta_path)), list(map(repr, sys.path_hooks))],
        "interpreter": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile(),
                        gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), faulthandler.is_enabled()],
        "locale": [locale.setlocale(locale.LC_ALL), time.tzname],
        "start method": multiprocessing.get_start_method(allow_none=True),
        "random": hash(random.getstate()),
        "decimal": str(decimal.getcontext()),
        "loops": repr(asyncio.get_event_loop_policy()),
        "opener": repr(urllib.request._opener),
        "waiting": socket.getdefaulttimeout(),
        "temporary": [tempfile.tempdir, tempfile.template],
        "builtins": {name: id(value) for name, value in vars(builtins).items() if name != "_"},
    }  # fmt: skip
    for name in OTHERS:
        if module := sys.modules.get(name):
            found[name] = {key: id(value) for key, value in vars(module).items() if not key.startswith("__")}
    if cv2 := sys.modules.get("cv2"):
        found["OpenCV"] = [
            cv2.getNumThreads(),
            cv2.utils.logging.getLogLevel(),
            cv2.useOptimized(),
            cv2.ocl.useOpenCL(),
        ]
    if numpy := sys.modules.get("numpy"):
        found["numpy's"] = [numpy.geterr(), numpy.get_printoptions(), numpy.random.get_state()[1].tolist()]
    if torch := sys.modules.get("torch"):
        found["torch's"] = [torch.get_num_threads(), torch.get_num_interop_threads()]
    if matplotlib := sys.modules.get("matplotlib"):
        found["matplotlib's"] = {key: repr(dict.__getitem__(matplotlib.rcParams, key)) for key in matplotlib.rcParams}
    if prometheus := sys.modules.get("prometheus_client"):
        from prometheus_client import metrics, values  # noqa: PLC0415

        page = prometheus.generate_latest().decode()
        found["Prometheus"] = [
            sorted({line.split("{")[0].split(" ")[0] for line in page.splitlines() if not line.startswith("#")}),
            repr(values.ValueClass),
            metrics._use_created,
        ]
    if polars := sys.modules.get("polars"):
        found["polars'"] = polars.Config.state()
    if av := sys.modules.get("av"):
        found["PyAV"] = av.logging.get_level()
    if zmq := sys.modules.get("zmq"):
        found["ZeroMQ"] = repr(zmq.Context._instance)
    if "settled" in sys.argv:  # otherwise the packages that fer_stream loads have registered functions
        found["at exit"] = atexit._ncallbacks()
    return found


def changes(before: dict[str, object]) -> dict[str, str]:
    """Return the changed parts of the state. New names in a module do not count."""
    found = {}
    for name, was in before.items():
        now = state().get(name)
        if name in OTHERS:
            assert isinstance(was, dict)
            assert isinstance(now, dict)
            now = {key: now.get(key) for key in was}
        if now != was:
            parts = [k for k in was if was[k] != now.get(k)] if isinstance(was, dict) else [str(was)[:500]]  # type: ignore[attr-defined]
            found[name] = f"{parts} -> {str(now)[:500] if not isinstance(was, dict) else ''}"
    return found


def use(folder: Path) -> Iterator[str]:
    """Use fer_stream, and yield the name of each step after it."""
    import fer_stream  # noqa: PLC0415

    yield "import fer_stream"
    for module in pkgutil.walk_packages(fer_stream.__path__, "fer_stream."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    yield "import its modules"

    import numpy as np  # noqa: PLC0415

    from fer_stream.settings.tree import Settings  # noqa: PLC0415

    black, film = np.zeros((120, 160, 3), np.uint8), folder / "clip.avi"
    settings = Settings(classifier={"model": folder / "tiny.onnx"}, cameras={"film": {"source": str(film)}})  # type: ignore[arg-type]
    fer_stream.recognize(black)
    fer_stream.Recognizer.from_settings(settings).recognize(black)
    yield "recognize"
    fer_stream.analyze(film, settings)
    fer_stream.analyze(folder / "pictures", Settings(classifier={"model": folder / "tiny.onnx"}), pictures=True)  # type: ignore[arg-type]
    yield "analyze"
    fer_stream.analysis.Analysis(settings, "film", folder / "out", video=True).run(2, lambda done, total: None)
    yield "analyze into a folder"


def load() -> None:
    """Load all other packages."""
    for name in OTHERS:
        importlib.import_module(name)


def register() -> None:
    """Register a process-wide allocator with onnxruntime; it raises if there is one already."""
    import onnxruntime  # noqa: PLC0415

    kind, where = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, where)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(0, 1, -1, -1))


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    found: dict[str, object] = {}
    if how == "settled":  # the program sets everything first, and then uses fer_stream
        load()
        import cv2  # noqa: PLC0415

        cv2.setNumThreads(3)
        cv2.utils.logging.setLogLevel(2)
        before = state()
        found = {step: changed for step in use(folder) if (changed := changes(before))}
    else:  # the state at the end, with fer_stream loaded first, or without it
        for _ in use(folder) if how == "with" else ():
            pass
        load()
        found = {name: value for name, value in state().items() if name not in (*OTHERS, "builtins", "random", "title")}
        del found["numpy's"][2]  # type: ignore[attr-defined]
    register()
    text = re.sub(r" at 0x[0-9a-f]+", "", json.dumps(found, default=str))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
