"""Moving to another opset."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import attributes_graphsurgeon_drops, conv_relu, model_of
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph import query
from trt_opt.graph.check import check_model
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.opset import converted_to_opset


def test_conversion_keeps_names_and_weights() -> None:
    """Inputs, outputs and weights are the same after it; the model given is not edited."""
    model = conv_relu()
    model.metadata_props.add(key="author", value="someone")
    before = model.SerializeToString(deterministic=True)
    converted = converted_to_opset(model, 19)
    assert query.opset(converted) == 19
    assert query.graph_inputs(converted) == query.graph_inputs(model)
    assert query.graph_outputs(converted) == query.graph_outputs(model)
    assert converted.graph.initializer[0] == model.graph.initializer[0]
    assert converted.metadata_props == model.metadata_props
    assert model.SerializeToString(deterministic=True) == before


def test_attributes_become_inputs() -> None:
    """What changed between the opsets is changed in the nodes."""
    text = "g (float[2,3] x) => (float[2] y) { s = ReduceSum<axes = [1]>(x) y = Squeeze<axes = [1]>(s) }"
    model = model_of(text, opset=11)
    converted = converted_to_opset(model, 17)
    assert all(not node.attribute or node.op_type != "Squeeze" for node in converted.graph.node)
    check_model(converted, "converted")


def test_same_opset_is_the_same_object() -> None:
    """Nothing to do is nothing done."""
    model = conv_relu()
    assert converted_to_opset(model, 17) is model


def test_initialisers_that_are_inputs_convert() -> None:
    """A file of IR version 3 is converted; its weights are no longer inputs."""
    model = model_of(
        "g (float[1,3,4,4] x, float[2,3,1,1] w) => (float[1,2,4,4] y) { y = Conv(x, w) }",
        ir_version=3,
        opset=7,
        w=np.ones((2, 3, 1, 1), np.float32),
    )
    converted = converted_to_opset(model, 19)
    assert [value.name for value in converted.graph.input] == ["x"]
    check_model(converted, "converted")


def test_opset_6_prelu_slope_gets_its_axis() -> None:
    """The slope [C] of opset 6 lies along axis 1; onnx's converter leaves it along the last axis."""
    slope = np.array([0.1, 0.2, 0.3], np.float32)
    model = model_of(
        "g (float[1,3,4,3] x) => (float[1,3,4,3] y) { t = PRelu(x, s) y = PRelu(t, s) }", ir_version=4, opset=6, s=slope
    )
    converted = converted_to_opset(model, 13)
    name = converted.graph.node[0].input[1]
    assert converted.graph.node[1].input[1] == name
    [tensor] = [tensor for tensor in converted.graph.initializer if tensor.name == name]
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), slope.reshape(3, 1, 1))
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 3)).astype(np.float32)
    [y] = ReferenceEvaluator(converted).run(None, {"x": x})
    axis_1 = slope.reshape(1, 3, 1, 1)
    once = np.where(x < 0, x * axis_1, x)
    np.testing.assert_allclose(y, np.where(once < 0, once * axis_1, once), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (attributes_graphsurgeon_drops(), "ours::Custom"),
        (model_of("g (float[2] x) => (float[2] y) { y = Frobnicate(x) }"), "Frobnicate"),
        (
            model_of(
                "g (float[1,2,2] x) => (float[1,2,2] y) { y = Scan<num_scan_inputs = 1, body = b (float[2] i) => "
                "(float[2] o) { o = Relu(i) }>(, x) }",
                opset=8,
            ),
            "Scan lost",
        ),
    ],
    ids=["custom-domain", "unknown-operator", "scan-8"],
)
def test_what_the_converter_cannot_do_is_said(model: onnx.ModelProto, reason: str) -> None:
    """Custom operators, and conversions known to be wrong, are errors with a reason; the model stays as it is."""
    before = fingerprint(model)
    with pytest.raises(UnsupportedModelError, match=reason):
        converted_to_opset(model, 19)
    assert fingerprint(model) == before
