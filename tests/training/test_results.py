"""Results are read as they were written, with any size of the files, and a missing part is reported."""

import numpy as np
import pytest
import torch

from fer_stream.errors import ConfigError
from training import results
from training.bodies import build
from training.objective import Views
from training.recipe import Architecture, Augmentation, Loss, Recipe
from training.results import NetResult, Results

SHAPE = Architecture(widths=[8, 8, 16])
ROWS = np.arange(0, 4000, 2)


def halves(random, *shape):
    return random.random(shape).astype(np.float16)


@pytest.fixture
def found():
    random = np.random.default_rng(0)
    nets = []
    for number, name in enumerate(("first", "second")):
        torch.manual_seed(number)
        nets.append(
            NetResult(
                name, Recipe(seed=number, net=SHAPE, loss=Loss(votes=number)), 3, 9 - number, [{"loss": 0.5}],
                (halves(random, 50, 7), halves(random, 50, 8)),
                (halves(random, 4, len(ROWS), 7), halves(random, 4, len(ROWS), 8)),
                results.weights_of(build(SHAPE).state_dict()),
                ("emotion", None)[number], number / 2, number / 4, (("digest",), ())[number],
            )
        )  # fmt: skip
    return Results(ROWS, Views(4, 1, Augmentation(rotation=3.0)), nets)


@pytest.mark.parametrize(("limit", "piece"), [(15 * 2**20, 2**20), (300_000, 20_000)])
def test_written_results_are_read(found, tmp_path, monkeypatch, limit, piece):
    monkeypatch.setattr(results, "LIMIT", limit)
    monkeypatch.setattr(results, "PIECE", piece)
    assert results.write(tmp_path, found) == []
    files = sorted(tmp_path.iterdir())
    assert (len(files) > 1) == (limit < 2**20)
    assert len(files) <= results.FILES
    assert all(file.stat().st_size <= limit for file in files)
    again = results.read(tmp_path)
    assert again.views == found.views
    np.testing.assert_array_equal(again.rows, ROWS)
    for one, other in zip(again.nets, found.nets, strict=True):
        for name in ("name", "recipe", "steps", "total", "log", "publish", "keep", "rebalance", "start"):
            assert getattr(one, name) == getattr(other, name)
        for kind in ("public", "soft"):
            for ours, theirs in zip(getattr(one, kind), getattr(other, kind), strict=True):
                np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(one.weights, other.weights)


def test_a_net_is_made_of_its_weights(found):
    torch.manual_seed(0)
    whole, made = build(SHAPE), found.nets[0].net()
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], weights, atol=1e-3, rtol=1e-3)


def test_the_least_important_arrays_are_left_out_and_named(found, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PIECE", 10_000)
    monkeypatch.setattr(results, "LIMIT", 180_000)
    monkeypatch.setattr(results, "_ROOM", 30_000)
    monkeypatch.setattr(results, "FILES", 4)
    left_out = results.write(tmp_path, found)
    assert left_out
    assert left_out[-1].startswith("second/")
    again = results.read(tmp_path)
    assert [net.log for net in again.nets] == [net.log for net in found.nets]
    assert all(file.stat().st_size <= results.LIMIT for file in tmp_path.iterdir())
    if "second/weights" in left_out:
        with pytest.raises(ConfigError, match="the weights of second are not in the results"):
            again.nets[1].net()


def test_fewer_files_replace_more(found, tmp_path, monkeypatch):
    with monkeypatch.context() as small:
        small.setattr(results, "LIMIT", 300_000)
        small.setattr(results, "PIECE", 20_000)
        results.write(tmp_path, found)
    results.write(tmp_path, found)
    assert [path.name for path in tmp_path.iterdir()] == ["results-1.npz"]
    assert len(results.read(tmp_path).nets) == 2


def test_a_missing_or_damaged_file_is_reported(found, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="has no results of a campaign"):
        results.read(tmp_path)
    monkeypatch.setattr(results, "LIMIT", 300_000)
    monkeypatch.setattr(results, "PIECE", 20_000)
    results.write(tmp_path, found)
    last = max(tmp_path.iterdir())
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(ConfigError, match="lacks a part of the results"):
        results.read(tmp_path)
    last.write_bytes(content[:1000])
    with pytest.raises(ConfigError, match="is damaged"):
        results.read(tmp_path)


def test_files_of_two_calls_are_not_mixed(found, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "LIMIT", 300_000)
    monkeypatch.setattr(results, "PIECE", 20_000)
    results.write(tmp_path, found)
    last = max(tmp_path.iterdir())
    content = last.read_bytes()
    results.write(tmp_path, found)
    last.write_bytes(content)
    with pytest.raises(ConfigError, match="does not belong to the same results"):
        results.read(tmp_path)


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_lost_file_is_not_mistaken_for_an_array_without_room(found, tmp_path, monkeypatch, lost):
    monkeypatch.setattr(results, "LIMIT", 150_000)
    monkeypatch.setattr(results, "PIECE", 2**20)
    monkeypatch.setattr(results, "_ROOM", 2000)
    monkeypatch.setattr(results, "PIECE", 5000)
    assert results.write(tmp_path, found) == []
    files = sorted(tmp_path.iterdir())
    assert len(files) > 3
    files[lost].unlink()
    with pytest.raises(ConfigError, match="lacks a part of the results"):
        results.read(tmp_path)


def test_a_weight_beyond_float16_is_kept():
    state = build(SHAPE).state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    state[name][0] = 1e6
    net = NetResult("net", Recipe(net=SHAPE), 1, 1, [], weights=results.weights_of(state)).net()
    assert net.state_dict()[name][0] == 1e6
