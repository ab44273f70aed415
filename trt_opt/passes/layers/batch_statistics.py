"""BatchNormalization in training mode, by the statistics of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used

_FIRST_OPSET = 14
"""Before it, training was asked for by the number of outputs."""

_NARROW = frozenset({"float16", "bfloat16"})


class BatchStatistics(NodePass):
    """Writes BatchNormalization in training mode as means over the batch.

    What it does: Mean and variance are taken over all axes but the channels', in float32 for narrower types; the input
    is normalised by them, and the running mean and variance are moved towards them by 1 - momentum.

    Why TensorRT wants it: It takes BatchNormalization in inference mode only.

    Example: y = BatchNormalization<training_mode=1>(x, scale, bias, mean, var) becomes
    (x - ReduceMean(x)) / Sqrt(ReduceMean((x - ReduceMean(x))²) + epsilon) * scale + bias.

    When it declines: It is in inference mode; the rank or type of the input is not known. Models exported in training
    mode by mistake are better exported again: their results depend on what else is in the batch.
    """

    name = "batch_statistics"
    operators = frozenset({"BatchNormalization"})
    oldest_opset = _FIRST_OPSET

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if not node.attrs.get("training_mode", 0):
            raise DeclinedError("TensorRT takes it as it is: it is not in training mode")
        source, scale, bias, *running = node.inputs
        rank, dtype = emit.edit.rank(source), emit.edit.dtype(source)
        if rank is None or rank < 2 or dtype is None:
            raise DeclinedError("the rank or type of its input is not known")
        work = "float32" if dtype in _NARROW else dtype
        axes = [axis for axis in range(rank) if axis != 1]
        wide = _in_type(emit, source, work)
        mean = emit.reduce("ReduceMean", wide, axes)
        centred = emit("Sub", wide, mean)
        variance = emit.reduce("ReduceMean", emit("Mul", centred, centred), axes)
        epsilon = emit.constant(float(node.attrs.get("epsilon", 1e-5)), work)
        normal = emit("Div", centred, emit("Sqrt", emit("Add", variance, epsilon)))
        per_channel = [1, -1] + [1] * (rank - 2)
        factors = [emit.reshape(_in_type(emit, tensor, work), per_channel) for tensor in (scale, bias)]
        result = emit("Add", emit("Mul", normal, factors[0]), factors[1])
        momentum = float(node.attrs.get("momentum", 0.9))
        results: list[gs.Tensor | None] = [result if work == dtype else emit.cast(result, dtype)]
        for output, before, now in zip(node.outputs[1:], running, (mean, variance), strict=False):
            results.append(_moved(emit, (before, now), momentum, work) if is_used(output, emit.edit) else None)
        return results


def _moved(emit: Emitter, from_to: tuple[gs.Tensor, gs.Tensor], momentum: float, work: str) -> gs.Tensor:
    """The running statistic after this batch, in its own type."""
    before, now = from_to
    dtype = emit.edit.dtype(before)
    if dtype is None:
        raise DeclinedError(f"the type of {before.name!r} is not known")
    kept = emit("Mul", _in_type(emit, before, work), emit.constant(momentum, work))
    added = emit("Mul", emit.reshape(now, [-1]), emit.constant(1 - momentum, work))
    made: gs.Tensor = emit("Add", kept, added)
    return made if dtype == work else emit.cast(made, dtype)


def _in_type(emit: Emitter, tensor: gs.Tensor, dtype: str) -> gs.Tensor:
    return tensor if emit.edit.dtype(tensor) == dtype else emit.cast(tensor, dtype)
