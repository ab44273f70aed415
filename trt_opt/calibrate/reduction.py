"""Tensors to ranges, on threads of their own so that the model does not wait for histograms."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from calibrators import Calibrator, CalibratorError, Histogram, HistogramObserver, Observer
from trt_opt.errors import DataError
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Taps

Tensors = Mapping[str, NDArray[np.generic]]

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

MOST_THREADS = 8
"""NumPy lets go of the interpreter lock inside a call, not between calls: more threads would wait for it."""


class Reduction:
    """One observer per tapped tensor.

    Args:
        taps: Which tensors, and which of them need a threshold.
        calibrator: Makes the observers of those that do.
        threads: How many threads share the tensors; each tensor belongs to one, so what it finds does not depend on
            their number.
    """

    def __init__(self, taps: Taps, calibrator: Calibrator, *, threads: int = 1) -> None:
        self._calibrated: dict[str, Observer] = {name: calibrator.observer() for name in taps.calibrated}
        self._watched = {name: _Extremes() for name in taps.watched if name not in self._calibrated}
        # Neighbours in the graph have like sizes: dealing them out in turns gives shares of like work.
        shares = [taps.all[start::threads] for start in range(threads)]
        self._shares = [share for share in shares if share]

    @contextmanager
    def running(self) -> Iterator[Callable[[str, Tensors], None]]:
        """Yields a function that takes a sample's name and tensors; it raises what went wrong with an earlier one.

        The function waits for the sample before, and returns while its own is being reduced: model and reduction both
        stay busy, and no tensors queue up. Leaving the block waits for the last sample.
        """
        with ExitStack() as stack:
            pools = [stack.enter_context(ThreadPoolExecutor(1, "reduction")) for _ in self._shares]
            under_way: list[Future[None]] = []

            def wait() -> None:
                for future in under_way:
                    future.result()
                under_way.clear()

            def reduce(sample: str, tensors: Tensors) -> None:
                wait()
                for pool, share in zip(pools, self._shares, strict=True):
                    under_way.append(pool.submit(self._observe, sample, {name: tensors[name] for name in share}))

            yield reduce
            wait()

    def ranges(self) -> dict[str, TensorRange]:
        """The range of every tapped tensor that was seen at all.

        Raises:
            DataError: A tensor that needs a threshold never held an element.
        """
        found = {name: _range_of(name, observer) for name, observer in self._calibrated.items()}
        found |= {name: seen.range() for name, seen in self._watched.items() if seen.count}
        return found

    def histograms(self) -> dict[str, Histogram]:
        """The histogram of every calibrated tensor whose calibrator keeps one."""
        return {
            name: observer.histogram
            for name, observer in self._calibrated.items()
            if isinstance(observer, HistogramObserver)
        }

    def _observe(self, sample: str, tensors: Tensors) -> None:
        for name, array in tensors.items():
            if name in self._watched:
                self._watched[name].observe(array)
                continue
            try:
                self._calibrated[name].observe(array)
            except CalibratorError as error:
                raise DataError(
                    f"the tensor {name!r} cannot be calibrated: {error}",
                    where=sample,
                    hint="leave this sample out, or check its preprocessing",
                ) from error


def reduction_threads() -> int:
    """How many threads to reduce with: half of the cores, since the model wants the other half at the same time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // 2, MOST_THREADS))


class _Extremes:
    """Smallest and largest element; infinities and NaN count as the largest float32, so the tensor stays FP32."""

    def __init__(self) -> None:
        self.low, self.high, self.count = LARGEST_FLOAT32, -LARGEST_FLOAT32, 0

    def observe(self, array: NDArray[np.generic]) -> None:
        if array.size == 0:
            return
        low, high = float(array.min()), float(array.max())
        if np.isnan(low) or np.isnan(high):
            low, high = -LARGEST_FLOAT32, LARGEST_FLOAT32
        self.low = min(self.low, max(low, -LARGEST_FLOAT32))
        self.high = max(self.high, min(high, LARGEST_FLOAT32))
        self.count += array.size

    def range(self) -> TensorRange:
        return TensorRange(self.low, self.high, None, self.count)


def _range_of(name: str, observer: Observer) -> TensorRange:
    try:
        found = observer.range()
    except CalibratorError as error:
        raise DataError(f"the tensor {name!r} cannot be calibrated: {error}") from error
    return TensorRange(found.low, found.high, found.amax, found.count)
