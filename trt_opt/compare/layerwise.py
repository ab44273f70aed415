"""Where two graphs part: the tensors that both compute, side by side, in the order of execution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.compare.parting import finding_of
from trt_opt.compare.skeleton import Skeleton
from trt_opt.compare.tensor_pairs import TensorPair, paired_tensors
from trt_opt.compare.totals import OutputTotals
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.macs import with_input_shapes
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import infer_shapes
from trt_opt.values.model_comparison import LayerwiseComparison, MatchedTensor
from trt_opt.values.progress import Progress
from trt_opt.values.runner import Runner
from trt_opt.values.samples import Dataset

GROUP_BYTES = 256 << 20
"""What the tensors that are looked at in one walk through the data may take, on each side."""

LARGEST_GROUP = 256
"""Tensors in one walk, where shapes are unknown above all."""

THRESHOLD_DB = 30.0
"""Below it two tensors have parted, where nothing else was asked for: a thousandth of the energy is error."""

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class TappedGraph:
    """A graph of which inner tensors are looked at.

    Attributes:
        name: What results call it.
        model: In a form that ONNX Runtime runs exactly without its own optimisations.
        fed: Makes of a runner of the model one that takes the data's feeds, whatever the model's own inputs are.
    """

    name: str
    model: onnx.ModelProto
    fed: Callable[[Runner], Runner]


def layerwise(
    reference: TappedGraph, candidate: TappedGraph, dataset: Dataset, progress: Progress, *, threshold_db: float
) -> LayerwiseComparison:
    """Runs two graphs side by side and compares every tensor that both compute.

    Memory stays bounded: tensors are looked at in groups, one walk through the data for each, and of every sample
    nothing but sums is kept, so that the SQNR is pooled over all samples.

    Args:
        reference: What is right by definition.
        candidate: What is judged.
        dataset: The samples.
        progress: Told of every sample of every walk.
        threshold_db: A tensor with a lower SQNR has parted.

    Raises:
        UnsupportedModelError: ONNX Runtime does not run one of them with inner tensors as outputs.
    """
    graphs = [
        replace(graph, model=infer_shapes(with_unique_node_names(graph.model))) for graph in (reference, candidate)
    ]
    skeletons = [Skeleton(GraphIndex(graph.model)) for graph in graphs]
    pairing = paired_tensors(*skeletons)
    totals = {pair: _Totals(pair) for pair in pairing.pairs}
    groups = _groups(pairing.pairs, _sizes(graphs[0].model, dataset))
    progress.start("layerwise", len(groups) * len(dataset))
    samples = 0
    for group in groups:
        samples = _walk(group, graphs, dataset, totals, progress)
    progress.finish()
    compared = [totals[pair] for pair in pairing.pairs if totals[pair].is_compared]
    tensors = _tensors(compared, skeletons[1])
    found = LayerwiseComparison(
        candidate=candidate.name,
        samples=samples,
        threshold_db=threshold_db,
        tensors=tensors,
        unmatched_reference=len(pairing.reference_only),
        unmatched_candidate=len(pairing.candidate_only),
        first=next((one.partner for one in tensors if has_parted(one, threshold_db)), None),
        largest_drop=_largest_drop(tensors),
        finding="",
    )
    return replace(found, finding=finding_of(found, skeletons[1]))


def has_parted(tensor: MatchedTensor, threshold_db: float) -> bool:
    """Whether a tensor is below the threshold, or cannot be held against it."""
    if tensor.identical:
        return False
    if tensor.not_finite or tensor.sqnr_db is None:
        return True  # NaN or infinity, or noise where the reference is silent
    return not tensor.sqnr_db >= threshold_db


class _Totals:
    """What is kept of one pair."""

    def __init__(self, pair: TensorPair) -> None:
        self.pair = pair
        self.sums = OutputTotals(pair.candidate)

    @property
    def is_compared(self) -> bool:
        """Whether both sides were arrays of floating-point numbers, of the same shape at least once."""
        return self.sums.elements > 0 or self.sums.shapes_differ > 0

    def add(self, expected: object, found: object) -> None:
        """Adds one sample; anything but floating-point numbers is passed over."""
        if not (isinstance(expected, np.ndarray) and isinstance(found, np.ndarray)):
            return
        if expected.dtype.kind == "f" and found.dtype.kind == "f":
            # As one column: rows of class scores are not what inner tensors hold.
            same = expected.shape == found.shape
            self.sums.add(*((one.reshape(-1, 1) for one in (expected, found)) if same else (expected, found)))


def _walk(
    group: Sequence[TensorPair],
    graphs: Sequence[TappedGraph],
    dataset: Dataset,
    totals: Mapping[TensorPair, _Totals],
    progress: Progress,
) -> int:
    """One walk through the data with a group's tensors as outputs; returns how many samples there were."""
    taps = ([pair.reference for pair in group], [pair.candidate for pair in group])
    samples = 0
    with ExitStack() as stack:
        running = [
            stack.enter_context(graph.fed(_tapped(graph, names))) for graph, names in zip(graphs, taps, strict=True)
        ]
        for sample in dataset:
            expected = {**sample.feed, **running[0].infer(sample.feed)}
            found = running[1].infer(sample.feed)
            for pair in group:
                totals[pair].add(expected.get(pair.reference), found.get(pair.candidate))
            samples += 1
            progress.advance()
    return samples


def _tapped(graph: TappedGraph, names: Sequence[str]) -> Runner:
    name = f"{graph.name} with inner tensors as outputs"
    return OnnxRuntimeRunner(graph.model, optimised=False, outputs=names, name=name, rounds_halves=True)


def _groups(pairs: Sequence[TensorPair], sizes: Mapping[str, int]) -> list[list[TensorPair]]:
    """Pairs in order, as many at a time as fit; a pair of unknown size counts as the largest that is known."""
    largest = max(sizes.values(), default=0)
    groups: list[list[TensorPair]] = []
    filled = 0
    for pair in pairs:
        size = sizes.get(pair.reference, largest)
        if not groups or filled + size > GROUP_BYTES or len(groups[-1]) == LARGEST_GROUP:
            groups.append([])
            filled = 0
        groups[-1].append(pair)
        filled += size
    return groups


def _sizes(model: onnx.ModelProto, dataset: Dataset) -> dict[str, int]:
    """Tensor → bytes as float32, for the shapes of the first sample."""
    first = next(iter(dataset), None)
    if first is None:
        return {}
    shaped = with_input_shapes(model, {name: array.shape for name, array in first.feed.items()}).graph
    found = {}
    for value in (*shaped.value_info, *shaped.input, *shaped.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = 4 * math.prod(dim.dim_value for dim in dims)
    return found


def _tensors(compared: Sequence[_Totals], graph: Skeleton) -> tuple[MatchedTensor, ...]:
    """Every pair with its figures, and with what its node reads."""
    own = {one.pair.candidate: one for one in compared}
    return tuple(_tensor(one, list(_read(one.pair.candidate, own, graph)), graph) for one in compared)


def _tensor(one: _Totals, read: Sequence[OutputTotals], graph: Skeleton) -> MatchedTensor:
    node = graph.index.producer(one.pair.candidate)
    sqnr = one.sums.sqnr_db
    known = [value for value in (sums.sqnr_db for sums in read) if value is not None]
    before = min(known, key=lambda value: -math.inf if math.isnan(value) else value, default=None)
    figures = None not in (sqnr, before)
    return MatchedTensor(
        name=one.pair.reference,
        partner=one.pair.candidate,
        by=one.pair.by,
        node="" if node is None else node.name,
        operator="" if node is None else node.op_type,
        elements=one.sums.elements,
        sqnr_db=sqnr,
        identical=one.sums.elements > 0 and not one.sums.unequal and not one.sums.shapes_differ,
        inputs_sqnr_db=before,
        drop_db=(before or 0.0) - (sqnr or 0.0) if figures else None,
        shapes_differ=one.sums.shapes_differ > 0,
        not_finite=one.sums.candidate_not_finite,
    )


def _read(tensor: str, own: Mapping[str, _Totals], graph: Skeleton) -> Iterator[OutputTotals]:
    """The nearest compared tensors that a tensor is computed from."""
    seen = {tensor}
    waiting = [tensor]
    while waiting:
        node = graph.index.producer(waiting.pop())
        for name in () if node is None else node.input:
            if not name or name in seen or graph.is_fixed(name):
                continue
            seen.add(name)
            if name in own:
                yield own[name].sums
            else:
                waiting.append(name)


def _largest_drop(tensors: Sequence[MatchedTensor]) -> str | None:
    falls = [(one.drop_db, one.partner) for one in tensors if one.drop_db is not None and one.drop_db > 0]
    return max(falls, key=lambda entry: entry[0])[1] if falls else None
