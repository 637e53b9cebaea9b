"""File names in ONNX files: found in every field that may hold a tensor; none in other files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tiny import write_beside

from fer_stream.inference import models
from fer_stream.inference.external import locations

if TYPE_CHECKING:
    from pathlib import Path


def tensor(location: str) -> TensorProto:
    """Return a tensor whose values are in another file."""
    made = TensorProto(name=location, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        made.external_data.add(key=key, value=value)
    return made


def test_shipped_models_have_no_external_weights() -> None:
    for path in models.folder().glob("*.onnx"):
        assert locations(path.read_bytes()) == []


def test_every_field_that_may_hold_a_tensor_is_searched() -> None:
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor("constant"))], "inner", [], [])
    inner.initializer.append(tensor("branch"))
    outer = helper.make_graph(
        [
            helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
            helper.make_node("Own", [], ["z"], many=[tensor("many")], graphs=[inner]),
        ],
        "outer", [], [], [tensor("weights"), tensor("weights")],
    )  # fmt: skip
    sparse = outer.sparse_initializer.add()
    sparse.values.CopyFrom(tensor("values"))
    sparse.indices.CopyFrom(tensor("indices"))
    model = helper.make_model(outer)
    node = helper.make_node("Constant", [], ["c"], value=tensor("function"))
    model.functions.append(helper.make_function("own", "F", [], ["c"], [node], [helper.make_opsetid("", 17)]))
    model.training_info.add().algorithm.initializer.append(tensor("training"))
    assert locations(model.SerializeToString()) == sorted(
        ["branch", "constant", "function", "indices", "many", "training", "values", "weights"]
    )


@given(st.binary())
def test_any_bytes_are_accepted(content: bytes) -> None:
    assert isinstance(locations(content), list)


def test_a_truncated_file_gives_no_wrong_names(tmp_path: Path) -> None:
    whole = write_beside(tmp_path / "tiny.onnx").read_bytes()
    assert locations(whole) == ["tiny.onnx.data"]
    assert all(locations(whole[:end]) in ([], ["tiny.onnx.data"]) for end in range(len(whole)))


@pytest.mark.parametrize("name", ["../weights.data", "/weights.data", "a/../../weights.data"])
def test_weights_outside_the_models_folder_are_refused(name: str, tmp_path: Path) -> None:
    path = write_beside(tmp_path / "tiny.onnx")
    model = onnx.load(path, load_external_data=False)
    for initializer in model.graph.initializer:
        for entry in initializer.external_data:
            entry.value = name if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(models.ModelError, match="outside its folder: put them beside it"):
        models.load(path)


def test_external_weights_are_found_from_any_working_directory_and_are_in_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_beside(tmp_path / "tiny.onnx")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    first = models.load(path)
    assert set(models.files(path)) == {"tiny.onnx", "tiny.onnx.data"}
    head = path.read_bytes()
    write_beside(path, likely="sad")
    assert path.read_bytes() == head, "only the weights have changed"
    assert models.load(path).digest != first.digest
    (tmp_path / "tiny.onnx.data").unlink()
    with pytest.raises(models.ModelError, match=r"keeps weights in 'tiny.onnx.data', which cannot be read \(No such"):
        models.load(path)


def test_a_model_folder_gives_the_digests_of_all_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine/deep").mkdir(parents=True)
    (tmp_path / "mine/deep/weights.bin").write_bytes(b"1")
    before = models.files(tmp_path / "mine")
    assert set(before) == {"mine/deep/weights.bin"}
    (tmp_path / "mine/deep/weights.bin").write_bytes(b"2")
    assert models.files(tmp_path / "mine") != before
    with pytest.raises(models.ModelError, match="cannot be read"):
        models.files(tmp_path / "nothing")
