"""Integer types that TensorRT lacks, and the wider ones that carry their values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

CARRIERS: Mapping[str, str] = MappingProxyType(
    {
        "int8": "int32",
        "uint8": "int32",
        "int16": "int32",
        "uint16": "int32",
        "uint32": "int64",
        "uint64": "int64",
        "int32": "int32",
        "int64": "int64",
    }
)
"""Type → the type whose arithmetic TensorRT has and that holds its values; uint64 keeps its bits, not its values."""

LACKING = frozenset({"uint8", "int16", "uint16", "uint32", "uint64"})
"""Types that no tensor inside a TensorRT network can have."""


def bits_of(dtype: str) -> int:
    """The width in bits."""
    return int(np.iinfo(dtype).bits)


def is_signed(dtype: str) -> bool:
    """Whether the type has negative numbers."""
    return int(np.iinfo(dtype).min) < 0


def limits_of(dtype: str) -> tuple[int, int]:
    """The least and the largest number of the type."""
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def carried(values: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    """Constants of a type as its carrier holds them."""
    return values.astype(CARRIERS[dtype])
