"""Operators that ONNX once had and withdrew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, operator_of, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape, scalar

_MEAN_VARIANCE_NORMALIZATION = 9
_SLICE_BOUNDS_AS_INPUT = 10
_THRESHOLDED_RELU = 10
_MAX_BROADCASTS = 8
_WHERE = 9
_CONSTANT_OF_SHAPE = 9
_TO_THE_END = np.iinfo(np.int64).max
_FLOAT32 = 1
MOST_ELEMENTS = 1 << 20
"""Of a constant that a fill of a known shape becomes."""


def _affine(node: gs.Node, emit: Emitter) -> gs.Tensor:
    return _scaled(emit, node.inputs[0], node.attrs.get("alpha", 1.0), node.attrs.get("beta", 0.0))


def _scale(node: gs.Node, emit: Emitter) -> gs.Tensor:
    return _scaled(emit, node.inputs[0], node.attrs.get("scale", 1.0), 0.0)


def _scaled(emit: Emitter, source: gs.Tensor, factor: float, shift: float) -> gs.Tensor:
    dtype = element_type(emit, source)
    made: gs.Tensor = emit("Mul", source, scalar(emit, factor, dtype))
    return emit("Add", made, scalar(emit, shift, dtype)) if shift else made


def _image_scaler(node: gs.Node, emit: Emitter) -> gs.Tensor:
    bias = emit.constant(np.reshape(node.attrs.get("bias", [0.0]), (-1, 1, 1)), element_type(emit, node.inputs[0]))
    made: gs.Tensor = emit("Add", _scale(node, emit), bias)
    return made


def _scaled_function(node: gs.Node, emit: Emitter) -> gs.Tensor:
    """The function at beta times the input, times alpha."""
    function = {"ParametricSoftplus": "Softplus", "ScaledTanh": "Tanh"}[node.op]
    inner = _scaled(emit, node.inputs[0], node.attrs.get("beta", 1.0), 0.0)
    dtype = element_type(emit, node.inputs[0])
    made: gs.Tensor = emit("Mul", emit(function, inner), scalar(emit, node.attrs.get("alpha", 1.0), dtype))
    return made


def _thresholded(node: gs.Node, emit: Emitter) -> gs.Tensor:
    source, dtype = node.inputs[0], element_type(emit, node.inputs[0])
    threshold = scalar(emit, node.attrs.get("alpha", 1.0), dtype)
    above = emit("Greater", source, threshold)
    if emit.edit.opset >= _WHERE:
        made: gs.Tensor = emit("Where", above, source, scalar(emit, 0, dtype))
        return made
    if emit.edit.opset < _MAX_BROADCASTS:
        raise DeclinedError(f"the model's opset {emit.edit.opset} has neither Where nor a Max that broadcasts")
    # At or below the threshold the maximum is the threshold; a product with 0 instead would spoil infinities.
    rest = emit("Mul", emit.cast(emit("Not", above), dtype), threshold)
    masked: gs.Tensor = emit("Sub", emit("Max", source, threshold), rest)
    return masked


def _crop(node: gs.Node, emit: Emitter) -> gs.Tensor:
    left, top, right, bottom = (int(size) for size in node.attrs.get("border", (0, 0, 0, 0)))
    scale = [int(size) for size in node.attrs.get("scale", ())]
    if scale:
        ends = [top + scale[0], left + scale[1]]
    else:
        ends = [-bottom if bottom else _TO_THE_END, -right if right else _TO_THE_END]
    return _sliced(emit, node.inputs[0], [top, left], ends, [2, 3])


def _dynamic_slice(node: gs.Node, emit: Emitter) -> gs.Tensor:
    axes = optional_input(node, 3)
    if emit.edit.opset >= _SLICE_BOUNDS_AS_INPUT:
        made: gs.Tensor = emit("Slice", *node.inputs[:3], axes)
        return made
    starts, ends, chosen = (emit.edit.value(tensor) for tensor in (node.inputs[1], node.inputs[2], axes))
    if starts is None or ends is None or (axes is not None and chosen is None):
        raise DeclinedError(f"its bounds are only known at run time: --freeze-input {node.inputs[1].name}=…")
    along = range(starts.size) if chosen is None else chosen
    return _sliced(emit, node.inputs[0], starts.tolist(), ends.tolist(), [int(axis) for axis in along])


def _sliced(
    emit: Emitter, source: gs.Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]
) -> gs.Tensor:
    if emit.edit.opset >= _SLICE_BOUNDS_AS_INPUT:
        return emit.slice(source, starts, ends, axes, [1] * len(axes))
    made: gs.Tensor = emit("Slice", source, starts=list(starts), ends=list(ends), axes=list(axes))
    return made


def _mean_variance_normalization(node: gs.Node, emit: Emitter) -> gs.Tensor:
    """Of the first form, which normalises over positions, with or without channels, and may leave the variance."""
    source = node.inputs[0]
    axes = [0, 1, 2, 3] if node.attrs.get("across_channels", 0) else [0, 2, 3]
    centred: gs.Tensor = emit("Sub", source, emit.reduce("ReduceMean", source, axes))
    if not node.attrs.get("normalize_variance", 1):
        return centred
    variance = emit.reduce("ReduceMean", emit("Mul", centred, centred), axes)
    made: gs.Tensor = emit("Div", centred, emit("Sqrt", variance))
    return made


def _given_fill(node: gs.Node, emit: Emitter) -> gs.Tensor:
    shape = _fill_shape(node, emit)
    values = np.asarray(node.attrs.get("values", ()), np.float32)
    if shape is None or values.size != np.prod(shape):
        raise DeclinedError("its shape is only known at run time, or does not fit its values")
    return emit.constant(values.reshape(shape))


def _constant_fill(node: gs.Node, emit: Emitter) -> gs.Tensor:
    dtype = helper.tensor_dtype_to_np_dtype(int(node.attrs.get("dtype", _FLOAT32)))
    value = np.array([node.attrs.get("value", 0.0)]).astype(dtype)
    shape = _fill_shape(node, emit)
    if shape is not None and np.prod(shape, dtype=np.int64) <= MOST_ELEMENTS:
        return emit.constant(np.full(shape, value[0]))
    if emit.edit.opset < _CONSTANT_OF_SHAPE:
        raise DeclinedError("its shape is only known at run time, and ConstantOfShape only from opset 9 on")
    given = emit("Cast", node.inputs[0], to=7) if node.attrs.get("input_as_shape", 0) else emit("Shape", node.inputs[0])
    extra = [int(size) for size in node.attrs.get("extra_shape", ())]
    if extra:
        given = emit("Concat", given, np.array(extra, np.int64), axis=0)
    made: gs.Tensor = emit("ConstantOfShape", given, value=value)
    return made


def _fill_shape(node: gs.Node, emit: Emitter) -> tuple[int, ...] | None:
    """The shape of a fill, from the attribute, from the input's shape or from its values; None if not known yet."""
    extra = tuple(int(size) for size in node.attrs.get("extra_shape", ()))
    source = optional_input(node, 0)
    if source is None:
        return (*(int(size) for size in node.attrs.get("shape", ())), *extra)
    if node.attrs.get("input_as_shape", 0):
        value = emit.edit.value(source)
        return None if value is None else (*(int(size) for size in value.reshape(-1)), *extra)
    shape = known_shape(emit, source)
    return None if None in shape else (*(int(size or 0) for size in shape), *extra)


_WRITERS: Mapping[str, Callable[[gs.Node, Emitter], gs.Tensor]] = MappingProxyType(
    {
        "Affine": _affine,
        "ConstantFill": _constant_fill,
        "Crop": _crop,
        "DynamicSlice": _dynamic_slice,
        "GivenTensorFill": _given_fill,
        "ImageScaler": _image_scaler,
        "MeanVarianceNormalization": _mean_variance_normalization,
        "ParametricSoftplus": _scaled_function,
        "Scale": _scale,
        "ScaledTanh": _scaled_function,
        "ThresholdedRelu": _thresholded,
    }
)

_STANDARD_SINCE = MappingProxyType(
    {"MeanVarianceNormalization": _MEAN_VARIANCE_NORMALIZATION, "ThresholdedRelu": _THRESHOLDED_RELU}
)
"""Withdrawn operators that came back later, in another form or the same, and the opset they did in."""


class ReplaceWithdrawnOperators(NodePass):
    """Replaces operators that ONNX once had and withdrew.

    What it does: Affine, Scale and ImageScaler become Mul and Add, ParametricSoftplus and ScaledTanh the function
    between two Muls, Crop and DynamicSlice Slice, GivenTensorFill and ConstantFill a constant (or ConstantOfShape).
    MeanVarianceNormalization of before opset 9 becomes ReduceMean, Sub, Mul, Sqrt, Div, and ThresholdedRelu of before
    opset 10 a comparison.

    Why TensorRT wants it: It has importers for some of them only, and reads the old MeanVarianceNormalization across
    channels, or of the mean alone, as the new one. A model with operators that no opset has cannot be raised to a newer
    opset either.

    Example: ImageScaler(x, scale=2, bias=[1, 2, 3]) becomes Mul, Add.

    When it declines: The element type is not known; bounds or shapes that are only known at run time, below the opset
    that can say so; opsets below 7.
    """

    name = "replace_withdrawn_operators"
    operators = frozenset(_WRITERS)
    oldest_opset = 7

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Not those that are standard operators in the model's opset."""
        return edit.opset < _STANDARD_SINCE.get(node.op, edit.opset + 1) and super().wants(node, edit)

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """The old MeanVarianceNormalization with attributes that the new one does not have."""
        if operator_of(node.op, node.domain) != "MeanVarianceNormalization":
            return False
        special = node.attrs.get("across_channels", 0) or not node.attrs.get("normalize_variance", 1)
        return bool(special) and edit.opset < _MEAN_VARIANCE_NORMALIZATION

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        return (_WRITERS[node.op](node, emit),)
