"""A graph under construction whose tensors may hold more, by one number everywhere, than those of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.writer import GraphWriter
from trt_opt.values.rewriting import Change

SAME_WITHIN = 1e-7
"""Shifts this close, relatively, are one: half of float32's resolution."""


@dataclass(frozen=True, slots=True)
class Held:
    """What stands for a tensor of the source.

    Attributes:
        name: The tensor in the new graph.
        shift: What was added to every number.
        step: The scale of the symmetric INT8 grid its numbers lie on; None where they lie on none.
        unquantized: What its QuantizeLinear reads, on which padding goes; None where it is no pair's result.
    """

    name: str
    shift: float = 0.0
    step: float | None = None
    unquantized: str | None = None


class ShiftWriter:
    """Writes the new graph; a tensor keeps its name where it keeps its numbers.

    Args:
        index: The source.

    Attributes:
        changed: What was done.
        padded: Tensor → its padded forms: name, and pads (begin of each spatial axis, then end of each).
    """

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.changed: list[Change] = []
        self.padded: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        self._writer = GraphWriter(index.model)
        self._held: dict[str, Held] = {}
        self._moved: dict[tuple[str, float], str] = {}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._retyped: set[str] = set()

    def held(self, tensor: str) -> Held:
        """What stands for a tensor."""
        return self._held.get(tensor, Held(tensor))

    def edited(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """The node's copy in the new graph."""
        return self._writer.nodes[node.name]

    def moved(self, tensor: str, shift: float, at: onnx.NodeProto) -> str:
        """The name of the tensor with this shift, for the node `at` to read; an Add makes it where there is none."""
        held = self.held(tensor)
        if abs(held.shift - shift) <= SAME_WITHIN * abs(shift):
            return held.name
        key = (tensor, shift)
        if key not in self._moved:
            name = tensor if not shift else self._writer.tensor(f"{tensor}_shifted")
            addend = self.number(f"{tensor}_shift", shift - held.shift)
            self.before(at, "Add", [held.name, addend], name)
            self._moved[key] = name
            self.changed.append(Change(at.name, f"{tensor!r} is shifted by {shift - held.shift:.6g} before it"))
        return self._moved[key]

    def plain(self, tensor: str, at: onnx.NodeProto) -> str:
        """The name of the tensor with the numbers of the source."""
        return self.moved(tensor, 0.0, at)

    def give(self, node: onnx.NodeProto, output: str, held: Held) -> str:
        """Says what the node's output holds from now on; its name in the new graph.

        A shifted output gets a new name. Where the graph gives it out or a subgraph reads it, an Add brings the old
        one back. `held.name` is ignored.
        """
        if not held.shift:
            self._held[output] = Held(output, 0.0, held.step, held.unquantized)
            return output
        name = self._writer.tensor(f"{output}_shifted")
        self._held[output] = Held(name, held.shift, held.step, held.unquantized)
        outputs = self.edited(node).output
        for at, old in enumerate(outputs):
            outputs[at] = name if old == output else old
        if self.index.is_read_elsewhere(output):
            back = self._writer.made("Add", [name, self.number(f"{output}_shift", -held.shift)], output)
            self._writer.behind(node.name, back)
            self._moved[output, 0.0] = output
        return name

    def rename(self, output: str, held: Held, node: onnx.NodeProto) -> None:
        """Says what a tensor holds that a node written behind `node` gives."""
        self._held[output] = held
        if held.shift and self.index.is_read_elsewhere(output):
            addend = self.number(f"{output}_shift", -held.shift)
            self._writer.behind(node.name, self._writer.made("Add", [held.name, addend], output))
            self._moved[output, 0.0] = output

    def alias(self, node: onnx.NodeProto, output: str, held: Held) -> None:
        """Lets another tensor stand for the output of a node that goes."""
        self._held[output] = held
        self._writer.remove(node.name)
        if not self.index.is_read_elsewhere(output):
            return
        if held.shift:
            made = self._writer.made("Add", [held.name, self.number(f"{output}_shift", -held.shift)], output)
        else:
            made = self._writer.made("Identity", [held.name], output)
        self._writer.behind(node.name, made)
        self._moved[output, 0.0] = output

    def remove(self, node: onnx.NodeProto) -> None:
        """Takes a node out whose outputs nothing reads any more, or others give now."""
        self._writer.remove(node.name)

    def before(
        self, at: onnx.NodeProto, op_type: str, inputs: Sequence[str], output: str | None = None, **options: Any
    ) -> str:
        """Writes a node before another; the name of its output."""
        name = self._writer.tensor(f"{at.name}_{op_type.lower()}") if output is None else output
        self._writer.before(at.name, self._writer.made(op_type, inputs, name, **options))
        return name

    def behind(self, at: onnx.NodeProto, op_type: str, inputs: Sequence[str], output: str) -> None:
        """Writes a node behind another."""
        self._writer.behind(at.name, self._writer.made(op_type, inputs, output))

    def fresh(self, base: str) -> str:
        """A tensor name that is still free."""
        return self._writer.tensor(base)

    def retype(self, tensor: str) -> None:
        """Forgets a tensor's element type, which is another now."""
        self._retyped.add(tensor)

    def number(self, base: str, value: float) -> str:
        """A float32 scalar."""
        return self.constant(base, np.asarray(value, np.float32))

    def zero_point(self) -> str:
        """The INT8 scalar 0."""
        return self.constant("zero_point", np.zeros((), np.int8))

    def constant(self, base: str, array: NDArray[np.generic]) -> str:
        """An initialiser; equal small ones are shared."""
        key = (array.dtype.str, array.tobytes(), array.shape)
        if array.size > 16:
            return self._writer.constant(base, array)
        if key not in self._constants:
            self._constants[key] = self._writer.constant(base, array)
        return self._constants[key]

    def pair(self, at: onnx.NodeProto, source: str, step: float, base: str) -> str:
        """Writes a symmetric Q/DQ pair before a node; the name of the dequantised tensor."""
        scale, zero = self.number(f"{base}_scale", step), self.zero_point()
        integers = self.before(at, "QuantizeLinear", [source, scale, zero], self.fresh(f"{base}_quantized"))
        return self.before(at, "DequantizeLinear", [integers, scale, zero], self.fresh(f"{base}_dequantized"))

    def pad(self, tensor: str, pads: tuple[int, ...], at: onnx.NodeProto) -> str:
        """The tensor padded with what stands for 0 in it, in front of a pair of its own, which convolutions share.

        Args:
            tensor: Lies on a grid.
            pads: Begin of each spatial axis, then end of each.
            at: The convolution.
        """
        for name, known in self.padded.get(tensor, []):
            if known == pads:
                return name
        held = self.held(tensor)
        half = len(pads) // 2
        widths = np.asarray((0, 0, *pads[:half], 0, 0, *pads[half:]), np.int64)
        source = held.unquantized or held.name
        inputs = [source, self.constant("pads", widths), self.number(f"{tensor}_zero", held.shift)]
        padded = self.before(at, "Pad", inputs, self.fresh(f"{tensor}_padded"))
        name = self.pair(at, padded, held.step or 1.0, f"{tensor}_padded")
        self.padded.setdefault(tensor, []).append((name, pads))
        return name

    def finished(self) -> onnx.ModelProto:
        """The new graph, without pairs that nothing reads any more."""
        model = self._writer.finished()
        values = [value for value in model.graph.value_info if value.name not in self._retyped]
        del model.graph.value_info[:]
        model.graph.value_info.extend(values)
        return model
