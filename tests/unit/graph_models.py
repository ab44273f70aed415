"""Small models for the tests of trt_opt.graph, named after their trait."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def model_of(text: str, *, ir_version: int = 8, opset: int = 17, **weights: np.ndarray) -> ModelProto:
    """A model from ONNX's text notation of a graph, with the given initialisers."""
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]>\n{text}')
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def conv_relu() -> ModelProto:
    """One convolution with 27 KB of weights, and a Relu."""
    weight = np.random.default_rng(0).normal(size=(16, 48, 3, 3)).astype(np.float32)
    return model_of(
        "g (float[1,48,8,8] x) => (float[1,16,8,8] y) { c = Conv<pads=[1,1,1,1]>(x, w)  y = Relu(c) }", w=weight
    )


def outer_constant_in_both_branches() -> ModelProto:
    """An If whose branches read a constant and a tensor of the main graph."""
    return model_of(
        """g (bool flag, float[2] x) => (float[2] y) {
             d = Add(x, w)
             y = If (flag) <then_branch = t () => (float[2] a) { a = Mul(d, w) },
                            else_branch = e () => (float[2] b) { b = Sub(d, w) }>
           }""",
        w=np.array([1, 2], np.float32),
    )


def attributes_graphsurgeon_drops() -> ModelProto:
    """A type attribute, an empty list, bytes that are not text, and graph outputs that are not tensors."""
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    optional = helper.make_optional_type_proto(sequence)
    nodes = [
        helper.make_node("Optional", [], ["absent"], type=sequence),
        helper.make_node("SequenceConstruct", ["x"], ["s"]),
        helper.make_node("Custom", ["x"], ["y"], domain="ours", text=b"\xff\xfe"),
    ]
    nodes[2].attribute.append(onnx.AttributeProto(name="empty", type=onnx.AttributeProto.INTS))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [
            helper.make_value_info("absent", optional),
            helper.make_value_info("s", sequence),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]),
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ours", 3)], ir_version=8
    )
