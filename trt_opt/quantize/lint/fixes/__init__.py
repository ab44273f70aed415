"""What can be mended without data: edits that keep the numbers, or round one time fewer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import onnx

from trt_opt.quantize.lint.fixes.constants import biases_in_float, int32_biases_in_float, stored_weights, wide_scales
from trt_opt.quantize.lint.fixes.mender import Mender
from trt_opt.quantize.lint.fixes.normalization import folded_normalizations
from trt_opt.quantize.lint.fixes.pairs import (
    behind_the_activation,
    floats_for_sensitive_operators,
    quantized_once,
    without_orphans,
)
from trt_opt.values.lint import Mended

MAX_ROUNDS = 8
"""A mended place may make another visible: a pair that moved stands in front of the next activation."""

FIXES: Mapping[str, Callable[[Mender], None]] = MappingProxyType(
    {
        "scale-type-mismatch": wide_scales,
        "int32-bias": int32_biases_in_float,
        "bias-quantized": biases_in_float,
        "weights-not-stored-quantized": stored_weights,
        "double-quantization": quantized_once,
        "pair-between-conv-and-activation": behind_the_activation,
        "quantized-inside-softmax-layernorm": floats_for_sensitive_operators,
        "orphan-pair": without_orphans,
        "batchnorm-not-folded": folded_normalizations,
    }
)
"""Rule → what mends it, in the order applied."""


def mended_model(model: onnx.ModelProto, rules: Collection[str]) -> tuple[onnx.ModelProto, tuple[Mended, ...]]:
    """The model with what these rules find mended, as far as that is safe; itself where nothing is.

    Args:
        model: Is not edited.
        rules: Names of rules; those without a fix are passed over.
    """
    done: list[Mended] = []
    for _ in range(MAX_ROUNDS):
        before = len(done)
        for rule, fix in FIXES.items():
            if rule in rules:
                mender = Mender(model, rule)
                fix(mender)
                model, mended = mender.finished()
                done += mended
        if len(done) == before:
            break
    return model, tuple(done)
