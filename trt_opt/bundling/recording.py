"""Runs the float model and the simulated quantised model on the samples that travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.bundling.layout import ELEMENT_TYPES
from trt_opt.bundling.samples import Recording
from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.errors import DataError, UnsupportedModelError
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset, Sample
from trt_opt.values.shapes import Profile
from trt_opt.variants import reference_runner

LARGEST_BYTES = 256_000_000
"""Of all arrays together; as text they are two or three times as large."""

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The models that answer.

    Attributes:
        original: The model as given.
        simulated: The graph with every precision written into it.
        built: The graph to build; its inputs' types are those of the files.
        profile: The shapes that the engine will take.
    """

    original: onnx.ModelProto
    simulated: onnx.ModelProto
    built: onnx.ModelProto
    profile: Profile


def recorded(
    subject: Subject, dataset: Dataset, most: int, progress: Progress, *, keeps_int64: bool
) -> tuple[tuple[Recording, ...], tuple[str, ...]]:
    """The samples, spread over the data, with both models' answers; and what the user should know about them.

    All samples have one shape: that of the first which the engine will take.

    Args:
        subject: The models.
        dataset: The evaluation data.
        most: How many samples at most.
        progress: Told of every sample.
        keeps_int64: Whether the engine's inputs are INT64 where the graph's are; older ones make INT32 of them.

    Raises:
        DataError: No sample is one that the engine takes, or they are too large.
        UnsupportedModelError: No output is of floating-point numbers, or an output's shape depends on the data.
    """
    outputs = _judged_outputs(subject.built)
    types = _input_types(subject.built, keeps_int64=keeps_int64)
    chosen = _alike(list(EvenlySpread(dataset, most)), subject.profile)
    notes = []
    if len(chosen) < min(most, len(dataset)):
        notes.append(f"{len(chosen)} samples travel: the others have another shape")
    if dataset.is_random:
        notes.append("the samples are RANDOM numbers: they show whether the engine computes right, not how well")
    recordings = []
    progress.start("record samples", len(chosen))
    with (
        reference_runner(subject.original) as reference,
        OnnxRuntimeRunner(subject.simulated, optimised=False, rounds_halves=True) as candidate,
    ):
        for sample in chosen:
            expected = _floats(reference.infer(sample.feed), outputs)
            simulated = _floats(candidate.infer(_as_fed(sample.feed, candidate)), outputs)
            feed = {name: _converted(sample.feed[name], kind, name) for name, kind in types.items()}
            recordings.append(Recording(feed, expected, simulated))
            progress.advance()
    progress.finish()
    _require_uniform(recordings)
    return tuple(recordings), tuple(notes)


def _judged_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    found = tuple(spec.name for spec in graph_outputs(model) if spec.is_float)
    if not found:
        raise UnsupportedModelError(
            "no output is of floating-point numbers, so there is nothing to judge an engine by",
            hint="make the scores an output too",
        )
    return found


def _input_types(model: onnx.ModelProto, *, keeps_int64: bool) -> dict[str, str]:
    """Input → the element type that the engine wants."""
    types = {spec.name: spec.dtype for spec in graph_inputs(model)}
    for name, kind in types.items():
        if kind not in ELEMENT_TYPES:
            raise UnsupportedModelError(f"a bundle holds no samples of the type {kind}", where=f"input {name!r}")
    return {name: "int32" if kind == "int64" and not keeps_int64 else kind for name, kind in types.items()}


def _alike(samples: list[Sample], profile: Profile) -> list[Sample]:
    fitting = [
        sample
        for sample in samples
        if all(profile[name].admits(array.shape) for name, array in sample.feed.items() if name in profile)
    ]
    if not fitting:
        raise DataError(
            "the engine would take none of the evaluation samples: their shapes are outside its profile",
            hint="--min-shapes, --opt-shapes and --max-shapes, or other --eval-data",
        )
    shapes = {name: array.shape for name, array in fitting[0].feed.items()}
    return [sample for sample in fitting if {name: array.shape for name, array in sample.feed.items()} == shapes]


def _as_fed(feed: Mapping[str, Array], runner: OnnxRuntimeRunner) -> dict[str, Array]:
    """The feed with FP16 where the graph wants that."""
    halves = {spec.name for spec in runner.inputs if spec.dtype == "float16"}
    with np.errstate(over="ignore"):
        return {name: array.astype(np.float16) if name in halves else array for name, array in feed.items()}


def _converted(array: Array, kind: str, name: str) -> Array:
    with np.errstate(over="ignore"):
        found = array.astype(kind)
    if kind == "int32" and not np.array_equal(found, array):
        raise DataError("TensorRT before 10 takes 32-bit integers, and these data are larger", where=f"input {name!r}")
    return found


def _floats(answers: Mapping[str, Array], wanted: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    missing = [name for name in wanted if name not in answers]
    if missing:
        raise UnsupportedModelError("an output has another name than in the model as given", where=missing[0])
    return {name: np.array(answers[name], np.float32) for name in wanted}


def _require_uniform(recordings: list[Recording]) -> None:
    first = {name: array.shape for name, array in recordings[0].expected.items()}
    for recording in recordings:
        for name, shape in first.items():
            if recording.expected[name].shape != shape or recording.simulated[name].shape != shape:
                raise UnsupportedModelError(
                    "its shape depends on the data: a bundle compares outputs of one shape", where=f"output {name!r}"
                )
    arrays = [array for entry in recordings for part in (entry.feed, entry.expected) for array in part.values()]
    total = sum(array.nbytes for array in arrays)
    if total > LARGEST_BYTES:
        raise DataError(f"the samples are {total // 1_000_000} MB, too large for a bundle", hint="fewer --samples")
