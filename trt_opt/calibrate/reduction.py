"""Tensors to ranges, on a thread of its own so that the model does not wait for histograms."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from calibrators import Calibrator, CalibratorError, Observer
from trt_opt.errors import DataError, TrtOptError
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Taps

Tensors = Mapping[str, NDArray[np.generic]]

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class Reduction:
    """One observer per tapped tensor.

    Args:
        taps: Which tensors, and which of them need a threshold.
        calibrator: Makes the observers of those that do.
    """

    def __init__(self, taps: Taps, calibrator: Calibrator) -> None:
        self._calibrated: dict[str, Observer] = {name: calibrator.observer() for name in taps.calibrated}
        self._watched = {name: _Extremes() for name in taps.watched}
        self._failure: TrtOptError | None = None

    @contextmanager
    def running(self) -> Iterator[Callable[[str, Tensors], None]]:
        """Yields a function that takes a sample's name and tensors; it raises what went wrong with an earlier one."""
        # One sample waits while another is reduced: that keeps both sides busy, more would only hold memory.
        waiting: queue.Queue[tuple[str, Tensors] | None] = queue.Queue(1)
        thread = threading.Thread(target=self._work, args=(waiting,), name="reduction", daemon=True)
        thread.start()

        def reduce(sample: str, tensors: Tensors) -> None:
            self._raise_failure()
            waiting.put((sample, tensors))

        try:
            yield reduce
        finally:
            waiting.put(None)
            thread.join()
        self._raise_failure()

    def ranges(self) -> dict[str, TensorRange]:
        """The range of every tapped tensor that was seen at all.

        Raises:
            DataError: A tensor that needs a threshold never held an element.
        """
        found = {name: _range_of(name, observer) for name, observer in self._calibrated.items()}
        found |= {name: seen.range() for name, seen in self._watched.items() if seen.count}
        return found

    def _work(self, waiting: queue.Queue[tuple[str, Tensors] | None]) -> None:
        while (item := waiting.get()) is not None:
            if self._failure is None:
                try:
                    self._observe(*item)
                except TrtOptError as error:
                    self._failure = error

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

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


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
