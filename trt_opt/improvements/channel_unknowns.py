"""The factors of a graph's channels as unknowns: which must be equal, and which can only be 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""The unknown of every element of a tensor, of the tensor's rank: an axis along which they are the same has size 1."""

Floats = NDArray[np.float64]


class Unknowns:
    """Positive factors, one per channel, under two kinds of demands: equal to another, or pinned to 1."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def fresh(self, count: int) -> Ids:
        """New unknowns, free until something is demanded of them: int64 [count]."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def pinned(self, reason: str) -> int:
        """A new unknown that can only be 1.

        Args:
            reason: Why, in one sentence.
        """
        found = int(self.fresh(1)[0])
        self._reasons[found] = reason
        return found

    def pin(self, ids: Ids, reason: str) -> None:
        """Demands that all of them are 1; those that are already keep their reason."""
        for number in np.unique(ids):
            self._reasons.setdefault(self.root(int(number)), reason)

    def unite(self, left: Ids, right: Ids) -> None:
        """Demands that the two are equal, element by element; their shapes broadcast."""
        pairs = np.stack([side.reshape(-1) for side in np.broadcast_arrays(left, right)], axis=1)
        for one, other in np.unique(pairs, axis=0):
            self._unite(int(one), int(other))

    def root(self, number: int) -> int:
        """The unknown that stands for all that must equal this one."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def roots(self, ids: Ids) -> Ids:
        """The same, for every element."""
        values, inverse = np.unique(ids, return_inverse=True)
        found = np.array([self.root(int(number)) for number in values], np.int64)
        return found[inverse].reshape(ids.shape)

    def reason(self, number: int) -> str | None:
        """Why the unknown can only be 1; None where it is free."""
        return self._reasons.get(self.root(number))

    def is_free(self, ids: Ids) -> NDArray[np.bool_]:
        """Which elements may have a factor other than 1."""
        values, inverse = np.unique(ids, return_inverse=True)
        free = np.array([self.reason(int(number)) is None for number in values], np.bool_)
        return free[inverse].reshape(ids.shape)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._parents)

    def _unite(self, one: int, other: int) -> None:
        kept, gone = self.root(one), self.root(other)
        if kept == gone:
            return
        self._parents[gone] = kept
        if gone in self._reasons:
            self._reasons.setdefault(kept, self._reasons.pop(gone))


def compressed(ids: Ids) -> Ids:
    """The same unknowns with size 1 on every axis along which they do not change."""
    for axis in range(ids.ndim):
        first = np.take(ids, [0], axis) if ids.shape[axis] else ids
        if ids.shape[axis] > 1 and bool((ids == first).all()):
            ids = first
    return ids


def along(ids: Ids, axis: int) -> Ids | None:
    """The unknowns as a vector if they change along this axis alone, or not at all; None otherwise."""
    if ids.ndim == 0:
        return ids.reshape(1)
    others = [size for position, size in enumerate(ids.shape) if position != axis % ids.ndim]
    return ids.reshape(-1) if all(size == 1 for size in others) else None


def shaped(vector: Ids, axis: int, rank: int) -> Ids:
    """A vector of unknowns laid along one axis of a tensor."""
    shape = [1] * rank
    shape[axis % rank] = -1
    return vector.reshape(shape)
