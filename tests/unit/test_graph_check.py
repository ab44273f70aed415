"""Checking models, and asking about them."""

from __future__ import annotations

import onnx
import pytest
from graph_models import attributes_graphsurgeon_drops, conv_relu, model_of, outer_constant_in_both_branches
from onnx import TensorProto

from trt_opt.errors import ModelFileError, UnsupportedModelError
from trt_opt.graph import query
from trt_opt.graph.check import check_model
from trt_opt.graph.types import inferred_types


def test_sound_models_pass() -> None:
    """Weights left out for the check, nested graphs and custom domains are no errors."""
    for model in (conv_relu(), outer_constant_in_both_branches(), attributes_graphsurgeon_drops()):
        check_model(model, "model.onnx")


def test_unknown_operator_is_named() -> None:
    """An operator the opset lacks is unsupported, with the node; on request it is treated as custom."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Frobnicate(x) }")
    model.graph.node[0].name = "odd one"
    with pytest.raises(UnsupportedModelError, match=r"(?s)node 'odd one'.*Frobnicate") as caught:
        check_model(model, "model.onnx")
    assert caught.value.nodes == (("odd one", "Frobnicate", "unknown operator"),)
    check_model(model, "model.onnx", known_operators_only=False)
    assert model.graph.node[0].domain == ""


def test_invalid_graph_is_a_file_error() -> None:
    """A tensor nobody makes, and an attribute the operator lacks, name the node."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Add(x, nothing) }")
    with pytest.raises(ModelFileError, match="nothing"):
        check_model(model, "model.onnx")
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu<alpha = 1.0>(x) }")
    model.graph.node[0].name = "r"
    with pytest.raises(ModelFileError, match=r"(?s)node 'r'.*alpha"):
        check_model(model, "model.onnx")


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Operands that cannot be combined are found without running the model."""
    model = model_of("g (float[2,3] x, float[4,5] z) => (float[2,5] y) { y = MatMul(x, z) }")
    with pytest.raises(UnsupportedModelError, match="do not fit together"):
        check_model(model, "model.onnx")
    check_model(model, "model.onnx", shapes=False)


def test_opset_of_the_future_is_unsupported() -> None:
    """A newer opset than the onnx package knows is not the file's fault."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.ir_version = 99
    with pytest.raises(UnsupportedModelError, match="does not know it"):
        check_model(model, "model.onnx")


def test_inputs_leave_initialisers_out() -> None:
    """Only what a caller has to feed is an input."""
    model = conv_relu()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 48, 3, 3]))
    assert [str(spec) for spec in query.graph_inputs(model)] == ["x: float32 [1x48x8x8]"]


def test_types_are_spelled_out() -> None:
    """Dynamic sizes keep their symbols; what is not a tensor says so."""
    model = model_of("g (float16[batch,3,?] x, bfloat16[] z, uint8 s) => (float16[batch,3,?] y) { y = Relu(x) }")
    assert [str(spec) for spec in query.graph_inputs(model)] == [
        "x: float16 [batchx3x?]",
        "z: bfloat16 [?]",
        "s: uint8 [scalar]",
    ]
    outputs = query.graph_outputs(attributes_graphsurgeon_drops())
    assert [spec.dtype for spec in outputs] == ["optional(sequence(float32))", "sequence(float32)", "float32"]


def test_nested_nodes_are_counted() -> None:
    """Counts and walks go into the branches of an If."""
    model = outer_constant_in_both_branches()
    assert query.count_nodes(model) == 4
    assert query.count_operators(model) == {"Add": 1, "If": 1, "Mul": 1, "Sub": 1}
    [(node, graphs)] = query.nodes_with_subgraphs(model)
    assert (node.op_type, [graph.name for graph in graphs]) == ("If", ["t", "e"])


def test_custom_nodes_are_found() -> None:
    """A domain ONNX does not define makes a node custom, a model-local function does not."""
    model = attributes_graphsurgeon_drops()
    assert [query.node_label(node) for node in query.custom_domain_nodes(model)] == ["y"]
    model.functions.append(onnx.helper.make_function("ours", "Custom", ["a"], ["b"], [], []))
    assert query.custom_domain_nodes(model) == ()


def test_wrong_declared_shapes_are_not_trusted() -> None:
    """Shapes follow from the graph's inputs, whatever the file says of inner tensors and outputs."""
    model = model_of(
        "g (float[2,3] x, float[n] z) => (float[7] y, float[9] v) { t = Relu(x) y = Flatten(t) v = Abs(z) }"
    )
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("t", TensorProto.FLOAT, [5]))
    shapes = {name: spec.shape for name, spec in inferred_types(model)[0].items() if spec.is_static}
    assert (shapes["t"], shapes["y"]) == ((2, 3), (2, 3))
    assert "v" not in shapes
