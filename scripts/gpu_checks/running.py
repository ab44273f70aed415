"""Checks one after another against a clock: each by itself, none of them able to stop the others."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from trt_opt.errors import TrtOptError

Status = Literal["PASS", "FAIL", "SKIPPED"]

MARGIN_S = 8.0
"""What is kept of the whole time for ending the last check and writing the result."""


class FailedError(Exception):
    """What was checked is not as it must be; the figures are told all the same."""

    def __init__(self, reason: str, figures: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


class SkippedError(Exception):
    """It could not be checked."""


class OutOfTimeError(BaseException):
    """The clock rang. No Exception, so that nothing on the way that handles errors takes it for one."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a check that passed has seen.

    Attributes:
        reason: Why it passed, in figures.
        figures: The same for a program.
    """

    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to find out.

    Attributes:
        name: What `--only` knows it by: "digits.int8".
        library: Whose check it is, as the table calls it.
        run: Finds it out; raises FailedError or SkippedError.
        rank: The most telling have the smallest.
        needs_s: It is not begun with less time left than this, seconds.
        most_s: What takes longer than this hangs, seconds.
    """

    name: str
    library: str
    run: Callable[[], Found]
    rank: int
    needs_s: float = 5.0
    most_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a check."""

    name: str
    library: str
    status: Status
    reason: str
    seconds: float
    figures: Mapping[str, Any]


def results_of(checks: Sequence[Check], deadline: float) -> Iterator[Result]:
    """Runs checks in the order of their ranks.

    Args:
        checks: What to find out.
        deadline: When all must be over, on the clock `time.monotonic`.
    """
    for check in sorted(checks, key=lambda check: check.rank):
        left = deadline - MARGIN_S - time.monotonic()
        if left < check.needs_s:
            reason = f"no time left: {max(left, 0.0):.0f} s, and it needs about {check.needs_s:.0f} s"
            yield Result(check.name, check.library, "SKIPPED", reason, 0.0, {})
        else:
            yield _result(check, left)


def _result(check: Check, left: float) -> Result:
    began = time.monotonic()

    def ended(status: Status, reason: str, figures: Mapping[str, Any] | None = None) -> Result:
        return Result(check.name, check.library, status, reason, round(time.monotonic() - began, 2), figures or {})

    try:
        with _alarm(min(left, check.most_s)):
            found = check.run()
    except OutOfTimeError:
        if left <= check.most_s:
            return ended("SKIPPED", f"no time left: it was ended after {left:.0f} s")
        return ended("FAIL", f"it was not done within {check.most_s:.0f} s")
    except SkippedError as error:
        return ended("SKIPPED", str(error))
    except FailedError as error:
        return ended("FAIL", str(error), error.figures)
    except TrtOptError as error:
        return ended("FAIL", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001  a check that is broken itself is told, and the next one begins
        return ended("FAIL", f"{type(error).__name__}: {error}", {"traceback": traceback.format_exc()})
    return ended("PASS", found.reason, found.figures)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the block after some seconds; child processes end with their context managers."""

    def ring(_signal: int, _frame: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
