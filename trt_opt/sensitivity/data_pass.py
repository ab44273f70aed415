"""The float model and the one with everything in INT8, sample by sample: statistics, and errors at every output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import onnx

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import QuantizedLayer
from trt_opt.sensitivity.output_errors import GraphSums, OutputSums
from trt_opt.sensitivity.statistics import ActivationSums, activation_sums
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one walk through the samples gave; nothing but sums.

    Attributes:
        activations: (tensor, scale, channel axis) → its sums in the float model.
        layers: Layer → everything in INT8 against float, at its output.
        outputs: The same at the graph's outputs.
        samples: How many samples there were.
    """

    activations: Mapping[tuple[str, float, int], ActivationSums]
    layers: Mapping[str, OutputSums]
    outputs: GraphSums
    samples: int


def seen_in(
    source: FloatGraph,
    layers: Sequence[QuantizedLayer],
    samples: Iterable[Sample],
    progress: Progress,
    *,
    int8: onnx.ModelProto | None = None,
) -> Seen:
    """Runs every sample through the float model, and through the INT8 one if there is one.

    Args:
        source: The float graph.
        layers: The layers to look at; none leaves the graph's outputs alone.
        samples: Each is run once per model.
        progress: Told of every sample.
        int8: The model with everything in INT8, its tensors called as in the float graph; None for statistics alone.
    """
    activations = activation_sums(layers, source.index)
    outputs = {layer.node: _output(layer, source) for layer in layers}
    sums, found, count = {node: OutputSums() for node in outputs}, GraphSums(), 0
    tensors = dict.fromkeys(outputs.values()) if int8 is not None else {}
    tapped = [*(key[0] for key in activations if key[0] not in source.index.inputs), *tensors]
    own = [output.name for output in source.model.graph.output]
    progress.start("statistics" if int8 is None else "whole model", None)
    with ExitStack() as stack:
        running = stack.enter_context(OnnxRuntimeRunner(source.model, optimised=True, outputs=tapped, name="float"))
        beside = None
        if int8 is not None:
            beside = stack.enter_context(
                OnnxRuntimeRunner(int8, optimised=False, outputs=tuple(tensors), name="everything in INT8")
            )
        for sample in samples:
            reference = {**sample.feed, **running.infer(sample.feed)}
            for key, entry in activations.items():
                entry.add(np.asarray(reference[key[0]], np.float32))
            if beside is not None:
                candidate = beside.infer(sample.feed)
                found.add({name: reference[name] for name in own}, candidate)
                for node, tensor in outputs.items():
                    sums[node].add(reference[tensor], candidate[tensor])
            count += 1
            progress.advance()
    progress.finish()
    return Seen(activations, sums, found, count)


def _output(layer: QuantizedLayer, source: FloatGraph) -> str:
    """The first tensor that the layer writes."""
    return str(next(name for name in source.index.nodes[layer.node].output if name))
