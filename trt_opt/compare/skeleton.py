"""A graph as it would be without conversions: what passes through Q/DQ pairs and casts is still the same tensor."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import GraphIndex, attribute_of

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})

_SAME = frozenset({"Identity", "Dropout"})

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "Sum", "Mean", "And", "Or", "Xor", "Equal"})


class Skeleton:
    """A read-only view of a graph's top level in which conversions are transparent.

    Args:
        index: The graph, with shapes inferred.
    """

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self._roots: dict[str, str] = {}
        self._fixed: dict[str, bool] = {}

    def is_fixed(self, tensor: str) -> bool:
        """Whether the tensor depends on constants alone."""
        if tensor not in self._fixed:
            self._settle(tensor)
        return self._fixed[tensor]

    def root(self, tensor: str) -> str:
        """The tensor that this one is a converted form of; itself where it is none."""
        passed = []
        while tensor not in self._roots:
            source = self._source(tensor)
            if source is None:
                self._roots[tensor] = tensor
                break
            passed.append(tensor)
            tensor = source
        found = self._roots[tensor]
        self._roots.update(dict.fromkeys(passed, found))
        return found

    def is_converted(self, tensor: str) -> bool:
        """Whether converting has changed numbers: the tensor comes from a Q/DQ pair, or from a cast to FP16."""
        node = self.index.producer(tensor)
        if node is None or self.root(tensor) == tensor:
            return False
        if node.op_type == "Cast":
            return attribute_of(node, "to") in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
        return node.op_type == "DequantizeLinear"

    def may_be_float(self, tensor: str) -> bool:
        """Whether the tensor holds floating-point numbers, as far as inference knows."""
        kind = self.index.element_type(tensor)
        return kind is None or kind in FLOATS

    def float_form(self, tensor: str) -> str | None:
        """The tensor, or what it is dequantised to where it holds the steps of a grid; None where nothing is."""
        if self.may_be_float(tensor):
            return tensor
        readers = (node for node, place in self.index.readers(tensor) if place == 0)
        return next((str(node.output[0]) for node in readers if node.op_type == "DequantizeLinear"), None)

    def maker(self, root: str) -> onnx.NodeProto | None:
        """The node that computes a root; None for graph inputs."""
        return self.index.producer(root)

    def dynamic(self, node: onnx.NodeProto) -> dict[int, str]:
        """Input position → root of what is read there, for inputs that depend on the graph's."""
        return {place: self.root(name) for place, name in enumerate(node.input) if name and not self.is_fixed(name)}

    def fixed(self, node: onnx.NodeProto) -> dict[int, str]:
        """Input position → the constant that is read there."""
        return {place: name for place, name in enumerate(node.input) if name and self.is_fixed(name)}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Root → the nodes that read it in any form and compute something from it, in graph order."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.computing:
            for root in dict.fromkeys(self.dynamic(node).values()):
                found.setdefault(root, []).append(node)
        return found

    @cached_property
    def computing(self) -> tuple[onnx.NodeProto, ...]:
        """The nodes that do more than convert, and depend on the graph's inputs; in graph order."""
        nodes = self.index.model.graph.node
        return tuple(
            node
            for node in nodes
            if node.output and node.output[0] and self.root(node.output[0]) == node.output[0]
            if not self.is_fixed(node.output[0])
        )

    def is_quantized(self, tensor: str) -> bool:
        """Whether a constant is stored as integers."""
        node = self.index.producer(tensor)
        return node is not None and node.op_type == "DequantizeLinear"

    def value(self, tensor: str) -> NDArray[np.float64] | None:
        """The numbers of a constant, dequantised where it is stored as integers; None where that takes a run."""
        found = self.index.constant(tensor)
        if found is not None:
            return found.astype(np.float64) if found.dtype.kind in "fiub" else None
        node = self.index.producer(tensor)
        if node is None or not node.input:
            return None
        if node.op_type in ("Cast", "Identity"):
            return self.value(node.input[0])
        return self._dequantized(node) if node.op_type == "DequantizeLinear" else None

    def _dequantized(self, node: onnx.NodeProto) -> NDArray[np.float64] | None:
        if attribute_of(node, "block_size", 0):
            return None
        numbers, scale = self.value(node.input[0]), self.value(node.input[1])
        zero = self.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
        if numbers is None or scale is None or zero is None:
            return None
        axis = attribute_of(node, "axis", 1)
        if scale.size > 1 and isinstance(axis, int) and numbers.ndim:
            form = [1] * numbers.ndim
            form[axis] = -1
            scale, zero = scale.reshape(form), zero.reshape(form) if zero.size > 1 else zero
        return np.asarray((numbers - zero) * scale)

    def _source(self, tensor: str) -> str | None:
        """What a conversion converts; None for everything else."""
        node = self.index.producer(tensor)
        if node is None or not node.input or node.domain not in ("", "ai.onnx") or tensor != node.output[0]:
            return None
        source = str(node.input[0])
        if not source or self.is_fixed(source):
            return None
        if node.op_type in _SAME or node.op_type in _PAIR:
            return source
        if node.op_type != "Cast" or attribute_of(node, "to") not in FLOATS:
            return None
        return source if self.index.element_type(source) in FLOATS else None

    def _settle(self, tensor: str) -> None:
        """Finds out about a tensor and all before it; graphs are too deep for recursion."""
        waiting = [tensor]
        while waiting:
            name = waiting[-1]
            node = self.index.producer(name)
            if name in self._fixed:
                waiting.pop()
            elif self.index.is_constant(name) or node is None:
                self._fixed[name] = self.index.is_constant(name)
            elif any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                self._fixed[name] = False
            else:
                missing = [one for one in node.input if one and one not in self._fixed]
                if missing:
                    waiting += missing
                else:
                    named = [one for one in node.input if one]
                    self._fixed[name] = bool(named) and all(self._fixed[one] for one in named)
