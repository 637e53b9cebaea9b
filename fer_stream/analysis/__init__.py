"""A recording in; tables, events, plots, a report and an annotated video out. What `fer-stream analyze` runs.

`observe` looks (the service's own code, under ``wait``), `tables`, `summary`, `plots`, `report` and `video` write down;
here it is put together so that a folder holds a whole analysis or says that it does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import __version__, models
from fer_stream.analysis import report, tables
from fer_stream.analysis.observe import Answers, Observer
from fer_stream.analysis.pictures import Pictures, is_pictures
from fer_stream.analysis.summary import Summary
from fer_stream.capture import is_live
from fer_stream.config import CameraSettings, Settings, load
from fer_stream.errors import ConfigError, FerStreamError, SourceError
from fer_stream.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int, int | None], None]

OUTPUTS = ("faces.csv", "faces.parquet", "events.jsonl", "report.html")
"""Files of every analysis of a video, beside ``summary.json``, which is written last: where it is, the rest is."""

VIDEO = "annotated.mp4"

_LOOKS = ("labels", "depth", "detector", "classifier", "tracker", "smoother", "valence", "cameras")
"""Settings that change what is found."""


def analyze(source: str | Path, settings: Settings | None = None, *, threads: int | None = None) -> Any:
    """Return the faces of a recording as a ``polars.DataFrame``, a row a face and frame (`fer_stream.analysis.tables`).

    ::

        faces = fer_stream.analyze("talk.mp4")
        faces.group_by("label").len()

    ``source`` is a video file or a folder of images that follow one another. ``threads`` frames are looked at at once,
    by default one a core. It needs the extra ``analyze``.

    Raises:
        SourceError: it cannot be read.
        ConfigError: it is a live camera.
        PluginError: the extra is not installed.
    """
    require("polars", "analyze")
    _refuse_live(str(source))
    settings = (settings or load()).model_copy(update={"cameras": {"film": CameraSettings(source=str(source))}})
    observer = Observer(settings, "film", threads or os.cpu_count() or 1)
    labels, start = observer.label_set.labels, observer.reader.clock.start
    found = [row for seen in observer for row in tables.rows(seen, start, labels, observer.labels)]
    return tables.frame(found, tables.columns(labels, observer.labels))


class Analysis:
    """One input of `fer-stream analyze`: the camera of the settings with this name, written into a folder.

    Raises:
        ConfigError: it is a live camera.
        PluginError: the extra ``analyze`` is not installed.
    """

    def __init__(
        self, settings: Settings, camera: str, folder: Path, *, video: bool = False, show_faces: bool = False
    ) -> None:
        self.source = settings.cameras[camera].source
        _refuse_live(self.source)
        for module in ("polars", "matplotlib", *(["av"] if video else [])):
            require(module, "analyze")
        self._settings, self._camera, self._folder = settings, camera, folder
        self._video, self._show_faces = video, show_faces

    def finished(self) -> dict[str, Any] | None:
        """Return the summary of this very analysis, where the folder holds it already."""
        try:
            told: dict[str, Any] = json.loads((self._folder / "summary.json").read_text(encoding="utf-8"))
            whole = told["identity"] == self.identity() and all(
                (self._folder / name).exists() for name in told["files"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return told if whole and (VIDEO in told["files"]) >= self._video else None

    def identity(self) -> str:
        """Return what tells this analysis from others: a digest of the input, the settings, the models, the version."""
        path, model = Path(self.source), self._settings.classifier.model
        if path.is_dir():
            content = repr([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.iterdir())]).encode()
        elif path.is_file():
            content = _digest(path)
        else:
            content = b""  # a plug-in's source, such as the demo, or nothing, of which opening it will tell
        looks = self._settings.model_dump(mode="json", include=set(_LOOKS))
        own = _digest(model).hex() if model and model.is_file() else ""
        text = json.dumps([__version__, models.digests(), own, self._show_faces, looks], sort_keys=True).encode()
        return hashlib.sha256(content + text).hexdigest()

    def run(self, threads: int, progress: Progress) -> dict[str, Any]:
        """Look at all of it, write everything, and return the summary.

        Cut off, it leaves no half-written file, and what was found already is not looked for again next time.
        ``progress`` is told the frames done, and how many there are where that is known.

        Raises:
            SourceError: the input cannot be read, or broke; what came before that is written.
            ConfigError: the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            identity = self.identity()
            (self._folder / "summary.json").unlink(missing_ok=True)
            part = self._folder / ".part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            answers = Answers(self._folder / ".answers", identity)
        except OSError as error:
            raise ConfigError(f"{error.filename or self._folder} cannot be written: {error.strerror}") from error
        finished = False
        try:
            told, broken = self._write(part, answers, threads, progress)
            told["identity"], told["files"] = identity, sorted(path.name for path in part.iterdir())
            for path in part.iterdir():
                path.replace(self._folder / path.name)
            (part / "summary.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            (part / "summary.json").replace(self._folder / "summary.json")
            finished = True
        except OSError as trouble:
            raise ConfigError(f"{trouble.filename or part} cannot be written: {trouble.strerror}") from trouble
        finally:
            answers.close(finished=finished)
            shutil.rmtree(part, ignore_errors=True)
        if broken:
            raise broken
        return told

    def _write(
        self, part: Path, answers: Answers, threads: int, progress: Progress
    ) -> tuple[dict[str, Any], FerStreamError | None]:
        if is_pictures(Path(self.source)):
            return Pictures(self._settings, Path(self.source)).write(part, progress), None
        observer = Observer(self._settings, self._camera, threads, answers)
        labels, model_labels, start = observer.label_set.labels, observer.labels, observer.reader.clock.start
        types = tables.columns(labels, model_labels)
        summary, broken = Summary(start, self._settings.valence), None
        with ExitStack() as stack:
            table = tables.CsvTable(part / "faces.csv", types)
            stack.callback(table.close)
            events = stack.enter_context((part / "events.jsonl").open("w", encoding="utf-8"))
            video = None
            if self._video:
                from fer_stream.analysis.video import Video  # noqa: PLC0415

                video = Video(part / VIDEO, Path(self.source), show_faces=self._show_faces)
                stack.callback(video.close)
            try:
                for seen in observer:
                    summary.add(seen)
                    for row in tables.rows(seen, start, labels, model_labels):
                        table.write(row)
                    events.writelines(text + "\n" for _, text in seen.events)
                    if video:
                        video.write(seen)
                    progress(summary.frames, observer.reader.frames)
            except SourceError as trouble:
                if not summary.frames:
                    raise
                broken = trouble
        tables.to_parquet(part / "faces.csv", part / "faces.parquet", types)
        about = {"version": __version__, "model": observer.model, "settings": self._told_settings()}
        (part / "report.html").write_text(report.page(Path(self.source).name, summary, about), encoding="utf-8")
        told = {"source": Path(self.source).name, **summary.as_dict(), "rejected": observer.rejected, **about}
        return told | ({"error": str(broken)} if broken else {}), broken

    def _told_settings(self) -> dict[str, str]:
        how = self._settings
        scan = f"every {how.detector.scan_interval:g} s" if how.detector.scan_interval else "of every frame"
        return {"labels": how.labels, "least face": f"{how.detector.min_face} pixels", "whole search": scan}


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _refuse_live(source: str) -> None:
    if is_live(source):
        raise ConfigError(f"analyze is for recordings, and {source} is a live camera: use fer-stream run")
