"""The shapes an engine accepts for its dynamic inputs: TensorRT's optimization profile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trt_opt.errors import RequestError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The smallest, the most frequent and the largest shape of one input."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        ranks = {len(self.min), len(self.opt), len(self.max)}
        ordered = all(0 <= low <= mid <= high for low, mid, high in zip(self.min, self.opt, self.max, strict=False))
        if len(ranks) != 1 or not ordered:
            raise RequestError(
                f"min, opt and max shapes must have one rank and rise: {self.min}, {self.opt}, {self.max}"
            )

    @classmethod
    def fixed(cls, shape: Shape) -> ShapeRange:
        """The range that admits one shape only."""
        return cls(shape, shape, shape)

    def admits(self, shape: Shape) -> bool:
        """Whether an input of this shape fits."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The smallest, the most frequent and the largest values of an input that decides a shape, flattened."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise RequestError(f"min, opt and max must hold as many values: {self.min}, {self.opt}, {self.max}")


Profile = Mapping[str, ShapeRange]
"""Input name → range: one optimization profile."""


def shapes_from_text(text: str) -> dict[str, Shape]:
    """Parses `name:1x3x224x224,other:1x10`, trtexec's notation; names may hold colons.

    Raises:
        RequestError: The text does not follow the notation.
    """
    shapes: dict[str, Shape] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(?P<name>.+):(?P<shape>\d+(?:x\d+)*|scalar)", part)
        if match is None:
            raise RequestError(f"cannot read the shape {part!r}", hint="write name:1x3x224x224,other:1x10")
        if match["name"] in shapes:
            raise RequestError(f"the input {match['name']!r} is given two shapes")
        sizes = match["shape"]
        shapes[match["name"]] = () if sizes == "scalar" else tuple(int(size) for size in sizes.split("x"))
    return shapes
