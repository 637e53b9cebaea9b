"""The page about models of one's own, followed word by word, with models in other people's layouts."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from documents import ROOT, blocks, commands
from foreign import EMOTIEFF, FERPLUS, XCEPTION

if TYPE_CHECKING:
    from processes import Cli

PAGE = ROOT / "docs/how-to/own-model.md"
PORTRAIT = ROOT / "fer_stream/assets/eileen_collins.jpg"


@pytest.fixture
def models(cli: Cli) -> Cli:
    for foreign in (FERPLUS, EMOTIEFF, XCEPTION):
        foreign.write(cli.folder / f"{foreign.name}.onnx")
    shutil.copy(PORTRAIT, cli.folder / "portrait.jpg")
    return cli


def follow(cli: Cli, words: list[str]) -> str:
    assert words[0] == "fer-stream"
    done = cli.run(*words[1:])
    assert done.popen.returncode == 0, done.err
    return done.out


def test_the_examples_are_followed(models: Cli) -> None:
    foreign = (FERPLUS, EMOTIEFF, XCEPTION)
    shell = [block.text for block in blocks(PAGE) if block.language == "bash"]
    (sidecar,) = (block.text for block in blocks(PAGE) if "sidecar" in block.info)
    examples = [
        list(commands(text))
        for text in shell
        if "emotion-ferplus" in text or "adopt enet" in text or "adopt mini" in text
    ]
    assert len(examples) == len(foreign)
    for model, (adopt, check) in zip(foreign, examples, strict=True):
        written = follow(models, adopt)
        assert (models.folder / f"{model.name}.toml").read_text() == written
        told = follow(models, check)
        assert f"version   {model.name}\n" in told
        assert "(of a woman who smiles)" in told
        assert ("softmax of columns" in told) == (not model.softmax)
    assert (models.folder / f"{EMOTIEFF.name}.toml").read_text() == sidecar
    (bench,) = (next(commands(text)) for text in shell if "model bench" in text)
    _, mine, ours, ratio = (line.split() for line in follow(models, bench).splitlines())
    assert (mine[0], ours[0], ratio[0]) == ("mini_xception.onnx", "emotion-ferplus.onnx", "ratio")
    assert float(ratio[-1]) > 0


def test_an_adopted_model_serves(models: Cli) -> None:
    """The general commands of the page, with a model in another layout."""
    shell = [block.text for block in blocks(PAGE) if block.language == "bash"]
    _, check, recognize, run = commands(shell[0])
    (adopt,) = (
        words for text in shell for words in commands(text) if words[3:4] == ["mini_xception.onnx"] and "adopt" in words
    )
    shutil.copy(models.folder / "mini_xception.onnx", models.folder / "mine.onnx")
    follow(models, [*adopt[:3], "mine.onnx", *adopt[4:]])
    assert "version   mine\n" in follow(models, check)
    (face,) = json.loads(follow(models, recognize))["faces"]
    assert list(face["probabilities"]) == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    ran = models.run(*run[1:], "portrait.jpg", "--policy", "wait", "--format", "jsonl", "--journal", "m.db")
    assert [event["type"] for event in ran.events] == ["camera.online", "camera.offline"], ran.err
    assert ran.popen.returncode == 0
    told = models.run("version", "--model", "mine.onnx").out
    assert "(with mine.toml)\n" in told
    doctor = models.run("doctor", "--model", "mine.onnx")
    assert "classifier onnx: mine, angry, " in doctor.out


def test_doctor_names_the_measures_and_a_breach(models: Cli) -> None:
    shell = [words for block in blocks(PAGE) if block.language == "bash" for words in commands(block.text)]
    (adopt,) = (words for words in shell if words[2:4] == ["adopt", f"{EMOTIEFF.name}.onnx"])
    broken = models.run("doctor", "--model", f"{EMOTIEFF.name}.onnx")
    assert broken.popen.returncode == 1
    assert "(and 6 more: fer-stream model check" in broken.out
    follow(models, adopt)
    told = models.run("doctor", "--model", f"{EMOTIEFF.name}.onnx").out
    assert "sad, surprise; measures valence, arousal\n" in told


def test_without_a_terminal_the_missing_options_are_named(models: Cli) -> None:
    done = models.run("model", "adopt", f"{EMOTIEFF.name}.onnx", "--pixels", "unit")
    assert done.popen.returncode == 2
    (error,) = done.errors
    for flag in ("--channels", "--labels", "--crop", "--license", "--trained-on"):
        assert flag in error
    assert not (models.folder / f"{EMOTIEFF.name}.toml").exists()


def test_a_check_names_everything_at_once(models: Cli) -> None:
    done = models.run("model", "check", f"{EMOTIEFF.name}.onnx")
    assert done.popen.returncode == 1
    assert done.out.startswith(f"{EMOTIEFF.name}.onnx cannot be used yet; 7 things are missing or wrong:\n- ")
    assert done.out.count("\n- ") == 7
    assert done.out.endswith(f"fer-stream model adopt {EMOTIEFF.name}.onnx writes {EMOTIEFF.name}.toml\n")


def test_a_sidecar_is_not_overwritten_unasked(models: Cli) -> None:
    (models.folder / f"{XCEPTION.name}.toml").write_text("mine\n")
    answers = (
        "--pixels",
        "signed",
        "--labels",
        "a,b,c,d,e,f,g",
        "--crop",
        "box",
        "--license",
        "MIT",
        "--trained-on",
        "x",
    )
    done = models.run("model", "adopt", f"{XCEPTION.name}.onnx", *answers)
    assert (done.popen.returncode, len(done.errors)) == (2, 1)
    assert (models.folder / f"{XCEPTION.name}.toml").read_text() == "mine\n"
    assert models.run("model", "adopt", f"{XCEPTION.name}.onnx", *answers, "--force").popen.returncode == 0
    elsewhere = models.run("model", "adopt", f"{XCEPTION.name}.onnx", *answers, "-o", "other.toml")
    assert "written to other.toml: put it beside mini_xception.onnx as mini_xception.toml" in elsewhere.err
    nowhere = models.run("model", "adopt", f"{XCEPTION.name}.onnx", *answers, "-o", "no/other.toml")
    assert nowhere.errors == ["fer-stream: error: no/other.toml cannot be written: No such file or directory"]
    refused = models.run("model", "check", f"{XCEPTION.name}.onnx", "--force")
    assert refused.popen.returncode == 2


def test_it_asks_at_a_terminal(models: Cli) -> None:
    replies = ["RBG", "RGB", "imagenet", "a,b,c,d,e,f,g,h", "valence=8", "box", "", "MIT", "faces"]
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "fer_stream", "model", "adopt", f"{EMOTIEFF.name}.onnx"]
    process = subprocess.Popen(
        command, cwd=models.folder, env=models.environment, stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    said = b""

    def read() -> bytes:
        with suppress(OSError):  # the other end is closed
            return os.read(terminal, 4096)
        return b""

    for reply in replies:
        while not said.endswith(b": "):
            part = read()
            assert part, said
            said += part
        os.write(terminal, f"{reply}\n".encode())
        said = b""
        while b"\n" not in said:  # the echo
            said += read()
    while part := read():
        said += part
    os.close(terminal)
    assert process.wait() == 0, said
    text = (models.folder / f"{EMOTIEFF.name}.toml").read_text()
    assert 'channels = "RGB"' in text
    assert f'version = "{EMOTIEFF.name}"' in text
    assert "[measures.valence]" in text
