"""Linear layers as products of matrices: a row of weights for each output channel times a row of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsInt, cast

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trt_opt.graph.index import attribute_of

FloatArray = NDArray[np.float32]

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""The operators that are read as products here."""


def weight_rows(node: onnx.NodeProto, weights: FloatArray) -> FloatArray:
    """float32 [groups, output channels of a group, inputs of an output channel]: the weights, each row's in one line.

    Args:
        node: A Conv, Gemm (no transA) or MatMul.
        weights: Its second input; a MatMul's of rank 2.
    """
    if node.op_type == "Conv":
        groups = _group(node)
        return weights.reshape(groups, weights.shape[0] // groups, -1)
    return (weights if _is_transposed(node) else weights.T)[np.newaxis]


def weights_from_rows(node: onnx.NodeProto, rows: FloatArray, shape: Sequence[int]) -> FloatArray:
    """The inverse of `weight_rows`: weights of this shape."""
    if node.op_type == "Conv":
        return rows.reshape(tuple(shape))
    return np.ascontiguousarray(rows[0] if _is_transposed(node) else rows[0].T)


def input_rows(
    node: onnx.NodeProto, array: FloatArray, kernel: Sequence[int], limit: int, generator: np.random.Generator
) -> FloatArray:
    """float32 [groups, positions, inputs of an output channel]: what the rows of weights meet at some output positions.

    Args:
        node: A Conv, Gemm (no transA) or MatMul.
        array: The layer's input.
        kernel: The spatial shape of a convolution's weights; empty for the others.
        limit: At most so many positions, drawn without replacement from batch and space.
        generator: Draws them.
    """
    if node.op_type != "Conv":
        rows = array.reshape(-1, array.shape[-1])
        return rows[_drawn(len(rows), limit, generator)][np.newaxis]
    windows = _windows(node, array, kernel)
    places = (windows.shape[0], *windows.shape[2 : 2 + len(kernel)])
    batch, *spatial = np.unravel_index(_drawn(int(np.prod(places)), limit, generator), places)
    chosen: tuple[Any, ...] = (batch, slice(None), *spatial)
    found = windows[chosen]
    by_group: FloatArray = found.reshape(len(found), _group(node), -1).swapaxes(0, 1)
    return by_group


def _windows(node: onnx.NodeProto, array: FloatArray, kernel: Sequence[int]) -> FloatArray:
    """A view, [batch, channels, *output positions, *kernel], of the padded input."""
    rank = len(kernel)
    strides, dilations = (_numbers(node, name, [1] * rank) for name in ("strides", "dilations"))
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    padded = np.pad(array, [(0, 0), (0, 0), *_pads(node, array.shape[2:], spans, strides)])
    windows = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    steps: list[Any] = [slice(None, None, step) for step in (*strides, *dilations)]
    every: FloatArray = windows[tuple([slice(None), slice(None), *steps])]
    return every


def _pads(
    node: onnx.NodeProto, shape: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Zeros before and behind, per spatial axis; where their number is odd, auto_pad says where the odd one goes."""
    mode = attribute_of(node, "auto_pad", b"NOTSET")
    if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
        given = _numbers(node, "pads", [0] * (2 * len(spans)))
        return list(zip(given[: len(spans)], given[len(spans) :], strict=True))
    pads = []
    for size, span, stride in zip(shape, spans, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if mode == b"SAME_UPPER" else (more, less))
    return pads


def _drawn(count: int, limit: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Numbers below `count`, in order: all, or `limit` of them by chance."""
    if count <= limit:
        return np.arange(count)
    return np.sort(generator.choice(count, limit, replace=False))


def _numbers(node: onnx.NodeProto, name: str, default: Sequence[int]) -> list[int]:
    found = attribute_of(node, name)
    return list(cast("Sequence[int]", found)) if found else list(default)


def _group(node: onnx.NodeProto) -> int:
    return int(cast(SupportsInt, attribute_of(node, "group", 1)))


def _is_transposed(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gemm" and bool(attribute_of(node, "transB", 0))
