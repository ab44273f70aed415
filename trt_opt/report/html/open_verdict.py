"""Whether a comparison was held against anything at all."""

from __future__ import annotations

from trt_opt.values.accuracy import Comparison


def is_open(accuracy: Comparison) -> bool:
    """Whether it is inconclusive for no other reason than that no limit was given: figures, and nothing judged."""
    return accuracy.verdict == "INCONCLUSIVE" and accuracy.reason.startswith("no limit was given")
