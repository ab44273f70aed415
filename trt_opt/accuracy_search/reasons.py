"""Why a layer is not in INT8, in words."""

from __future__ import annotations

from collections.abc import Container, Mapping

import onnx

from trt_opt.accuracy_search.state import State
from trt_opt.sensitivity.causes import reasons_of
from trt_opt.sensitivity.end_to_end import Damage
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.sensitivity.origins import normalised_variances
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset

FP16_TOO_COARSE = "FP16 is too coarse here as well as INT8"

NOTHING_UNUSUAL = "nothing unusual"
"""Begins the reason of a layer whose error is plain rounding: there is no cause to tell."""


def causes_of(
    state: State, spared: Container[str], original: onnx.ModelProto, calibration: Dataset, progress: Progress
) -> dict[str, str]:
    """Layer left in float → what makes INT8 costly there, from a few calibration samples.

    Args:
        state: The model with all layers in INT8.
        spared: The layers.
        original: The model as given, whose batch normalisations are not folded yet.
        calibration: The samples.
        progress: Told of every run.
    """
    found = quantized_layers(state.source, state.table.ranges, state.corrections)
    layers = [layer for layer in found if layer.node in spared]
    if not layers:
        return {}
    reasons = reasons_of(state.source, layers, calibration, progress, variances=normalised_variances(original))
    return {node: told for node, told in reasons.items() if not told.startswith(NOTHING_UNUSUAL)}


def told_reasons(
    spared: Mapping[str, Damage | None], wide: Container[str], causes: Mapping[str, str]
) -> dict[str, str]:
    """Layer → the sentence that its decision tells.

    Args:
        spared: Layer left in float → what it alone does to the output; None where that was not measured.
        wide: Those of them that stay FP32.
        causes: What makes INT8 costly in them, where there is something to tell.
    """
    reasons: dict[str, str] = {}
    for node, damage in spared.items():
        told = "INT8 in this layer costs more than it may"
        if damage is not None and damage.output_db is not None:
            told = f"INT8 in this layer alone leaves {damage.output_db:.1f} dB at {damage.output!r}"
        told = f"{told}: {causes[node]}" if node in causes else told
        reasons[node] = f"{told}; FP16 is too coarse as well, it stays FP32" if node in wide else told
    return reasons
