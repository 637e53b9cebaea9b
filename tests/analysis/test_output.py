"""The output folder: only files that an analysis wrote are replaced or deleted, and never an input."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from fer_stream.analysis.checkpoint import Checkpoint
from fer_stream.analysis.output import CHECKPOINT, PART, SUMMARY, OutputFolder
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("faces.csv", "report.html", "annotated.mp4")


def write(folder: Path, *names: str, inputs: tuple[Path, ...] = (), force: bool = False, text: str = "1") -> None:
    """Write an analysis that consists of these files."""
    output = OutputFolder(folder, inputs, force=force)
    try:
        part = output.begin(NAMES)
        for name in names:
            (part / name).write_text(f"{name} {text}")
        summary = output.finish({"frames": 1})
        assert OutputFolder(folder, inputs, force=force).summary() == summary
    finally:
        output.close()


def interrupted(path: Path, identity: str) -> None:
    checkpoint = Checkpoint(path, identity)
    checkpoint.keep(b"an answer")
    checkpoint.close(finished=False)


def content(folder: Path) -> dict[str, Any]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name != SUMMARY}


def test_files_of_the_earlier_analysis_are_replaced_or_deleted(tmp_path: Path) -> None:
    write(tmp_path, "faces.csv", "annotated.mp4")
    (tmp_path / "thesis.txt").write_text("years of work")
    write(tmp_path, "faces.csv", "report.html", text="2")
    assert content(tmp_path) == {
        "faces.csv": "faces.csv 2", "report.html": "report.html 2", "thesis.txt": "years of work",
    }  # fmt: skip
    assert not (tmp_path / PART).exists()


def _foreign(path: Path) -> None:
    path.write_text("years of work")


def _changed(path: Path) -> None:
    write(path.parent, *NAMES)
    path.write_text("years of work")


def _linked(path: Path) -> None:
    (path.parent.parent / "theirs").write_text("years of work")
    path.symlink_to(path.parent.parent / "theirs")


def _broken_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "nothing")


@pytest.mark.parametrize("make", [_foreign, _changed, _linked, _broken_link])
@pytest.mark.parametrize("name", ["faces.csv", "annotated.mp4"])
def test_a_foreign_file_is_kept_unless_force_is_given(make: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    make(out / name)
    before = sorted((path.name, path.is_symlink(), path.is_file() and path.read_text()) for path in out.iterdir())
    with pytest.raises(ConfigError, match=f"{name}' was not written by fer-stream analyze, or was changed since"):
        write(out, *NAMES)
    assert before == sorted(
        (path.name, path.is_symlink(), path.is_file() and path.read_text()) for path in out.iterdir()
    )
    write(out, *NAMES, force=True, text="2")
    assert content(out) == {name: f"{name} 2" for name in NAMES}
    if make is _linked:
        assert (tmp_path / "theirs").read_text() == "years of work", "the link is replaced, not its target"


def test_a_changed_file_is_not_deleted(tmp_path: Path) -> None:
    write(tmp_path, "faces.csv", "annotated.mp4")
    (tmp_path / "annotated.mp4").write_text("cut by hand")
    write(tmp_path, "faces.csv", force=True)
    assert content(tmp_path)["annotated.mp4"] == "cut by hand"


@pytest.mark.parametrize(
    "summary",
    [
        {"files": ["thesis.txt"]}, {"files": {"thesis.txt": "0"}}, {"files": 12, "identity": "x"}, 7, None,
        {"files": {"thesis.txt": "0"}, "digest": "0"},
    ],
)  # fmt: skip
def test_files_listed_in_a_foreign_summary_are_kept(summary: object, tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(json.dumps(summary))
    (tmp_path / "thesis.txt").write_text("years of work")
    assert OutputFolder(tmp_path, (), force=False).summary() == {}
    with pytest.raises(ConfigError, match=SUMMARY):
        write(tmp_path, "faces.csv")
    assert json.loads((tmp_path / SUMMARY).read_text()) == summary
    write(tmp_path, "faces.csv", force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_edited_summary_is_foreign(tmp_path: Path) -> None:
    write(tmp_path, "faces.csv")
    text = (tmp_path / SUMMARY).read_text()
    (tmp_path / SUMMARY).write_text(text.replace('"frames": 1', '"frames": 2'))
    with pytest.raises(ConfigError, match="was changed since"):
        write(tmp_path, "faces.csv")
    (tmp_path / SUMMARY).write_text(text)
    write(tmp_path, "faces.csv")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("how", ["itself", "folder", "symbolic", "hard", "copy"])
def test_an_input_is_never_touched(how: str, force: bool, tmp_path: Path) -> None:
    """Not even if we wrote it, like the annotated video of an earlier analysis."""
    out = tmp_path / "out"
    write(out, *NAMES)
    film = source = out / "annotated.mp4"
    before = film.read_text()
    if how != "itself":
        (tmp_path / "films").mkdir()
        source = tmp_path / "films/film.mp4"
    match how:
        case "folder" | "hard":
            os.link(film, source)
        case "symbolic":
            source.symlink_to(film)
        case "copy":  # stands for a folder that is mounted twice, with different inode numbers
            source.write_text(before)
    inputs = (source.parent if how == "folder" else source,)
    with pytest.raises(ConfigError, match="is an input, and would be overwritten"):
        write(out, *NAMES, inputs=inputs, force=force)
    output = OutputFolder(out, inputs, force=force)
    with pytest.raises(ConfigError, match="is an input"):
        output.begin(NAMES)
    output.close()
    output = OutputFolder(out, inputs, force=force)
    (output.begin(NAMES[1:2]) / "report.html").write_text("2")
    output.finish({})
    output.close()
    assert film.read_text() == source.read_text() == before


def test_a_folder_with_the_name_of_an_output_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "report.html/deep").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"report\.html' is a folder"):
        write(tmp_path, *NAMES, force=True)
    assert (tmp_path / "report.html/deep").is_dir()


def test_foreign_hidden_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / PART).mkdir()
    (tmp_path / PART / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ConfigError, match=f"{PART}' was not made by fer-stream analyze"):
            write(tmp_path, *NAMES, force=force)
    assert (tmp_path / PART / "thesis.txt").read_text() == "years of work"
    (other := tmp_path / "other").mkdir()
    (other / CHECKPOINT).write_text("years of work")
    with pytest.raises(ConfigError, match=f"{CHECKPOINT}' was not written"):
        write(other, *NAMES)
    assert (other / CHECKPOINT).read_text() == "years of work"


@pytest.mark.parametrize("length", [0, 5])
def test_a_checkpoint_that_was_interrupted_at_its_beginning_is_replaced(length: int, tmp_path: Path) -> None:
    """An interruption between the creation of the file and its first bytes leaves it empty."""
    interrupted(tmp_path / "whole", "an analysis")
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / "whole").read_bytes()[:length])
    (tmp_path / "whole").unlink()
    write(tmp_path, *NAMES)
    checkpoint = Checkpoint(tmp_path / CHECKPOINT, "an analysis")
    assert checkpoint.left == 0
    checkpoint.close(finished=True)


def test_a_checkpoint_of_ours_is_recognised_and_kept(tmp_path: Path) -> None:
    interrupted(tmp_path / CHECKPOINT, "film")
    assert Checkpoint.ours(tmp_path / CHECKPOINT)
    write(tmp_path, *NAMES)
    assert Checkpoint.ours(tmp_path / CHECKPOINT), "the analysis that wrote it can still resume"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").write_text("years of work")
    with pytest.raises(ConfigError, match="is a file: give a folder to write into"):
        write(tmp_path / "talk.mp4", "faces.csv")
    assert (tmp_path / "talk.mp4").read_text() == "years of work"


def test_an_analysis_that_fails_at_once_leaves_no_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path / "old"):
        (tmp_path / "old").mkdir(exist_ok=True)
        output = OutputFolder(folder, (), force=False)
        with suppress(ConfigError), output.replacing(NAMES):
            Checkpoint(output.checkpoint, "film").close(finished=False)
            raise ConfigError("there is no film")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert not any((tmp_path / "old").iterdir())


@pytest.mark.parametrize("steps", range(8))
def test_after_a_kill_at_any_step_the_next_analysis_still_recognises_our_files(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill nothing is tidied up; the next analysis replaces the remaining files."""
    write(tmp_path, "faces.csv", "annotated.mp4")
    output, done = OutputFolder(tmp_path, (), force=False), 0
    part = output.begin(NAMES)
    for name in ("faces.csv", "report.html"):
        (part / name).write_text("2")

    def cut(step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **others: Any) -> Any:
            nonlocal done
            if done == steps:
                raise KeyboardInterrupt
            done += 1
            return step(*arguments, **others)

        return counted

    path = type(tmp_path)
    with monkeypatch.context() as patch:
        for name in ("unlink", "replace", "rmdir", "mkdir"):
            patch.setattr(path, name, cut(getattr(path, name)))
        try:
            output.finish({"frames": 1})
            output.close()
        except KeyboardInterrupt:
            os.close(output._lock or -1)  # the end of a process releases the lock and does nothing else
    write(tmp_path, "faces.csv", text="3")
    assert content(tmp_path) == {"faces.csv": "faces.csv 3"}


def test_two_analyses_do_not_write_into_one_folder(tmp_path: Path) -> None:
    first, second = (OutputFolder(tmp_path, (), force=False) for _ in range(2))
    first.begin(NAMES)
    with pytest.raises(ConfigError, match="another analysis is being written into"):
        second.begin(NAMES)
    second.close()
    first.close()
    second.begin(NAMES)
    second.close()
    assert list(tmp_path.iterdir()) == []
