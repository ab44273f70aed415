"""Weights, biases and scales in the form that is best for them."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from trt_opt.graph.float_types import HALF_TYPES
from trt_opt.quantize.lint import RULES
from trt_opt.quantize.lint.fixes.mender import SAME, Mender
from trt_opt.quantize.lint.layers import BIASED_OPS


def int32_biases_in_float(mender: Mender) -> None:
    """Constants behind a DequantizeLinear of INT32 are stored as it gives them."""
    for node in mender.graph.quantizers():
        if not mender.graph.is_dq(node) or mender.graph.integer_type(node) != TensorProto.INT32:
            continue
        value = evaluated(node, mender)
        if value is not None and node.output[0] not in mender.index.outputs and mender.may_edit(node):
            mender.replace(node.output[0], mender.writer.constant(f"{node.output[0]}_float", value))
            mender.did(node.name, f"its result is stored in float: {SAME}")


def biases_in_float(mender: Mender) -> None:
    """Biases that come through pairs are stored in float, as they were in front of them where that is known."""
    for layer in mender.graph.nodes:
        if layer.op_type not in BIASED_OPS or len(layer.input) < 3 or not layer.input[2]:
            continue
        maker = mender.index.producer(layer.input[2])
        if maker is None or not mender.graph.is_dq(maker) or mender.graph.integer_type(maker) == TensorProto.INT32:
            continue
        quantizer = mender.index.producer(maker.input[0])
        value = evaluated(maker, mender) if quantizer is None else mender.graph.constant(quantizer.input[0])
        if value is not None and mender.may_edit(layer):
            mender.writer.nodes[layer.name].input[2] = mender.writer.constant(f"{layer.input[2]}_float", value)
            mender.did(
                layer.name, f"its bias is stored in float: {SAME if quantizer is None else 'one rounding fewer'}"
            )


def stored_weights(mender: Mender) -> None:
    """Constants in front of a QuantizeLinear are stored as it gives them."""
    for node in mender.graph.quantizers():
        if not mender.graph.is_q(node) or mender.index.is_read_elsewhere(node.output[0]):
            continue
        integers = evaluated(node, mender)
        if integers is None or not mender.may_edit(node):
            continue
        stored = mender.writer.constant(f"{node.input[0]}_quantized", integers)
        for reader, _ in mender.index.readers(node.output[0]):
            mender.reads_instead(reader, node.output[0], stored)
        mender.did(node.name, f"what it gives is stored in its place: {SAME}")


def evaluated(node: onnx.NodeProto, mender: Mender) -> NDArray[np.generic] | None:
    """What onnx's reference implementation makes of a node; None where an operand is not constant."""
    operands: list[onnx.TensorProto] = []
    for name in dict.fromkeys(filter(None, node.input)):
        value = mender.graph.constant(name)
        if value is None:
            return None
        operands.append(numpy_helper.from_array(value, name))
    result = [helper.make_empty_tensor_value_info(node.output[0])]
    given = mender.given
    model = helper.make_model(
        helper.make_graph([node], "constant", [], result, operands),
        opset_imports=given.opset_import,
        ir_version=given.ir_version,
    )
    found = ReferenceEvaluator(model).run(None, {})
    array: NDArray[np.generic] = np.asarray(next(iter(found)))
    return array


def wide_scales(mender: Mender) -> None:
    """Scales in half precision become float32, which holds every half; half tensors are cast around the pair."""
    graph, index = mender.graph, mender.index
    wrong = {node for finding in RULES["scale-type-mismatch"].findings(graph) for node in finding.nodes}
    for node in graph.quantizers():
        scale = graph.constant(node.input[1])
        quantizer = node if graph.is_q(node) else index.producer(node.input[0])
        source = index.element_type(quantizer.input[0]) if quantizer is not None and graph.is_q(quantizer) else None
        if scale is None or not wrong & {node.name, quantizer.name if quantizer is not None else ""}:
            continue
        kind = index.element_type(node.input[1])
        if kind not in HALF_TYPES or not mender.may_edit(node):
            continue
        mender.writer.nodes[node.name].input[1] = mender.writer.constant(
            f"{node.input[1]}_float32", scale.astype(np.float32)
        )
        if source != TensorProto.FLOAT:
            _cast_around(node, int(kind), mender)
        mender.did(node.name, "its scale is stored in float32: the same numbers")


def _cast_around(node: onnx.NodeProto, kind: int, mender: Mender) -> None:
    """A QuantizeLinear reads, a DequantizeLinear gives float32 beside a cast from or to the half type."""
    writer = mender.writer
    edited = writer.nodes[node.name]
    if mender.graph.is_q(node):
        wide = writer.tensor(f"{node.input[0]}_float32")
        writer.before(node.name, writer.made("Cast", [node.input[0]], wide, to=TensorProto.FLOAT))
        edited.input[0] = wide
    else:
        edited.output[0] = writer.tensor(f"{node.output[0]}_float32")
        writer.behind(node.name, writer.made("Cast", [edited.output[0]], node.output[0], to=kind))
