"""Second moments of what quantised layers read, from rows of their inputs sampled over the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.improvements.layer_patches import input_rows
from trt_opt.improvements.samples_apart import Half
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import QuantizedLayer
from trt_opt.values.progress import Progress

ROWS = 4096
"""So many rows of a layer's inputs are looked at, spread evenly over the samples; the moments of a 3x3 convolution over
512 channels then rest on almost as many rows as they have columns."""

MEMORY_BYTES = 256 * 2**20
"""The moments of as many layers as fit into this are gathered in one run over the data."""

FloatArray = NDArray[np.float32]


def in_portions(sizes: Mapping[str, int], limit: int = MEMORY_BYTES) -> Iterator[tuple[str, ...]]:
    """Cuts layers, in order, into portions of at most `limit` bytes; a larger one is a portion by itself."""
    portion: list[str] = []
    total = 0
    for name, size in sizes.items():
        if portion and total + size > limit:
            yield tuple(portion)
            portion, total = [], 0
        portion.append(name)
        total += size
    if portion:
        yield tuple(portion)


def input_moments(
    source: FloatGraph,
    layers: Sequence[QuantizedLayer],
    samples: Half,
    progress: Progress,
    *,
    seed: int,
    stage: str,
) -> dict[str, FloatArray]:
    """Layer → float32 [groups, inputs, inputs], the mean of x·xᵀ over rows x of its quantised input.

    The inputs are the float model's, rounded to INT8 as the layer will see them.

    Args:
        source: The float graph.
        layers: Convolutions and products with constant weights.
        samples: Each is run once.
        progress: Told of every sample.
        seed: Draws the rows.
        stage: What the progress calls it.
    """
    nodes = source.index.nodes
    tensors = {layer.node: nodes[layer.node].input[0] for layer in layers}
    sums: dict[str, FloatArray] = {}
    counts: dict[str, int] = dict.fromkeys(tensors, 0)
    each = -(-ROWS // len(samples))
    progress.start(stage, len(samples))
    with OnnxRuntimeRunner(source.model, optimised=True, outputs=_computed(source, tensors)) as runner:
        for turn, sample in enumerate(samples):
            found = {**sample.feed, **runner.infer(sample.feed)}
            for number, layer in enumerate(layers):
                generator = np.random.default_rng((seed, turn, number))
                array = np.asarray(found[tensors[layer.node]], np.float32)
                kernel = _kernel(layer, source)
                rows = input_rows(nodes[layer.node], array, kernel, each, generator)
                rows = _through_int8(rows, layer.scales[0])
                moments = rows.swapaxes(1, 2) @ rows
                if layer.node in sums:
                    sums[layer.node] += moments
                else:
                    sums[layer.node] = moments
                counts[layer.node] += rows.shape[1]
            progress.advance()
    progress.finish()
    for name, count in counts.items():
        sums[name] /= np.float32(max(count, 1))
    return sums


def _computed(source: FloatGraph, tensors: Mapping[str, str]) -> list[str]:
    return [name for name in dict.fromkeys(tensors.values()) if name not in source.index.inputs]


def _kernel(layer: QuantizedLayer, source: FloatGraph) -> tuple[int, ...]:
    shape = source.index.shape(layer.weights[1].tensor) or ()
    return tuple(size or 0 for size in shape[2:]) if layer.op_type == "Conv" else ()


def _through_int8(rows: FloatArray, scale: np.float32) -> FloatArray:
    """What INT8's Q/DQ pair makes of activations: rounded half to even, cut off at -128 and 127."""
    return np.asarray(np.clip(np.rint(rows / scale), -128, 127) * scale, np.float32)
