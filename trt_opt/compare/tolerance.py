"""Polygraphy's comparator, asked about one output of one sample.

It computes statistics and text for its log whether or not anybody listens: about 2 ms for ten elements, 170 ms for a
million. So it is asked only where a tolerance was given, arrays are not printed in full, and of a large output it sees
the elements that are in question, in pieces, until one piece is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy import comparator
from polygraphy.logger import G_LOGGER

from trt_opt.compare.limits import Tolerances

PIECE_ELEMENTS = 65_536

Array = NDArray[np.generic]


class ToleranceCheck:
    """Asks Polygraphy whether a candidate's output is within tolerances."""

    def __init__(self, tolerances: Tolerances) -> None:
        self.tolerances = tolerances
        self._compare = _compare_function(tolerances)

    def accepts(self, reference: Array, candidate: Array) -> bool:
        """Whether the comparator accepts the candidate; arrays without elements are accepted.

        Args:
            reference: Any shape; relative errors are relative to this.
            candidate: The same shape.
        """
        pieces = self._pieces(_numbers(reference).reshape(-1), _numbers(candidate).reshape(-1))
        return all(self._accepts(*piece) for piece in pieces if piece[0].size)

    def _pieces(self, reference: Array, candidate: Array) -> Iterator[tuple[Array, Array]]:
        if self.tolerances.statistic != "elemwise" or reference.size <= PIECE_ELEMENTS:
            yield reference, candidate
            return
        for start in range(0, reference.size, PIECE_ELEMENTS):
            some = slice(start, start + PIECE_ELEMENTS)
            question = self._in_question(reference[some], candidate[some])
            yield reference[some][question], candidate[some][question]

    def _in_question(self, reference: Array, candidate: Array) -> NDArray[np.bool_]:
        """Elements beyond half the absolute tolerance, NaN included; the comparator accepts all others for sure.

        Half, because it subtracts in the outputs' own precision.
        """
        with np.errstate(all="ignore"):
            error = np.abs(candidate.astype(np.float64) - reference.astype(np.float64))
        return ~(error <= self.tolerances.atol / 2)

    def _accepts(self, reference: Array, candidate: Array) -> bool:
        results = (
            comparator.IterationResult({"output": candidate}, runner_name="candidate"),
            comparator.IterationResult({"output": reference}, runner_name="reference"),
        )
        with (
            G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1),
            np.errstate(all="ignore"),
            np.printoptions(threshold=1, edgeitems=1),
        ):
            return bool(self._compare(*results)["output"])


def _compare_function(tolerances: Tolerances) -> Callable[..., Mapping[str, Any]]:
    # Polygraphy 0.50 and later call `CompareFunc.simple` deprecated in favour of this class.
    make = getattr(comparator, "SimpleCompareFunc", None) or comparator.CompareFunc.simple
    function: Callable[..., Mapping[str, Any]] = make(
        atol=tolerances.atol,
        rtol=tolerances.rtol,
        check_error_stat=tolerances.statistic,
        infinities_compare_equal=True,
    )
    return function


def _numbers(array: Array) -> Array:
    """Booleans as 0 and 1: the comparator's statistics cannot subtract them."""
    return array.astype(np.uint8) if array.dtype == np.bool_ else array
