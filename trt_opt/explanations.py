"""What every rewrite does, by name: graph passes for what TensorRT refuses, and improvements against INT8's error."""

from __future__ import annotations

import inspect
from difflib import get_close_matches

from trt_opt.errors import RequestError
from trt_opt.improvements import IMPROVEMENTS
from trt_opt.passes import EXPLAINED, explain


def explanations(name: str | None = None) -> dict[str, str]:
    """Name → documentation, of one rewrite or of all.

    Raises:
        RequestError: There is no rewrite of this name.
    """
    improvements = {key: inspect.cleandoc(type(entry).__doc__ or entry.summary) for key, entry in IMPROVEMENTS.items()}
    if name is None:
        return {**{key: explain(key) for key in EXPLAINED}, **improvements}
    if name not in improvements:
        _refuse_near(name)
    return {name: improvements[name] if name in improvements else explain(name)}


def passes_among(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names that are not improvements'.

    Raises:
        RequestError: One is nearly an improvement's.
    """
    rest = tuple(name for name in names if name not in IMPROVEMENTS)
    for name in rest:
        _refuse_near(name)
    return rest


def _refuse_near(name: str) -> None:
    """Refuses what is nearly an improvement's name: the graph passes, which are asked next, know only their own."""
    close = get_close_matches(name.replace("-", "_"), IMPROVEMENTS, 1, 0.8)
    if close and name not in EXPLAINED:
        raise RequestError(f"there is no pass {name!r}", hint=f"did you mean {close[0]}?")
