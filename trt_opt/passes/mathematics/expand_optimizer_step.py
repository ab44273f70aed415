"""Momentum, Adagrad and Adam as the arithmetic they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.standard_opset import ForeignNodePass
from trt_opt.passes.node_pass import DeclinedError, operator_of

_DOMAIN = "ai.onnx.preview.training"


@dataclass(frozen=True)
class _Step:
    """One step of one tensor, in words of that tensor's type.

    Attributes:
        emit: Where the nodes are written.
        node: With the attributes.
        dtype: Of the tensor.
        rate: The learning rate.
        count: How many steps were done before, as a number of that type.
    """

    emit: Emitter
    node: gs.Node
    dtype: str
    rate: gs.Tensor
    count: gs.Tensor

    def number(self, value: float) -> gs.Constant:
        return self.emit.constant(value, self.dtype)

    def attribute(self, name: str, default: float) -> float:
        # Defaults are float32 like all attributes: 1 - 0.999 differs from that of a double in the fifth digit.
        return float(np.float32(self.node.attrs.get(name, default)))

    def of_first_step(self, later: gs.Tensor, first: gs.Tensor) -> gs.Tensor:
        made: gs.Tensor = self.emit("Where", self.emit("Greater", self.count, self.number(0)), later, first)
        return made

    def regularised(self, value: gs.Tensor, gradient: gs.Tensor) -> gs.Tensor:
        made: gs.Tensor = self.emit("Add", self.scaled("norm_coefficient", 0, value), gradient)
        return made

    def scaled(self, name: str, default: float, tensor: gs.Tensor) -> gs.Tensor:
        made: gs.Tensor = self.emit("Mul", self.number(self.attribute(name, default)), tensor)
        return made


Results: TypeAlias = Sequence[gs.Tensor]


def _momentum(step: _Step, value: gs.Tensor, gradient: gs.Tensor, momentum: gs.Tensor) -> Results:
    emit, slope = step.emit, step.regularised(value, gradient)
    beta = step.of_first_step(step.number(step.attribute("beta", 1)), step.number(1))
    new = emit("Add", step.scaled("alpha", 0, momentum), emit("Mul", beta, slope))
    nesterov = step.node.attrs.get("mode") == "nesterov"
    direction = emit("Add", slope, step.scaled("alpha", 0, new)) if nesterov else new
    return emit("Sub", value, emit("Mul", step.rate, direction)), new


def _adagrad(step: _Step, value: gs.Tensor, gradient: gs.Tensor, squares: gs.Tensor) -> Results:
    emit, slope = step.emit, step.regularised(value, gradient)
    rate = emit("Div", step.rate, emit("Add", step.scaled("decay_factor", 0, step.count), step.number(1)))
    new = emit("Add", squares, emit("Mul", slope, slope))
    spread = emit("Add", emit("Sqrt", new), step.number(step.attribute("epsilon", 1e-6)))
    return emit("Sub", value, emit("Div", emit("Mul", rate, slope), spread)), new


def _adam(step: _Step, value: gs.Tensor, gradient: gs.Tensor, mean: gs.Tensor, squares: gs.Tensor) -> Results:
    emit, slope = step.emit, step.regularised(value, gradient)
    alpha, beta = step.attribute("alpha", 0.9), step.attribute("beta", 0.999)
    new_mean = emit("Add", step.scaled("alpha", 0.9, mean), emit("Mul", step.number(1 - alpha), slope))
    squared = emit("Mul", emit("Mul", step.number(1 - beta), slope), slope)
    new_squares = emit("Add", step.scaled("beta", 0.999, squares), squared)
    spread = emit("Add", emit("Sqrt", new_squares), step.number(step.attribute("epsilon", 1e-6)))
    # The first step does not use this; a count of 0 would divide zero by zero there.
    count = emit("Max", step.count, step.number(1))
    left = [emit("Sub", step.number(1), emit("Pow", step.number(base), count)) for base in (beta, alpha)]
    later = emit("Div", emit("Mul", step.rate, emit("Sqrt", left[0])), left[1])
    rate = step.of_first_step(later, step.rate)
    moved = emit("Sub", value, emit("Div", emit("Mul", rate, new_mean), spread))
    kept = 1 - step.attribute("norm_coefficient_post", 0)
    return (moved if kept == 1 else emit("Mul", step.number(kept), moved)), new_mean, new_squares


_STEPS: Mapping[str, tuple[int, Callable[..., Results]]] = MappingProxyType(
    {
        f"{_DOMAIN}::Momentum": (3, _momentum),
        f"{_DOMAIN}::Adagrad": (3, _adagrad),
        f"{_DOMAIN}::Adam": (4, _adam),
    }
)
"""Operator → how many tensors it takes for each one it optimises, and the step."""


class ExpandOptimizerStep(ForeignNodePass):
    """Replaces Momentum, Adagrad and Adam by element-wise arithmetic.

    What it does: Writes out the formulas of the operators' specification, for each of the tensors they optimise; what
    is different in the first step is selected by the step count, which stays an input.

    Why TensorRT wants it: It has no operators of the training domain.

    Example: Momentum(R, T, X, G, V) becomes V' = alpha * V + beta * (n * X + G), X' = X - R * V'.

    When it declines: The type of a tensor is not known.
    """

    name = "expand_optimizer_step"
    operators = frozenset(_STEPS)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        kinds, formula = _STEPS[operator_of(node.op, node.domain)]
        rate, count, *tensors = node.inputs
        groups = len(tensors) // kinds
        results = []
        for first in range(groups):
            chosen = tensors[first::groups]
            dtype = emit.edit.dtype(chosen[0])
            if dtype is None:
                raise DeclinedError(f"the type of {chosen[0].name!r} is not known")
            given = rate if emit.edit.dtype(rate) == dtype else emit.cast(rate, dtype)
            results.append(formula(_Step(emit, node, dtype, given, emit.cast(count, dtype)), *chosen))
        return [made for kind in zip(*results, strict=True) for made in kind]
