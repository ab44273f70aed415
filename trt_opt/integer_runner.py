"""A model with integer inputs and outputs, run on float data: what lets it be compared with the float model."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.preprocess import Preprocess, preprocess_from_text
from trt_opt.errors import DataError
from trt_opt.values.integer_ends import IntegerEnd, IntegerEnds
from trt_opt.values.runner import Runner

Arrays = Mapping[str, NDArray[np.generic]]

LOWEST, HIGHEST = -128, 127

HALF_A_PIXEL = 0.5
"""How far from 0 … 255 a pixel may be that is rounded into that range."""


class IntegerEndsRunner:
    """Runs an integer model on float feeds: quantises them or turns them back into images, and dequantises the answers.

    Args:
        runner: Of the integer model; entered and left with this one.
        ends: What its inputs and outputs are.
    """

    def __init__(self, runner: Runner, ends: IntegerEnds) -> None:
        self._runner = runner
        self._ends = ends
        self._images = {end.name: preprocess_from_text(end.preprocess) for end in ends.inputs if end.preprocess}

    @property
    def name(self) -> str:
        """The runner's."""
        return self._runner.name

    def __enter__(self) -> IntegerEndsRunner:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._runner.__exit__(kind, error, trace)

    def infer(self, feed: Arrays) -> dict[str, NDArray[np.generic]]:
        """The outputs as float numbers; those that are no INT8 grid's stay what they are.

        Args:
            feed: The float model's.

        Raises:
            DataError: The float tensor of an image did not come from 8-bit pixels; or the names are not the model's.
        """
        ends = {end.name: end for end in self._ends.inputs}
        given = {name: self._given(ends[name], array) if name in ends else array for name, array in feed.items()}
        found = self._runner.infer(given)
        outputs = {end.name: end for end in self._ends.outputs}
        return {name: _dequantized(array, outputs.get(name)) for name, array in found.items()}

    def _given(self, end: IntegerEnd, array: NDArray[np.generic]) -> NDArray[np.generic]:
        if end.name in self._images:
            return image_from_tensor(array, self._images[end.name], where=end.name)
        return array if end.scale is None else quantized(array, end.scale)


def quantized(array: NDArray[np.generic], scale: float) -> NDArray[np.int8]:
    """The nearest integers of an INT8 grid, half to even, as ONNX's QuantizeLinear rounds.

    Args:
        array: Float numbers of any shape.
        scale: The grid's step.
    """
    steps = np.rint(array.astype(np.float32) / np.float32(scale))
    nearest: NDArray[np.int8] = np.clip(steps, LOWEST, HIGHEST).astype(np.int8)
    return nearest


def _dequantized(array: NDArray[np.generic], end: IntegerEnd | None) -> NDArray[np.generic]:
    if end is None or end.scale is None:
        return array
    return np.asarray((array.astype(np.float32) - np.float32(end.zero_point or 0)) * np.float32(end.scale))


def image_from_tensor(tensor: NDArray[np.generic], preprocess: Preprocess, *, where: str) -> NDArray[np.uint8]:
    """The 8-bit image whose preprocessing gave a tensor: exact if one did, else the nearest.

    Args:
        tensor: Float, [N, C, H, W] or [N, H, W, C] as `preprocess.layout` says, or the same without N.
        preprocess: How the image became the tensor.
        where: The input's name, for error messages.

    Returns:
        uint8 [N, H, W, C], or without N; the channels are R, G, B, or one.

    Raises:
        DataError: A pixel would be further than half a step outside 0 … 255.
    """
    numbers = tensor.astype(np.float64)
    if preprocess.layout == "NCHW":
        numbers = np.moveaxis(numbers, -3, -1)
    pixels = (numbers * np.array(preprocess.std) + np.array(preprocess.mean)) / preprocess.scale
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if not (low >= -HALF_A_PIXEL and high <= 255 + HALF_A_PIXEL):
        raise DataError(
            f"these data are no 8-bit images: undoing the preprocessing gives pixels from {low:.4g} to {high:.4g}",
            where=where,
            hint="give the --preprocess that made the data, or leave --image-input out",
        )
    if preprocess.color == "BGR":
        pixels = pixels[..., ::-1]
    image: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)
