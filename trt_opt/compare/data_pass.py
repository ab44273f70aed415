"""The data pass: every sample through every runner once, added to totals and dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from trt_opt.compare.limits import Limits, Tolerances
from trt_opt.compare.matching import Matching, matching_of
from trt_opt.compare.scores import TaskTotals, labelled_output
from trt_opt.compare.tolerance import ToleranceCheck
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.verdict import Measured, verdict_of
from trt_opt.errors import StageError
from trt_opt.values.accuracy import Comparison
from trt_opt.values.progress import Progress, Silent
from trt_opt.values.runner import Runner
from trt_opt.values.samples import Dataset, Sample

Outputs = Mapping[str, NDArray[np.generic]]

NO_LIMITS = Limits()


def compare(
    reference: Runner,
    candidate: Runner,
    dataset: Dataset,
    *,
    tolerances: Tolerances | None = None,
    limits: Limits = NO_LIMITS,
    progress: Progress | None = None,
) -> Comparison:
    """Runs two runners over the data and judges the candidate; see `compare_many`."""
    return compare_many(reference, (candidate,), dataset, tolerances=tolerances, limits=limits, progress=progress)[0]


def compare_many(
    reference: Runner,
    candidates: Sequence[Runner],
    dataset: Dataset,
    *,
    tolerances: Tolerances | None = None,
    limits: Limits = NO_LIMITS,
    progress: Progress | None = None,
) -> tuple[Comparison, ...]:
    """Runs a reference once per sample, judges every candidate against it, and returns one comparison for each.

    Memory does not grow with the number of samples: a sample's outputs are added up and dropped.

    Args:
        reference: What is right by definition; entered and left here, like the candidates.
        candidates: What is judged; all of them are loaded at the same time.
        dataset: The samples; labels, where there are any, give top-1 and top-5.
        tolerances: How `within_tolerance` is judged where the limits do not say; None leaves it out, which is fast.
        limits: The bounds of the verdict.
        progress: Told of every sample.

    Raises:
        DataError: Labels that do not fit the model's answers; the sample is named.
        UnsupportedModelError: An output whose elements are no numbers.
        StageError: A runner changes its outputs from sample to sample.
    """
    told = progress or Silent()
    judged = limits.tolerances or tolerances
    check = ToleranceCheck(judged) if judged is not None else None
    told.start("compare", len(dataset))
    with ExitStack() as stack:
        running = [stack.enter_context(runner) for runner in (reference, *candidates)]
        sides = [_Side(check) for _ in candidates]
        reference_task = _Task()
        for sample in dataset:
            _run_sample(sample, running, reference_task, sides)
            told.advance()
    told.finish()
    return tuple(
        _comparison(reference.name, candidate.name, side.measured(reference_task.totals), limits)
        for candidate, side in zip(candidates, sides, strict=True)
    )


def _run_sample(sample: Sample, running: Sequence[Runner], reference_task: _Task, sides: Sequence[_Side]) -> None:
    expected = running[0].infer(sample.feed)
    reference_task.add(sample, expected)
    for runner, side in zip(running[1:], sides, strict=True):
        side.add(sample, expected, runner.infer(sample.feed), reference_task.output)


def _comparison(reference: str, candidate: str, measured: Measured, limits: Limits) -> Comparison:
    verdict, reason = verdict_of(measured, limits)
    return Comparison(
        reference=reference,
        candidate=candidate,
        samples=measured.samples,
        outputs=tuple(output.accuracy() for output in measured.outputs),
        reference_task=measured.reference_task.accuracy(),
        candidate_task=measured.candidate_task.accuracy(),
        verdict=verdict,
        reason=reason,
    )


class _Task:
    """The reference's right answers; the first labelled sample decides which output the labels speak of."""

    def __init__(self) -> None:
        self.output: str | None = None
        self.totals = TaskTotals()

    def add(self, sample: Sample, outputs: Outputs) -> None:
        if sample.label is None:
            return
        if self.output is None:
            self.output = labelled_output(outputs, sample.label, sample.name)
        self.totals.add(outputs[self.output], sample.label, sample.name)


class _Side:
    """One candidate's totals."""

    def __init__(self, check: ToleranceCheck | None) -> None:
        self._check = check
        self._matching: Matching | None = None
        self._outputs: dict[str, OutputTotals] = {}
        self._task = TaskTotals()
        self._samples = 0

    def add(self, sample: Sample, expected: Outputs, found: Outputs, labelled: str | None) -> None:
        """Adds one sample; `labelled` is the reference's output that labels speak of."""
        matching = matching_of(expected, found)
        if self._matching is None:
            self._matching = matching
            self._outputs = {name: OutputTotals(name) for name in matching.pairs}
        elif matching != self._matching:
            raise StageError("the runners' outputs are not those of the samples before", where=sample.name)
        self._samples += 1
        for name, partner in matching.pairs.items():
            self._add_output(self._outputs[name], expected[name], found[partner])
        if sample.label is not None and labelled is not None and labelled in matching.pairs:
            answers = found[matching.pairs[labelled]]
            if answers.shape == expected[labelled].shape:
                self._task.add(answers, sample.label, sample.name)

    def measured(self, reference_task: TaskTotals) -> Measured:
        """What was found out, once the data have passed."""
        return Measured(self._samples, self._matching, tuple(self._outputs.values()), reference_task, self._task)

    def _add_output(self, totals: OutputTotals, expected: NDArray[np.generic], found: NDArray[np.generic]) -> None:
        comparable = totals.add(expected, found)
        if self._check is not None:
            totals.add_check(accepted=comparable and self._check.accepts(expected, found))
