"""Dropout that drops nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input

_DEFAULT_RATIO = 0.5


class RemoveInactiveDropout(NodePass):
    """Replaces Dropout outside training, or of ratio 0, by its input and a mask of true.

    What it does: Readers of the result read the input; readers of the mask read true in the shape of the input.

    Why TensorRT wants it: It has no training mode, even where the ratio says that nothing is dropped, and wants to know
    the mode when it builds.

    Example: Dropout(x, ratio=0, training_mode=true) becomes Identity(x).

    When it declines: The ratio and the mode are only known at run time; in training mode with a ratio above 0 the
    result is random.
    """

    name = "remove_inactive_dropout"
    operators = frozenset({"Dropout"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        source = node.inputs[0]
        ratio, training = optional_input(node, 1), optional_input(node, 2)
        ratio_value = np.asarray(_DEFAULT_RATIO) if ratio is None else emit.edit.value(ratio)
        training_value = np.asarray(False) if training is None else emit.edit.value(training)
        nothing = (ratio_value is not None and not ratio_value.any()) or (
            training_value is not None and not training_value.any()
        )
        if not nothing and training is not None and training_value is None:
            why = "whether it is in training mode is only known at run time"
            raise DeclinedError(f"{why}: --freeze-input {training.name}=false fixes it")
        if not nothing:
            raise DeclinedError("it is in training mode, and its result is random")
        if len(node.outputs) < 2 or not is_used(node.outputs[1], emit.edit):
            return (source,)
        return source, emit("ConstantOfShape", emit("Shape", source), value=np.array([True]))
