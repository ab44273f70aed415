"""Which axes a Resize node resizes, and how."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.node_pass import DeclinedError, optional_input
from trt_opt.passes.vision.interpolation_matrix import AxisScaling

_ALIGNED = frozenset({"align_corners", "tf_crop_and_resize"})


def axis_scalings(node: gs.Node, edit: GraphEdit) -> dict[int, AxisScaling]:
    """Axis → how it is resized; axes that stay as they are, are left out.

    Raises:
        DeclinedError: Sizes, scales or region of interest are not known before run time.
    """
    shape = edit.shape(node.inputs[0])
    if shape is None:
        raise DeclinedError("the rank of its input is not known")
    axes = [int(axis) % len(shape) for axis in node.attrs.get("axes") or range(len(shape))]
    regions = _regions(node, axes, edit)
    if optional_input(node, 2) is not None:
        factors = _values(node, 2, "scales", edit).astype(np.float64).reshape(-1)
        found: dict[int, tuple[float, int | None]] = {
            axis: (float(factor), None) for axis, factor in zip(axes, factors, strict=True)
        }
    else:
        found = _factors_of_sizes(node, axes, edit)
    aligned = node.attrs.get("coordinate_transformation_mode", "half_pixel") in _ALIGNED
    scalings = {}
    for axis, (factor, target) in found.items():
        source = shape[axis]
        start, stop = regions.get(axis, (0.0, 1.0))
        if factor == 1 and target in {None, source} and (start, stop) == (0.0, 1.0):
            continue
        if source is None:
            raise DeclinedError(f"the size of axis {axis}, which is resized, is not static")
        # ONNX Runtime multiplies in float32.
        size = int(np.float32(factor) * np.float32(source)) if target is None else target
        if aligned and not math.isclose(factor * source, size, rel_tol=1e-6):
            raise DeclinedError("it aligns corners of sizes that are no whole numbers: give sizes instead of scales")
        scalings[axis] = AxisScaling(source, size, factor, start, stop)
    return scalings


def _factors_of_sizes(node: gs.Node, axes: list[int], edit: GraphEdit) -> dict[int, tuple[float, int | None]]:
    """Axis → factor of the coordinates, and size."""
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    shape = edit.shape(node.inputs[0]) or ()
    sizes = _sizes(node, axes, edit, policy)
    sources = [shape[axis] for axis in axes]
    if policy == "stretch":
        pairs = zip(axes, sources, sizes, strict=True)
        return {axis: (size / source if source else 0.0, size) for axis, source, size in pairs}
    if any(source is None for source in sources):
        raise DeclinedError("its aspect ratio follows from sizes that are not static")
    factors = [size / source for source, size in zip(sources, sizes, strict=True) if source]
    factor = min(factors) if policy == "not_larger" else max(factors)
    return {axis: (factor, int(factor * (source or 0) + 0.5)) for axis, source in zip(axes, sources, strict=True)}


def _sizes(node: gs.Node, axes: list[int], edit: GraphEdit, policy: str) -> list[int]:
    declared = edit.declared_shape(node.outputs[0])
    given = optional_input(node, 3)
    if edit.value(given) is None and policy == "stretch" and declared is not None:
        known = [declared[axis] for axis in axes]
        sizes = [size for size in known if size is not None]
        if len(sizes) == len(axes):
            return sizes
    return [int(size) for size in _values(node, 3, "sizes", edit).reshape(-1)]


def _regions(node: gs.Node, axes: list[int], edit: GraphEdit) -> dict[int, tuple[float, float]]:
    if node.attrs.get("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return {}
    bounds = _values(node, 1, "roi", edit).astype(np.float64).reshape(2, -1)
    return {axis: (float(start), float(stop)) for axis, start, stop in zip(axes, *bounds, strict=True)}


def _values(node: gs.Node, position: int, what: str, edit: GraphEdit) -> NDArray[np.generic]:
    given = optional_input(node, position)
    if given is None:
        raise DeclinedError(f"it has no {what}")
    found = edit.value(given)
    if found is None:
        raise DeclinedError(f"its {what} are only known at run time: --freeze-input {given.name}=…")
    return found
