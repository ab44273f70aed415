"""Inputs that become constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from passes_models import floats, model_of, operators, refused_by

from trt_opt.errors import RequestError
from trt_opt.graph.build_time_inputs import build_time_inputs
from trt_opt.graph.query import graph_inputs
from trt_opt.passes.ends.freeze_inputs import FreezeInputs
from trt_opt.passes.ends.frozen_values import frozen_values_from_text
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample
from trt_opt.values.tensors import TensorSpec

REDUCTION = "g (float[2,3] x, int64[1] axes) => (float[2,1] y) { y = ReduceSum(x, axes) }"

INPUTS = (
    TensorSpec("axes", "int64", ("k",)),
    TensorSpec("scales", "float32", (4,)),
    TensorSpec("depth", "int32", ()),
    TensorSpec("training", "bool", ()),
    TensorSpec("half", "bfloat16", (1,)),
    TensorSpec("grid", "int64", (2, 2)),
    TensorSpec("any", "float16", None),
    TensorSpec("words", "string", (1,)),
    TensorSpec("list", "sequence(float32)", None),
)


def test_frozen_input_is_an_initialiser_and_keeps_the_numbers() -> None:
    """The result is the same as with the value fed; the model given is not edited, and a second run changes nothing."""
    model = model_of(REDUCTION)
    before = model.SerializeToString(deterministic=True)
    entry = FreezeInputs({"axes": np.array([1])})
    after, report = entry.run(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(after, full_check=True)
    assert [spec.name for spec in graph_inputs(after)] == ["x"]
    assert report.changed[0].what == "input frozen to [1]"
    feed = {"x": floats(2, 3)}
    [expected] = run_model(model, [Sample("all", {**feed, "axes": np.array([1])})])
    [found] = run_model(after, [Sample("x", feed)])
    np.testing.assert_array_equal(expected["y"], found["y"])
    assert entry.run(after)[0] is after


def test_value_takes_the_type_of_its_input() -> None:
    """Whole numbers for a bfloat16 input, say."""
    model = model_of("g (float[2] x, bfloat16 s) => (float[2] y) { f = Cast<to = 1>(s) y = Mul(x, f) }")
    after, _ = FreezeInputs({"s": np.array(3)}).run(model)
    [tensor] = after.graph.initializer
    assert tensor.data_type == onnx.TensorProto.BFLOAT16
    assert float(numpy_helper.to_array(tensor)) == 3.0


def test_default_of_an_input_gives_way() -> None:
    """An initialiser that callers may override is overridden, and old files get the IR version that allows it."""
    model = model_of("g (float[2] x, float[2] w = {1, 1}) => (float[2] y) { y = Mul(x, w) }", ir_version=3)
    if not any(tensor.name == "w" for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    after, _ = FreezeInputs({"w": np.array([2.0, 3.0])}).run(model)
    assert [value.name for value in after.graph.input] == ["x"]
    assert numpy_helper.to_array(after.graph.initializer[0]).tolist() == [2.0, 3.0]
    assert after.ir_version == 4


def test_unknown_input_is_an_error() -> None:
    """The message lists the inputs there are."""
    with pytest.raises(RequestError, match=r"no input 'axis'[\s\S]*axes: int64 \[1\]"):
        FreezeInputs({"axis": np.array([1])}).run(model_of(REDUCTION))


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("axes=1", "axes", np.array([1], np.int64)),
        ("axes=-1,2", "axes", np.array([-1, 2], np.int64)),
        ("axes = [0, 1]", "axes", np.array([0, 1], np.int64)),
        ("axes=1,", "axes", np.array([1], np.int64)),
        ("axes=[]", "axes", np.array([], np.int64)),
        ("scales=1,1,2,0.6", "scales", np.array([1, 1, 2, 0.6], np.float32)),
        ("depth=5", "depth", np.array(5, np.int32)),
        ("training=false", "training", np.array(False)),
        ("training=True", "training", np.array(True)),
        ("training=1", "training", np.array(True)),
        ("grid=[[1,2],[3,4]]", "grid", np.array([[1, 2], [3, 4]], np.int64)),
        ("any=1e3", "any", np.array(1000, np.float16)),
    ],
)
def test_values_are_read_from_text(text: str, name: str, expected: np.ndarray) -> None:
    """Numbers, lists and truth values, in the type and shape of their input."""
    found = frozen_values_from_text([text], INPUTS)[name]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_bfloat16_is_read_from_text() -> None:
    """Types that NumPy lacks are rounded to."""
    found = frozen_values_from_text(["half=1.001"], INPUTS)["half"]
    assert found.dtype.name == "bfloat16"
    assert float(found[0]) == 1.0


def test_values_are_read_from_a_file(tmp_path: Path) -> None:
    """An .npz file gives one array per name, beside texts."""
    np.savez(tmp_path / "values.npz", axes=np.array([1], np.int32), depth=np.int64(4))
    found = frozen_values_from_text([str(tmp_path / "values.npz"), "training=true"], INPUTS)
    assert {name: value.dtype.name for name, value in found.items()} == {
        "axes": "int64",
        "depth": "int32",
        "training": "bool",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing=1", "no input 'nothing'"),
        ("axes", "is no value"),
        ("=1", "is no value"),
        ("axes=", "is no value"),
        ("axes=one", "is no value"),
        ('axes=["1"]', "something else than numbers"),
        ("axes=[1,[2,3]]", "is no value"),
        ("axes={}", "something else than numbers"),
        ("axes=null", "something else than numbers"),
        ("axes=1.5", "cannot be held by int64"),
        ("axes=[[1]]", "does not fit"),
        ("scales=1,2", "does not fit"),
        ("depth=3000000000", "cannot be held by int32"),
        ("training=2", "cannot be held by bool"),
        ("any=1e6", "too large for float16"),
        ("words=1", "inputs of type string"),
        ("list=1", "inputs of type sequence"),
        ("missing.npz", "cannot read"),
    ],
)
def test_slips_are_errors(text: str, why: str) -> None:
    """Every slip is named before anything starts."""
    with pytest.raises(RequestError, match=why):
        frozen_values_from_text([text], INPUTS)


def test_two_values_for_one_input_are_an_error() -> None:
    """Neither of them silently wins."""
    with pytest.raises(RequestError, match="two values"):
        frozen_values_from_text(["axes=1", "axes=2"], INPUTS)


def test_pickles_are_refused(tmp_path: Path) -> None:
    """An archive may not run code, nor pass for one."""
    np.savez(tmp_path / "values.npz", axes=np.array([{}], object))
    (tmp_path / "text.npz").write_text("axes")
    for name in ("values.npz", "text.npz"):
        with pytest.raises(RequestError, match="cannot read"):
            frozen_values_from_text([str(tmp_path / name)], INPUTS)


def test_inputs_that_decide_shapes_are_found() -> None:
    """Through arithmetic and into bodies, but not through Shape, nor what is only computed with."""
    text = """h = Shape(x) m = Mul(n, two) c = Concat<axis = 0>(h, m) f = CastLike(x, like) e = Expand(f, c)
      y = If(b) <then_branch = t () => (float[k] a) { a = ReduceSum<keepdims = 0>(e, axes) },
                 else_branch = s () => (float[k] d) { d = ReduceMax<keepdims = 0>(e) }>"""
    source = "float[2] x, int64[1] n, float[1] like, bool b, int64[1] axes"
    model = model_of(f"g ({source}) => (float[k] y) {{ {text} }}", opset=18, two=np.array([2]))
    assert build_time_inputs(model) == ("n", "b", "axes")


@pytest.mark.rtx
def test_frozen_axes_become_buildable() -> None:
    """TensorRT-RTX refuses axes known at run time, and takes frozen ones."""
    model = model_of(REDUCTION)
    assert refused_by(model)
    after, _ = FreezeInputs({"axes": np.array([1])}).run(model)
    assert operators(after) == {"ReduceSum": 1}
    assert not refused_by(after)
