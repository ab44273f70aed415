"""Judges one quantised file for int8_accuracy.py; run as a process of its own.

    python scripts/benchmarks/int8_accuracy_judge.py CASE FOLDER MODEL CANDIDATE OUTPUT.json

Everybody's file is run the same way, whoever wrote it: ONNX Runtime on the CPU, its optimisations off, FP16 tensors
rounded to FP16. What is written are sums per sample, so that pooled figures and intervals can be had from them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8_accuracy_cases import CASES, Array, Case

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.macs import COUNTED_OPS, macs_by_node
from trt_opt.graph.names import with_unique_node_names

MOVING_OPS = frozenset({"Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})
"""What may stand between a dequantiser and a layer that TensorRT still runs in INT8."""


def samples_of(folder: Path) -> Iterator[dict[str, Array]]:
    """The samples of a folder in the order of their names."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            yield {name: stored[name] for name in stored.files}


def reference_outputs(model: onnx.ModelProto, folder: Path) -> Iterator[dict[str, Array]]:
    """The float model's outputs, computed once per case."""
    done = folder / "reference"
    if not done.exists():
        part = folder / f"reference.{os.getpid()}"
        part.mkdir()
        with OnnxRuntimeRunner(model, optimised=False) as runner:
            for number, feed in enumerate(samples_of(folder / "evaluation")):
                np.savez(part / f"{number:05}.npz", **runner.infer(feed))
        part.rename(done)
    return samples_of(done)


def macs(model: onnx.ModelProto, feed: Mapping[str, Array]) -> tuple[GraphIndex, dict[str, int]]:
    """The model with the shapes that a feed gives its layers, and layer → its multiply-accumulates.

    The shapes come from a run: inference does not find all of them.
    """
    named = with_unique_node_names(model)
    constants = {tensor.name for tensor in named.graph.initializer}
    layers = [node for node in named.graph.node if node.op_type in COUNTED_OPS]
    tensors = {name for node in layers for name in (*node.input[:2], node.output[0]) if name not in constants}
    with OnnxRuntimeRunner(named, optimised=False, outputs=sorted(tensors)) as runner:
        found = runner.infer({spec.name: feed[spec.name] for spec in runner.inputs})
    shaped = onnx.ModelProto()
    shaped.CopyFrom(named)
    for values in (shaped.graph.value_info, shaped.graph.input, shaped.graph.output):
        others = [value for value in values if value.name not in tensors]
        del values[:]
        values.extend(others)
    for name in tensors:
        array = found[name] if name in found else feed[name]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        shaped.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    index = GraphIndex(shaped)
    return index, {node: count for node, count in macs_by_node(index).items() if count is not None}


def int8_macs(candidate: onnx.ModelProto, feed: Mapping[str, Array]) -> int:
    """The multiply-accumulates of layers whose two operands both come from INT8 dequantisers."""
    index, counts = macs(candidate, feed)
    return sum(
        counts.get(node.name, 0)
        for node in index.model.graph.node
        if node.op_type in COUNTED_OPS and all(_from_int8(name, index) for name in node.input[:2])
    )


def _from_int8(tensor: str, index: GraphIndex) -> bool:
    """Whether a tensor is a dequantised one that was at most moved or cast since."""
    maker = index.producer(tensor)
    while maker is not None and maker.op_type in MOVING_OPS:
        maker = index.producer(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def energies(reference: Array, found: Array) -> tuple[float, float]:
    """Error and signal energy of one sample; an error that is no number counts as infinite."""
    truth = reference.astype(np.float64)
    error = float(np.square(truth - found.astype(np.float64)).sum())
    return (error if np.isfinite(error) else float("inf")), float(np.square(truth).sum())


def judged(case: Case, folder: Path, model: onnx.ModelProto, candidate: onnx.ModelProto) -> dict[str, Any]:
    """Sums per sample: `outputs` with error and signal per float output, `hits` and `total` of the task."""
    feeds = list(samples_of(folder / "evaluation"))
    label_file = folder / "labels.npy"
    labels = np.load(label_file) if label_file.exists() else np.zeros(len(feeds), np.int64)
    outputs: dict[str, dict[str, list[float]]] = {}
    counts: dict[str, list[tuple[float, float]]] = {"float": [], "int8": []}
    with OnnxRuntimeRunner(candidate, optimised=False, rounds_halves=True) as runner:
        for feed, reference, label in zip(feeds, reference_outputs(model, folder), labels, strict=True):
            found = runner.infer({spec.name: feed[spec.name] for spec in runner.inputs})
            for name, truth in reference.items():
                if truth.dtype.kind == "f":
                    error, signal = energies(truth, found[name])
                    sums = outputs.setdefault(name, {"error": [], "signal": []})
                    sums["error"].append(error)
                    sums["signal"].append(signal)
            if case.task is not None:
                counts["float"].append(case.task.counts(reference, reference, int(label)))
                counts["int8"].append(case.task.counts(reference, found, int(label)))
    return {
        "outputs": outputs,
        "counts": counts,
        "int8_macs": int8_macs(candidate, feeds[0]),
        "macs": sum(macs(model, feeds[0])[1].values()),
    }


def main() -> None:
    """Judges, and writes the JSON file."""
    name, folder, model, candidate, output = sys.argv[1:]
    case = next(case for case in CASES if case.name == name)
    result = judged(case, Path(folder), onnx.load(model), onnx.load(candidate))
    Path(output).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
