"""What is made of a parser's and a builder's answers, and the table that stands for them."""

from __future__ import annotations

import numpy as np
import onnx
from graphs import model_of, node, weights
from onnx import TensorProto, helper

from trt_opt.acceptance import TableJudge, trial_options
from trt_opt.blame import (
    foreign_nodes,
    is_left_to_the_builder,
    misread_by_parser,
    refused_by_builder,
    refused_by_parser,
    untypable_ends,
)
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.twins import twins_of
from trt_opt.values.backend import ParseReport
from trt_opt.values.samples import Sample
from trt_opt.values.shapes import ShapeRange, ValueRange
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import RtxTarget, TensorRTTarget
from trt_opt.values.tensors import TensorSpec


def two_kinds_of_pooling() -> onnx.ModelProto:
    """Two dilated MaxPools that are alike, and a plain one."""
    dilated = {"kernel_shape": [2, 2], "dilations": [2, 2]}
    nodes = [
        node("MaxPool", "first", ["x"], "a", **dilated),
        node("MaxPool", "second", ["a"], "b", **dilated),
        node("MaxPool", "plain", ["b"], "y", kernel_shape=[2, 2]),
    ]
    return model_of(nodes, {"x": [1, 3, 9, 9]}, {"y": [1, 3, 4, 4]}, {})


def parsed(
    *refused: RefusedNode, warnings: tuple[str, ...] = (), outputs: tuple[TensorSpec, ...] = (), **more: tuple[str, ...]
) -> ParseReport:
    """A parser's answer."""
    return ParseReport(refused, warnings, (), outputs, **more)


def test_what_is_refused_of_one_node_holds_for_all_like_it() -> None:
    """The parser stops at the first dilated pooling; the second is named too, the plain one is not."""
    refused = refused_by_parser(two_kinds_of_pooling(), parsed(RefusedNode("first", "MaxPool", "no dilations")))
    assert [(entry.node, entry.reason) for entry in refused] == [
        ("first", "no dilations"),
        ("second", "no dilations"),
    ]


def test_nodes_of_other_types_or_ranks_are_not_alike() -> None:
    """One-dimensional operands set a MatMul apart from one of matrices."""
    nodes = [node("MatMul", "vector", ["v", "w"], "a"), node("MatMul", "matrix", ["x", "w"], "b")]
    model = model_of(nodes, {"v": [4], "x": [2, 4]}, {"a": [3], "b": [2, 3]}, {"w": weights(4, 3)})
    assert twins_of(model, ["vector"]) == {"vector"}
    assert twins_of(model, []) == frozenset()


def test_a_parser_that_stops_at_one_node_is_asked_about_all_operators() -> None:
    """Operators without an importer are refused wherever they are, nested graphs too."""
    inner = helper.make_graph(
        [node("Det", "inner", ["x"], "i")], "branch", [], [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)]
    )
    nodes = [
        node("Unique", "unique", ["x"], "a"),
        node("If", "if", ["flag"], "y", then_branch=inner, else_branch=inner),
    ]
    model = model_of(nodes, {"x": [2, 2]}, {"y": []}, {"flag": np.array(True)})
    answer = parsed(RefusedNode("unique", "Unique", "no"), unknown_operators=("Unique", "Det"))
    assert {entry.node for entry in refused_by_parser(model, answer)} == {"unique", "inner"}


def test_an_output_of_another_shape_is_a_refusal() -> None:
    """TensorRT rounds the pooling up: the node that makes the output is named with both shapes."""
    model = two_kinds_of_pooling()
    wrong = parsed(outputs=(TensorSpec("y", "float32", (1, 3, 5, 5)),))
    assert [entry.node for entry in misread_by_parser(model, wrong)] == ["plain"]
    right = parsed(outputs=(TensorSpec("y", "float32", (1, 3, 4, "?")),))
    assert not misread_by_parser(model, right)


def test_an_input_that_is_not_read_is_a_refusal_unless_only_its_shape_matters() -> None:
    """An Add must read its operand; CastLike reads only a type."""
    nodes = [node("Add", "add", ["x", "z"], "a"), node("CastLike", "like", ["a", "t"], "y")]
    model = model_of(nodes, {"x": [2], "z": [2], "t": [2]}, {"y": [2]}, {})
    answer = parsed(warnings=("ModelImporter.cpp:1: Unused Input: z", "Unused Input: t"))
    assert [entry.node for entry in misread_by_parser(model, answer)] == ["add"]


def test_types_tensorrt_lacks_are_named_at_the_ends() -> None:
    """A uint16 input and a string output."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node("Cast", "cast", ["x"], "y", to=TensorProto.STRING)],
        "g",
        [value("x", TensorProto.UINT16, [2])],
        [value("y", TensorProto.STRING, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    ends = [(entry.node, entry.op_type) for entry in untypable_ends(model)]
    assert ends == [("x", "graph input"), ("y", "graph output")]


def test_operators_of_onnx_runtime_are_refused_whatever_the_parser_reads_into_their_name() -> None:
    """com.microsoft::Attention is not ONNX's Attention."""
    model = model_of([node("Attention", "attention", ["x"], "y", domain="com.microsoft")], {"x": [2]}, {"y": [2]}, {})
    assert [entry.node for entry in foreign_nodes(model)] == ["attention"]


def test_the_builder_is_asked_where_the_parser_does_not_decide() -> None:
    """Attention is left to the builder, MaxPool is not."""
    assert not is_left_to_the_builder(two_kinds_of_pooling())
    attention = model_of(
        [node("Attention", "attention", ["x", "x", "x"], "y")], {"x": [1, 2, 4, 8]}, {"y": [1, 2, 4, 8]}, {}
    )
    assert is_left_to_the_builder(attention)


def test_a_builder_that_names_a_node_is_taken_at_its_word() -> None:
    """A name in its message is that of the node and of its like; without a name every suspect is meant."""
    model = two_kinds_of_pooling()
    named = refused_by_builder(model, UnsupportedModelError("no", nodes=(("", "", "layer [second] has no kernel."),)))
    assert [entry.node for entry in named] == ["first", "second"]
    nameless = refused_by_builder(model, UnsupportedModelError("no kernel"))
    assert [(entry.node, entry.reason) for entry in nameless] == [("", "no kernel")]


def test_a_trial_build_takes_sizes_and_values_from_the_sample() -> None:
    """A dynamic input gets the sample's shape, one that decides a shape its values; without a sample it is said."""
    nodes = [node("Reshape", "reshape", ["x", "shape"], "y")]
    model = model_of(nodes, {"x": ["n", 4]}, {"y": ["a", "b"]}, {})
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    answer = parsed(shape_inputs=("shape",))
    feed = {"x": np.zeros((3, 4), np.float32), "shape": np.array([4, -1])}
    options, missing = trial_options(RtxTarget(), model, answer, [Sample("one", feed)])
    assert not missing
    assert options.profile == {"x": ShapeRange.fixed((3, 4))}
    assert options.values == {"shape": ValueRange((4, -1), (4, -1), (4, -1))}
    assert "'x'" in trial_options(RtxTarget(), model, answer, [])[1]


def test_the_table_stands_for_a_parser_and_says_so() -> None:
    """Without the library, operators are looked up; that forms are not known is part of the answer."""
    nodes = [node("Relu", "relu", ["x"], "a"), node("Det", "det", ["a"], "y")]
    found = TableJudge(TensorRTTarget()).acceptance(model_of(nodes, {"x": [2, 2]}, {"y": []}, {}), ())
    assert [entry.node for entry in found.refused] == ["det"]
    assert not found.by_the_library
    assert not found.built
    assert "table" in found.asked
    assert found.notes
