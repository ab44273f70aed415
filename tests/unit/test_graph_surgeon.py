"""Editing through GraphSurgeon without losing anything."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graph_models import attributes_graphsurgeon_drops, conv_relu, model_of, outer_constant_in_both_branches
from onnx import TensorProto, helper

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.check import check_model
from trt_opt.graph.edit import in_order, remove_nodes, replace_uses, set_input, set_output
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.surgeon import constant_values, graph_from_model, model_from_graph


def round_trip(model: onnx.ModelProto) -> onnx.ModelProto:
    return model_from_graph(graph_from_model(model), like=model)


@pytest.mark.parametrize(
    "make", [conv_relu, outer_constant_in_both_branches, attributes_graphsurgeon_drops], ids=lambda make: make.__name__
)
def test_round_trip_changes_nothing(make) -> None:
    """Import and export keep what computes, and do not touch the model they start from."""
    model = make()
    before = model.SerializeToString(deterministic=True)
    back = round_trip(model)
    assert model.SerializeToString(deterministic=True) == before
    assert fingerprint(back) == fingerprint(model)
    check_model(back, "round trip")


def test_metadata_survives() -> None:
    """IR version, opsets, functions and metadata come back."""
    model = conv_relu()
    model.metadata_props.add(key="author", value="someone")
    model.producer_name = "exporter"
    model.functions.append(helper.make_function("ours", "F", ["a"], ["b"], [], [helper.make_opsetid("", 17)]))
    model.opset_import.add(domain="ours", version=2)
    back = round_trip(model)
    for name in ("ir_version", "opset_import", "metadata_props", "producer_name", "functions"):
        assert getattr(back, name) == getattr(model, name)


@pytest.mark.parametrize(
    "data_type",
    [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.UINT4, TensorProto.STRING],
)
def test_narrow_and_text_constants_survive_being_read(data_type: int) -> None:
    """Looking at a constant's values does not change how it is stored."""
    values = ["a", "b", "c"] if data_type == TensorProto.STRING else [1.0, -2.0, 3.0]
    if data_type == TensorProto.UINT4:
        values = [1, 2, 3]
    tensor = helper.make_tensor("w", data_type, [3], values)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", data_type, [3])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    surgeon = graph_from_model(model)
    assert constant_values(surgeon.nodes[0].inputs[0]).shape == (3,)
    assert fingerprint(model_from_graph(surgeon, like=model)) == fingerprint(model)


def test_outer_constant_is_stored_once() -> None:
    """A constant that branches read from outside stays in the main graph."""
    back = round_trip(outer_constant_in_both_branches())
    assert [tensor.name for tensor in back.graph.initializer] == ["w"]
    assert not any(attribute.g.initializer for node in back.graph.node for attribute in node.attribute)


def test_node_names_become_unique() -> None:
    """Of two nodes of one name the second gets another; unnamed ones stay unnamed."""
    model = model_of("g (float[2] x) => (float[2] y) { a = Relu(x) b = Relu(a) y = Relu(b) }")
    model.graph.node[0].name = model.graph.node[1].name = "same"
    names = [node.name for node in round_trip(model).graph.node]
    assert names[0] == "same"
    assert len(set(names)) == 3
    assert names[2] == ""


def test_absent_optional_inputs_stay_absent() -> None:
    """An input left out in the middle keeps its place."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Clip(x, , w) }", w=np.array(1, np.float32))
    assert list(round_trip(model).graph.node[0].input) == ["x", "", "w"]


def test_initialisers_that_are_inputs_stay_inputs() -> None:
    """In IR version 3 every initialiser has to be listed as an input."""
    model = model_of(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", ir_version=3, opset=7, w=np.ones(2, np.float32)
    )
    surgeon = graph_from_model(model)
    extra = gs.Constant("extra", np.ones(2, np.float32))
    set_input(surgeon.nodes[0], 0, extra)
    back = model_from_graph(surgeon, like=model)
    assert {value.name for value in back.graph.input} == {"x", "w", "extra"}
    check_model(back, "edited")


def test_attributes_get_the_type_their_operator_wants() -> None:
    """`alpha=1` is a float and `axes=[]` a list of integers, whatever Python says."""
    model = model_of("g (float[2] x) => (float[2] y) { y = LeakyRelu<alpha = 0.1>(x) }")
    surgeon = graph_from_model(model)
    surgeon.nodes[0].attrs["alpha"] = 1
    back = model_from_graph(surgeon, like=model)
    assert back.graph.node[0].attribute[0].f == 1.0
    model = model_of("g (float[2] x) => (float[1] y) { y = ReduceMean<axes = [0]>(x) }", opset=13)
    surgeon = graph_from_model(model)
    surgeon.nodes[0].attrs["axes"] = []
    [axes] = model_from_graph(surgeon, like=model).graph.node[0].attribute
    assert (axes.type, list(axes.ints)) == (onnx.AttributeProto.INTS, [])


def test_renaming_a_constant_leaves_the_source_alone() -> None:
    """GraphSurgeon's own exporter renames the tensor in the model the graph came from."""
    model = conv_relu()
    surgeon = graph_from_model(model)
    surgeon.nodes[0].inputs[1].name = "renamed"
    back = model_from_graph(surgeon, like=model)
    assert (model.graph.initializer[0].name, back.graph.initializer[0].name) == ("w", "renamed")


def test_new_nodes_are_put_in_order_and_their_domain_imported() -> None:
    """A node appended at the end is written where its reader can see it."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    surgeon = graph_from_model(model)
    middle = gs.Variable("middle", np.float32, [2])
    surgeon.nodes.append(gs.Node("Twice", inputs=[surgeon.inputs[0]], outputs=[middle], domain="ours"))
    set_input(surgeon.nodes[0], 0, middle)
    back = model_from_graph(surgeon, like=model)
    assert [node.op_type for node in back.graph.node] == ["Twice", "Relu"]
    assert {entry.domain: entry.version for entry in back.opset_import} == {"": 17, "ours": 1}
    assert len(model.opset_import) == 1
    check_model(back, "edited")


def test_cycle_is_an_error() -> None:
    """A cycle made by an edit is named instead of looping."""
    surgeon = graph_from_model(model_of("g (float[2] x) => (float[2] y) { a = Relu(x) y = Add(a, x) }"))
    set_input(surgeon.nodes[0], 0, surgeon.nodes[1].outputs[0])
    with pytest.raises(UnsupportedModelError, match="cycle"):
        in_order(surgeon)


def test_edits_keep_both_sides_of_every_link() -> None:
    """After an edit, tensors know their readers and nodes their tensors."""
    surgeon = graph_from_model(model_of("g (float[2] x) => (float[2] y) { a = Relu(x) b = Add(a, a) y = Mul(b, a) }"))
    relu, add, multiply = surgeon.nodes
    [x] = surgeon.inputs
    replace_uses(relu.outputs[0], x)
    assert [tensor.name for node in (add, multiply) for tensor in node.inputs] == ["x", "x", "b", "x"]
    assert not relu.outputs[0].outputs
    set_output(add, 0, gs.Variable("other"))
    assert not multiply.inputs[0].inputs
    remove_nodes(surgeon, [relu])
    assert [node is relu for node in x.outputs] == [False, False, False]


def test_constants_are_read_from_constant_nodes_too() -> None:
    """A Constant node is as good as an initialiser; anything computed is None."""
    model = model_of("g (float[2] x) => (float[2] y) { k = Constant<value = float[2] {1, 2}>() y = Add(x, k) }")
    add = graph_from_model(model).nodes[1]
    assert constant_values(add.inputs[0]) is None
    assert constant_values(add.inputs[1]).tolist() == [1, 2]


def test_overloaded_functions_are_refused() -> None:
    """GraphSurgeon would call the wrong one of two functions of one name."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].overload = "second"
    with pytest.raises(UnsupportedModelError, match="overloaded"):
        graph_from_model(model)


def test_edits_compare_no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking readers off a shared constant does not compare nodes deeply, as GraphSurgeon's own lists do."""
    text = "g (float[2] x) => (float[2] y) { a = Mul(x, w) b = Mul(a, w) y = Mul(b, w) }"
    surgeon = graph_from_model(model_of(text, w=np.ones(2, np.float32)))
    nodes = list(surgeon.nodes)
    shared = nodes[0].inputs[1]

    def compared(_node: gs.Node, _other: gs.Node) -> bool:
        raise AssertionError("two nodes were compared")

    monkeypatch.setattr(gs.Node, "__eq__", compared)
    for number, node in enumerate(reversed(nodes)):
        set_input(node, 1, gs.Constant(f"own{number}", np.ones(2, np.float32)))
        set_output(node, 0, gs.Variable(f"new{number}"))
    assert not shared.outputs
    replace_uses(nodes[0].inputs[0], gs.Variable("z"))
    remove_nodes(surgeon, nodes[1:])
    assert len(surgeon.nodes) == 1
