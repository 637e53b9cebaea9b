"""Runs one analysis and writes its files; they replace those of an earlier analysis only when all are complete."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from fer_stream import plugins
from fer_stream.analysis import plots, provenance, report, statistics, statistics_report, supplement
from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.analysis.columns import Layout
from fer_stream.analysis.observe import Observer, refuse
from fer_stream.analysis.output import OutputFolder
from fer_stream.analysis.pictures import Pictures, are_pictures
from fer_stream.analysis.summary import Summary
from fer_stream.analysis.tables import RecordingFiles, TableFiles
from fer_stream.errors import FerStreamError, SourceError
from fer_stream.events.calibration import of_camera
from fer_stream.events.cloudevents import from_rfc3339, to_rfc3339
from fer_stream.events.statistics import Record
from fer_stream.inference import models
from fer_stream.sources import DEFAULT, choose
from fer_stream.sources.image_kinds import is_image
from fer_stream.sources.images import check_name, unrelated_hint
from fer_stream.system.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fer_stream.interchange.markers import Marker
    from fer_stream.settings.tree import Settings

    Progress = Callable[[int, int | None], None]

VIDEO = "annotated.mp4"

PICTURES = (*TableFiles.names(("faces", "frames")), "report.html", "shares.svg")
RECORDING = (
    *TableFiles.names(RecordingFiles.TABLES), *statistics.FILES, "report.html", "events.jsonl", "measures.svg",
    "shares.svg", "timeline.svg", "uncertain.svg", "valence.svg",
)  # fmt: skip
"""Names of the files that may be written for pictures, and for a recording."""


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
        self._path = provenance.path_of(self.source)
        check_name(self._path)
        calibration = of_camera(settings.calibration, camera)  # the identity must not depend on other cameras
        self._settings, self._camera = settings.model_copy(update={"calibration": calibration}), camera
        sources = [provenance.path_of(choose(other)[1]) for other in settings.cameras.values()]
        self._output = OutputFolder(folder, [*sources, *provenance.model_files(settings)], force=force)
        self._pictures = are_pictures(settings.cameras[camera], asked=pictures)
        self._video, self._show_faces = video and not self._pictures, show_faces
        self._identity = ""
        self._sha256: str | None = None

    def earlier(self) -> dict[str, Any]:
        """Return the summary of the analysis in the folder, whatever its settings; an empty one if there is none."""
        return self._output.summary()

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
            camera = provenance.camera_settings(self._settings.cameras[self._camera])
            smoother = self._settings.smoother.model_dump(exclude_unset=True)  # the model may say the others
            used = provenance.settings_used(self._settings)
            settings = [used, smoother, camera, self._pictures, self._video and self._show_faces]
            parts = [self._code(), models.versions(), provenance.model_digests(self._settings), self._camera, *settings]
            text = json.dumps(parts, sort_keys=True).encode()
            self._identity = hashlib.sha256(self._content() + text).hexdigest()
        return self._identity

    def _content(self) -> bytes:
        path = self._path
        try:
            if path.is_dir():
                files = [(entry.name, entry.stat()) for entry in sorted(path.iterdir()) if is_image(entry)]
                return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]).encode()
            if not path.is_file():  # a plug-in's address, or missing, which opening the source reports
                return b""
            digest = provenance.digest(path)
            self._sha256 = digest.hex()
            return digest
        except OSError as error:
            raise SourceError(f"{str(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from error

    def _code(self) -> list[str]:
        used = {"sources": choose(self._settings.cameras[self._camera])[0]}
        used |= {"detectors": self._settings.detector.name, "classifiers": self._settings.classifier.name}
        return [plugins.code("sources", DEFAULT), *(plugins.code(kind, name) for kind, name in used.items())]

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
        identity, output = self.identity(), self._output
        names = PICTURES if self._pictures else (*RECORDING, *([VIDEO] if self._video else []))
        with output.replacing(names) as part:
            if self._pictures:
                summary, broken = self._analyse_pictures(part, threads, progress)
                summary = output.finish(summary | {"identity": identity})
            else:
                checkpoint, finished = Checkpoint(output.checkpoint, identity), False
                try:
                    summary, broken = self._analyse_recording(part, checkpoint, threads, progress)
                    summary = output.finish(summary | {"identity": identity})
                    finished = True
                finally:
                    checkpoint.close(finished=finished)
        if broken:
            raise broken
        return summary

    def supplement(
        self, summary: dict[str, Any], exports: Sequence[str] = (), trials: Sequence[Marker] | None = None
    ) -> dict[str, Any]:
        """Add exports and trials to a finished analysis, and return its summary: `fer_stream.analysis.supplement`.

        Args:
            summary: the result of `run` or `finished`.
            exports: the kinds of `fer_stream.analysis.exports` to add.
            trials: the recording's trials, which replace the earlier ones; ``None`` keeps those.

        Raises:
            AnnotationError: a trial starts after the last frame, or the input is pictures, which have no times.
            ConfigError: the folder cannot be written, or holds foreign files.
        """
        camera = self._settings.cameras[self._camera]
        source = supplement.Source(
            self._camera,
            self.source,
            self._path,
            from_rfc3339(camera.start_time),
            camera.places,
            self._settings.least_faces,
        )
        return supplement.add(self._output, summary, source, exports, trials)

    def _analyse_recording(
        self, part: Path, checkpoint: Checkpoint, threads: int, progress: Progress
    ) -> tuple[dict[str, Any], FerStreamError | None]:
        observer = Observer(self._settings, self._camera, threads, checkpoint)
        labels, model_labels, start = observer.label_set.labels, observer.labels, observer.reader.clock.start
        measures = [measure.name for measure in observer.measures]
        layout, record = Layout(labels, model_labels, measures), Record()
        summary, broken, began = Summary(start, self._settings.valence), None, time.monotonic()
        with ExitStack() as stack:
            tables = RecordingFiles(part, layout, start)
            stack.callback(tables.close)
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
                    summary.add(seen, tables.add(seen))
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
        about = provenance.about(self._settings, observer.model, observer.smoother)
        tables.finish(self._provenance(about))
        statistics.write(record, part, labels, self._settings.cameras[self._camera].places, self._settings.least_faces)
        about |= {"error": str(broken)} if broken else {}
        about |= {"hint": hint} if (hint := self._hint()) else {}
        drawings = plots.draw(summary)
        for name, drawing in drawings.items():
            (part / f"{name}.svg").write_text(drawing, encoding="utf-8")
        page = report.page(self._title, summary, drawings, about, statistics_report.sections(part, summary.shares))
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
            "labels": list(labels),
            "rejected": observer.rejected,
            "pace": pace,
            **about,
        }, broken

    def _analyse_pictures(
        self, part: Path, threads: int, progress: Progress
    ) -> tuple[dict[str, Any], FerStreamError | None]:
        found = Pictures(self._settings, self._camera, threads)
        tables = TableFiles(part, {"faces": found.layout.faces, "frames": found.layout.frames})
        with closing(tables):
            for number, picture in enumerate(found, 1):
                tables.write("frames", picture.row)
                for row in picture.faces:
                    tables.write("faces", row)
                progress(number, found.count)
        if len(found.broken) == found.count:
            raise found.broken[0]
        about = provenance.about(self._settings, found.model)
        tables.finish(self._provenance(about))
        broken = SourceError("; ".join(map(str, found.broken))) if found.broken else None
        about |= {"error": str(broken)} if broken else {}
        drawing = plots.shares(found.shares, "% of the faces")
        (part / "shares.svg").write_text(drawing, encoding="utf-8")
        page = report.pictures_page(self._title, found, drawing, about)
        (part / "report.html").write_text(page, encoding="utf-8")
        return {"source": self._title, **found.as_dict(), **about}, broken

    def _hint(self) -> str | None:
        """Return the suggestion of ``--pictures`` if the source is a folder of images that seem to be unrelated."""
        if not self._path.is_dir() or choose(self._settings.cameras[self._camera])[0] != DEFAULT:
            return None
        return unrelated_hint(self._path, self._title)

    @property
    def _title(self) -> str:
        return provenance.title(self.source)

    def _provenance(self, about: dict[str, Any]) -> dict[str, Any]:
        return provenance.provenance(about, self._settings.cameras[self._camera], self._sha256)
