"""Which output of the candidate stands for which output of the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Matching:
    """Pairs of outputs.

    Attributes:
        pairs: Reference output → candidate output, in the reference's order.
        by_position: Whether no name is shared, so that the first output was paired with the first, and so on.
        reference_only: Outputs of the reference without a partner.
        candidate_only: Outputs of the candidate without a partner.
    """

    pairs: Mapping[str, str]
    by_position: bool = False
    reference_only: tuple[str, ...] = ()
    candidate_only: tuple[str, ...] = ()


def matching_of(reference: Iterable[str], candidate: Iterable[str]) -> Matching:
    """Pairs outputs by name, or by position where no name is shared and there are equally many.

    Tools rename outputs when they add a cast or convert a format; that shows as entirely different names.
    """
    left, right = tuple(reference), tuple(candidate)
    shared = [name for name in left if name in right]
    if not shared and len(left) == len(right):
        return Matching(dict(zip(left, right, strict=True)), by_position=bool(left))
    return Matching(
        {name: name for name in shared},
        reference_only=tuple(name for name in left if name not in right),
        candidate_only=tuple(name for name in right if name not in left),
    )
