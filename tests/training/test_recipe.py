"""A recipe is checked and printed with all settings; each error is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_stream.errors import ConfigError
from training import recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs = 0", "epochs = 0 is not allowed: it must be a whole number from 1"),
        ("[optimiser]\nwarmup = 1", "there is no setting optimiser; did you mean optimizer?"),
        ("[net]\nwidths = [8]", "net.widths"),
        ("sizes = { 48 = 0.5 }", "one side must begin at 0"),
        ("epochs", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path, text, sentence):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        recipe.load(path)
    assert str(path) in str(raised.value)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("name", ["emotion", "quick", "student", "tiny"])
def test_the_recipes_load(name):
    how = recipe.load(ROOT / f"training/recipes/{name}.toml")
    assert how.batch == 128
    assert how.size(0.0) == min(how.sizes)
    assert how.size(1.0) == max(how.sizes)


@pytest.mark.parametrize("name", ["steady", "steady-tiny"])
def test_the_recipes_for_steadiness_have_the_published_nets_shapes(name):
    how, shipped = (
        recipe.load(ROOT / f"training/recipes/{file}.toml")
        for file in (name, {"steady": "student", "steady-tiny": "tiny"}[name])
    )
    assert how.net.widths == shipped.net.widths
    assert how.loss.steady > 0
    assert shipped.loss.steady == 0


def test_a_pipe_that_its_reader_closed_ends_the_command_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "training.recipe", "training/recipes/quick.toml"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
