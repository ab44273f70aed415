"""The inputs and outputs of a model that takes and gives integers, and what its caller has to do with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trt_opt.errors import RecipeError
from trt_opt.values.shapes import Profile, Shape, ShapeRange

Direction = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class IntegerEnd:
    """One input or output of a model whose float ends became integers.

    Attributes:
        name: The tensor's name.
        direction: Which side it is on.
        dtype: NumPy's name of its element type: "int8", "uint8" for an image, the model's own where it stayed.
        shape: Its shape, as `TensorSpec.shape`.
        instruction: What the caller does, in one sentence.
        scale: The step of its INT8 grid: the float number is `scale * (integer - zero_point)`; None where it has none.
        zero_point: The integer that stands for 0.0.
        layout: "NHWC" for an image, of which the last axis is the channels'; None for everything else.
        preprocess: For an image: how it became the float tensor, in the words of `--preprocess`. Resizing and cropping
            are the caller's, the rest is in the graph.
    """

    name: str
    direction: Direction
    dtype: str
    shape: tuple[int | str, ...] | None
    instruction: str
    scale: float | None = None
    zero_point: int | None = None
    layout: str | None = None
    preprocess: str | None = None

    def __post_init__(self) -> None:
        if (self.scale is None) != (self.zero_point is None):
            raise RecipeError("a scale comes with a zero-point", where=self.name)
        if self.scale is not None and not (self.scale > 0 and math.isfinite(self.scale)):
            raise RecipeError(f"a scale must be a positive number, not {self.scale}", where=self.name)

    @property
    def is_image(self) -> bool:
        """Whether it takes the pixels of an image."""
        return self.preprocess is not None


@dataclass(frozen=True, slots=True)
class IntegerEnds:
    """All inputs and outputs, in the graph's order; those that stayed what they were are among them."""

    inputs: tuple[IntegerEnd, ...]
    outputs: tuple[IntegerEnd, ...]

    def profile(self, of_float_model: Profile) -> Profile:
        """The optimization profile of the float model with an image's axes in their new order.

        Args:
            of_float_model: Ranges whose shapes are in the layout of the float model's inputs.
        """
        images = {end.name: end for end in self.inputs if end.is_image}
        return {
            name: _with_channels_last(found) if name in images and _channels_first(images[name]) else found
            for name, found in of_float_model.items()
        }


def _channels_first(image: IntegerEnd) -> bool:
    """Whether the float tensor has the channels before the rows; it has them last otherwise."""
    return "layout=NCHW" in (image.preprocess or "").split(",")


def _with_channels_last(found: ShapeRange) -> ShapeRange:
    return ShapeRange(_last(found.min), _last(found.opt), _last(found.max))


def _last(shape: Shape) -> Shape:
    """[N, C, H, W] → [N, H, W, C], and [C, H, W] → [H, W, C]."""
    return (*shape[:-3], *shape[-2:], shape[-3])
