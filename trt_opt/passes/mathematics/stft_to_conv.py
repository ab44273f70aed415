"""STFT as a strided convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.fourier_matrix import MOST_ELEMENTS, WIDENED, FourierTransform
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input

_SIGNAL_RANK = 3


@dataclass(frozen=True)
class _Framing:
    """How the signal is cut into frames."""

    length: int
    step: int


class StftToConv(NodePass):
    """Replaces STFT by a Conv whose filters are sines and cosines.

    What it does: Every frequency's cosine and sine, times the window, is a filter as long as a frame; a Conv with a
    stride of frame_step gives all frames, at any length of the signal. A window that is only known at run time
    multiplies the filters at run time. Where frame_step or frame_length are only known at run time, but just one pair
    of them leads to the declared shape of the output, these are taken. Half precision is computed in float32.

    Why TensorRT wants it: Its own STFT wants frame_step, frame_length and window as constants, and real signals.

    Example: STFT(x [B, L, 1], 160, hann [400]) becomes a Transpose and Reshape of Conv(x', W [402, 1, 400],
    strides=[160]).

    When it declines: frame_step or frame_length are only known at run time and no declared shape tells them; whether
    the signal is complex is not static; the filters would have more than 16 million elements.
    """

    name = "stft_to_conv"
    operators = frozenset({"STFT"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if shape is None or dtype is None or len(shape) != _SIGNAL_RANK or shape[-1] not in {1, 2}:
            raise DeclinedError("the rank or type of its signal, or whether it is complex, is not known")
        framing = _framing(node, emit, shape)
        onesided = bool(node.attrs.get("onesided", 1))
        transform = FourierTransform(framing.length, shape[-1], framing.length, onesided=onesided)
        if transform.elements > MOST_ELEMENTS:
            raise DeclinedError(f"the filters of {framing.length} samples would have more than 16 million elements")
        computed = "float32" if dtype in WIDENED else dtype
        signal = source if computed == dtype else emit.cast(source, computed)
        filters = _filters(emit, transform, optional_input(node, 2), (dtype, computed))
        channels = emit("Transpose", signal, perm=[0, 2, 1])
        frames = emit("Conv", channels, filters, kernel_shape=[framing.length], strides=[framing.step])
        result = emit.reshape(emit("Transpose", frames, perm=[0, 2, 1]), [0, 0, transform.bins, 2])
        return (result if computed == dtype else emit.cast(result, dtype),)


def _filters(emit: Emitter, transform: FourierTransform, window: gs.Tensor | None, types: tuple[str, str]) -> gs.Tensor:
    """The filters `[bins * 2, parts, samples]`, times the window; `types` are the model's and the computed one."""
    given, computed = types
    matrix = transform.matrix().reshape(transform.samples, transform.parts, -1).transpose(2, 1, 0)
    value = emit.edit.value(window)
    if window is None or value is not None:
        scaled = matrix if value is None else matrix * np.asarray(value, np.float64)
        return emit.constant(scaled, computed)
    factors = window if given == computed else emit.cast(window, computed)
    made: gs.Tensor = emit("Mul", emit.constant(matrix, computed), emit.reshape(factors, [1, 1, transform.samples]))
    return made


def _framing(node: gs.Node, emit: Emitter, shape: tuple[int | None, ...]) -> _Framing:
    step, length = _scalar(emit, node.inputs[1]), _frame_length(node, emit, shape)
    if step is not None and length is not None:
        return _Framing(length, step)
    possible = _possible_framings(node, emit, shape[1], _Framing(length or 0, step or 0))
    if len(possible) != 1:
        names = [given.name for given in (node.inputs[1], optional_input(node, 3)) if isinstance(given, gs.Variable)]
        hint = " ".join(f"--freeze-input {name}=…" for name in names)
        raise DeclinedError(f"its frame_step or frame_length is only known at run time: {hint}")
    return possible[0]


def _frame_length(node: gs.Node, emit: Emitter, shape: tuple[int | None, ...]) -> int | None:
    given, window = optional_input(node, 3), optional_input(node, 2)
    if given is not None and (value := _scalar(emit, given)) is not None:
        return value
    if window is not None:
        sizes = emit.edit.shape(window)
        return sizes[0] if sizes else None
    return shape[1] if given is None else None


def _scalar(emit: Emitter, tensor: gs.Tensor) -> int | None:
    value = emit.edit.value(tensor)
    return None if value is None else int(value.reshape(()))


def _possible_framings(node: gs.Node, emit: Emitter, samples: int | None, known: _Framing) -> list[_Framing]:
    """All that lead to the declared shape of the output; 0 in `known` stands for what is only known at run time."""
    declared = emit.edit.declared_shape(node.outputs[0])
    if declared is None or samples is None or None in declared[1:3]:
        return []
    frames, bins = declared[1], declared[2]
    onesided = bool(node.attrs.get("onesided", 1))
    # A window or frame longer than the signal has no frames, a step longer than the signal is like one just as long.
    lengths = [known.length] if known.length else range(1, samples + 1)
    steps = [known.step] if known.step else range(1, samples + 1)
    fitting = [length for length in lengths if (length // 2 + 1 if onesided else length) == bins]
    return [_Framing(length, step) for length in fitting for step in steps if (samples - length) // step + 1 == frames]
