"""The weights with which ONNX's Resize makes one axis of its output from one axis of its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COORDINATES = frozenset(
    {"align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_crop_and_resize"}
    | {"tf_half_pixel_for_nn"}
)
"""Every coordinate_transformation_mode that ONNX ever had."""


@dataclass(frozen=True)
class Interpolation:
    """The attributes of a Resize node, with ONNX's defaults.

    Attributes:
        mode: "nearest", "linear" or "cubic".
        coordinates: The coordinate_transformation_mode.
        nearest: The nearest_mode.
        cubic: The coefficient a of the cubic kernel.
        exclude_outside: Whether taps outside the input weigh nothing, instead of repeating the edge.
        antialias: Whether the kernel is stretched where the output is smaller.
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


@dataclass(frozen=True)
class AxisScaling:
    """How one axis is resized.

    Attributes:
        source: Its size in the input.
        target: Its size in the output.
        scale: The factor of the coordinates; not always target / source.
        start: Where the region of interest begins, as a share of the input.
        stop: Where it ends.
    """

    source: int
    target: int
    scale: float
    start: float = 0.0
    stop: float = 1.0


def coordinates(axis: AxisScaling, interpolation: Interpolation) -> Floats:
    """Where in the input each output element lies, in elements (the formulas of onnx's Resize)."""
    places = np.arange(axis.target, dtype=np.float64)
    last = axis.source - 1
    match interpolation.coordinates:
        case "asymmetric":
            return places / axis.scale
        case "align_corners":
            return places * (last / (axis.target - 1)) if axis.target > 1 else places
        case "pytorch_half_pixel":
            return (places + 0.5) / axis.scale - 0.5 if axis.target > 1 else places
        case "tf_crop_and_resize":
            if axis.target == 1:
                return np.full(1, 0.5 * (axis.start + axis.stop) * last)
            return axis.start * last + places * (axis.stop - axis.start) * last / (axis.target - 1)
        case "half_pixel_symmetric":
            offset = axis.source / 2 * (1 - axis.target / (axis.scale * axis.source))
            return offset + (places + 0.5) / axis.scale - 0.5
        case "tf_half_pixel_for_nn":
            return (places + 0.5) / axis.scale
        case _:
            return (places + 0.5) / axis.scale - 0.5


def outside(axis: AxisScaling, interpolation: Interpolation) -> NDArray[np.bool_]:
    """Which output elements take the extrapolation value."""
    places = coordinates(axis, interpolation)
    crops = interpolation.coordinates == "tf_crop_and_resize"
    return crops & ((places < 0) | (places > axis.source - 1))


def nearest_positions(axis: AxisScaling, interpolation: Interpolation) -> NDArray[np.int64]:
    """Which input element each output element is."""
    # Runtimes compute coordinates in float32, and a tie in exact numbers has to stay one.
    places = np.asarray(coordinates(axis, interpolation), np.float32)
    match interpolation.nearest:
        case "floor":
            rounded = np.floor(places)
        case "ceil":
            rounded = np.ceil(places)
        case "round_prefer_ceil":
            rounded = np.floor(places + np.float32(0.5))
        case _:
            rounded = np.ceil(places - np.float32(0.5))
    return np.clip(rounded, 0, axis.source - 1).astype(np.int64)


def interpolation_matrix(axis: AxisScaling, interpolation: Interpolation) -> Floats:
    """The weights [target, source] of linear and cubic interpolation; rows of `outside` elements are like the edge."""
    places = coordinates(axis, interpolation)
    shrink = min(axis.scale, 1.0) if interpolation.antialias else 1.0
    reach = int(np.ceil((2 if interpolation.mode == "cubic" else 1) / shrink)) + 1
    taps = np.floor(places)[:, None] + np.arange(-reach, reach + 1)
    distance = np.abs(taps - places[:, None]) * shrink
    weights = _cubic(distance, interpolation.cubic) if interpolation.mode == "cubic" else np.maximum(1 - distance, 0)
    if interpolation.exclude_outside:
        weights = np.where((taps < 0) | (taps >= axis.source), 0, weights)
    if interpolation.exclude_outside or interpolation.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((axis.target, axis.source))
    columns = np.clip(taps, 0, axis.source - 1).astype(np.int64)
    np.add.at(matrix, (np.arange(axis.target)[:, None], columns), weights)
    return matrix


def _cubic(distance: Floats, a: float) -> Floats:
    """The kernel of Keys, "Cubic convolution interpolation for digital image processing" (1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
