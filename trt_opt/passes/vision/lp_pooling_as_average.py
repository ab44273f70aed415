"""LpPool as the root of a sum of powers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.vision.pooling_windows import Windows, windows_of
from trt_opt.passes.vision.round_pooling_down import keeps_a_window_too_many
from trt_opt.passes.vision.unroll_average_pooling import HALVES, summed


class LpPoolingAsAverage(NodePass):
    """Replaces LpPool by powers around an AveragePool.

    What it does: Abs, Pow p, AveragePool that counts padding, times the size of the kernel, Pow 1/p; for p = 2 Mul and
    Sqrt in place of the powers. Dilated windows are summed over slices instead of averaged. `ceil_mode` becomes
    padding. Float16 is computed in float32, where powers do not overflow.

    Why TensorRT wants it: It takes LpPool with p = 1 or 2 only, without dilations, and its `ceil_mode` keeps a window
    that ONNX leaves out.

    Example: LpPool(kernel 2 x 2, p = 3) becomes Abs → Pow 3 → AveragePool → Mul 4 → Pow 1/3.

    When it declines: TensorRT takes it as it is; the type of its input is not known; its padding is as large as its
    window.
    """

    name = "lp_pooling_as_average"
    operators = frozenset({"LpPool"})

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Whether TensorRT would give one window more, for this input size or, if it is dynamic, for some."""
        return keeps_a_window_too_many(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        power = int(node.attrs.get("p", 2))
        windows = windows_of(node, emit.edit)
        dilated = any(step != 1 for step in windows.dilations)
        if power in {1, 2} and not dilated and not node.attrs.get("ceil_mode", 0):
            raise DeclinedError("TensorRT takes it as it is")
        dtype = emit.edit.dtype(node.inputs[0])
        if dtype is None:
            raise DeclinedError("the type of its input is not known")
        wide = "float32" if dtype in HALVES else dtype
        source = emit.cast(node.inputs[0], wide) if dtype in HALVES else node.inputs[0]
        powers = _raised(source, power, wide, emit)
        total = summed(powers, windows, wide, emit) if dilated else _averaged(powers, windows, wide, emit)
        root = _root(total, power, wide, emit)
        return (emit.cast(root, dtype) if dtype in HALVES else root,)


def _raised(source: gs.Tensor, power: int, dtype: str, emit: Emitter) -> gs.Tensor:
    made: gs.Tensor
    if power == 2:
        made = emit("Mul", source, source)
        return made
    made = emit("Abs", source)
    return made if power == 1 else emit("Pow", made, emit.constant(power, dtype))


def _averaged(powers: gs.Tensor, windows: Windows, dtype: str, emit: Emitter) -> gs.Tensor:
    mean = emit("AveragePool", powers, count_include_pad=1, **windows.attributes())
    made: gs.Tensor = emit("Mul", mean, emit.constant(math.prod(windows.kernel), dtype))
    return made


def _root(total: gs.Tensor, power: int, dtype: str, emit: Emitter) -> gs.Tensor:
    made: gs.Tensor = total
    if power == 2:
        made = emit("Sqrt", total)
    elif power != 1:
        made = emit("Pow", total, emit.constant(np.float64(1) / power, dtype))
    return made
