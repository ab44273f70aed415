"""Operators whose axis is only known at run time: every axis is computed, and one result selected."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError


def selected_by_axis(emit: Emitter, axis: gs.Tensor, rank: int, results: Mapping[int, gs.Tensor]) -> gs.Tensor:
    """The result that belongs to the axis.

    Args:
        emit: Where the nodes are written.
        axis: An integer scalar, which may count from the back.
        rank: What negative axes are counted from.
        results: Axis, not negative → the result for it; all of one shape.
    """
    dtype = emit.edit.dtype(axis)
    if dtype is None:
        raise DeclinedError(f"the type of its axis {axis.name!r} is not known")
    (_, chosen), *others = results.items()
    if not others:
        return chosen
    counted = emit("Mod", axis, np.asarray(rank, dtype))
    for number, result in others:
        chosen = emit("Where", emit("Equal", counted, np.asarray(number, dtype)), result, chosen)
    return chosen
