"""What a data pass leaves behind, from which every figure, interval and verdict follows."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trt_opt.compare.intervals import Floats, bootstrap_interval, paired_interval
from trt_opt.compare.matching import Matching
from trt_opt.compare.scores import Answers, TaskTotals
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.user_metric import Scorer
from trt_opt.values.accuracy import OutputAccuracy
from trt_opt.values.metric import Interval, wilson_interval


@dataclass(slots=True)
class Energies:
    """Every sample's share in an output's energies: what resampling needs, four numbers a sample."""

    numbers: array[float] = field(default_factory=lambda: array("d"))

    def add(self, one: OutputTotals) -> None:
        """Adds the totals of one sample."""
        self.numbers.extend((one.error_energy, one.reference_energy, one.candidate_energy, one.product))

    @property
    def table(self) -> Floats:
        """[samples, 4]: error, reference, candidate, product."""
        return np.frombuffer(self.numbers, np.float64).reshape(-1, 4) if self.numbers else np.zeros((0, 4))

    def sqnr_interval_db(self) -> Interval | None:
        """Of the SQNR pooled over all samples."""
        return bootstrap_interval(self.table[:, :2], lambda sums: 10 * (np.log10(sums[:, 1]) - np.log10(sums[:, 0])))

    def cosine_interval(self) -> Interval | None:
        """Of the cosine of all samples as one vector."""
        return bootstrap_interval(
            self.table, lambda sums: np.clip(sums[:, 3] / np.sqrt(sums[:, 1]) / np.sqrt(sums[:, 2]), -1, 1)
        )


@dataclass(slots=True)
class PairedRows:
    """The rows both sides were judged on, and those that only one of them was right about."""

    rows: int = 0
    lost: int = 0
    gained: int = 0

    def add(self, reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> None:
        """Adds rows: whether the reference and the candidate were right about each."""
        self.rows += len(reference)
        self.lost += int(np.count_nonzero(reference & ~candidate))
        self.gained += int(np.count_nonzero(candidate & ~reference))

    def drop_interval_points(self) -> Interval | None:
        """Of the share lost less the share gained, in hundredths."""
        if not self.rows:
            return None
        low, high = paired_interval(self.lost, self.gained, self.rows)
        return 100 * low, 100 * high


@dataclass(slots=True)
class PairedAnswers:
    """`PairedRows` for the first answer, and for the first five where all rows have so many."""

    top1: PairedRows = field(default_factory=PairedRows)
    top5: PairedRows = field(default_factory=PairedRows)

    def add(self, reference: Answers, candidate: Answers) -> None:
        """Adds the answers to one sample."""
        self.top1.add(reference.top1, candidate.top1)
        if reference.top5 is not None and candidate.top5 is not None:
            self.top5.add(reference.top5, candidate.top5)


@dataclass(frozen=True, slots=True)
class Scores:
    """What the user's own metric made of both sides."""

    reference: Scorer
    candidate: Scorer


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a comparison found out.

    Attributes:
        samples: Samples both sides ran.
        matching: Which outputs were compared; None without samples.
        outputs: The totals of each pair.
        reference_task: The reference's right answers.
        candidate_task: The candidate's, on the same rows.
        answers: Which rows only one of them was right about.
        energies: Output → every sample's energies.
        scores: The user's own metric; None where none was asked for.
    """

    samples: int
    matching: Matching | None
    outputs: Sequence[OutputTotals]
    reference_task: TaskTotals
    candidate_task: TaskTotals
    answers: PairedAnswers = field(default_factory=PairedAnswers)
    energies: Mapping[str, Energies] = field(default_factory=dict)
    scores: Scores | None = None

    def output_accuracies(self) -> tuple[OutputAccuracy, ...]:
        """The figures of every output with their intervals."""
        return tuple(self._accuracy(totals) for totals in self.outputs)

    def _accuracy(self, totals: OutputTotals) -> OutputAccuracy:
        found = totals.accuracy()
        share, sqnr = found.top1_agreement, found.sqnr_db
        known = sqnr is not None and not math.isnan(sqnr) and totals.name in self.energies
        return replace(
            found,
            agreement_interval=None if share is None else wilson_interval(share, totals.rows),
            sqnr_interval_db=self.energies[totals.name].sqnr_interval_db() if known else None,
        )
