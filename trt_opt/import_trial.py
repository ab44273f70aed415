"""A quantised model and what it was imported as, run side by side, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import fresh_name, tensor_names, with_unique_node_names
from trt_opt.made_up_samples import made_up_samples
from trt_opt.passes.verification import Outputs, run_in_reference
from trt_opt.quantize.importing.grid_reading import LIMITS, pairs_of
from trt_opt.quantize.importing.grid_unsigned import with_unsigned_weights
from trt_opt.quantize.importing.symmetric_form import SymmetricForm
from trt_opt.quantize.validity import continuous_outputs
from trt_opt.values.importing import ImportedTensor
from trt_opt.values.samples import Sample

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What is compared with what.

    Attributes:
        source: The model as given.
        normal: Its normal form.
        form: What it was imported as.
    """

    source: onnx.ModelProto
    normal: onnx.ModelProto
    form: SymmetricForm


def source_outputs(trial: Trial, samples: Sequence[Sample]) -> tuple[Outputs, bool, str]:
    """What the source gives; whether onnx's reference implementation ran it, and what else did, if it did not run."""
    try:
        return _outputs(with_unsigned_weights(with_unique_node_names(trial.source)), samples), False, ""
    except UnsupportedModelError as error:
        found = run_in_reference(trial.source, samples)
        if found is not None:
            return found, True, ""
        note = f"the source does not run here ({error.what}): compared with its normal form"
        return _outputs(trial.normal, samples), False, note


def _outputs(model: onnx.ModelProto, samples: Sequence[Sample]) -> Outputs:
    with OnnxRuntimeRunner(model, optimised=False) as runner:
        return tuple(runner.infer(sample.feed) for sample in samples)


def made_up(trial: Trial) -> tuple[tuple[Sample, ...], str]:
    """A sample that fills the grids of the inputs, and why there is none, if there is none."""
    found, why_not = made_up_samples(trial.source)
    if not found:
        return (), why_not
    pairs, _ = pairs_of(GraphIndex(trial.normal))
    ends = {pair.quantize.input[0]: pair.grid.ends for pair in pairs if pair.quantize is not None}
    generator = np.random.default_rng(0)

    def filled(name: str, array: Array) -> Array:
        if array.dtype.name in LIMITS:
            low, high = LIMITS[array.dtype.name]
            return generator.integers(low, high + 1, array.shape).astype(array.dtype)
        return generator.uniform(*ends[name], array.shape).astype(array.dtype) if name in ends else array

    feed = {name: filled(name, array) for name, array in found[0].feed.items()}
    return (Sample(found[0].name, feed),), ""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Two arrays to compare; `what` is "output", "tensor" (from end to end), "own" or "own output" (of one layer)."""

    what: str
    name: str
    reference: Array
    candidate: Array


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What one sample gave."""

    outputs: Mapping[str, Array]
    tensors: list[Measured]


def runs(trial: Trial, tensors: tuple[ImportedTensor, ...], samples: Sequence[Sample]) -> Iterator[Found]:
    """For each sample the new model's outputs, and each tensor of the normal form beside what stands for it."""
    written = {name for node in trial.normal.graph.node for name in node.output}
    seen = [entry for entry in tensors if entry.tensor in written]
    separate, fed = _layers_apart(trial.form.model, seen)
    judged = continuous_outputs(trial.form.model) if fed else ()
    before = OnnxRuntimeRunner(trial.normal, optimised=False, outputs=[entry.tensor for entry in seen])
    after = OnnxRuntimeRunner(trial.form.model, optimised=False, outputs=[entry.now for entry in seen])
    apart = OnnxRuntimeRunner(separate, optimised=False, outputs=list(fed.values()))
    with before, after, apart:
        for sample in samples:
            reference = {**sample.feed, **before.infer(sample.feed)}
            found = {**sample.feed, **after.infer(sample.feed)}
            inner = {entry.now: _shifted(reference[entry.tensor], entry) for entry in seen if entry.now in fed}
            alone = apart.infer({**sample.feed, **inner})
            compared = [
                Measured("tensor", entry.tensor, reference[entry.tensor], _unshifted(found[entry.now], entry))
                for entry in seen
            ]
            compared += [
                Measured("own", entry.tensor, reference[entry.tensor], _unshifted(alone[fed[entry.now]], entry))
                for entry in seen
                if entry.now in fed
            ]
            compared += [Measured("own output", name, reference[name], alone[name]) for name in judged]
            yield Found(found, compared)


def _layers_apart(model: onnx.ModelProto, tensors: Sequence[ImportedTensor]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model with its quantised tensors as inputs; these, and the names under which it gives its own of them."""
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    taken = tensor_names(apart.graph)
    outputs = {value.name for value in apart.graph.output}
    wanted = {entry.now for entry in tensors} - outputs
    fed: dict[str, str] = {}
    for node in apart.graph.node:
        for at, name in enumerate(node.output):
            if name in wanted:
                fed[name] = node.output[at] = fresh_name(f"{name}_own", taken)
    apart.graph.input.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in fed)
    values = [value for value in apart.graph.value_info if value.name not in fed]
    del apart.graph.value_info[:]
    apart.graph.value_info.extend(values)
    return apart, fed


def _shifted(array: Array, entry: ImportedTensor) -> Array:
    """The source's numbers as they are where something stands for the tensor."""
    moved = np.asarray(array.astype(np.float64) + entry.offset, np.float32)
    half = len(entry.pads) // 2
    if not half:
        return moved
    widths = [(0, 0), (0, 0), *zip(entry.pads[:half], entry.pads[half:], strict=True)]
    return np.pad(moved, widths, constant_values=np.float32(entry.offset))


def _unshifted(array: Array, entry: ImportedTensor) -> Array:
    """What stands for a tensor in the tensor's own numbers and shape."""
    half = len(entry.pads) // 2
    cut = array
    for axis, (begin, end) in enumerate(zip(entry.pads[:half], entry.pads[half:], strict=True), start=2):
        cut = np.take(cut, range(begin, array.shape[axis] - end), axis)
    return np.asarray(cut.astype(np.float64) - entry.offset, np.float32)
