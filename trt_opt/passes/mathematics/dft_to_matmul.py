"""DFT as a product with a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.fourier_matrix import MOST_ELEMENTS, WIDENED, FourierTransform
from trt_opt.passes.mathematics.runtime_axis import selected_by_axis
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input

_AXIS_AS_INPUT = 20

Shape = tuple[int | None, ...]


class DftToMatMul(NodePass):
    """Replaces DFT by a MatMul with constant sines and cosines.

    What it does: The axis is brought next to the real and imaginary parts, both are laid in one axis of n * parts
    numbers, and one MatMul with the matrix of the transform (inverse and one-sided ones too, zero padding and cutting
    included) gives the result. Half precision is computed in float32. Where the axis is only known at run time, the
    declared shape of the output decides, or every axis is computed and one result selected.

    Why TensorRT wants it: It has no Fourier transform but that within STFT.

    Example: DFT(x [B, 400, 1], onesided=1) becomes Reshape(MatMul(Reshape(x, [B, 400]), W [400, 402]), [B, 201, 2]).

    When it declines: The length of the axis is not static; dft_length is not constant; the matrix would have more than
    16 million elements; the axis is only known at run time and leads to different shapes.
    """

    name = "dft_to_matmul"
    operators = frozenset({"DFT"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if shape is None or dtype is None:
            raise DeclinedError("the rank or type of its input is not known")
        axis = _axis(node, emit, len(shape))
        if axis is not None:
            transforms = {axis: _transform(node, emit, shape, axis)}
        else:
            transforms = _possible_transforms(node, emit, shape)
        if any(transform.length < 1 for transform in transforms.values()):
            raise DeclinedError("its dft_length is not positive")
        if sum(transform.elements for transform in transforms.values()) > MOST_ELEMENTS:
            raise DeclinedError("its matrix of sines and cosines would have more than 16 million elements")
        computed = "float32" if dtype in WIDENED else dtype
        signal = source if computed == dtype else emit.cast(source, computed)
        results = {
            along: _transformed(emit, signal, (len(shape), along), transform, computed)
            for along, transform in transforms.items()
        }
        result = next(iter(results.values()))
        if len(results) > 1:
            result = selected_by_axis(emit, node.inputs[2], len(shape), results)
        return (result if computed == dtype else emit.cast(result, dtype),)


def _axis(node: gs.Node, emit: Emitter, rank: int) -> int | None:
    """Not negative; None where it is only known at run time."""
    if emit.edit.opset < _AXIS_AS_INPUT:
        return int(node.attrs.get("axis", 1)) % rank
    given = optional_input(node, 2)
    if given is None:
        return rank - 2
    value = emit.edit.value(given)
    return None if value is None else int(value.reshape(())) % rank


def _transform(node: gs.Node, emit: Emitter, shape: Shape, axis: int) -> FourierTransform:
    samples, parts = shape[axis], shape[-1]
    if axis == len(shape) - 1:
        raise DeclinedError("its axis is that of the real and imaginary parts, which ONNX does not allow")
    if samples is None or parts not in {1, 2}:
        raise DeclinedError(f"the length of axis {axis}, or whether it is complex, is not static")
    inverse, onesided = bool(node.attrs.get("inverse", 0)), bool(node.attrs.get("onesided", 0))
    given = optional_input(node, 1)
    length = 2 * (samples - 1) if inverse and onesided else samples
    if given is not None:
        value = emit.edit.value(given)
        if value is None:
            raise DeclinedError(f"its dft_length is only known at run time: --freeze-input {given.name}=…")
        length = int(value.reshape(()))
    return FourierTransform(samples, parts, length, inverse, onesided)


def _possible_transforms(node: gs.Node, emit: Emitter, shape: Shape) -> dict[int, FourierTransform]:
    """Axis → transform, where all of them lead to one shape, or the declared one singles some out."""
    every = {axis: _transform(node, emit, shape, axis) for axis in range(len(shape) - 1)}
    found = {axis: transform for axis, transform in every.items() if transform.length > 0}
    shapes = {axis: _shape_made(shape, axis, transform) for axis, transform in found.items()}
    declared = emit.edit.declared_shape(node.outputs[0])
    if declared is not None:
        found = {axis: transform for axis, transform in found.items() if _fits(shapes[axis], declared)}
    if len({shapes[axis] for axis in found}) != 1:
        raise DeclinedError(
            f"its axis is only known at run time, and so is its shape: --freeze-input {node.inputs[2].name}=…"
        )
    return found


def _shape_made(shape: Shape, axis: int, transform: FourierTransform) -> Shape:
    return *shape[:axis], transform.bins, *shape[axis + 1 : -1], transform.parts_made


def _fits(shape: Shape, declared: Shape) -> bool:
    return len(shape) == len(declared) and all(
        one == other or one is None or other is None for one, other in zip(shape, declared, strict=True)
    )


def _transformed(
    emit: Emitter, signal: gs.Tensor, where: tuple[int, int], transform: FourierTransform, dtype: str
) -> gs.Tensor:
    """The transform along an axis; `where` is the rank of the signal and the axis."""
    rank, axis = where
    others = [number for number in range(rank - 1) if number != axis]
    order = [*others, axis, rank - 1]
    if axis != rank - 2:
        signal = emit("Transpose", signal, perm=order)
    # A vector gets a batch of one: TensorRT wants matrices in MatMul.
    batch = [0] * len(others) or [1]
    rows = emit.reshape(signal, [*batch, transform.samples * transform.parts])
    product = emit("MatMul", rows, transform.matrix().astype(dtype))
    made: gs.Tensor = emit.reshape(product, [0] * len(others) + [transform.bins, transform.parts_made])
    return made if axis == rank - 2 else emit("Transpose", made, perm=[int(place) for place in np.argsort(order)])
