"""Sums over all elements of one output, from which every figure follows; they add up over samples in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from trt_opt.compare.scores import rows_agreeing
from trt_opt.errors import UnsupportedModelError
from trt_opt.values.accuracy import OutputAccuracy

Array = NDArray[np.generic]
Float64s = NDArray[np.float64]

PIECE_ELEMENTS = 1 << 17
"""Elements converted to float64 at a time: memory stays small and the pieces stay in the cache."""


@dataclass(slots=True)
class OutputTotals:
    """What one output of a candidate and the same output of the reference add up to.

    Energies are sums of squares in float64, so figures are pooled over all elements and never means of per-sample
    figures. Elements that are NaN or infinite on a side are left out of the sums and counted.

    Attributes:
        name: The reference's output.
        is_float: Whether both sides hold floating-point numbers.
        samples: Samples added.
        elements: Elements compared.
        unequal: Elements that differ; NaN equals NaN.
        largest_error: The largest absolute error.
        sum_of_errors: The sum of absolute errors.
        error_energy: Sum of squared errors.
        reference_energy: The reference's energy.
        candidate_energy: The candidate's energy.
        product: Sum of reference times candidate.
        rows: Rows with a top-1 answer.
        rows_agreeing: Rows with the same answer.
        candidate_not_finite: Elements NaN or infinite in the candidate, and something else in the reference.
        reference_not_finite: Elements NaN in the reference, or infinite there and finite in the candidate.
        shapes_differ: Samples left out because the two shapes differ.
        checked: Samples that Polygraphy's comparator was asked about.
        accepted: Samples it accepted.
    """

    name: str
    is_float: bool = True
    samples: int = 0
    elements: int = 0
    unequal: int = 0
    largest_error: float = 0.0
    sum_of_errors: float = 0.0
    error_energy: float = 0.0
    reference_energy: float = 0.0
    candidate_energy: float = 0.0
    product: float = 0.0
    rows: int = 0
    rows_agreeing: int = 0
    candidate_not_finite: int = 0
    reference_not_finite: int = 0
    shapes_differ: int = 0
    checked: int = 0
    accepted: int = 0

    def add(self, reference: Array, candidate: Array) -> bool:
        """Adds one sample and returns whether the two could be compared element by element.

        Raises:
            UnsupportedModelError: The elements are no numbers.
        """
        for array in (reference, candidate):
            _check_numeric(self.name, array)
        self.samples += 1
        self.is_float &= reference.dtype.kind == "f" and candidate.dtype.kind == "f"
        if reference.shape != candidate.shape:
            self.shapes_differ += 1
            return False
        agreeing, rows = rows_agreeing(reference, candidate)
        self.rows_agreeing += agreeing
        self.rows += rows
        self.elements += reference.size
        for expected, found in _pieces(reference.reshape(-1), candidate.reshape(-1)):
            self._add_piece(expected, found)
        return True

    def add_check(self, *, accepted: bool) -> None:
        """Takes note of what Polygraphy's comparator said about one sample."""
        self.checked += 1
        self.accepted += accepted

    def merge(self, other: OutputTotals) -> None:
        """Adds the totals of another part of the data."""
        self.largest_error = max(self.largest_error, other.largest_error)
        self.is_float &= other.is_float
        for field in fields(self):
            if field.name not in ("name", "is_float", "largest_error"):
                setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def is_measured(self) -> bool:
        """Whether there are elements, all of them comparable."""
        return self.elements > 0 and self.candidate_not_finite + self.reference_not_finite == 0

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantisation noise in dB; None without noise or signal, or for integers."""
        if not self.is_measured:
            return math.nan if self.elements else None
        if not self.is_float or not self.error_energy or not self.reference_energy:
            return None
        return 10 * (math.log10(self.reference_energy) - math.log10(self.error_energy))

    @property
    def cosine(self) -> float | None:
        """Cosine similarity of all elements; None where a side is all zero."""
        if not self.is_measured:
            return math.nan if self.elements else None
        length = math.sqrt(self.reference_energy) * math.sqrt(self.candidate_energy)
        return max(-1.0, min(1.0, self.product / length)) if length else None

    @property
    def agreement(self) -> float | None:
        """Share of rows with the same top-1 answer; None without such rows."""
        return self.rows_agreeing / self.rows if self.rows else None

    def accuracy(self) -> OutputAccuracy:
        """All figures."""
        return OutputAccuracy(
            name=self.name,
            elements=self.elements,
            max_abs_error=self.largest_error if self.is_measured else math.nan,
            mean_abs_error=self.sum_of_errors / self.elements if self.is_measured else math.nan,
            cosine=self.cosine,
            sqnr_db=self.sqnr_db,
            identical=self.elements > 0 and not self.unequal and not self.shapes_differ,
            top1_agreement=self.agreement,
            within_tolerance=self.accepted / self.checked if self.checked else None,
            not_finite=self.candidate_not_finite,
            is_float=self.is_float,
            rows=self.rows,
        )

    def _add_piece(self, reference: Array, candidate: Array) -> None:
        self.unequal += int(np.count_nonzero(reference != candidate))
        expected, found = reference.astype(np.float64), candidate.astype(np.float64)
        finite = np.isfinite(expected) & np.isfinite(found)
        if not finite.all():
            self._count_not_finite(expected[~finite], found[~finite])
            expected, found = expected[finite], found[finite]
        with np.errstate(over="ignore", under="ignore"):
            error = np.abs(expected - found)
            self.largest_error = max(self.largest_error, float(error.max(initial=0.0)))
            self.sum_of_errors += float(error.sum())
            self.error_energy += float(np.dot(error, error))
            self.reference_energy += float(np.dot(expected, expected))
            self.candidate_energy += float(np.dot(found, found))
            self.product += float(np.dot(expected, found))

    def _count_not_finite(self, expected: Float64s, found: Float64s) -> None:
        """Counts pairs of which at least one side is not finite; equal infinities are in order."""
        no_number = np.isnan(expected)
        self.unequal -= int(np.count_nonzero(no_number & np.isnan(found)))
        broken = ~np.isfinite(found) & (expected != found) & ~no_number
        self.candidate_not_finite += int(np.count_nonzero(broken))
        self.reference_not_finite += int(np.count_nonzero(no_number | np.isfinite(found)))


def _check_numeric(name: str, array: Array) -> None:
    if array.dtype.kind not in "biuf":
        raise UnsupportedModelError(
            f"an output of {array.dtype.name} elements cannot be compared",
            where=name,
            hint="compare a model that ends in float, integer or bool outputs",
        )


def _pieces(reference: Array, candidate: Array) -> Iterator[tuple[Array, Array]]:
    for start in range(0, reference.size, PIECE_ELEMENTS):
        yield reference[start : start + PIECE_ELEMENTS], candidate[start : start + PIECE_ELEMENTS]
