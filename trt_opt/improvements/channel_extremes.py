"""The largest magnitude that every channel of a tensor takes on data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.graph.index import GraphIndex
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Sample

Floats = NDArray[np.float64]


def channel_extremes(
    index: GraphIndex, axes: Mapping[str, tuple[int, ...]], samples: Iterable[Sample], progress: Progress, *, stage: str
) -> dict[str, Floats]:
    """Tensor → max |x|, of the tensor's rank, with size 1 on every axis that is not asked for.

    One run of the model for each sample; nothing is kept but the extremes.

    Args:
        index: The float model.
        axes: Tensor → the axes whose positions are told apart; their sizes must not differ between samples.
        samples: What is fed.
        progress: Told of every sample.
        stage: What it is called.
    """
    found: dict[str, Floats] = {}
    wanted = [name for name in axes if name not in index.inputs]
    progress.start(stage, None)
    with OnnxRuntimeRunner(index.model, optimised=False, outputs=wanted, name="channels apart") as runner:
        for sample in samples:
            tensors = {**sample.feed, **runner.infer(sample.feed)}
            for name, kept in axes.items():
                array = np.abs(np.asarray(tensors[name], np.float64))
                others = tuple(axis for axis in range(array.ndim) if axis not in kept)
                largest = array.max(axis=others, keepdims=True, initial=0.0)
                found[name] = np.maximum(found.get(name, 0.0), largest)
            progress.advance()
    progress.finish()
    return found
