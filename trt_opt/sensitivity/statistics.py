"""What a layer's quantised inputs and weights look like, summed up sample by sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex
from trt_opt.sensitivity.layers import QuantizedLayer
from trt_opt.sensitivity.output_errors import decibels
from trt_opt.values.sensitivity import ActivationStatistics, WeightStatistics

CHANNELS_FIRST = frozenset({"Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool"})

IMAGE_RANK = 4
"""From here on axis 1 is taken for the channels of a sum, as convolutions have it; below, the last axis, as MatMuls."""

PIECE_ELEMENTS = 1 << 13
"""Elements that are looked at in one go: they stay in the cache from one step to the next, and the BLAS starts no
threads, which would wait for those of ONNX Runtime."""

GAP = 4.0
"""How much further the widest channels must reach than the next one to count as a group of their own."""

LEAST_CHANNELS = 3
"""Of two channels none stands out."""

INT8_MOST = 127

Floats = NDArray[np.float32]


class ActivationSums:
    """Sums over one tensor as one layer reads it.

    Args:
        scale: The step of its INT8 grid.
        axis: The axis of its channels, None without one.
    """

    def __init__(self, scale: float, axis: int | None) -> None:
        self._scale = np.float32(scale)
        self._axis = axis
        self._reach: NDArray[np.float64] | None = None
        self.threshold = INT8_MOST * float(scale)
        self.low, self.high = math.inf, -math.inf
        self.elements = self.zeros = self.beyond = self.vanishing = 0
        self.energy = self.rounding = self.clipping = 0.0

    def add(self, array: Floats) -> None:
        """Adds one sample's tensor."""
        if not array.size:
            return
        self._add_channels(array)
        flat = array.reshape(-1)
        for start in range(0, flat.size, PIECE_ELEMENTS):
            self._add_piece(flat[start : start + PIECE_ELEMENTS])

    @property
    def noise(self) -> float:
        """Error energy of the quantised tensor over its signal energy."""
        return (self.rounding + self.clipping) / self.energy if self.energy else 0.0

    def statistics(self, operand: int, tensor: str, made_by: str) -> ActivationStatistics:
        """All of it as a value.

        Args:
            operand: Which input of the node it is.
            tensor: Its name.
            made_by: What wrote it.
        """
        error, noise = self.rounding + self.clipping, self.noise
        told = self.elements - self.zeros
        channels, wide, reach = self._channels()
        return ActivationStatistics(
            operand=operand,
            tensor=tensor,
            low=self.low if self.elements else 0.0,
            high=self.high if self.elements else 0.0,
            threshold=self.threshold,
            rms=math.sqrt(self.energy / self.elements) if self.elements else 0.0,
            saturated=self.beyond / self.elements if self.elements else 0.0,
            vanishing=self.vanishing / told if told else 0.0,
            sqnr_db=decibels(noise),
            clipped_energy=self.clipping / error if error else 0.0,
            channels=channels,
            wide_channels=wide,
            channel_low=reach[0],
            channel_middle=reach[1],
            channel_rest=reach[2],
            made_by=made_by,
        )

    def _add_channels(self, array: Floats) -> None:
        if self._axis is None or array.ndim < 2:
            return
        others = tuple(axis for axis in range(array.ndim) if axis != self._axis % array.ndim)
        reach = np.maximum(array.max(others), -array.min(others)).astype(np.float64)
        if self._reach is None:
            self._reach = reach
        elif self._reach.shape == reach.shape:
            np.maximum(self._reach, reach, out=self._reach)
        else:  # as many channels as a sample is long: none that one could speak of
            self._axis = self._reach = None

    def _add_piece(self, piece: Floats) -> None:
        self.low, self.high = min(self.low, float(piece.min())), max(self.high, float(piece.max()))
        codes = np.abs(piece / self._scale)
        steps = np.rint(codes)
        unit = float(self._scale) ** 2
        self.elements += piece.size
        self.energy += _squares(codes) * unit
        empty = piece.size - int(np.count_nonzero(piece))
        self.zeros += empty
        self.vanishing += piece.size - int(np.count_nonzero(steps)) - empty
        if steps.max() > INT8_MOST:
            outside = steps > INT8_MOST
            self.beyond += int(np.count_nonzero(outside))
            self.clipping += _squares(codes[outside] - INT8_MOST) * unit
            codes, steps = codes[~outside], steps[~outside]
        np.subtract(codes, steps, out=codes)
        self.rounding += _squares(codes) * unit

    def _channels(self) -> tuple[int, int, tuple[float, float, float]]:
        """How many, how many reach much further, and the reach of the least, the middle and the rest's widest."""
        if self._reach is None:
            return 0, 0, (0.0, 0.0, 0.0)
        alive = np.sort(self._reach[self._reach > 0])[::-1]
        if not alive.size:
            return self._reach.size, 0, (0.0, 0.0, 0.0)
        wide = _wide(alive)
        rest = float(alive[wide]) if wide < alive.size else 0.0
        return self._reach.size, wide, (float(alive[-1]), float(alive[alive.size // 2]), rest)


def channel_axis(op_type: str, rank: int | None) -> int:
    """The axis along which the channels of an input lie."""
    if op_type in CHANNELS_FIRST:
        return 1
    is_sum = op_type in ("Add", "Sum")
    return 1 if is_sum and rank is not None and rank >= IMAGE_RANK else -1


def weight_statistics(layer: QuantizedLayer, index: GraphIndex) -> WeightStatistics | None:
    """What the layer's weights look like; None without constant ones."""
    if not layer.weights:
        return None
    quantizer = next(iter(layer.weights.values()))
    values = np.asarray(index.constant(quantizer.tensor), np.float32)
    axis = quantizer.axis
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    extremes = np.abs(rows).max(1)
    alive = extremes > 0
    rms = np.sqrt(np.square(rows[alive].astype(np.float64)).mean(1))
    ratios = extremes[alive] / rms
    largest = float(ratios.max(initial=0.0))
    return WeightStatistics(
        channels=len(rows),
        dead_channels=int(np.count_nonzero(~alive)),
        largest=float(extremes.max(initial=0.0)),
        smallest_range=float(extremes[alive].min(initial=extremes.max(initial=0.0))),
        outlier_ratio=largest,
        outlier_channels=int(np.count_nonzero(ratios >= largest / 2)),
    )


def activation_sums(
    layers: Iterable[QuantizedLayer], index: GraphIndex
) -> Mapping[tuple[str, float, int], ActivationSums]:
    """Empty sums for every quantised input of every layer; layers that read one tensor alike share them."""
    found: dict[tuple[str, float, int], ActivationSums] = {}
    for layer in layers:
        for operand in layer.activations:
            key = sums_key(layer, operand, index)
            if key not in found:
                found[key] = ActivationSums(key[1], key[2])
    return found


def sums_key(layer: QuantizedLayer, operand: int, index: GraphIndex) -> tuple[str, float, int]:
    """Which sums belong to a layer's input: its tensor, scale and channel axis."""
    tensor = layer.activations[operand].tensor
    shape = index.shape(tensor)
    axis = channel_axis(layer.op_type, None if shape is None else len(shape))
    return tensor, float(layer.scales[operand]), axis


def _wide(alive: NDArray[np.float64]) -> int:
    """How many channels, the widest first, stand before the largest gap; 0 where no gap is large enough."""
    if len(alive) < LEAST_CHANNELS:
        return 0
    most = max(1, len(alive) // 4)
    gaps = alive[:most] / alive[1 : most + 1]
    return int(np.argmax(gaps)) + 1 if gaps.max() >= GAP else 0


def _squares(values: Floats) -> float:
    return float(np.dot(values, values))
