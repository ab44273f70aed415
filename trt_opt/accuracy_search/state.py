"""A model ready for INT8 in all but the choice of layers, and the graphs that a choice of layers gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from calibrators import calibrator_from_text
from trt_opt.accuracy_search.bisection import Suspect
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.macs import macs_by_node, with_input_shapes
from trt_opt.quantize.stage import (
    Correction,
    FloatGraph,
    PrecisionRequest,
    QuantizedGraph,
    float_graph,
    quantized_graph,
)
from trt_opt.sensitivity.end_to_end import Damage
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Dataset

FALLBACK_CALIBRATOR = "entropy"
"""For the few tensors that only a graph with fewer INT8 layers quantises."""

UNMEASURED = 1e-12
"""The damage of a layer that was not run end to end, at most: far below what one rounding to INT8 does."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything decided but the layers that stay in float.

    Attributes:
        name: What it is called in the journal and in the curve: the steps that led to it.
        model: The float model.
        request: The precisions asked for.
        source: The model made ready, with every layer in INT8 that the policy allows.
        table: The calibrated ranges.
        corrections: Layer → constants it has in INT8.
    """

    name: str
    model: onnx.ModelProto
    request: PrecisionRequest
    source: FloatGraph
    table: CalibrationTable
    corrections: Mapping[str, Correction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """A graph in which some layers were left in float for accuracy."""

    source: FloatGraph
    table: CalibrationTable
    graph: QuantizedGraph


def assigned(state: State, spared: Mapping[str, str], data: Dataset | None) -> Assignment:
    """The graph with some layers in float.

    Args:
        state: The model.
        spared: Layer → why it stays in float; where nothing is left to quantise, the graph is one without INT8.
        data: For the ranges of tensors that are quantised only now.

    Raises:
        StaleError: Such a tensor has no range, and there are no data.
    """
    source, table = placed(state, spared), state.table
    # FP16 had some tensors watched, of which there are extremes but no threshold.
    missing = tuple(
        name for name in source.placement.ranges_needed if name not in table.ranges or table.ranges[name].amax is None
    )
    if missing and data is not None:
        calibrator = calibrator_from_text(FALLBACK_CALIBRATOR)
        more = calibration_table(source.model, Taps(missing), data, calibrator, Silent())
        table = replace(table, ranges={**table.ranges, **more.ranges})
    return Assignment(source, table, quantized_graph(source, table.ranges, state.corrections))


def placed(state: State, spared: Mapping[str, str]) -> FloatGraph:
    """The model made ready with some layers in float; see `assigned`."""
    if not spared and state.source.request == state.request:
        return state.source
    spared = {**state.request.spared, **spared}
    # What stays FP32 tells the reason why it is not INT8 either.
    request = replace(state.request, wide={node: spared.get(node, why) for node, why in state.request.wide.items()})
    try:
        return float_graph(state.model, replace(request, spared=spared))
    except UnsupportedModelError:
        # The state itself could be placed: sparing left nothing to quantise.
        plain = PrecisionRequest(fp16=request.fp16, io_fp16=request.io_fp16, wide=request.wide)
        return float_graph(state.model, plain)


class Compute:
    """The multiply-accumulates of a model, and how much of them is INT8.

    Args:
        model: The float model, node names unique.
        feed: One sample's inputs, for their shapes; None leaves the shapes to the model.
    """

    def __init__(self, model: onnx.ModelProto, feed: Mapping[str, NDArray[np.generic]] | None) -> None:
        shapes = {name: array.shape for name, array in (feed or {}).items()}
        counted = macs_by_node(GraphIndex(with_input_shapes(model, shapes)))
        self.macs: dict[str, int] = {name: macs for name, macs in counted.items() if macs is not None}
        self._total = sum(self.macs.values())

    def share(self, nodes: Iterable[str]) -> float | None:
        """The share of these nodes in all MACs, 0 … 1; None where no shape is known."""
        return sum(self.macs.get(name, 0) for name in set(nodes)) / self._total if self._total else None


def suspects_from(damages: Iterable[Damage], compute: Compute) -> list[Suspect]:
    """The layers as the bisection takes them.

    A layer whose damage at the output was not measured counts for less than every measured one, and the earlier it
    stands the more: they come ranked by the error at their own outputs.

    Args:
        damages: The worst first.
        compute: The MACs of the model.
    """
    suspects: list[Suspect] = []
    for place, damage in enumerate(damages):
        energy = damage.energy if damage.energy is not None else UNMEASURED / (place + 1)
        suspects.append(Suspect(damage.node, energy, max(compute.macs.get(damage.node, 1), 1)))
    return suspects
