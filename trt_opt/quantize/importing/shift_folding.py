"""Asymmetric grids moved onto symmetric ones of the same step, by adding scale · zero_point to what lies on them.

A Q/DQ pair of (s, z) turns x into s · (clip(round(x / s) + z) - z), one of (s, 0) turns x + s · z into the same number
plus s · z, but for the direction in which ties are rounded. Wherever algebra allows, the additions go into constants
that are added anyway; the values in between then differ from the source's by a known number, their shift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.importing.grid_reading import LIMITS, Grid, Pair
from trt_opt.quantize.importing.grid_signs import missing_bounds, tensors_not_negative
from trt_opt.quantize.importing.shift_demands import Demands
from trt_opt.quantize.importing.shift_rules import (
    PRODUCTS,
    Bounds,
    bounds_of,
    constant_operand,
    constant_value,
    has_free_bias,
    is_constant,
    moved_outputs,
    padding_of,
    passes_shifts,
    stays_on_grid,
)
from trt_opt.quantize.importing.shift_writer import Held, ShiftWriter
from trt_opt.values.importing import Becomes
from trt_opt.values.rewriting import Change, Decline

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What shall become of one pair.

    Attributes:
        pair: The pair.
        becomes: "kept", "folded", "regridded", or "float" (taken out).
        new_scale: With "regridded".
    """

    pair: Pair
    becomes: Becomes
    new_scale: float | None = None

    @property
    def shift(self) -> float:
        """By how much the tensor is shifted between QuantizeLinear and DequantizeLinear and around them."""
        return self.pair.grid.shift if self.becomes == "folded" else 0.0

    @property
    def step(self) -> float | None:
        """The scale of the symmetric grid; None where there is none."""
        if self.becomes == "float":
            return None
        return self.pair.grid.scale if self.new_scale is None else self.new_scale


class ShiftFolding:
    """Walks a graph once, in order, and writes it anew.

    Args:
        index: A model in normal form, opset 13 or later, node names unique.
        plans: What shall become of its pairs; pairs that are not here stay as they are.

    Attributes:
        writer: Holds the new graph.
        declined: Products that cannot read integers in the new graph.
        padded: How many convolutions read a padded tensor.
    """

    def __init__(self, index: GraphIndex, plans: tuple[Plan, ...]) -> None:
        self.writer = ShiftWriter(index)
        self.declined: list[Decline] = []
        self.padded = 0
        self._index = index
        self._quantizers = {plan.pair.quantize.name: plan for plan in plans if plan.pair.quantize is not None}
        self._floats: dict[str, Held] = {}
        self._dequantizers = {plan.pair.dequantize.name: plan for plan in plans if plan.pair.dequantize is not None}
        wanted = {name: plan.shift for name, plan in self._quantizers.items() if plan.pair.dequantize is not None}
        given = {plan.pair.tensor: plan.shift for plan in self._dequantizers.values()}
        self._demands = Demands(index, wanted, given)
        self._not_negative = tensors_not_negative(index, (plan.pair for plan in plans))
        self._vectors: dict[str, Floats] = {}
        self._rules: Mapping[str, Callable[[onnx.NodeProto], None]] = {
            "QuantizeLinear": self._quantize,
            "DequantizeLinear": self._dequantize,
            "Conv": self._conv,
            "ConvTranspose": self._product_of_plain,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Add": self._add,
            "Relu": self._bounded,
            "Clip": self._bounded,
            "Concat": self._concat,
            "Pad": self._pad,
            "Shape": self._measure,
            "Size": self._measure,
        }

    def run(self) -> None:
        """Writes every node."""
        for node in self._index.model.graph.node:
            rule = self._rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if rule is not None:
                rule(node)
            elif node.domain in ("", "ai.onnx") and passes_shifts(node):
                self._pass(node)
            else:
                self._other(node)

    def _read(self, node: onnx.NodeProto, at: int, name: str) -> None:
        self.writer.edited(node).input[at] = name

    def _other(self, node: onnx.NodeProto) -> None:
        """Reads and gives what the source does."""
        for at, name in enumerate(node.input):
            if not name:
                continue
            if node.op_type in PRODUCTS and self.writer.held(name).shift:
                self.declined.append(Decline(node.name, f"no INT8 {node.op_type}: {name!r} is shifted back before it"))
            self._read(node, at, self.writer.plain(name, node))

    def _quantize(self, node: onnx.NodeProto) -> None:
        plan = self._quantizers.get(node.name)
        if plan is None or plan.becomes == "kept":
            self._other(node)
        elif plan.becomes == "float":
            self._floats[node.name] = self._float_source(node, plan)
            self.writer.remove(node)
        elif plan.pair.dequantize is None:
            self._write_integers(node, plan.pair.grid)
        else:
            if node.output[0] in self._index.outputs:
                self._write_integers(node, plan.pair.grid)
            source = self.writer.moved(node.input[0], plan.shift, node)
            self._read(node, 0, self._bounded_source(node, source, plan))
            self._set_grid(node, plan)
            self.writer.retype(node.output[0])

    def _float_source(self, node: onnx.NodeProto, plan: Plan) -> Held:
        """What takes the place of a pair that is taken out."""
        if missing_bounds(plan.pair.grid) == (None, None):
            return self.writer.held(node.input[0])
        return Held(self._bounded_source(node, self.writer.plain(node.input[0], node), plan))

    def _bounded_source(self, node: onnx.NodeProto, source: str, plan: Plan) -> str:
        """With the Relu that the old grid's end at zero stood for, where a new grid has no such end."""
        low, high = missing_bounds(plan.pair.grid)
        if plan.becomes == "folded" or (low is None and high is None):
            return source
        if low is not None:
            if node.input[0] in self._not_negative:
                return source
            self.writer.changed.append(Change(node.name, "a Relu before it: its old grid had no negative numbers"))
            return self.writer.before(node, "Relu", [source])
        self.writer.changed.append(Change(node.name, "a Clip before it: its old grid had no positive numbers"))
        return self.writer.before(node, "Clip", [source, "", self.writer.number("high", 0.0)])

    def _dequantize(self, node: onnx.NodeProto) -> None:
        plan = self._dequantizers.get(node.name)
        if plan is None or plan.becomes == "kept":
            return
        quantize = plan.pair.quantize
        if plan.becomes == "float" and quantize is not None:
            self.writer.alias(node, node.output[0], self._floats[quantize.name])
            self.writer.changed.append(Change(node.name, "integers of 16 bits taken out: floats are finer"))
        elif quantize is not None:
            self._set_grid(node, plan)
            self._read(node, 0, self.writer.edited(quantize).output[0])
            self.writer.give(node, node.output[0], Held("", plan.shift, plan.step, self._quantized(plan)))
        else:
            self._dequantize_input(node, plan)

    def _quantized(self, plan: Plan) -> str | None:
        quantize = plan.pair.quantize
        return None if quantize is None else str(self.writer.edited(quantize).input[0])

    def _dequantize_input(self, node: onnx.NodeProto, plan: Plan) -> None:
        """Integers that a caller feeds, on the caller's grid."""
        grid = plan.pair.grid
        if grid.dtype == "int8" and plan.becomes == "folded":
            self._set_grid(node, plan)
            self.writer.give(node, node.output[0], Held("", plan.shift, plan.step))
            return
        floats = self.writer.before(node, "Cast", [node.input[0]], to=onnx.TensorProto.FLOAT)
        whole = grid.zero_point - plan.shift / grid.scale
        centred = self.writer.before(node, "Add", [floats, self.writer.number("zero", -round(whole))])
        numbers = self.writer.before(node, "Mul", [centred, self.writer.number("step", grid.scale)])
        integers = self.writer.fresh(f"{node.output[0]}_quantized")
        self.writer.before(node, "QuantizeLinear", [numbers, *self._grid_names(plan)], integers)
        self._read(node, 0, integers)
        self._set_grid(node, plan)
        self.writer.give(node, node.output[0], Held("", plan.shift, plan.step, numbers))

    def _write_integers(self, node: onnx.NodeProto, grid: Grid) -> None:
        """Quantises for a graph output in float: TensorRT has no zero-points, and UINT8 from a Cast alone."""
        write = self.writer
        low, high = LIMITS[grid.dtype]
        source = write.plain(node.input[0], node)
        rounded = write.before(node, "Round", [write.before(node, "Div", [source, node.input[1]])])
        shifted = write.before(node, "Add", [rounded, write.number("zero_point_float", grid.zero_point)])
        clipped = write.before(node, "Clip", [shifted, write.number("low", low), write.number("high", high)])
        whole = write.before(node, "Cast", [clipped], to=onnx.TensorProto.INT32)
        integers = onnx.TensorProto.DataType.Value(grid.dtype.upper())
        output = node.output[0]
        if self._index.readers(output):
            write.edited(node).output[0] = write.fresh(f"{output}_symmetric")
        else:
            write.remove(node)
        write.before(node, "Cast", [whole], output, to=integers)
        write.changed.append(Change(node.name, f"writes the {grid.dtype.upper()} output in float arithmetic"))

    def _set_grid(self, node: onnx.NodeProto, plan: Plan) -> None:
        edited = self.writer.edited(node)
        data = edited.input[0]
        del edited.input[:]
        edited.input.extend([data, *self._grid_names(plan)])
        kept = [attribute for attribute in edited.attribute if attribute.name not in ("axis", "output_dtype")]
        del edited.attribute[:]
        edited.attribute.extend(kept)

    def _grid_names(self, plan: Plan) -> tuple[str, str]:
        return self.writer.number("scale", plan.step or 1.0), self.writer.zero_point()

    def _pass(self, node: onnx.NodeProto) -> None:
        """Movement of data, and averages."""
        held = self.writer.held(node.input[0])
        self._read(node, 0, held.name)
        step = held.step if stays_on_grid(node) else None
        for output in moved_outputs(node):
            self.writer.give(node, output, Held("", held.shift, step))

    def _measure(self, node: onnx.NodeProto) -> None:
        self._read(node, 0, self.writer.held(node.input[0]).name)

    def _pad(self, node: onnx.NodeProto) -> None:
        held = self.writer.held(node.input[0])
        value = constant_value(self._index, node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        if passes_shifts(node):
            self._pass(node)
        elif not held.shift or value is None:
            self._other(node)
        else:
            fill = float(value.reshape(-1)[0])
            edited = self.writer.edited(node)
            edited.input.extend([""] * (3 - len(edited.input)))
            edited.input[0] = held.name
            edited.input[2] = self.writer.number(f"{node.name}_value", fill + held.shift)
            self.writer.give(node, node.output[0], Held("", held.shift, None if fill else held.step))

    def _bounded(self, node: onnx.NodeProto) -> None:
        """Relu and Clip."""
        held, output = self.writer.held(node.input[0]), node.output[0]
        bounds = bounds_of(node, self._index)
        if not held.shift or bounds is None:
            self._other(node)
        elif self._is_swallowed(output, bounds):
            self.writer.alias(node, output, held)
            self.writer.changed.append(Change(node.name, "taken out: its QuantizeLinear saturates where it clips"))
        else:
            edited = self.writer.edited(node)
            edited.op_type = "Clip"
            del edited.input[:]
            del edited.attribute[:]
            ends = [
                "" if end is None else self.writer.number(f"{output}_bound", end + held.shift)
                for end in (bounds.low, bounds.high)
            ]
            edited.input.extend([held.name, *(ends if ends[1] else ends[:1])])
            on_grid = held.step if bounds in (Bounds(0.0, None), Bounds(None, None)) else None
            self.writer.give(node, output, Held("", held.shift, on_grid))

    def _is_swallowed(self, tensor: str, bounds: Bounds) -> bool:
        if self._index.is_read_elsewhere(tensor):
            return False
        plans = [self._quantizers.get(reader.name) for reader, _ in self._index.readers(tensor)]
        return bool(plans) and all(
            plan is not None
            and plan.becomes == "folded"
            and plan.pair.dequantize is not None
            and plan.pair.grid.swallows(bounds.low, bounds.high)
            for plan in plans
        )

    def _concat(self, node: onnx.NodeProto) -> None:
        held = [self.writer.held(name) for name in node.input]
        wanted = self._demands.of(node.output[0])
        if not wanted:
            wanted = Counter(entry.shift for entry in held).most_common(1)[0][0]
        for at, name in enumerate(node.input):
            self._read(node, at, self.writer.moved(name, wanted, node))
        steps = {entry.step if entry.shift == wanted else None for entry in held}
        self.writer.give(node, node.output[0], Held("", wanted, steps.pop() if len(steps) == 1 else None))

    def _add(self, node: onnx.NodeProto) -> None:
        at = constant_operand(node, self._index)
        if at is None:
            held = [self.writer.held(name) for name in node.input]
            for position, entry in enumerate(held):
                self._read(node, position, entry.name)
            self.writer.give(node, node.output[0], Held("", sum(entry.shift for entry in held)))
            return
        other = node.input[1 - at]
        held_other, wanted = self.writer.held(other), self._demands.of(node.output[0])
        extra = self._vectors.pop(other, np.zeros((), np.float32)) + np.float64(wanted - held_other.shift)
        self._read(node, 1 - at, held_other.name)
        if np.any(extra):
            value = constant_value(self._index, node.input[at])
            self._read(node, at, self._bias(node, node.input[at], value, extra))
        self.writer.give(node, node.output[0], Held("", wanted))

    def _conv(self, node: onnx.NodeProto) -> None:
        if not has_free_bias(node, self._index):
            self._other(node)
            return
        held = self.writer.held(node.input[0])
        name = self._conv_input(node, held) if held.shift else held.name
        absorbed = held.shift
        if name is None:
            name, absorbed = self.writer.plain(node.input[0], node), 0.0
        self._read(node, 0, name)
        weights = constant_value(self._index, node.input[1])
        sums = np.zeros(1) if weights is None else weights.astype(np.float64).sum(tuple(range(1, weights.ndim)))
        self._finish_product(node, -absorbed * sums)

    def _conv_input(self, node: onnx.NodeProto, held: Held) -> str | None:
        """What a convolution of a shifted tensor reads; None where it has to be shifted back."""
        pads = padding_of(node, self._index)
        if pads is not None and not any(pads):
            return held.name
        if pads is None or held.step is None:
            why = "what it pads is not known" if pads is None else f"{node.input[0]!r} is on no INT8 grid"
            self.declined.append(Decline(node.name, f"no INT8 Conv, its input is shifted back before it: {why}"))
            return None
        edited = self.writer.edited(node)
        kept = [attribute for attribute in edited.attribute if attribute.name not in ("pads", "auto_pad")]
        del edited.attribute[:]
        edited.attribute.extend(kept)
        self.padded += 1
        return self.writer.pad(node.input[0], pads, node)

    def _product_of_plain(self, node: onnx.NodeProto) -> None:
        """ConvTranspose: which sums of weights a shift of its input adds differs from place to place."""
        self._other(node)
        if has_free_bias(node, self._index):
            self._finish_product(node, np.float64(0))

    def _gemm(self, node: onnx.NodeProto) -> None:
        if not has_free_bias(node, self._index):
            self._other(node)
            return
        held = self.writer.held(node.input[0])
        self._read(node, 0, held.name)
        weights = constant_value(self._index, node.input[1])
        axis = 1 if attribute_of(node, "transB", 0) else 0
        sums = np.zeros(1) if weights is None else weights.astype(np.float64).sum(axis)
        self._finish_product(node, -held.shift * float(str(attribute_of(node, "alpha", 1.0))) * sums)

    def _finish_product(self, node: onnx.NodeProto, extra: NDArray[np.float64] | np.float64) -> None:
        """Adds to the bias what the input's shift took away and what the output's readers want."""
        wanted = self._demands.of(node.output[0])
        total = np.asarray(extra + wanted, np.float64)
        if np.any(total):
            given = node.input[2] if len(node.input) > 2 else ""
            value = constant_value(self._index, given) if given else None
            beta = float(str(attribute_of(node, "beta", 1.0))) if node.op_type == "Gemm" else 1.0
            value = None if value is None else np.asarray(value * np.float32(beta), np.float32)
            channels = self._channels(node)
            bias = self._bias(node, given or f"{node.name}_bias", value, np.broadcast_to(total, (channels,)))
            edited = self.writer.edited(node)
            edited.input.extend([""] * (3 - len(edited.input)))
            edited.input[2] = bias
            kept = [attribute for attribute in edited.attribute if attribute.name != "beta"]
            del edited.attribute[:]
            edited.attribute.extend(kept)
        self.writer.give(node, node.output[0], Held("", wanted))

    def _channels(self, node: onnx.NodeProto) -> int:
        weights = constant_value(self._index, node.input[1])
        shape = weights.shape if weights is not None else (1, 1)
        if node.op_type == "ConvTranspose":
            return int(shape[1]) * int(str(attribute_of(node, "group", 1)))
        return int(shape[1] if node.op_type == "Gemm" and not attribute_of(node, "transB", 0) else shape[0])

    def _matmul(self, node: onnx.NodeProto) -> None:
        held, output = self.writer.held(node.input[0]), node.output[0]
        wanted = self._demands.of(output)
        weights = constant_value(self._index, node.input[1]) if is_constant(self._index, node.input[1]) else None
        if weights is None or weights.ndim != 2:
            self._other(node)
            return
        self._read(node, 0, held.name)
        total = np.float64(wanted) - held.shift * weights.astype(np.float64).sum(0)
        if not np.any(total):
            return
        if self._is_read_by_bias(output):
            self._vectors[output] = np.asarray(total, np.float32)
            return
        inner = self.writer.fresh(f"{output}_product")
        self.writer.edited(node).output[0] = inner
        name = output if not wanted else self.writer.fresh(f"{output}_shifted")
        self.writer.behind(node, "Add", [inner, self._bias(node, f"{output}_bias", None, total)], name)
        self.writer.rename(output, Held(name, wanted), node)

    def _is_read_by_bias(self, tensor: str) -> bool:
        readers = self._index.readers(tensor)
        return (
            len(readers) == 1
            and not self._index.is_read_elsewhere(tensor)
            and readers[0][0].op_type == "Add"
            and constant_operand(readers[0][0], self._index) is not None
        )

    def _bias(self, node: onnx.NodeProto, base: str, value: Floats | None, extra: NDArray[np.float64]) -> str:
        known = 0.0 if value is None else value.astype(np.float64)
        self.writer.changed.append(Change(node.name, "shifts moved into its bias"))
        return self.writer.constant(f"{base}_with_shift", np.asarray(known + extra, np.float32))
