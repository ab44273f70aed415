"""The data pass: every sample through every runner once, added to totals and dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from trt_opt.compare.limits import Limits, Tolerances
from trt_opt.compare.matching import Matching, matching_of
from trt_opt.compare.measured import Energies, Measured, PairedAnswers, Scores
from trt_opt.compare.metrics import UserMetric
from trt_opt.compare.scores import Answers, TaskTotals, labelled_output
from trt_opt.compare.tolerance import ToleranceCheck
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.verdict import judgement_of
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

    Memory does not grow with the size of the outputs: a sample's outputs are added up and dropped, and a few numbers of
    every sample stay, from which the intervals follow.

    Args:
        reference: What is right by definition; entered and left here, like the candidates.
        candidates: What is judged; all of them are loaded at the same time.
        dataset: The samples; labels, where there are any, give top-1 and top-5.
        tolerances: How `within_tolerance` is judged where the limits do not say; None leaves it out, which is fast.
        limits: The bounds of the verdict, and the metric.
        progress: Told of every sample.

    Raises:
        DataError: Labels that do not fit the model's answers, or the user's own metric failed; the sample is named.
        UnsupportedModelError: An output whose elements are no numbers.
        StageError: A runner changes its outputs from sample to sample.
    """
    told = progress or Silent()
    checks = _Checks(limits, tolerances)
    told.start("compare", len(dataset))
    asked = limits.metric if isinstance(limits.metric, UserMetric) else None
    with ExitStack() as stack:
        running = [stack.enter_context(runner) for runner in (reference, *candidates)]
        truth = _Truth(asked)
        sides = [_Side(checks, truth) for _ in candidates]
        for sample in dataset:
            _run_sample(sample, running, truth, sides)
            told.advance()
    told.finish()
    return tuple(
        _comparison(reference.name, candidate.name, side.measured(), limits)
        for candidate, side in zip(candidates, sides, strict=True)
    )


def _run_sample(sample: Sample, running: Sequence[Runner], truth: _Truth, sides: Sequence[_Side]) -> None:
    expected = running[0].infer(sample.feed)
    answers = truth.add(sample, expected)
    for runner, side in zip(running[1:], sides, strict=True):
        side.add(sample, expected, runner.infer(sample.feed), answers)


def _comparison(reference: str, candidate: str, measured: Measured, limits: Limits) -> Comparison:
    judgement = judgement_of(measured, limits)
    return Comparison(
        reference=reference,
        candidate=candidate,
        samples=measured.samples,
        outputs=measured.output_accuracies(),
        reference_task=measured.reference_task.accuracy(),
        candidate_task=measured.candidate_task.accuracy(),
        verdict=judgement.verdict,
        reason=judgement.reason,
        metric=judgement.metric,
    )


class _Truth:
    """What candidates are held against: the reference's right answers, or its score by the user's own metric.

    The first labelled sample decides which output the labels speak of. With a metric of the user's own the labels are
    that metric's: they need not be class numbers of any output.
    """

    def __init__(self, metric: UserMetric | None) -> None:
        self.metric = metric
        self.output: str | None = None
        self.task = TaskTotals()
        self.scorer = None if metric is None else metric.scorer()

    def add(self, sample: Sample, outputs: Outputs) -> Answers | None:
        """Adds one sample; returns which rows were right, if there are labels to say so."""
        if self.scorer is not None:
            self.scorer.add(outputs, outputs, sample.label, sample.name)
            return None
        if sample.label is None:
            return None
        if self.output is None:
            self.output = labelled_output(outputs, sample.label, sample.name)
        return self.task.add(outputs[self.output], sample.label, sample.name)


class _Checks:
    """Output → Polygraphy's comparator with the tolerances that are the output's; made when first asked for."""

    def __init__(self, limits: Limits, otherwise: Tolerances | None) -> None:
        self._limits = limits
        self._otherwise = otherwise
        self._made: dict[str, ToleranceCheck | None] = {}

    def of(self, output: str) -> ToleranceCheck | None:
        """What judges this output; None where no tolerance was given."""
        if output not in self._made:
            judged = self._limits.of(output).tolerances or self._otherwise
            self._made[output] = None if judged is None else ToleranceCheck(judged)
        return self._made[output]


class _Side:
    """One candidate's totals."""

    def __init__(self, checks: _Checks, truth: _Truth) -> None:
        self._checks = checks
        self._truth = truth
        self._matching: Matching | None = None
        self._outputs: dict[str, OutputTotals] = {}
        self._energies: dict[str, Energies] = {}
        self._task = TaskTotals()
        self._answers = PairedAnswers()
        self._scorer = None if truth.metric is None else truth.metric.scorer()
        self._samples = 0

    def add(self, sample: Sample, expected: Outputs, found: Outputs, right: Answers | None) -> None:
        """Adds one sample; `right` says which rows the reference was right about."""
        matching = matching_of(expected, found)
        if self._matching is None:
            self._matching = matching
            self._outputs = {name: OutputTotals(name) for name in matching.pairs}
            self._energies = {name: Energies() for name in matching.pairs}
        elif matching != self._matching:
            raise StageError("the runners' outputs are not those of the samples before", where=sample.name)
        self._samples += 1
        named = {name: found[partner] for name, partner in matching.pairs.items()}
        for name, array in named.items():
            self._add_output(name, expected[name], array)
        if right is not None:
            self._add_answers(sample, expected, named, right)
        if self._scorer is not None:
            self._scorer.add(named, expected, sample.label, sample.name)

    def measured(self) -> Measured:
        """What was found out, once the data have passed."""
        reference, candidate = self._truth.scorer, self._scorer
        return Measured(
            samples=self._samples,
            matching=self._matching,
            outputs=tuple(self._outputs.values()),
            reference_task=self._truth.task,
            candidate_task=self._task,
            answers=self._answers,
            energies=self._energies,
            scores=None if reference is None or candidate is None else Scores(reference, candidate),
        )

    def _add_answers(self, sample: Sample, expected: Outputs, named: Outputs, right: Answers) -> None:
        output = self._truth.output
        if sample.label is None or output is None or output not in named:
            return
        if named[output].shape == expected[output].shape:
            self._answers.add(right, self._task.add(named[output], sample.label, sample.name))

    def _add_output(self, name: str, expected: NDArray[np.generic], found: NDArray[np.generic]) -> None:
        one = OutputTotals(name)
        comparable = one.add(expected, found)
        self._energies[name].add(one)
        check = self._checks.of(name)
        if check is not None:
            one.add_check(accepted=comparable and check.accepts(expected, found))
        self._outputs[name].merge(one)
