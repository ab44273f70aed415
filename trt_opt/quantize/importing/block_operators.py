"""ONNX Runtime's product with weights stored in blocks, as a product with a DequantizeLinear of blocks."""

from __future__ import annotations

import numpy as np
import onnx
from ml_dtypes import int4, uint4
from numpy.typing import NDArray

from trt_opt.quantize.importing.constants import Array
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import StoredConstant, UnreadableError
from trt_opt.quantize.importing.node_reading import input_of, integer_attribute

BLOCK_OPSET = 21
"""From this opset on DequantizeLinear takes blocks, and integers of 4 bits."""

_SIGNED, _UNSIGNED = {4: int4, 8: np.int8}, {4: uint4, 8: np.uint8}


def matmul_in_blocks(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """MatMulNBits of 4 or 8 bits: a MatMul of stored weights [K, N] in blocks along K, and an Add of the bias."""
    if not _may_rise(graph):
        raise UnreadableError(f"blocks need opset {BLOCK_OPSET}, to which operators of other domains cannot be brought")
    weights = graph.dequantized_constant(_stored(node, graph), node.input[1])
    bias, output = input_of(node, 5), node.output[0]
    product = graph.tensor(f"{output}_product") if bias else output
    graph.emit("MatMul", [node.input[0], weights], [product], node.name)
    if bias:
        graph.emit("Add", [product, bias], [output])
    graph.change(node.name, "MatMulNBits became a MatMul with weights in blocks")
    return True


def _stored(node: onnx.NodeProto, graph: FloatGraph) -> StoredConstant:
    """The weights, unpacked as ONNX Runtime's ContribOperators.md says; signed where all zero-points are the middle.

    Raises:
        UnreadableError: They are not constant, or of another size or packing.
    """
    packed, scales = graph.constant(input_of(node, 1)), graph.constant(input_of(node, 2))
    columns, rows, block = (integer_attribute(node, name) for name in ("N", "K", "block_size"))
    bits = integer_attribute(node, "bits", 4)
    blocks = -(-rows // block) if block else 0
    if packed is None or scales is None:
        raise UnreadableError("its weights are only known at run time")
    if bits not in _SIGNED or input_of(node, 4) or integer_attribute(node, "weight_prepacked"):
        raise UnreadableError("its weights are packed in a way that is not read")
    sizes = (packed.dtype.name, packed.size, scales.size)
    if sizes != ("uint8", columns * blocks * block * bits // 8, columns * blocks) or not packed.size:
        raise UnreadableError("its weights or scales are of another size than it says")
    integers = _unpacked(packed.reshape(columns, -1), bits)[:, :rows]
    zeros = _zero_points(node, (columns, blocks), bits, graph)
    middle = 1 << (bits - 1)
    kind = _UNSIGNED[bits]
    if (zeros == middle).all():
        integers, zeros, kind = integers - middle, zeros - middle, _SIGNED[bits]
    return StoredConstant(
        np.ascontiguousarray(integers.T).astype(kind),
        np.ascontiguousarray(scales.reshape(columns, blocks).T),
        np.ascontiguousarray(zeros.T).astype(kind),
        axis=0,
        block=block,
    )


def _unpacked(packed: Array, bits: int) -> NDArray[np.int32]:
    """The integers of rows of bytes, the lower half of a byte first where they have 4 bits."""
    if bits == 8:
        return packed.astype(np.int32)
    whole = packed.astype(np.int32)
    return np.stack([whole & 15, whole >> 4], axis=-1).reshape(len(whole), -1)


def _zero_points(node: onnx.NodeProto, shape: tuple[int, int], bits: int, graph: FloatGraph) -> NDArray[np.int32]:
    """One for each block [N, blocks]."""
    if not input_of(node, 3):
        return np.full(shape, 1 << (bits - 1), np.int32)
    packed = graph.constant(node.input[3])
    if packed is None or packed.dtype != np.uint8 or packed.size % shape[0]:
        raise UnreadableError("its zero-points are no constant integers")
    zeros = _unpacked(packed.reshape(shape[0], -1), bits)
    if zeros.shape[1] < shape[1]:
        raise UnreadableError("its zero-points are fewer than its blocks")
    return zeros[:, : shape[1]]


def _may_rise(graph: FloatGraph) -> bool:
    """Whether the model has an opset with blocks, or nothing else that stands in the way of one."""
    others = (node for node in graph.index.model.graph.node if node.domain not in ("", "ai.onnx"))
    is_alone = all(node.op_type == "MatMulNBits" for node in others)
    return graph.opset >= BLOCK_OPSET or (is_alone and not graph.index.model.functions)
