"""Operators on integers with their grids among the inputs, written as the float operator between pairs.

What they compute is in ONNX's Operators.md and ONNX Runtime's ContribOperators.md: dequantise, compute, quantise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto

from trt_opt.graph.index import attribute_of
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import ConstantGrid, Held, RunTimeGrid, UnreadableError
from trt_opt.quantize.importing.node_reading import attributes_of, input_of, integer_attribute
from trt_opt.quantize.importing.operands import Operand, operands_of
from trt_opt.quantize.importing.stored_constants import float_constant, read_constant

Result = tuple[str, str, ConstantGrid]
"""Scale and zero-point as the source names them, and the grid they make."""

_SOFTMAX_OF_ONE_AXIS = 13
_REDUCE_AXES_ARE_INPUTS = 18


def linear_operator(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """Any operator of `_WRITTEN`: checked as a whole first, then written."""
    element = _operand_element(node, graph)
    result = _result(node, _RESULT.get(node.op_type, 3), element, graph)
    output = node.output[0]
    floats = graph.tensor(f"{output}_unquantized") if result is not None else output
    _WRITTEN[node.op_type](node, floats, graph)
    if result is not None:
        scale, zero, grid = result
        graph.quantize(floats, output, scale, zero, grid)
    graph.change(node.name, f"{node.op_type} became a float operator between Q/DQ pairs")
    return True


def _operand_element(node: onnx.NodeProto, graph: FloatGraph) -> int:
    """The integers' type, which a missing zero-point leaves open."""
    operands = operands_of(node)
    if not operands:
        raise UnreadableError("it has no operands")
    zero = graph.constant(input_of(node, operands[0][2]))
    name = input_of(node, operands[0][0])
    if zero is not None:
        return int(onnx.helper.np_dtype_to_tensor_dtype(zero.dtype))
    return graph.element(name) or TensorProto.UINT8


def _result(node: onnx.NodeProto, at: int, element: int, graph: FloatGraph) -> Result | None:
    """The grid of the result; None where it is a float."""
    scale, zero = input_of(node, at), input_of(node, at + 1)
    if node.op_type == "QGemm" and not scale:
        return None
    return scale, zero, graph.grid(scale, zero, element)


def operand(node: onnx.NodeProto, positions: Operand, axis: int | None, graph: FloatGraph) -> str:
    """The floats of an operand.

    Args:
        node: The source's.
        positions: Of the operand among its inputs.
        axis: Of several scales, for constants; None where there may be one alone.
        graph: Where a DequantizeLinear is written if need be.

    Raises:
        UnreadableError: Its grid is not constant, or not the one its integers are on.
    """
    name, scale, zero = (input_of(node, at) for at in positions)
    integers = graph.constant(name)
    if integers is not None:
        zeros = graph.constant(zero) if zero else np.zeros((), integers.dtype)
        stored = read_constant(integers, graph.constant(scale), zeros, integers.ndim - 1 if axis is None else axis)
        if axis is None and stored.scale.ndim:
            raise UnreadableError("an operand that is no weight has several scales")
        return graph.dequantized_constant(stored, name)
    grid = graph.grid(scale, zero, graph.element(name))
    held = graph.held.get(name)
    if held is None:
        graph.held[name] = Held(grid)
    elif isinstance(held.grid, RunTimeGrid) or held.grid != grid:
        raise UnreadableError("an operand is on another grid than it says")
    return graph.float_of(name)


def _conv(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    weights = graph.constant(input_of(node, 3))
    if input_of(node, 8):
        steps = [graph.constant(input_of(node, at)) for at in (1, 4)]
        if steps[0] is None or steps[1] is None:
            raise UnreadableError("its scales are only known at run time")
        product = steps[0].reshape(-1).astype(np.float32) * steps[1].reshape(-1).astype(np.float32)
        bias = [graph.array(f"{node.input[8]}_float", float_constant(input_of(node, 8), product, graph))]
    else:
        bias = []
    is_last = bool(integer_attribute(node, "channels_last"))
    if is_last and weights is None:
        raise UnreadableError("its layout is NHWC and the rank not known")
    inputs = [operand(node, (0, 1, 2), None, graph), operand(node, (3, 4, 5), 0, graph), *bias]
    rank = weights.ndim if weights is not None else 0
    _in_nchw(node, "Conv", inputs, floats, rank if is_last else 0, graph)


def _pool(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    is_last = bool(integer_attribute(node, "channels_last"))
    rank = _rank(node, graph) if is_last else 0
    source = operand(node, (0, 1, 2), None, graph)
    _in_nchw(node, node.op_type.removeprefix("QLinear"), [source], floats, rank, graph)


def _rank(node: onnx.NodeProto, graph: FloatGraph) -> int:
    kernel = attribute_of(node, "kernel_shape", None)
    if kernel is not None:
        return len(list(kernel)) + 2  # type: ignore[call-overload]
    shape = graph.index.shape(node.input[0])
    if shape is None:
        raise UnreadableError("its layout is NHWC and the rank not known")
    return len(shape)


def _in_nchw(
    node: onnx.NodeProto, op_type: str, inputs: Sequence[str], floats: str, rank: int, graph: FloatGraph
) -> None:
    """Adds the operator; of NHWC where a rank is given, between Transposes then."""
    attributes = attributes_of(node, "channels_last")
    if not rank:
        graph.emit(op_type, inputs, [floats], node.name, attributes)
        return
    spatial = range(2, rank)
    image = graph.made("Transpose", inputs[:1], f"{floats}_nchw_input", perm=[0, rank - 1, *range(1, rank - 1)])
    result = graph.tensor(f"{floats}_nchw")
    graph.emit(op_type, [image, *inputs[1:]], [result], node.name, attributes)
    graph.emit("Transpose", [result], [floats], perm=[0, *spatial, 1])


def _matmul(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    weights = graph.constant(input_of(node, 3))
    last = None if weights is None else weights.ndim - 1
    inputs = [operand(node, (0, 1, 2), None, graph), operand(node, (3, 4, 5), last, graph)]
    graph.emit("MatMul", inputs, [floats], node.name)


def _gemm(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    alpha = np.float32(attribute_of(node, "alpha", 1.0))  # type: ignore[arg-type]
    bias = []
    if input_of(node, 6):
        steps = [graph.constant(input_of(node, at)) for at in (1, 4)]
        if steps[0] is None or steps[1] is None:
            raise UnreadableError("its scales are only known at run time")
        product = alpha * steps[0].reshape(-1).astype(np.float32) * steps[1].reshape(-1).astype(np.float32)
        bias = [graph.array(f"{node.input[6]}_float", float_constant(input_of(node, 6), product, graph))]
    axis = 0 if integer_attribute(node, "transB") else 1
    inputs = [operand(node, (0, 1, 2), None, graph), operand(node, (3, 4, 5), axis, graph), *bias]
    graph.emit("Gemm", inputs, [floats], node.name, attributes_of(node))


def _elementwise(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    inputs = [operand(node, positions, None, graph) for positions in operands_of(node)]
    graph.emit(node.op_type.removeprefix("QLinear"), inputs, [floats], node.name, attributes_of(node))


def _where(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    inputs = [operand(node, positions, None, graph) for positions in operands_of(node)]
    graph.emit("Where", [node.input[0], *inputs], [floats], node.name)


def _reduce_mean(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    source = operand(node, (0, 1, 2), None, graph)
    axes = [int(axis) for axis in attribute_of(node, "axes", ())]  # type: ignore[attr-defined]
    if graph.opset < _REDUCE_AXES_ARE_INPUTS or not axes:
        attributes = attributes_of(node) if axes else attributes_of(node, "axes")
        graph.emit("ReduceMean", [source], [floats], node.name, attributes)
        return
    inputs = [source, graph.array(f"{floats}_axes", np.asarray(axes, np.int64))]
    graph.emit("ReduceMean", inputs, [floats], node.name, attributes_of(node, "axes"))


def _softmax(node: onnx.NodeProto, floats: str, graph: FloatGraph) -> None:
    """Over one axis from opset 13 on, before it over all axes from this one to the last."""
    axis, told = integer_attribute(node, "axis", -1), integer_attribute(node, "opset", _SOFTMAX_OF_ONE_AXIS)
    is_wide, is_wide_here = told < _SOFTMAX_OF_ONE_AXIS, graph.opset < _SOFTMAX_OF_ONE_AXIS
    if is_wide_here and not is_wide and axis != -1:
        raise UnreadableError("it is a Softmax of a later opset")
    source = operand(node, (0, 1, 2), None, graph)
    if is_wide == is_wide_here or axis == -1:
        graph.emit("Softmax", [source], [floats], node.name, axis=axis)
        return
    rows = graph.made("Flatten", [source], f"{floats}_rows", axis=axis)
    result = graph.tensor(f"{floats}_softmax")
    graph.emit("Softmax", [rows], [result], node.name, axis=-1)
    shape = graph.made("Shape", [source], f"{floats}_shape")
    graph.emit("Reshape", [result, shape], [floats])


_WRITTEN: Mapping[str, Callable[[onnx.NodeProto, str, FloatGraph], None]] = MappingProxyType(
    {
        "QGemm": _gemm,
        "QLinearAdd": _elementwise,
        "QLinearAveragePool": _pool,
        "QLinearConcat": _elementwise,
        "QLinearConv": _conv,
        "QLinearGlobalAveragePool": _pool,
        "QLinearLeakyRelu": _elementwise,
        "QLinearMatMul": _matmul,
        "QLinearMul": _elementwise,
        "QLinearReduceMean": _reduce_mean,
        "QLinearSigmoid": _elementwise,
        "QLinearSoftmax": _softmax,
        "QLinearWhere": _where,
    }
)

_RESULT: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), 6),
        "QGemm": 7,
        "QLinearConcat": 0,
        "QLinearWhere": 7,
    }
)
"""Where the result's scale is among the inputs, its zero-point behind it; 3 for the others."""

LINEAR_OPERATORS = frozenset(_WRITTEN)
