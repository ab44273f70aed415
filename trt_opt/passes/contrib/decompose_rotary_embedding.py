"""ONNX Runtime's RotaryEmbedding in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.rotation import Rotation, rotated
from trt_opt.passes.contrib.sequence_positions import length_of, positions
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.operand_facts import known_shape


class DecomposeRotaryEmbedding(NodePass):
    """Writes ONNX Runtime's RotaryEmbedding out in standard operators.

    What it does: The cosines and sines of the positions are looked up by Gather, and the two halves of every head,
    or its neighbouring numbers, are rotated by Mul, Sub and Add. One position stands for the first of the sequence.

    Why TensorRT wants it: It reads ONNX Runtime's operator as ONNX's own, and refuses a single position, and the flat
    form without a number of heads.

    Example: com.microsoft::RotaryEmbedding(x, position_ids, cos, sin) becomes Gather, Split, Mul, Sub, Add, Concat.

    When it declines: The rank of the input or of the positions, or the width of the caches, is not known; packed
    batches; a scale; a partial rotation without the number of heads.
    """

    name = "decompose_rotary_embedding"
    operators = frozenset({"com.microsoft::RotaryEmbedding"})
    oldest_opset = 11

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        if node.attrs.get("is_packed_batching", 0) or node.attrs.get("scale", 1.0) != 1:
            raise DeclinedError("packed batches and a scale are not written out")
        source, place, cosines, sines = node.inputs[:4]
        shape = known_shape(emit, source)
        half = known_shape(emit, cosines)[1]
        if half is None:
            raise DeclinedError("the width of its caches is not known")
        flat = len(shape) == 3
        size = _head_size(node, shape, half)
        single = len(known_shape(emit, place)) == 1
        if single:
            place = emit("Add", positions(emit, length_of(emit, source, 1 if flat else 2)), place)
        # [sequence, half] or [batch, sequence, half], with a place for the heads behind or before the sequence.
        head_axis = (1 if single else 2) if flat else (0 if single else 1)
        tables = [emit.unsqueeze(emit("Gather", table, place, axis=0), [head_axis]) for table in (cosines, sines)]
        rotation = Rotation(tables[0], tables[1], half, size, bool(node.attrs.get("interleaved", 0)))
        if not flat:
            return (rotated(emit, source, rotation),)
        return (emit.reshape(rotated(emit, emit.reshape(source, [0, 0, -1, size]), rotation), [0, 0, -1]),)


def _head_size(node: gs.Node, shape: tuple[int | None, ...], half: int) -> int:
    if len(shape) == 4:
        size = shape[-1]
        if size is None:
            raise DeclinedError("the size of a head is not known")
        return size
    if not node.attrs.get("rotary_embedding_dim", 0):
        return 2 * half
    heads, width = int(node.attrs.get("num_heads", 0)), shape[-1]
    if not heads or width is None:
        raise DeclinedError("part of each head is rotated, and the size of a head is not known")
    return width // heads
