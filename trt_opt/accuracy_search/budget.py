"""The accuracy budget of a request: its bounds, the samples that steer the search and those that judge its answer."""

from __future__ import annotations

from dataclasses import dataclass

from trt_opt.compare import Limits, metric_from_text
from trt_opt.datasets.halves import halves
from trt_opt.errors import RequestError
from trt_opt.preparation import DataSets
from trt_opt.quantize.methods.full_integer import FullInteger
from trt_opt.quantize.methods.static import Static
from trt_opt.recipe import Recipe
from trt_opt.values.samples import Dataset

SEARCHED_METHODS = (Static.name, FullInteger.name)
"""Their error can be measured layer by layer here."""

LABEL_METRICS = (None, "top1", "top5")


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What the search aims at.

    Attributes:
        limits: The bounds up to which steps are tried that cost no INT8.
        search: The samples that steer the search.
        report: Others, which it never sees and which judge its answer; None where there are none.
        slack: How far outside the bounds an answer may be before layers go back to float, in the bounds' own unit.
    """

    limits: Limits
    search: Dataset
    report: Dataset | None
    slack: float = 0.0

    @property
    def is_asked_for(self) -> bool:
        """Whether the user set the bounds; the floor's have no samples to report from."""
        return self.report is not None

    @property
    def goal(self) -> str:
        """The bounds in words."""
        limits = self.limits
        name = "top-1" if limits.metric is None else limits.metric.text
        parts = []
        if limits.max_drop is not None:
            parts.append(f"{name} drops by at most {limits.max_drop:g} points")
        if limits.min_agreement is not None:
            parts.append(f"at least {limits.min_agreement:g} % of the answers agree")
        if limits.min_sqnr_db is not None:
            parts.append(f"SQNR at least {limits.min_sqnr_db - self.slack:g} dB")
        return ", ".join(parts)


def limits_of(recipe: Recipe) -> Limits:
    """The bounds that a recipe asks for, none without a budget, and the metric.

    Raises:
        RequestError: There is no metric of this name, or its drop cannot be bounded.
    """
    return Limits(
        min_sqnr_db=recipe.min_sqnr,
        max_drop=recipe.max_drop,
        min_agreement=recipe.min_agreement,
        metric=metric_from_text(recipe.metric) if recipe.metric is not None else None,
    )


def budget_of(recipe: Recipe, data: DataSets) -> Budget | None:
    """The budget; None where none was asked for.

    Raises:
        RequestError: Nothing to judge it on, or labels are missing that it needs.
        DataError: The evaluation data cannot be split.
    """
    limits = limits_of(recipe)
    if not limits.any:
        return None
    if data.evaluation is None:
        raise RequestError(
            "an accuracy budget needs samples to judge it on", hint="--eval-data DATA, others than --calib-data"
        )
    if data.calibration is None:
        raise RequestError(
            "the search for a budget calibrates more than once",
            hint="--calib-data DATA, beside the table or without it",
        )
    if limits.max_drop is not None and recipe.metric in LABEL_METRICS and not data.evaluation.has_labels:
        raise RequestError(
            f"--max-drop is about {recipe.metric or 'top1'}, and the evaluation data have no labels",
            hint="--min-sqnr 30 or --min-agreement 99 need none; or --metric package.module:function",
        )
    return Budget(limits, *halves(data.evaluation, seed=recipe.seed))
