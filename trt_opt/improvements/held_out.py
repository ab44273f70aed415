"""Corrections fitted to one half of the data and judged on the other, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trt_opt.improvements.samples_apart import Half
from trt_opt.quantize.stage import Correction, FloatGraph
from trt_opt.sensitivity.layers import QuantizedLayer, dequantized_weights
from trt_opt.sensitivity.probes import ErrorSums, Probe, Probes
from trt_opt.values.progress import Progress

CHANNEL_AXES: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""Where the output channels are in what an operator gives."""


def channel_axis(layer: QuantizedLayer) -> int:
    """The axis of the output channels in the output of a layer with weights."""
    return CHANNEL_AXES[layer.op_type]


def probe_of(layer: QuantizedLayer, source: FloatGraph, correction: Correction | None = None) -> Probe:
    """The layer in INT8 with corrected weights; a correction's bias is left to `with_bias`."""
    return Probe(layer.node, layer.scales, dequantized_weights(replace(layer, correction=correction), source))


def channel_errors(
    source: FloatGraph,
    layers: Sequence[QuantizedLayer],
    probes: Sequence[Probe],
    samples: Half,
    progress: Progress,
    *,
    stage: str,
) -> tuple[ErrorSums, ...]:
    """The error of every probe at its layer's output, channel by channel too.

    Args:
        source: The float graph.
        layers: The layer of each probe.
        probes: What is measured.
        samples: Each is run once.
        progress: Told of every sample.
        stage: What it is called.
    """
    if not probes:
        return ()
    axes = {number: channel_axis(layer) for number, layer in enumerate(layers)}
    progress.start(stage, len(samples))
    with Probes(source.index, probes, channel_axes=axes) as running:
        for sample in samples:
            running.add(sample)
            progress.advance()
    progress.finish()
    return running.sums


def with_bias(sums: ErrorSums, bias: NDArray[np.float32] | None) -> ErrorSums:
    """What the sums had been with a bias added to the layer's output.

    The sum of (e + b)² is that of e², plus 2·b times that of e, plus b² for every element.
    """
    if bias is None or sums.channel_error is None:
        return sums
    wide = bias.astype(np.float64)
    error = sums.error + float(2 * wide @ sums.channel_error + sums.elements * (wide @ wide))
    return replace(sums, error=max(error, 0.0), channel_error=sums.channel_error + sums.elements * wide)
