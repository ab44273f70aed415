"""Resize modes that TensorRT lacks, as matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.vision.interpolation_matrix import (
    COORDINATES,
    AxisScaling,
    Interpolation,
    interpolation_matrix,
    nearest_positions,
    outside,
)
from trt_opt.passes.vision.resize_geometry import axis_scalings

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_HALVES = frozenset({"float16", "bfloat16"})
_NATIVE_COORDINATES = frozenset({"align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel"})

Scalings = Mapping[int, AxisScaling]
"""Axis → how it is resized."""


class ResizeToMatrices(NodePass):
    """Replaces Resize by one constant interpolation matrix per resized axis.

    What it does: Sizes, scales and region of interest say how much of which input element each output element is;
    that is a matrix per axis, and one MatMul applies it (float16 in float32). For the mode "nearest" one Gather per
    axis looks the elements up, in any type. Where the region of interest of tf_crop_and_resize leaves the input, Where
    puts in the extrapolation value. If only the spelling is what TensorRT lacks (keep_aspect_ratio_policy or
    half_pixel_symmetric of whole sizes, antialias while enlarging), a plain Resize takes the node's place. Sizes only
    known at run time are read off the output's declared shape.

    Why TensorRT wants it: It has no antialias, no keep_aspect_ratio_policy, no tf_crop_and_resize and no
    half_pixel_symmetric, and takes scales only as constants.

    Example: Resize(linear, antialias) of [N, C, 64, 64] to [N, C, 16, 16] becomes MatMul(A [16, 64], x) → MatMul(.,
    B [64, 16]).

    When it declines: Sizes, scales or region of interest are only known at run time
    and do not follow from the output's shape; a resized axis has no static size; integers are interpolated; scales
    give no whole size where corners are aligned (runtimes disagree about these).
    """

    name = "resize_to_matrices"
    operators = frozenset({"Resize"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Leaves alone plain nodes, unless the target refuses one all the same."""
        return super().wants(node, edit) and (self.refused is not None or not _is_plain(node, edit))

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        source = node.inputs[0]
        dtype = emit.edit.dtype(source)
        rank = emit.edit.rank(source)
        if dtype is None or rank is None:
            raise DeclinedError("the rank or type of its input is not known")
        interpolation = _interpolation(node)
        if interpolation.coordinates not in COORDINATES:
            raise DeclinedError(f"its coordinates {interpolation.coordinates} are none that ONNX defines")
        scalings = axis_scalings(node, emit.edit)
        plain = _native(interpolation, scalings)
        if plain is not None and dtype in _FLOATS and not _is_plain(node, emit.edit):
            return (_resized(node, plain, scalings, rank, emit),)
        if interpolation.mode == "nearest":
            result = source
            for axis, scaling in scalings.items():
                positions = nearest_positions(scaling, interpolation)
                if not np.array_equal(positions, np.arange(scaling.source)):
                    result = emit("Gather", result, positions, axis=axis)
        elif dtype in _FLOATS:
            result = _multiplied(source, interpolation, scalings, dtype, emit)
        else:
            raise DeclinedError(f"it interpolates {dtype}, and runtimes disagree how that is rounded")
        missing = _extrapolated(scalings, interpolation, rank)
        if missing.any():
            value = emit.constant(node.attrs.get("extrapolation_value", 0.0), dtype)
            result = emit("Where", missing, value, result)
        return (result,)


def _interpolation(node: gs.Node) -> Interpolation:
    attributes = node.attrs
    return Interpolation(
        mode=str(attributes.get("mode", "nearest")),
        coordinates=str(attributes.get("coordinate_transformation_mode", "half_pixel")),
        nearest=str(attributes.get("nearest_mode", "round_prefer_floor")),
        cubic=float(attributes.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
        antialias=bool(attributes.get("antialias", 0)),
    )


def _is_plain(node: gs.Node, edit: GraphEdit) -> bool:
    """Whether TensorRT takes the node as it is."""
    interpolation = _interpolation(node)
    if interpolation.antialias or interpolation.coordinates not in _NATIVE_COORDINATES:
        return False
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch" or edit.dtype(node.inputs[0]) not in _FLOATS:
        return False
    scales = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    return scales is None or edit.value(scales) is not None


def _native(interpolation: Interpolation, scalings: Scalings) -> Interpolation | None:
    """The same interpolation in words TensorRT knows; None where it has none."""
    if interpolation.antialias and all(scaling.scale >= 1 for scaling in scalings.values()):
        interpolation = replace(interpolation, antialias=False)
    whole = all(
        math.isclose(scaling.scale * scaling.source, scaling.target, rel_tol=1e-6) for scaling in scalings.values()
    )
    if interpolation.coordinates == "half_pixel_symmetric" and whole:
        interpolation = replace(interpolation, coordinates="half_pixel")
    known = interpolation.coordinates in _NATIVE_COORDINATES and not interpolation.antialias
    return interpolation if known and whole else None


def _resized(node: gs.Node, plain: Interpolation, scalings: Scalings, rank: int, emit: Emitter) -> gs.Tensor:
    """A Resize that names every axis: by sizes where the others are known, or else by scales."""
    spelled_out = {
        "axes": None,
        "keep_aspect_ratio_policy": None,
        "extrapolation_value": None,
        "antialias": None,
        "coordinate_transformation_mode": plain.coordinates,
    }
    shape = emit.edit.static_shape(node.inputs[0])
    bounds: tuple[NDArray[np.generic] | None, ...]
    if shape is None:
        factors = [scalings[axis].target / scalings[axis].source if axis in scalings else 1 for axis in range(rank)]
        bounds = (None, np.array(factors, np.float32))
    else:
        sizes = [scalings[axis].target if axis in scalings else size for axis, size in enumerate(shape)]
        bounds = (None, None, np.array(sizes, np.int64))
    made: gs.Tensor = emit("Resize", node.inputs[0], *bounds, **{**node.attrs, **spelled_out})
    return made


def _multiplied(
    source: gs.Tensor, interpolation: Interpolation, scalings: Scalings, dtype: str, emit: Emitter
) -> gs.Tensor:
    wide = "float32" if dtype in _HALVES else dtype
    result = emit.cast(source, wide) if dtype in _HALVES else source
    rank = emit.edit.rank(source) or 0
    if rank == 1:
        result = emit.unsqueeze(result, [0])
    for axis, scaling in scalings.items():
        matrix = interpolation_matrix(scaling, interpolation)
        if not np.array_equal(matrix, np.eye(scaling.source)):
            result = _along(result, matrix.astype(wide), axis - rank, max(rank, 2), emit)
    if rank == 1:
        result = emit.squeeze(result, [0])
    return emit.cast(result, dtype) if dtype in _HALVES else result


def _along(source: gs.Tensor, matrix: NDArray[np.generic], axis: int, rank: int, emit: Emitter) -> gs.Tensor:
    """The product along an axis counted from the end."""
    made: gs.Tensor
    if axis == -1:
        made = emit("MatMul", source, np.ascontiguousarray(matrix.T))
        return made
    if axis == -2:
        made = emit("MatMul", matrix, source)
        return made
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    turned = emit("MatMul", emit("Transpose", source, perm=order), np.ascontiguousarray(matrix.T))
    made = emit("Transpose", turned, perm=order)
    return made


def _extrapolated(scalings: Scalings, interpolation: Interpolation, rank: int) -> NDArray[np.bool_]:
    """Which output elements take the extrapolation value; axes that are not resized have size 1."""
    missing = np.zeros((1,) * rank, bool)
    for axis, scaling in scalings.items():
        shape = [1] * rank
        shape[axis] = scaling.target
        missing = missing | outside(scaling, interpolation).reshape(shape)
    return missing
