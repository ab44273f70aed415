"""Where the windows of a pooling node lie, and its sums and maxima written as slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError

Combine = Callable[[Sequence[gs.Tensor]], gs.Tensor]
"""What becomes of the taps of a window along one axis."""

_END = 1 << 62


@dataclass(frozen=True)
class Windows:
    """The windows of a pooling node, all fields one value per spatial axis.

    Attributes:
        kernel: Taps of a window.
        strides: Steps between windows.
        dilations: Steps between taps.
        begin: Padding before the input.
        end: Padding behind the input, as the model gives it.
        reach: Padding behind the input with which rounding down gives the windows of `ceil_mode`; `end` without it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    reach: tuple[int, ...]

    @property
    def rounds_up(self) -> bool:
        """Whether some window may hang over the padding."""
        return self.reach != self.end

    @property
    def spans(self) -> tuple[int, ...]:
        """How many elements a window stretches over."""
        return tuple((taps - 1) * step + 1 for taps, step in zip(self.kernel, self.dilations, strict=True))

    @property
    def may_start_in_padding(self) -> bool:
        """Whether plain rounding up makes, for some input size, a window that begins behind the input."""
        return any(end + stride > span for end, stride, span in zip(self.end, self.strides, self.spans, strict=True))

    def counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How many windows there are over an input of these spatial sizes."""
        measures = zip(sizes, self.begin, self.reach, self.spans, self.strides, strict=True)
        return tuple((size + begin + reach - span) // stride + 1 for size, begin, reach, span, stride in measures)

    def counts_rounded_up(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How many there would be if those that begin behind the input were kept."""
        measures = zip(sizes, self.begin, self.end, self.spans, self.strides, strict=True)
        return tuple(-((span - size - begin - end) // stride) + 1 for size, begin, end, span, stride in measures)

    def attributes(self) -> dict[str, Any]:
        """The attributes of a pooling node that rounds down and has no dilations."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": [*self.begin, *self.reach],
        }


def windows_of(node: gs.Node, edit: GraphEdit) -> Windows:
    """The windows of a MaxPool, AveragePool or LpPool node.

    The windows of `ceil_mode` are those that begin inside the input or the padding before it (the rule of PyTorch,
    which onnx's shape inference follows). With n elements padded by b and e, a span s and a stride t they begin at
    0, t, 2t … below min(n + b + e + t - s, n + b), and so many fit, rounded down, if e is min(e + t - 1, s - 1).

    Raises:
        DeclinedError: The rank is not known, or the padding of SAME_UPPER or SAME_LOWER needs sizes that are not.
    """
    kernel = tuple(int(size) for size in node.attrs["kernel_shape"])
    rank = len(kernel)
    strides = tuple(int(size) for size in node.attrs.get("strides") or (1,) * rank)
    dilations = tuple(int(size) for size in node.attrs.get("dilations") or (1,) * rank)
    pads = tuple(int(size) for size in node.attrs.get("pads") or (0,) * (2 * rank))
    spans = tuple((taps - 1) * step + 1 for taps, step in zip(kernel, dilations, strict=True))
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        if any(step != 1 for step in dilations):
            raise DeclinedError(f"runtimes disagree about dilations with auto_pad {mode}: write the pads out")
        totals = _same_padding(node, edit, strides, spans)
        smaller, larger = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
        begin, end = (smaller, larger) if mode == "SAME_UPPER" else (larger, smaller)
        return Windows(kernel, strides, dilations, begin, end, end)
    if mode == "VALID":
        pads = (0,) * (2 * rank)
    begin, end = pads[:rank], pads[rank:]
    if any(pad < 0 or pad >= span for pad, span in zip(pads, spans * 2, strict=True)):
        raise DeclinedError("a padding as large as the window has windows without any input")
    reach = end
    if node.attrs.get("ceil_mode", 0):
        reach = tuple(min(pad + step - 1, span - 1) for pad, step, span in zip(end, strides, spans, strict=True))
    return Windows(kernel, strides, dilations, begin, end, reach)


def spatial_sizes(node: gs.Node, edit: GraphEdit) -> tuple[int, ...] | None:
    """The sizes of the node's input behind batch and channels, where all of them are known."""
    shape = edit.shape(node.inputs[0])
    if shape is None or any(size is None for size in shape[2:]):
        return None
    return tuple(size for size in shape[2:] if size is not None)


def pooled_along_axes(source: gs.Tensor, windows: Windows, combine: Combine, emit: Emitter) -> gs.Tensor:
    """Pools a tensor that is padded already, one axis after the other, by slices with one tap each.

    The bounds count from both ends, so that the sizes need not be known.
    """
    for axis, taps in enumerate(windows.kernel):
        stride, span = windows.strides[axis], windows.spans[axis]
        starts = [tap * windows.dilations[axis] for tap in range(taps)]
        ends = [start - span + 1 or _END for start in starts]
        bounds = zip(starts, ends, strict=True)
        slices = [emit.slice(source, [start], [end], [axis + 2], [stride]) for start, end in bounds]
        source = combine(slices) if taps > 1 else slices[0]
    return source


def padded(source: gs.Tensor, begin: Sequence[int], end: Sequence[int], value: gs.Constant, emit: Emitter) -> gs.Tensor:
    """The tensor with a constant around its spatial axes; the very same where there is nothing to add."""
    if not any(begin) and not any(end):
        return source
    pads = emit.constant([0, 0, *begin, 0, 0, *end], "int64")
    made: gs.Tensor = emit("Pad", source, pads, value)
    return made


def _same_padding(node: gs.Node, edit: GraphEdit, strides: Sequence[int], spans: Sequence[int]) -> tuple[int, ...]:
    if all(stride == 1 for stride in strides):
        return tuple(span - 1 for span in spans)
    sizes = spatial_sizes(node, edit)
    if sizes is None:
        raise DeclinedError("the padding of its auto_pad follows from spatial sizes that are not static")
    measures = zip(sizes, strides, spans, strict=True)
    return tuple(max((-(-size // stride) - 1) * stride + span - size, 0) for size, stride, span in measures)
