"""The steps from one state to a better one: ranges chosen per tensor, and the rewrites that lessen INT8's error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import onnx

from calibrators import Auto
from trt_opt.accuracy_search.state import State
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.calibrate.ranges import calibration_pass
from trt_opt.errors import StageError
from trt_opt.improvements import IMPROVEMENTS
from trt_opt.improvements.improvement import Improved, Improvement, Subject
from trt_opt.preparation import ranges_table
from trt_opt.quantize.stage import float_graph
from trt_opt.range_choice import chosen_table, tables_of_each
from trt_opt.recipe import Recipe
from trt_opt.sensitivity.output_errors import GraphSums, decibels
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.improvement import ImprovementReport
from trt_opt.values.progress import Progress, Renamed
from trt_opt.values.samples import Dataset

DEFAULT_CALIBRATOR = Recipe(model="any").calibrator

SAMPLES_TO_VERIFY = 2
LEAST_EQUAL_DB = 60.0
"""A rewritten float model must give the numbers it gave: rounding in float32 leaves 100 dB and more."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Makes states from states.

    Attributes:
        recipe: The request.
        calibration: The samples that ranges and rewrites rest on.
        progress: Told of every data pass.
    """

    recipe: Recipe
    calibration: Dataset
    progress: Progress

    @property
    def wanted(self) -> Iterator[Improvement]:
        """The rewrites that were not switched off, in order."""
        return (found for name, found in IMPROVEMENTS.items() if name not in self.recipe.skip_pass)

    @property
    def calibrator_is_open(self) -> bool:
        """Whether the request left the calibrator to us: one that was chosen is kept where no budget was asked for."""
        return self.recipe.calibrator == DEFAULT_CALIBRATOR

    def with_other_ranges(self, state: State) -> Iterator[State]:
        """The state with thresholds chosen per tensor by measured error, then with those of every calibrator.

        None of them is the best for every model; one more data pass gives the histograms for all. Nothing where the
        ranges were given.
        """
        if self.recipe.table is not None:
            return
        source, told = state.source, Renamed(self.progress, "choose ranges")
        found = calibration_pass(source.model, source.taps, self.calibration, Auto(), told)
        yield _with_table(state, chosen_table(source, found, self.calibration, told))
        for table in tables_of_each(found):
            yield _with_table(state, table)

    def with_improvement(self, state: State, improvement: Improvement) -> tuple[State | None, ImprovementReport]:
        """The state after a rewrite, None where it changed nothing; and what it did to each layer."""
        subject = Subject(state.source, state.table.ranges, self.calibration, state.corrections, self.recipe.seed)
        done = improvement.improved(subject, Renamed(self.progress, improvement.name))
        report = ImprovementReport(improvement.name, done.gains, done.declined)
        if not done.gains:
            return None, report
        name = f"{state.name} + {improvement.name}"
        if done.model is None:
            return replace(state, name=name, corrections=done.corrections), report
        self._require_equal(state.source.model, done.model, improvement)
        return self._with_model(state, name, done), report

    def _with_model(self, state: State, name: str, done: Improved) -> State:
        """The state with another float model, placed and calibrated anew."""
        request = replace(state.request, spared={**state.request.spared, **done.spared})
        source = float_graph(done.model or state.model, request)
        asked = replace(self.recipe, table=None, calibrator=state.table.calibrator)
        table = ranges_table(asked, source, self.calibration, Renamed(self.progress, "calibrate again"))
        return State(name, source.model, request, source, table or state.table)

    def _require_equal(self, before: onnx.ModelProto, after: onnx.ModelProto, improvement: Improvement) -> None:
        sums = GraphSums()
        with OnnxRuntimeRunner(before, optimised=False) as old, OnnxRuntimeRunner(after, optimised=False) as new:
            for sample in islice(self.calibration, SAMPLES_TO_VERIFY):
                sums.add(old.infer(sample.feed), new.infer(sample.feed))
        worst = sums.worst()
        found = None if worst is None else decibels(worst[1])
        if found is not None and not found >= LEAST_EQUAL_DB:
            raise StageError(
                f"{improvement.name} changed the float model's numbers ({found:.1f} dB)",
                hint=f"this is a defect of trt-opt: please report it, and go on with --skip-pass {improvement.name}",
            )


def _with_table(state: State, table: CalibrationTable) -> State:
    return replace(state, name=f"{state.name} + {table.calibrator} ranges", table=table)
