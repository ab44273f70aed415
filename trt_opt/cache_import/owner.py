"""Whether a calibration cache can be this model's at all: nothing in it says."""

from __future__ import annotations

from trt_opt.cache_import.matching import Match
from trt_opt.errors import StaleError

LEAST_SHARE = 0.5
"""A cache of the same model names nearly all tensors that INT8 needs, and the model has nearly all that it names; what
another network of the same exporter shares with it is mostly its input. Less than half of either is refused."""


def require_own(match: Match, file: str, *, despite: bool) -> None:
    """Refuses a cache that hardly fits.

    Args:
        match: The cache beside the model.
        file: The cache.
        despite: Whether anything that fits is enough.

    Raises:
        StaleError: It covers less than `LEAST_SHARE` of what is needed, or the model has less of its names.
    """
    needed, covered, named = match.needed, match.covered, match.named
    known = [entry for entry in named if match.is_known(entry)]
    fits = len(covered) >= LEAST_SHARE * len(needed) and len(known) >= LEAST_SHARE * len(named)
    if covered and (fits or despite):
        return
    hint = "give the model it was made with"
    if covered:
        hint += ", or add --reuse-table if you know that it fits"
    raise StaleError(
        f"this calibration cache seems to be another model's: it has ranges for {len(covered)} of the {len(needed)} "
        f"tensors that INT8 needs here, and this model has {len(known)} of the {len(named)} tensors that it names",
        where=file,
        hint=hint,
    )
