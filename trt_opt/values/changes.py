"""What a rewrite did to a node, or why it let the node be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One thing a pass did: the node it concerns and what became of it."""

    node: str
    what: str


@dataclass(frozen=True, slots=True)
class Decline:
    """One thing a pass looked at and left alone, with the reason."""

    node: str
    why: str
