"""Rotary position embedding, written out."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter


@dataclass(frozen=True)
class Rotation:
    """How the last axis of a tensor of rank 4 is rotated.

    Attributes:
        cosines: Broadcast to the rotated half: […, half].
        sines: Likewise.
        half: How many pairs are rotated.
        size: The length of the axis; what is beyond the pairs stays.
        interleaved: Whether the numbers of a pair are neighbours, and not one in each half.
    """

    cosines: gs.Tensor
    sines: gs.Tensor
    half: int
    size: int
    interleaved: bool


def rotated(emit: Emitter, tensor: gs.Tensor, by: Rotation) -> gs.Tensor:
    """The tensor with every pair (a, b) become (a cos - b sin, b cos + a sin)."""
    half, rest = by.half, by.size - 2 * by.half
    if by.interleaved:
        first, second = (emit.slice(tensor, [start], [2 * half], [3], [2]) for start in (0, 1))
        kept = [emit.slice(tensor, [2 * half], [by.size], [3], [1])] if rest else []
    else:
        first, second, *kept = emit.split(tensor, (half, half, rest) if rest else (half, half), 3)
    real = emit("Sub", emit("Mul", first, by.cosines), emit("Mul", second, by.sines))
    imaginary = emit("Add", emit("Mul", second, by.cosines), emit("Mul", first, by.sines))
    if by.interleaved:
        pairs = emit("Concat", emit.unsqueeze(real, [4]), emit.unsqueeze(imaginary, [4]), axis=4)
        turned = [emit.reshape(pairs, [0, 0, 0, 2 * half])]
    else:
        turned = [real, imaginary]
    made: gs.Tensor = emit("Concat", *turned, *kept, axis=3) if len(turned) + len(kept) > 1 else turned[0]
    return made
