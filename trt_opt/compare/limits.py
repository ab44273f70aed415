"""What a candidate must keep to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trt_opt.compare.metrics import Metric
from trt_opt.datasets.checks import closest_hint
from trt_opt.errors import RequestError

ErrorStatistic = Literal["elemwise", "max", "mean", "median"]
"""What of a sample's errors is held against the tolerances; the names are Polygraphy's `check_error_stat`."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How Polygraphy's comparator judges one output of one sample.

    An element is accepted if its error is within *either* tolerance, which is not NumPy's `allclose` (the sum).

    Attributes:
        atol: Absolute tolerance.
        rtol: Tolerance relative to the reference's element; 0 leaves the decision to `atol`.
        statistic: "elemwise" looks at every element, the others at one figure per output.
    """

    atol: float = 1e-5
    rtol: float = 1e-5
    statistic: ErrorStatistic = "elemwise"

    def __post_init__(self) -> None:
        if not (self.atol >= 0 and self.rtol >= 0):
            raise RequestError(f"tolerances must be 0 or more, not {self.atol} and {self.rtol}")


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """The bounds that one output must keep; None leaves a figure unbounded.

    Attributes:
        min_sqnr_db: Least SQNR, dB.
        min_agreement: Least share of equal top-1 answers, percent.
        atol: Absolute tolerance of every element of every sample.
        rtol: Relative tolerance likewise; an element may keep either.
    """

    min_sqnr_db: float | None = None
    min_agreement: float | None = None
    atol: float | None = None
    rtol: float | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.min_sqnr_db or 0.0):
            raise RequestError("the limit min_sqnr_db is not a number")
        for name in ("atol", "rtol"):
            if not (getattr(self, name) or 0.0) >= 0:
                raise RequestError(f"the limit {name} must be 0 or more, not {getattr(self, name)}")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 100:
            raise RequestError(f"the least agreement is a percentage, not {self.min_agreement}")

    @property
    def any(self) -> bool:
        """Whether there is a bound at all."""
        return any(getattr(self, field.name) is not None for field in dataclasses.fields(self))

    @property
    def tolerances(self) -> Tolerances | None:
        """What `atol` and `rtol` say; the one that is missing is 0, so that the other decides alone."""
        if self.atol is None and self.rtol is None:
            return None
        return Tolerances(self.atol or 0.0, self.rtol or 0.0)

    def over(self, general: OutputLimits) -> OutputLimits:
        """These, and the general ones where these leave a figure unbounded."""
        names = [field.name for field in dataclasses.fields(self)]
        own = {name: getattr(self, name) for name in names}
        return OutputLimits(**{name: getattr(general, name) if own[name] is None else own[name] for name in names})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a verdict; None leaves a figure unbounded, and all None leaves the verdict open.

    Attributes:
        min_sqnr_db: Least SQNR of every floating-point output, dB.
        max_drop: Most that `metric` may lose against the reference, in points (hundredths).
        min_agreement: Least share of equal top-1 answers, in percent, of every output that has such answers.
        atol: Absolute tolerance that every output of every sample must keep.
        rtol: Relative tolerance likewise; an element may keep either.
        metric: What `max_drop` speaks of, and what is told besides; None for top-1 accuracy where there are labels.
            It is no bound by itself.
        outputs: Output of the reference → its own bounds, each in place of the general one.
    """

    min_sqnr_db: float | None = None
    max_drop: float | None = None
    min_agreement: float | None = None
    atol: float | None = None
    rtol: float | None = None
    metric: Metric | None = None
    outputs: tuple[tuple[str, OutputLimits], ...] = ()

    def __post_init__(self) -> None:
        OutputLimits(self.min_sqnr_db, self.min_agreement, self.atol, self.rtol)
        if math.isnan(self.max_drop or 0.0):
            raise RequestError("the limit max_drop is not a number")
        if self.max_drop is not None and self.metric is not None and not self.metric.has_drop:
            raise RequestError(
                f"a drop is told in points, and {self.metric.text} is not", hint="--min-sqnr DB, without --max-drop"
            )

    @property
    def any(self) -> bool:
        """Whether there is a bound at all."""
        own = any(limits.any for _, limits in self.outputs)
        return self.max_drop is not None or self.general.any or own

    @property
    def general(self) -> OutputLimits:
        """What every output must keep that has no bounds of its own."""
        return OutputLimits(self.min_sqnr_db, self.min_agreement, self.atol, self.rtol)

    @property
    def tolerances(self) -> Tolerances | None:
        """Those of every output without its own."""
        return self.general.tolerances

    def of(self, output: str) -> OutputLimits:
        """What one output must keep."""
        own = dict(self.outputs).get(output)
        return self.general if own is None else own.over(self.general)

    def own(self, output: str) -> OutputLimits:
        """The bounds that were given for this very output."""
        return dict(self.outputs).get(output, OutputLimits())

    def require_outputs(self, names: Iterable[str], where: str) -> None:
        """Refuses bounds for an output that there is not.

        Args:
            names: The reference's outputs.
            where: The reference.

        Raises:
            RequestError: Names the outputs that there are.
        """
        known = list(names)
        for name, _ in self.outputs:
            if name not in known:
                near = closest_hint(name, known)
                raise RequestError(
                    f"a limit is for the output {name!r}, and there is none of this name",
                    where=where,
                    hint=f"{near + ' ' if near else ''}the outputs are {', '.join(known)}",
                )


OPTIONS: Mapping[str, str] = {
    "min_sqnr_db": "--min-sqnr",
    "min_agreement": "--min-agreement",
    "atol": "--atol",
    "rtol": "--rtol",
}
"""Bound of an output → the option it is given by."""


def limits_from_texts(
    texts: Mapping[str, Sequence[str]], *, max_drop: float | None = None, metric: Metric | None = None
) -> Limits:
    """Reads bounds as they are written on a command line: "30" for every output, "logits:35" for one.

    Args:
        texts: Key of `OPTIONS` → what was given, in any order.
        max_drop: As in `Limits`.
        metric: As in `Limits`.

    Raises:
        RequestError: Something is no number, or was given twice.
    """
    general: dict[str, float] = {}
    own: dict[str, dict[str, float]] = {}
    for name, given in texts.items():
        for text in given:
            output, value = _output_and_value(text, OPTIONS[name])
            into = general if output is None else own.setdefault(output, {})
            if name in into:
                whom = "every output" if output is None else f"the output {output!r}"
                raise RequestError(f"{OPTIONS[name]} was given twice for {whom}")
            into[name] = value
    outputs = tuple((output, OutputLimits(**bounds)) for output, bounds in own.items())
    return Limits(**general, max_drop=max_drop, metric=metric, outputs=outputs)


def _output_and_value(text: str, option: str) -> tuple[str | None, float]:
    """What comes before the last colon, and the number behind it: names of outputs may hold colons themselves."""
    output, colon, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if math.isnan(value) or (colon and not output):
        raise RequestError(f"{option} {text!r} is no number", hint=f"{option} VALUE, or {option} OUTPUT:VALUE")
    return output if colon else None, value
