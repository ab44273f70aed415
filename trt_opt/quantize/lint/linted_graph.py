"""A graph as the rules look at it: which integers a pair runs through, what is a weight, what runs in INT8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import GraphIndex, attribute_of, captured_names
from trt_opt.graph.query import opset_or_none
from trt_opt.quantize.placement import ACTIVATION_OPS
from trt_opt.quantize.rules import AVERAGING_OPS, COMPUTE_OPS, moves_data_only
from trt_opt.values.calibration import TensorRange

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
STANDARD = ("", "ai.onnx")

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})

SMALL_FLOATS = frozenset(
    {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2FNUZ}
    | {TensorProto.FLOAT4E2M1}
)

SYMMETRIC_TYPES = SMALL_FLOATS | {TensorProto.INT8, TensorProto.INT4, TensorProto.INT16}
"""With zero-point 0 they reach as far below zero as above."""

LIMITS = MappingProxyType(
    {
        int(TensorProto.INT8): (-128, 127),
        int(TensorProto.UINT8): (0, 255),
        int(TensorProto.INT16): (-32768, 32767),
        int(TensorProto.UINT16): (0, 65535),
        int(TensorProto.FLOAT8E4M3FN): (-448, 448),
    }
)
"""The smallest and the largest number of the types that activations are quantised to."""

SENSITIVE_OPS = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "Gelu"}
    | {"SkipLayerNormalization", "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"}
    | {"FastGelu", "Exp", "Log", "Pow", "Sqrt", "Erf", "Reciprocal"}
)
"""They never run in INT8, and small errors of what they read become large ones."""

_PASSING_OPS = ACTIVATION_OPS | AVERAGING_OPS | {"Add", "Sum", "Sub", "Mul", "Concat", "Split", "Max", "Min"}
"""Operators that run in INT8 where what they read and what is made of their result both are."""

_RESHAPING_OPS = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})

_RANDOM_OPS = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})

_FARTHEST = 8
"""How many nodes behind a pair its INT8 consumer is looked for."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers a pair represents: integers of a type, less zero-points, times scales."""

    element_type: int
    scales: tuple[float, ...]
    zero_points: tuple[float, ...]


class LintedGraph:
    """A model's top-level graph, with answers to what the rules ask.

    Args:
        index: The model; node names unique, shapes inferred where rules about shapes shall find something.
        ranges: Tensor → range seen in data, for the rule about FP16; none without data.
    """

    def __init__(self, index: GraphIndex, ranges: Mapping[str, TensorRange] | None = None) -> None:
        self.index = index
        self.ranges = ranges or {}
        self.opset = opset_or_none(index.model) or 0
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(index.model.graph.node)

    def quantizers(self) -> Iterator[onnx.NodeProto]:
        """Every QuantizeLinear and DequantizeLinear of ONNX's own."""
        for node in self.nodes:
            if node.op_type in (QUANTIZE, DEQUANTIZE) and node.domain in STANDARD:
                yield node

    def heads(self) -> Iterator[tuple[onnx.NodeProto, tuple[str, ...]]]:
        """What stands for each pair, with the names of its nodes: a QuantizeLinear, or a DequantizeLinear without one.

        A DequantizeLinear with a scale or zero-point of its own stands for itself too.
        """
        for node in self.quantizers():
            if node.op_type == QUANTIZE:
                behind = [reader.name for reader, _ in self.index.readers(node.output[0]) if self.is_dq(reader)]
                yield node, (node.name, *behind)
            else:
                maker = self.index.producer(node.input[0])
                if maker is None or not self.is_q(maker) or list(maker.input[1:]) != list(node.input[1:]):
                    yield node, (node.name,)

    def is_q(self, node: onnx.NodeProto | None) -> bool:
        """Whether it is ONNX's QuantizeLinear."""
        return node is not None and node.op_type == QUANTIZE and node.domain in STANDARD

    def is_dq(self, node: onnx.NodeProto | None) -> bool:
        """Whether it is ONNX's DequantizeLinear."""
        return node is not None and node.op_type == DEQUANTIZE and node.domain in STANDARD

    def value(self, tensor: str) -> NDArray[np.generic] | None:
        """A small constant's elements, also where it comes through Identity, Cast or Reshape; its shape may differ."""
        found = self.index.constant(tensor)
        node = self.index.producer(tensor)
        if found is not None or node is None or node.domain not in STANDARD:
            return found
        if node.op_type in _RESHAPING_OPS:
            return self.value(node.input[0])
        if node.op_type == "Cast" and (inner := self.value(node.input[0])) is not None:
            return np.asarray(inner).astype(onnx.helper.tensor_dtype_to_np_dtype(_integer(node, "to")))
        if node.op_type == "ConstantOfShape" and (shape := self.value(node.input[0])) is not None:
            filling = attribute_of(node, "value")
            array = onnx.numpy_helper.to_array(filling) if isinstance(filling, TensorProto) else np.zeros(1, np.float32)
            return np.full(tuple(int(size) for size in shape.ravel()), array.ravel()[0])
        return None

    def constant(self, tensor: str) -> NDArray[np.generic] | None:
        """A constant, also where it comes through Identity, as PyTorch writes one that two layers share."""
        node = self.index.producer(tensor)
        is_shared = node is not None and node.op_type == "Identity" and node.domain in STANDARD
        return self.constant(node.input[0]) if node is not None and is_shared else self.index.constant(tensor)

    def scale(self, node: onnx.NodeProto) -> NDArray[np.float64] | None:
        """The scales, flat; None where they are only known at run time."""
        found = self.value(node.input[1])
        return None if found is None else np.asarray(found).astype(np.float64).ravel()

    def zero_point(self, node: onnx.NodeProto) -> NDArray[np.float64] | None:
        """The zero-points, flat: one 0 where there is no such input; None where they are only known at run time."""
        if not has_zero_point(node):
            return np.zeros(1)
        found = self.value(node.input[2])
        return None if found is None else np.asarray(found).astype(np.float64).ravel()

    def integer_type(self, node: onnx.NodeProto) -> int:
        """The element type between a QuantizeLinear and its DequantizeLinear; ONNX's default is UINT8."""
        told = self.index.element_type(node.input[2]) if has_zero_point(node) else None
        if told is None and self.is_dq(node):
            told = self.index.element_type(node.input[0])
            maker = self.index.producer(node.input[0])
            if told is None and maker is not None and self.is_q(maker):
                return self.integer_type(maker)
        return told or _integer(node, "output_dtype") or TensorProto.UINT8

    def grid(self, node: onnx.NodeProto) -> Grid | None:
        """The grid of a QuantizeLinear or DequantizeLinear; None where it is only known at run time."""
        scale, zero = self.scale(node), self.zero_point(node)
        if scale is None or zero is None:
            return None
        zeros = tuple(zero.tolist()) if np.any(zero) else (0.0,)
        return Grid(self.integer_type(node), tuple(scale.tolist()), zeros)

    def is_build_time(self, tensor: str) -> bool:
        """Whether the tensor follows from constants alone."""
        return tensor in self._build_time or self.index.is_constant(tensor)

    @cached_property
    def _build_time(self) -> frozenset[str]:
        known = {tensor.name for tensor in self.index.model.graph.initializer}
        for node in self.nodes:
            reads = [name for name in node.input if name]
            is_free = node.op_type == "Constant" or (bool(reads) and known.issuperset(reads))
            if is_free and node.op_type not in _RANDOM_OPS and not captured_names(node):
                known.update(node.output)
        return frozenset(known)

    def dequantizer_of(self, tensor: str, *, moved: bool = False) -> onnx.NodeProto | None:
        """The DequantizeLinear that the tensor comes from, behind nothing but casts between floats.

        Args:
            tensor: A float tensor.
            moved: Look behind nodes that only move elements too.
        """
        node = self.index.producer(tensor)
        while node is not None and not self.is_dq(node):
            if not (self.is_float_cast(node) or (moved and moves_data_only(node, self.index))):
                return None
            node = self.index.producer(node.input[0])
        return node

    def is_float_cast(self, node: onnx.NodeProto) -> bool:
        """Whether it is an Identity or a Cast to a float type."""
        if node.domain not in STANDARD:
            return False
        return node.op_type == "Identity" or (node.op_type == "Cast" and _integer(node, "to") in FLOAT_TYPES)

    def readers(self, tensor: str) -> list[tuple[onnx.NodeProto, int]]:
        """Who reads the tensor, behind casts between floats."""
        found: list[tuple[onnx.NodeProto, int]] = []
        for node, position in self.index.readers(tensor):
            found += self.readers(node.output[0]) if self.is_float_cast(node) else [(node, position)]
        return found

    def is_compute(self, node: onnx.NodeProto | None) -> bool:
        """Whether it is a convolution or a matrix product."""
        return node is not None and node.op_type in COMPUTE_OPS and node.domain in STANDARD

    def runs_in_int8(self, node: onnx.NodeProto | None) -> bool:
        """Whether it is a convolution or a matrix product, both of whose operands come dequantised."""
        if node is None or not self.is_compute(node) or len(node.input) < 2:
            return False
        return all(self.dequantizer_of(name, moved=True) is not None for name in node.input[:2])

    def holds_integers(self, node: onnx.NodeProto | None) -> bool:
        """Whether what it quantises or dequantises are integers, not FP8 or FP4."""
        return node is not None and self.integer_type(node) not in SMALL_FLOATS

    def is_symmetric(self, node: onnx.NodeProto) -> bool:
        """Whether the grid lies around zero."""
        grid = self.grid(node)
        return grid is not None and not any(grid.zero_points) and grid.element_type in SYMMETRIC_TYPES

    def ends(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """The smallest and the largest number of a grid; None where it has several scales, or is not known."""
        grid = self.grid(node)
        limits = LIMITS.get(grid.element_type) if grid is not None else None
        if grid is None or limits is None or len(grid.scales) > 1 or len(grid.zero_points) > 1 or is_blocked(node):
            return None
        low, high = (grid.scales[0] * (limit - grid.zero_points[0]) for limit in limits)
        return low, high

    def weight_dequantizer(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The DequantizeLinear of a layer's constant weights."""
        if not self.is_compute(node) or len(node.input) < 2 or not self.is_build_time(node.input[1]):
            return None
        return self.dequantizer_of(node.input[1], moved=True)

    def reaches_int8(self, tensor: str) -> bool:
        """Whether something that runs in INT8 reads the tensor, or what pooling, sums and activations make of it."""
        seen, now = {tensor}, [tensor]
        for _ in range(_FARTHEST):
            readers = [entry for name in now for entry in self.index.readers(name)]
            if any(self._is_int8_reader(*entry) for entry in readers):
                return True
            passed = {name for node, _ in readers if self._passes(node) for name in node.output if name}
            now = sorted(passed - seen)
            seen |= passed
        return False

    def _is_int8_reader(self, node: onnx.NodeProto, position: int) -> bool:
        if node.domain not in STANDARD or node.op_type in SENSITIVE_OPS:
            return False
        if self.is_q(node):
            return True
        if self.is_compute(node):
            return position == 2 or self.runs_in_int8(node)
        return any(self.is_q(reader) for name in node.output if name for reader, _ in self.readers(name))

    def _passes(self, node: onnx.NodeProto) -> bool:
        if node.domain not in STANDARD or self.is_q(node) or self.is_compute(node):
            return False
        return self.is_float_cast(node) or node.op_type in _PASSING_OPS or moves_data_only(node, self.index)


def has_zero_point(node: onnx.NodeProto) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear has the optional third input."""
    return len(node.input) > 2 and bool(node.input[2])


def is_blocked(node: onnx.NodeProto) -> bool:
    """Whether blocks of elements share a scale."""
    return _integer(node, "block_size") > 0


def axis_of(node: onnx.NodeProto, rank: int) -> int:
    """The axis of one scale per channel, counted from the front; ONNX's default is 1."""
    return _integer(node, "axis", 1) % max(rank, 1)


def _integer(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    found = attribute_of(node, name, default)
    return found if isinstance(found, int) else default
