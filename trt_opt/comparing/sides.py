"""What takes part in a comparison, as its result names it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass

from trt_opt.build.manifest import record_of_file
from trt_opt.comparing.feeding import Feeding
from trt_opt.comparing.layers import counts_of_engine, counts_of_graph
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.quantize.given_ends import given_ends
from trt_opt.runnables import Runnable
from trt_opt.values.model_comparison import Side


@dataclass(frozen=True, slots=True)
class Participant:
    """A side before anything has run.

    Attributes:
        runnable: What runs it.
        side: What the result says of it.
        feeding: What becomes of the data before it takes them.
        outputs: The names of its outputs; empty where nothing says.
    """

    runnable: Runnable
    side: Side
    feeding: Feeding
    outputs: tuple[str, ...]


def participants(runnables: Sequence[Runnable], files: Sequence[str]) -> tuple[Participant, ...]:
    """The sides, every one with a name of its own.

    Args:
        runnables: The reference, then the candidates.
        files: What the user wrote for each.

    Raises:
        ModelFileError: A model cannot be read.
    """
    names = _names(runnables, files)
    return tuple(_participant(*entry) for entry in zip(runnables, names, files, strict=True))


def _names(runnables: Sequence[Runnable], files: Sequence[str]) -> tuple[str, ...]:
    """Precisions, where they tell the sides apart, with the library if need be; else the files' names or paths."""
    precisions = [one.precision for one in runnables]
    libraries = [_library(one) for one in runnables]
    with_library = [
        precision if precisions.count(precision) == 1 else f"{precision} on {library}"
        for precision, library in zip(precisions, libraries, strict=True)
    ]
    for names in (with_library, [one.file.name for one in runnables], list(files)):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{file} ({number})" for number, file in enumerate(files, start=1))


def _library(runnable: Runnable) -> str:
    """Name and version of what runs it."""
    if runnable.model is not None:
        return f"onnxruntime {importlib.metadata.version('onnxruntime')}"
    return str(runnable.kind) if runnable.manifest is None else runnable.manifest.library


def _participant(runnable: Runnable, name: str, file: str) -> Participant:
    record = record_of_file(runnable.file)
    model, library = runnable.model, _library(runnable)
    if model is not None:
        counts = counts_of_graph(model)
        feeding = Feeding(f"{file} on ONNX Runtime", graph_inputs(model), given_ends(model))
        outputs = tuple(spec.name for spec in graph_outputs(model))
        onnx_bytes: int | None = record.bytes
    else:
        manifest = runnable.manifest
        counts = None if manifest is None else counts_of_engine(manifest)
        device = library if runnable.gpu is None else f"{runnable.gpu.name} ({library})"
        feeding = Feeding(f"{file} on {device}", runnable.inputs, None if manifest is None else manifest.ends)
        outputs = () if manifest is None else tuple(spec.name for spec in manifest.outputs)
        onnx_bytes = None if manifest is None else manifest.graph.bytes
    side = Side(
        name=name,
        file=record,
        precision=runnable.precision,
        kind=runnable.kind,
        library=library,
        onnx_bytes=onnx_bytes,
        engine_bytes=record.bytes if model is None else None,
        int8_layers=None if counts is None else counts.int8,
        float_layers=None if counts is None else counts.floats,
        reformats=None if counts is None else counts.reformats,
        layers_from=None if counts is None else counts.origin,
    )
    return Participant(runnable, side, feeding, outputs)
