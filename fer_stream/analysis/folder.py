"""A whole analysis in a folder, or none: what was looked at is written down, and only when all is there it counts."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.analysis import plots, report, tables
from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.analysis.observe import Observer, refuse
from fer_stream.analysis.output import OutputFolder
from fer_stream.analysis.pictures import Pictures, are_pictures
from fer_stream.analysis.summary import Summary
from fer_stream.errors import ConfigError, FerStreamError, SourceError
from fer_stream.inference import models
from fer_stream.sources import DEFAULT, choose
from fer_stream.sources.images import check_name, is_image
from fer_stream.system.extras import require
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.settings.tree import Settings

    Progress = Callable[[int, int | None], None]

VIDEO = "annotated.mp4"

PICTURES = ("faces.csv", "faces.parquet", "report.html", "shares.svg")
RECORDING = (*PICTURES, "events.jsonl", "timeline.svg", "uncertain.svg", "valence.svg")
"""What may be written of pictures, and of a recording."""

_LOOKS = ("labels", "depth", "search", "detector", "classifier", "tracker", "smoother", "valence")
"""Settings that change what is found."""

_SHOWS = ("plugin", "rate", "masks", "start_time", "hardware_decoding")
"""Settings of a camera that do."""


class Analysis:
    """One input of `fer-stream analyze`: the camera of the settings with this name, written into a folder.

    Args:
        settings: the whole tree.
        camera: its name; it stands in the events.
        folder: made where it is missing.
        pictures: the images of a folder have nothing to do with one another.
        video: write an annotated video, too. Nothing else that is written holds a pixel.
        show_faces: leave the faces in it as they are.
        force: overwrite files of others in the folder, where they have the names of ours; never an input.

    Raises:
        ConfigError: it is a live camera, or its settings cannot be heeded.
        PluginError: the extra ``analyze`` is not installed.
        SourceError: its name is not UTF-8.
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
        """Return the summary of this very analysis, where the folder holds it already.

        Raises:
            SourceError: the input cannot be read.
        """
        told = self._output.told()
        return (
            told if told and (VIDEO in told["files"]) >= self._video and told["identity"] == self.identity() else None
        )

    def identity(self) -> str:
        """Return what tells this analysis from others: a digest of all that decides what is found.

        That is the input (of a folder of images names, sizes and times instead of the pixels), the settings, every file
        of the models, our code and that of plug-ins, and the versions of what computes.

        Raises:
            SourceError: the input cannot be read.
        """
        if not self._identity:
            camera = self._settings.cameras[self._camera].model_dump(mode="json", include=set(_SHOWS))
            looks = [self._looks(), camera, self._pictures, self._video and self._show_faces]
            told = [self._code(), models.versions(), self._models(), self._camera, *looks]
            text = json.dumps(told, sort_keys=True).encode()
            self._identity = hashlib.sha256(self._content() + text).hexdigest()
        return self._identity

    def _content(self) -> bytes:
        path = self._path
        try:
            if path.is_dir():
                files = [(entry.name, entry.stat()) for entry in sorted(path.iterdir()) if is_image(entry)]
                return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]).encode()
            return _digest(path) if path.is_file() else b""  # a plug-in's; or nothing, of which opening it will tell
        except OSError as error:
            raise SourceError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error

    def _looks(self) -> dict[str, Any]:
        how = self._settings.model_dump(mode="json", include=set(_LOOKS))
        if own := self._settings.classifier.model:  # which one it is, its digest tells
            how["classifier"]["model"] = own.name
        return how

    def _code(self) -> list[str]:
        used = {"sources": choose(self._settings.cameras[self._camera])[0]}
        used |= {"detectors": self._settings.detector.name, "classifiers": self._settings.classifier.name}
        return [plugins.code("sources", DEFAULT), *(plugins.code(kind, name) for kind, name in used.items())]

    def _model_files(self) -> list[Path]:
        own = self._settings.classifier.model
        return [own.parent / name for name in models.files(own)] if own and own.exists() else []

    def _models(self) -> dict[str, str]:
        own = self._settings.classifier.model
        return models.digests() | (models.files(own) if own and own.exists() else {})

    def run(self, threads: int, progress: Progress) -> dict[str, Any]:
        """Look at all of it, write everything, and return the summary.

        Cut off, it leaves no half-written file, the analysis that was there before stays, and what was found already
        is not looked for again next time (the recording is decoded again, though).

        Args:
            threads: frames looked at at once; more than the setting ``depth`` are of no use.
            progress: is told the frames done, and how many there are where that is known.

        Raises:
            SourceError: the input cannot be read; or it broke, and what came before that is written.
            ConfigError: the folder cannot be written, or what lies there is not ours (`fer_stream.analysis.output`).
        """
        identity, output, checkpoint, finished = self.identity(), self._output, None, False
        try:
            names = PICTURES if self._pictures else (*RECORDING, *([VIDEO] if self._video else []))
            part = output.begin(names)
            if self._pictures:
                told, broken = self._look_at_pictures(part, threads, progress)
            else:
                checkpoint = Checkpoint(output.checkpoint, identity)
                told, broken = self._look(part, checkpoint, threads, progress)
            told = output.finish(told | {"identity": identity})
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
        return told

    def _look(
        self, part: Path, checkpoint: Checkpoint, threads: int, progress: Progress
    ) -> tuple[dict[str, Any], FerStreamError | None]:
        observer = Observer(self._settings, self._camera, threads, checkpoint)
        labels, model_labels, start = observer.label_set.labels, observer.labels, observer.reader.clock.start
        types, rows = tables.columns(labels, model_labels), tables.Rows(start, labels, model_labels)
        summary, broken, began = Summary(start, self._settings.valence), None, time.monotonic()
        with ExitStack() as stack:
            table = tables.CsvTable(part / "faces.csv", types)
            stack.callback(table.close)
            events = stack.enter_context((part / "events.jsonl").open("w", encoding="utf-8"))
            video = None
            if self._video:
                from fer_stream.analysis.video import Video  # noqa: PLC0415  (it needs more than the rest)

                video = Video(part / VIDEO, self._path, show_faces=self._show_faces)
                stack.callback(video.close)
            seen_all = stack.enter_context(closing(iter(observer)))  # its threads have ended before anything else does
            try:
                for seen in seen_all:
                    ready = rows.of(seen)
                    summary.add(seen, len(ready))
                    for row in ready:
                        table.write(row)
                    events.writelines(text + "\n" for _, text in seen.events)
                    if video:
                        video.write(seen)
                    progress(summary.frames, observer.reader.frames)
            except SourceError as trouble:
                if not summary.frames:
                    raise
                broken = trouble
        seconds = time.monotonic() - began
        tables.to_parquet(part / "faces.csv", part / "faces.parquet", types)
        about = self._about(observer.model, broken)
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
            **summary.as_dict(),
            "rejected": observer.rejected,
            "pace": pace,
            **about,
        }, broken

    def _look_at_pictures(
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
        return about | {"settings": self._looks()} | ({"error": str(error)} if error else {})


def _path(address: str) -> Path:
    return Path(address.removeprefix("file://")).expanduser()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
