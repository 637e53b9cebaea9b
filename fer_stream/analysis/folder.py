"""Runs one analysis and writes its files; they replace those of an earlier analysis only when all are complete."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.analysis import plots, report, statistics, tables
from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.analysis.observe import Observer, refuse
from fer_stream.analysis.output import OutputFolder
from fer_stream.analysis.pictures import Pictures, are_pictures
from fer_stream.analysis.summary import Summary
from fer_stream.errors import ConfigError, FerStreamError, SourceError
from fer_stream.events.cloudevents import to_rfc3339
from fer_stream.events.statistics import Record
from fer_stream.inference import models
from fer_stream.sources import DEFAULT, choose
from fer_stream.sources.image_kinds import is_image
from fer_stream.sources.images import check_name
from fer_stream.system.extras import require
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.settings.tree import Settings

    Progress = Callable[[int, int | None], None]

VIDEO = "annotated.mp4"

PICTURES = ("faces.csv", "faces.parquet", "report.html", "shares.svg")
RECORDING = (
    *PICTURES,
    *statistics.FILES,
    "events.jsonl",
    "measures.svg",
    "timeline.svg",
    "uncertain.svg",
    "valence.svg",
)
"""Names of the files that may be written for pictures, and for a recording."""

_GLOBAL_SETTINGS = ("labels", "depth", "search", "detector", "classifier", "tracker", "smoother", "valence")
"""Settings that affect the result."""

_CAMERA_SETTINGS = ("plugin", "stream", "rate", "masks", "zones", "lines", "start_time", "hardware_decoding")
"""Settings of a camera that affect the result."""


class Analysis:
    """One input of `fer-stream analyze`: the camera of the settings with this name, written into a folder.

    Args:
        settings: all settings.
        camera: the camera's name, which appears in the events.
        folder: the output folder; created if it is missing.
        pictures: the images of a folder are unrelated, not consecutive frames.
        video: also write an annotated video. No other output file contains pixels.
        show_faces: do not hide the faces in the video.
        force: overwrite foreign files in the folder that have the name of an output file; never an input.

    Raises:
        ConfigError: the source is a live camera, or the camera's settings cannot be followed.
        PluginError: the extra ``analyze`` is not installed.
        SourceError: the input's name is not UTF-8.
    """

    def __init__(
        self,
        settings: Settings,
        camera: str,
        folder: Path,
        *,
        pictures: bool = False,
        video: bool = False,
        show_faces: bool = False,
        force: bool = False,
    ) -> None:
        self.source = settings.cameras[camera].source
        refuse(settings.cameras[camera])
        for module in ("polars", "matplotlib", *(["av"] if video else [])):
            require(module, "analyze")
        self._path = _path(self.source)
        check_name(self._path)
        self._settings, self._camera = settings, camera
        sources = [_path(choose(other)[1]) for other in settings.cameras.values()]
        self._output = OutputFolder(folder, [*sources, *self._model_files()], force=force)
        self._pictures = are_pictures(settings.cameras[camera], asked=pictures)
        self._video, self._show_faces = video and not self._pictures, show_faces
        self._identity = ""

    def finished(self) -> dict[str, Any] | None:
        """Return the summary if the folder already holds this analysis (same identity, video if requested).

        Raises:
            SourceError: the input cannot be read.
        """
        summary = self._output.summary()
        if summary and (VIDEO in summary["files"]) >= self._video and summary["identity"] == self.identity():
            return summary
        return None

    def identity(self) -> str:
        """Return a SHA-256, in hexadecimal, over everything that affects the result.

        These are the input (for a folder of images: names, sizes and modification times, not pixels), the settings, all
        model files, the code of fer_stream and of plug-ins, and the versions of the numerical packages.

        Raises:
            SourceError: the input cannot be read.
        """
        if not self._identity:
            camera = self._settings.cameras[self._camera].model_dump(mode="json", include=set(_CAMERA_SETTINGS))
            smoother = self._settings.smoother.model_dump(exclude_unset=True)  # the model may say the others
            settings = [self._settings_used(), smoother, camera, self._pictures, self._video and self._show_faces]
            parts = [self._code(), models.versions(), self._models(), self._camera, *settings]
            text = json.dumps(parts, sort_keys=True).encode()
            self._identity = hashlib.sha256(self._content() + text).hexdigest()
        return self._identity

    def _content(self) -> bytes:
        path = self._path
        try:
            if path.is_dir():
                files = [(entry.name, entry.stat()) for entry in sorted(path.iterdir()) if is_image(entry)]
                return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]).encode()
            # Not a file: a plug-in's address, or missing, which opening the source reports.
            return _digest(path) if path.is_file() else b""
        except OSError as error:
            raise SourceError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error

    def _settings_used(self) -> dict[str, Any]:
        used = self._settings.model_dump(mode="json", include=set(_GLOBAL_SETTINGS))
        if model := self._settings.classifier.model:  # without its folder: `_models` adds the digest of its content
            used["classifier"]["model"] = model.name
        return used

    def _code(self) -> list[str]:
        used = {"sources": choose(self._settings.cameras[self._camera])[0]}
        used |= {"detectors": self._settings.detector.name, "classifiers": self._settings.classifier.name}
        return [plugins.code("sources", DEFAULT), *(plugins.code(kind, name) for kind, name in used.items())]

    def _model_files(self) -> list[Path]:
        model = self._settings.classifier.model
        return [model.parent / name for name in models.files(model)] if model and model.exists() else []

    def _models(self) -> dict[str, str]:
        model = self._settings.classifier.model
        return models.digests() | (models.files(model) if model and model.exists() else {})

    def run(self, threads: int, progress: Progress) -> dict[str, Any]:
        """Analyse the whole input, write all files, and return the summary.

        If the analysis is interrupted, no half-written file remains and an earlier analysis in the folder stays. The
        next run of a recording reuses the results so far, and only decodes the frames again.

        Args:
            threads: frames analysed in parallel; for a recording at most the setting ``depth``.
            progress: called with the number of frames done, and the total or ``None`` if it is not known.

        Raises:
            SourceError: the input cannot be read, or it broke off and the results up to that point are written.
            ConfigError: the folder cannot be written, or holds foreign files (`fer_stream.analysis.output`).
        """
        identity, output, checkpoint, finished = self.identity(), self._output, None, False
        try:
            names = PICTURES if self._pictures else (*RECORDING, *([VIDEO] if self._video else []))
            part = output.begin(names)
            if self._pictures:
                summary, broken = self._analyse_pictures(part, threads, progress)
            else:
                checkpoint = Checkpoint(output.checkpoint, identity)
                summary, broken = self._analyse_recording(part, checkpoint, threads, progress)
            summary = output.finish(summary | {"identity": identity})
            finished = True
        except OSError as trouble:
            where = trouble.filename or output.path
            raise ConfigError(f"{str(where)!r} cannot be written: {(trouble.strerror or 'error').lower()}") from trouble
        finally:
            if checkpoint:
                checkpoint.close(finished=finished)
            output.close()
        if broken:
            raise broken
        return summary

    def _analyse_recording(
        self, part: Path, checkpoint: Checkpoint, threads: int, progress: Progress
    ) -> tuple[dict[str, Any], FerStreamError | None]:
        observer = Observer(self._settings, self._camera, threads, checkpoint)
        labels, model_labels, start = observer.label_set.labels, observer.labels, observer.reader.clock.start
        measures = [measure.name for measure in observer.measures]
        types = tables.columns(labels, model_labels, measures)
        rows = tables.Rows(start, labels, model_labels, measures)
        record = Record()
        summary, broken, began = Summary(start, self._settings.valence), None, time.monotonic()
        with ExitStack() as stack:
            table = tables.CsvTable(part / "faces.csv", types)
            stack.callback(table.close)
            events = stack.enter_context((part / "events.jsonl").open("w", encoding="utf-8"))
            video = None
            if self._video:
                from fer_stream.analysis.video import Video  # noqa: PLC0415  (needed only with --video)

                video = Video(part / VIDEO, self._path, show_faces=self._show_faces)
                stack.callback(video.close)
            # Entered last, so closed first: its threads end before the files are closed.
            observations = stack.enter_context(closing(iter(observer)))
            try:
                for seen in observations:
                    ready = rows.of(seen)
                    summary.add(seen, len(ready))
                    for row in ready:
                        table.write(row)
                    for event, text in seen.events:
                        record.take(event)
                        events.write(text + "\n")
                    if video:
                        video.write(seen)
                    progress(summary.frames, observer.reader.frames)
            except SourceError as trouble:
                if not summary.frames:
                    raise
                broken = trouble
        seconds = time.monotonic() - began
        tables.to_parquet(part / "faces.csv", part / "faces.parquet", types)
        statistics.write(record, part, self._settings.cameras[self._camera].places, self._settings.least_faces)
        about = self._about(observer.model, broken)
        about["settings"]["smoother"] = observer.smoother.model_dump(mode="json")
        drawings = plots.draw(summary)
        for name, drawing in drawings.items():
            (part / f"{name}.svg").write_text(drawing, encoding="utf-8")
        page = report.page(self._title, summary, drawings, about)
        (part / "report.html").write_text(page, encoding="utf-8")
        pace = {
            "seconds": round(seconds, 2),
            "frames_per_s": round(summary.frames / seconds, 2),
            "threads": min(threads, self._settings.depth),
            "recalled": observer.recalled,
        }
        return {
            "source": self._title,
            "start_time": to_rfc3339(start),
            **summary.as_dict(),
            "rejected": observer.rejected,
            "pace": pace,
            **about,
        }, broken

    def _analyse_pictures(
        self, part: Path, threads: int, progress: Progress
    ) -> tuple[dict[str, Any], FerStreamError | None]:
        found = Pictures(self._settings, self._camera, threads)
        table = tables.CsvTable(part / "faces.csv", found.columns)
        try:
            for number, rows in enumerate(found, 1):
                for row in rows:
                    table.write(row)
                progress(number, found.count)
        finally:
            table.close()
        if len(found.broken) == found.count:
            raise found.broken[0]
        tables.to_parquet(part / "faces.csv", part / "faces.parquet", found.columns)
        broken = SourceError("; ".join(map(str, found.broken))) if found.broken else None
        about = self._about(found.model, broken)
        drawing = plots.shares(found.shares, "% of the faces")
        (part / "shares.svg").write_text(drawing, encoding="utf-8")
        page = report.pictures_page(self._title, found, drawing, about)
        (part / "report.html").write_text(page, encoding="utf-8")
        return {"source": self._title, **found.as_dict(), **about}, broken

    @property
    def _title(self) -> str:
        return self._path.name or self.source

    def _about(self, model: str, error: FerStreamError | None) -> dict[str, Any]:
        versions = {"python": platform.python_version()} | models.versions()
        about = {"version": __version__, "versions": versions, "model": model, "models": self._models()}
        return about | {"settings": self._settings_used()} | ({"error": str(error)} if error else {})


def _path(address: str) -> Path:
    return Path(address.removeprefix("file://")).expanduser()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
