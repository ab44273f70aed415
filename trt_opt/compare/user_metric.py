"""A metric of the user's own: `package.module:name`.

A function `score(outputs, reference, label) -> float` is called for every sample, and its mean is the value. A class is
for what is no mean (F1, mAP): its instances have `add(outputs, reference, label)` and `value() -> float`. `outputs` and
`reference` map the model's output names to arrays, `label` is the sample's labels or None. Scores are 0 … 1, more is
better. The reference is scored too, with its own outputs on both sides.
"""

from __future__ import annotations

import inspect
import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.named_code import NamedCode
from trt_opt.errors import DataError, RequestError

Outputs = Mapping[str, NDArray[np.generic]]

FUNCTION = "score(outputs, reference, label)"
CLASS = "a class with add(outputs, reference, label) and value()"

SLACK = 1e-6
"""How far from 0 … 1 rounding may bring a score."""


class Scorer(Protocol):
    """One side's scores so far."""

    @property
    def per_sample(self) -> array[float] | None:
        """One score per sample, or None for a metric that is no mean."""

    def add(self, outputs: Outputs, reference: Outputs, label: NDArray[np.generic] | None, sample: str) -> None:
        """Scores one sample.

        Raises:
            DataError: The user's code failed, or gave no number from 0 to 1.
        """

    def value(self) -> float:
        """The value over all samples so far; NaN if one is."""


@dataclass(frozen=True, slots=True)
class FunctionScorer:
    """The mean of a function's scores."""

    code: NamedCode
    per_sample: array[float]

    def add(self, outputs: Outputs, reference: Outputs, label: NDArray[np.generic] | None, sample: str) -> None:
        """Calls the function."""
        where = f"{self.code.source}: {sample}"
        given = _read_only(outputs), _read_only(reference), _read_only_array(label)
        self.per_sample.append(_share(self.code.call(where, self.code.code, *given), where))

    def value(self) -> float:
        """The mean."""
        return math.fsum(self.per_sample) / len(self.per_sample) if self.per_sample else math.nan


class ClassScorer:
    """What an instance of a class has added up."""

    per_sample = None

    def __init__(self, code: NamedCode) -> None:
        self._code = code
        self._instance = code.call(code.source, code.code)
        self._samples = 0
        self._told: float | None = None

    def add(self, outputs: Outputs, reference: Outputs, label: NDArray[np.generic] | None, sample: str) -> None:
        """Hands the sample on as copies: the instance may keep them, and a runner may reuse its arrays."""
        self._samples += 1
        self._told = None
        given = _copied(outputs), _copied(reference), None if label is None else np.array(label)
        self._code.call(f"{self._code.source}: {sample}", self._instance.add, *given)

    def value(self) -> float:
        """What the instance says; asked once, as it may be dear."""
        if self._told is None:
            where = f"{self._code.source}: after {self._samples} samples"
            self._told = _share(self._code.call(where, self._instance.value), where)
        return self._told


def scorer_of(code: NamedCode) -> Scorer:
    """A scorer without samples.

    Raises:
        DataError: The class cannot be instantiated.
    """
    return ClassScorer(code) if inspect.isclass(code.code) else FunctionScorer(code, array("d"))


def require_metric(code: NamedCode) -> None:
    """Refuses code that cannot be called as a metric, before any data are run.

    Raises:
        RequestError: Says what is missing.
    """
    if not inspect.isclass(code.code):
        _require_call(code, code.code, FUNCTION, 3)
        return
    _require_call(code, code.code, "the class", 0)
    for name, arguments, form in (("add", 3, "add(outputs, reference, label)"), ("value", 0, "value()")):
        method = getattr(code.code, name, None)
        if not callable(method):
            raise RequestError(f"the class has no {form}", where=code.source, hint=f"write {CLASS}")
        is_bound = isinstance(inspect.getattr_static(code.code, name), (staticmethod, classmethod))
        _require_call(code, method, form, arguments + (not is_bound))


def _require_call(code: NamedCode, function: Callable[..., Any], form: str, arguments: int) -> None:
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError as error:
        raise RequestError(
            f"cannot be called as {form} ({error})", where=code.source, hint=f"write {FUNCTION}, or {CLASS}"
        ) from error
    except ValueError:  # compiled code may not tell its signature
        return


def _share(value: object, where: str) -> float:
    """The value as a number.

    Raises:
        DataError: It is none, or beyond 0 … 1; NaN passes, and the verdict tells.
    """
    plain = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    try:
        number = float(0.0 + plain)  # type: ignore[operator]  # adding refuses texts, which float() would read
    except (TypeError, ValueError) as error:
        raise DataError(
            f"returned a {type(value).__name__}, where a number was expected", where=where, hint="return a float, 0 … 1"
        ) from error
    if not math.isnan(number) and not -SLACK <= number <= 1 + SLACK:
        raise DataError(
            f"returned {number:g}, and a score is a share from 0 to 1",
            where=where,
            hint="divide a percentage by 100; more is better, so return 1 - loss for a loss from 0 to 1",
        )
    return number


def _read_only(outputs: Outputs) -> dict[str, NDArray[np.generic]]:
    """Views that cannot be written to: what is compared next would change as well."""
    return {name: _read_only_array(array) for name, array in outputs.items()}


def _read_only_array(array: Any) -> Any:
    if array is None:
        return None
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _copied(outputs: Outputs) -> dict[str, NDArray[np.generic]]:
    return {name: np.array(array) for name, array in outputs.items()}
