"""Assignments run end to end against the model as given, each once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator

import onnx

from trt_opt.accuracy_search.budget import Budget
from trt_opt.accuracy_search.journal import Journal
from trt_opt.accuracy_search.state import Assignment, Compute, State, assigned, placed
from trt_opt.compare import Limits, margin
from trt_opt.values.accuracy import Comparison
from trt_opt.values.metric import Z
from trt_opt.values.progress import Progress, Renamed
from trt_opt.values.samples import Dataset
from trt_opt.values.search import CurvePoint
from trt_opt.variants import GraphVariant, accuracies

CHOSEN = "left in float by the search"


class Judge:
    """Compares assignments with the model as given on the samples that steer the search.

    Args:
        original: The model as given.
        budget: The bounds, and the samples that the search may see.
        calibration: For ranges that only some assignments need.
        journal: Remembers the comparisons.
        progress: Told of every comparison.
    """

    def __init__(
        self, original: onnx.ModelProto, budget: Budget, calibration: Dataset, journal: Journal, progress: Progress
    ) -> None:
        self._original = original
        self._budget = budget
        self._calibration = calibration
        self._journal = journal
        self._progress = progress
        self._computes: dict[str, Compute] = {}
        self._compared: dict[str, Comparison] = {}
        self._points: dict[str, CurvePoint] = {}
        self._margins: dict[str, float] = {}
        self.checks = 0

    def compute(self, state: State) -> Compute:
        """The MACs of a state's model."""
        if state.name not in self._computes:  # FP32 in place of FP16 changes names, not MACs
            feed = next((sample.feed for sample in self._budget.search), None)
            self._computes[state.name] = Compute(state.source.model, feed)
        return self._computes[state.name]

    def margin(self, state: State, spared: Iterable[str] = (), *, step: str) -> float:
        """How far inside the budget an assignment is, on the samples searched with; it becomes a point of the curve."""
        spared = frozenset(spared)
        name = _name_of(state, spared)
        if name not in self._margins:
            found = self.comparison(state, spared)
            self._margins[name] = min((margin(found, self._budget.limits), *_surely_inside(found, self._budget.limits)))
            self._points[name] = self._point(state, spared, found, step)
        return self._margins[name]

    @property
    def curve(self) -> list[CurvePoint]:
        """Every assignment tried, in the order of INT8 compute, most first."""
        return sorted(self._points.values(), key=lambda point: -(point.int8_share or 0.0))

    def _point(self, state: State, spared: frozenset[str], found: Comparison, step: str) -> CurvePoint:
        metric, agreement = found.metric, found.top1_agreement
        return CurvePoint(
            step=step,
            int8_share=self.compute(state).share(placed(state, dict.fromkeys(spared, CHOSEN)).quantized_nodes),
            spared=len(spared),
            sqnr_db=found.sqnr_db,
            metric=None if metric is None else metric.candidate,
            drop=None if metric is None else metric.drop_points,
            agreement=None if agreement is None else 100 * agreement,
            met=self._margins[_name_of(state, spared)] >= -self._budget.slack,
        )

    @property
    def best(self) -> CurvePoint:
        """Of the points so far: the most INT8 that meets the budget, else the one that misses it least."""

        def rank(name: str) -> tuple[bool, float]:
            point = self._points[name]
            return point.met, (point.int8_share or 0.0) if point.met else self._margins[name]

        return self._points[max(self._points, key=rank)]

    def comparison(self, state: State, spared: frozenset[str]) -> Comparison:
        """An assignment against the model as given, from memory, from the journal or from a run."""
        name = _name_of(state, spared)
        found = self._compared.get(name) or self._journal.recall(name, Comparison)
        if found is None:
            found = self._run(assigned(state, dict.fromkeys(spared, CHOSEN), self._calibration))
            self._journal.keep(name, found)
        if name not in self._compared:
            self._compared[name] = found
            self.checks += 1
        return found

    def _run(self, assignment: Assignment) -> Comparison:
        variant = GraphVariant(assignment.source.name, assignment.graph.model, assignment.graph.ends)
        told = Renamed(self._progress, f"check {self.checks + 1}")
        found = accuracies(self._original, (variant,), self._budget.search, told, limits=self._budget.limits)
        return found[variant.name]


def _name_of(state: State, spared: frozenset[str]) -> str:
    """An assignment as a short text."""
    layers = hashlib.sha256("\n".join(sorted(spared)).encode()).hexdigest()[:24] if spared else "none"
    return f"{state.name}: {layers}"


def _surely_inside(found: Comparison, limits: Limits) -> Iterator[float]:
    """How far every output's SQNR is above its bound with one standard error to spare, dB.

    An answer that just meets the bound on the samples searched with would miss it on others every second time. Shares
    of rows are taken as they are: their error bars are wider than budgets are.
    """
    yield math.inf
    for output in found.outputs if limits.min_sqnr_db is not None else ():
        if output.sqnr_db is not None and output.sqnr_interval_db is not None:
            standard_error = (output.sqnr_db - output.sqnr_interval_db[0]) / Z
            yield output.sqnr_db - standard_error - (limits.min_sqnr_db or 0.0)
