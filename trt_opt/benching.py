"""`trt-opt bench`: from files and batch sizes to a benchmark, the machine watched meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from trt_opt import __version__
from trt_opt.bench import Contender, notes_on, timed
from trt_opt.build.manifest import record_of_file
from trt_opt.datasets import open_dataset, preprocess_from_text
from trt_opt.errors import RequestError
from trt_opt.runnables import Runnable, Via, runnable
from trt_opt.telemetry import Telemetry
from trt_opt.values.progress import Progress
from trt_opt.values.shapes import Shape
from trt_opt.values.tensors import TensorSpec
from trt_opt.values.timing import Benchmark, Timing, TimingSettings

TOOL = f"trt-opt {__version__}"

Feed = Mapping[str, NDArray[np.generic]]

MOST_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What `trt-opt bench` was asked for.

    Attributes:
        files: ONNX files and engines; they take turns.
        settings: How they are timed.
        batches: Rows per request, one setting after the other; none leaves them as data and shapes say.
        data: Where the first sample comes from; None makes random numbers up.
        preprocess: How images become inputs.
        shapes: Of inputs with dynamic dimensions.
        python: The interpreter that has TensorRT.
        via: What times engines: this package or trtexec.
        command: The arguments, kept with the result.
    """

    files: tuple[str, ...]
    settings: TimingSettings = field(default_factory=TimingSettings)
    batches: tuple[int, ...] = ()
    data: str | None = None
    preprocess: str | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    python: str | None = None
    via: Via | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(not 1 <= batch <= MOST_ROWS for batch in self.batches):
            raise RequestError(f"a batch has 1 to {MOST_ROWS} rows", where="--batch", hint="--batch 1,8,32")
        if len(set(self.batches)) != len(self.batches):
            raise RequestError("a batch size is named twice", where="--batch")


def benchmark(request: BenchRequest, progress: Progress) -> Benchmark:
    """Times all files, batch size after batch size; within one they take turns.

    Raises:
        RequestError: A batch, shape or setting that a file does not have.
        DataError: The data do not fit.
        TrtOptError: A file cannot be run here.
    """
    sides = named_apart([runnable(file, request.python) for file in request.files])
    on_gpu = any(side.kind != "onnxruntime" for side in sides)
    timings: list[Timing] = []
    feeds = {batch: [feed_of(side, request, batch) for side in sides] for batch in request.batches or (None,)}
    with Telemetry(on_gpu=on_gpu) as watch:
        for fed in feeds.values():
            contenders = [
                contender(side, feed, (request.settings, request.via), watch)
                for side, feed in zip(sides, fed, strict=True)
            ]
            timings += timed(contenders, request.settings, watch, progress)
    environment = watch.environment()
    notes = [note for timing in timings for note in notes_on(timing)]
    return Benchmark(
        tool=TOOL,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=replace(environment, notes=(*environment.notes, *notes)),
        timings=tuple(timings),
        random_data=request.data is None or request.data.startswith("random:"),
        command=request.command,
    )


def contender(side: Runnable, feed: Feed, asked: tuple[TimingSettings, Via | None], watch: Telemetry) -> Contender:
    """A side ready to be timed.

    Args:
        side: The file.
        feed: What every request is fed with.
        asked: How it is timed, and by whom.
        watch: Knows the machine.
    """
    settings, via = asked
    seconds = side.manifest.seconds if side.manifest is not None else {}
    built = [value for stage, value in seconds.items() if stage.startswith("build")]
    return Contender(
        name=side.name,
        runner=side.timed_runner(settings, via),
        feed=feed,
        file=record_of_file(side.file),
        precision=side.precision,
        device=side.gpu.name if side.gpu is not None else watch.machine.cpu,
        build_s=sum(built) if built else None,
    )


def named_apart(sides: Sequence[Runnable]) -> list[Runnable]:
    """The sides, no two with one name: files called alike by their paths, the same file numbered."""
    names = [side.name for side in sides]
    longer = [str(side.file) if names.count(side.name) > 1 else side.name for side in sides]
    apart = [
        f"{name} ({longer[:place].count(name) + 1})" if longer.count(name) > 1 else name
        for place, name in enumerate(longer)
    ]
    return [replace(side, name=name) for side, name in zip(sides, apart, strict=True)]


def feed_of(side: Runnable, request: BenchRequest, batch: int | None) -> Feed:
    """What one request of a side is fed with: the first sample, or random numbers, in the batch asked for.

    Raises:
        RequestError: The batch is not the model's, or shapes are missing.
        DataError: The data do not fit.
    """
    unknown = set(request.shapes) - {spec.name for spec in side.inputs}
    if unknown:
        known = ", ".join(spec.name for spec in side.inputs)
        raise RequestError(f"{side.name} has no input {sorted(unknown)[0]!r}", where="--shape", hint=f"inputs: {known}")
    if not side.inputs:
        return {}
    if request.data is not None:
        steps = preprocess_from_text(request.preprocess) if request.preprocess else None
        dataset = open_dataset(request.data, side.inputs, preprocess=steps, shapes=request.shapes)
        feed = dict(next(iter(dataset)).feed)
    else:
        shapes = {spec.name: _shape(spec, request.shapes, batch) for spec in side.inputs}
        feed = dict(next(iter(open_dataset("random:1", side.inputs, shapes=shapes))).feed)
    _require_elements(side, feed)
    return feed if batch is None else _batched(side, feed, batch)


def _require_elements(side: Runnable, feed: Feed) -> None:
    """Raises a RequestError for an input without elements: a rate of no rows says nothing."""
    for name, array in feed.items():
        if not array.size:
            shape = "x".join(str(size) for size in array.shape)
            raise RequestError(
                f"the input {name!r} of {side.name} has no elements ({shape}), so there is nothing to time",
                hint=f"give other data, or --shape {name}:… if its dimensions are dynamic",
            )


def _shape(spec: TensorSpec, given: Mapping[str, Shape], batch: int | None) -> Shape:
    """The shape to make up: as given, as the model says, the batch for a dynamic first dimension."""
    if spec.name in given:
        return given[spec.name]
    if spec.shape is None:
        raise RequestError(f"the rank of the input {spec.name!r} is not known", hint=f"--shape {spec.name}:1x…")
    sizes = [size if isinstance(size, int) else None for size in spec.shape]
    if sizes and sizes[0] is None:
        sizes[0] = batch or 1
    if None in sizes:
        raise RequestError(
            f"the input {spec} has dynamic dimensions and nothing tells their sizes",
            hint=f"--shape {spec.name}:{'x'.join('…' if size is None else str(size) for size in sizes)}, or --data",
        )
    return tuple(size for size in sizes if size is not None)


def _batched(side: Runnable, feed: Feed, batch: int) -> Feed:
    """The feed with so many rows in every input whose first dimension is dynamic, rows repeated or left out.

    Raises:
        RequestError: No input has such a dimension, and the model's own batch is another.
    """
    shapes = {spec.name: spec.shape for spec in side.inputs}
    dynamic = {name for name, shape in shapes.items() if shape and not isinstance(shape[0], int)}
    own = {shape[0] for shape in shapes.values() if shape and isinstance(shape[0], int)}
    if not dynamic and own != {batch}:
        raise RequestError(
            f"{side.name} has a fixed batch of {', '.join(str(size) for size in sorted(own, key=str)) or 'no size'}, "
            f"not {batch}",
            where="--batch",
            hint="leave --batch out, or export the model with a dynamic batch dimension",
        )
    return {
        name: np.resize(array, (batch, *array.shape[1:])) if name in dynamic and array.size else array
        for name, array in feed.items()
    }


def batches_from_text(text: str | None) -> tuple[int, ...]:
    """Parses `1,8,32`; nothing for None.

    Raises:
        RequestError: Not numbers with commas between them.
    """
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise RequestError(f"cannot read the batch sizes {text!r}", where="--batch", hint="--batch 1,8,32")
    return tuple(int(part) for part in parts)


def via_from_text(text: str | None) -> Via | None:
    """What is to time engines.

    Raises:
        RequestError: Not trtexec.
    """
    if text is None:
        return None
    if text == "trtexec":
        return "trtexec"
    raise RequestError(f"engines are not timed by {text!r}", where="--via", hint="--via trtexec, or leave it out")
