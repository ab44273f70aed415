"""One feed for sides that want it in different element types: FP16, the integers of a grid, other widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.preprocess import preprocess_from_text
from trt_opt.errors import DataError
from trt_opt.integer_runner import IntegerEndsRunner, image_from_tensor
from trt_opt.values.integer_ends import IntegerEnd, IntegerEnds
from trt_opt.values.runner import Runner
from trt_opt.values.tensors import TensorSpec

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Feeding:
    """What becomes of the data's arrays before one side takes them, and of its answers.

    Attributes:
        name: What results call this side and where it runs.
        inputs: What the side takes.
        ends: The grids of its inputs and outputs; None where it has none.
        renamed: Input → what the data call it, where that is something else.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    ends: IntegerEnds | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_integers(self) -> bool:
        """Whether float data have to be put on a grid first, or turned back into images."""
        return any(map(_is_grid, self._grids.values()))

    def feed(self, arrays: Arrays) -> dict[str, Array]:
        """A feed of the data as this side takes it; inputs that it does not have are left out.

        Raises:
            DataError: An array cannot be made what the side takes.
        """
        given = {spec.name: arrays[self.renamed.get(spec.name, spec.name)] for spec in self.inputs}
        return {spec.name: _converted(given[spec.name], spec, self._grids.get(spec.name)) for spec in self.inputs}

    def runner(self, runner: Runner) -> Runner:
        """A runner that takes the data's feeds and answers with the numbers that integers stand for."""
        fed: Runner = FedRunner(runner, self)
        if self.ends is None or not any(map(_is_grid, self.ends.outputs)):
            return fed
        return IntegerEndsRunner(fed, replace(self.ends, inputs=()))

    @property
    def _grids(self) -> dict[str, IntegerEnd]:
        return {} if self.ends is None else {end.name: end for end in self.ends.inputs}


class FedRunner:
    """Converts what is fed.

    Args:
        runner: Entered and left with this one.
        feeding: How.
    """

    def __init__(self, runner: Runner, feeding: Feeding) -> None:
        self._runner = runner
        self._feeding = feeding

    @property
    def name(self) -> str:
        """What results call this side."""
        return self._feeding.name

    def infer(self, feed: Arrays, /) -> Arrays:
        """The outputs by name."""
        return self._runner.infer(self._feeding.feed(feed))

    def __enter__(self) -> FedRunner:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self._runner.__exit__(kind, error, trace)


def fitted(feedings: Sequence[Feeding]) -> tuple[tuple[TensorSpec, ...], tuple[Feeding, ...]]:
    """What the data have to hold, and every side's feeding from them.

    The data are for the first side that has float inputs where others have grids. Inputs are matched by name, or by
    position where no name is shared, there are equally many, and their shapes fit.

    Args:
        feedings: The reference's, then every candidate's.

    Raises:
        DataError: A side wants an input that the data cannot be for.
    """
    chosen = next((one for one in feedings if not one.takes_integers), feedings[0])
    return chosen.inputs, tuple(_fitted(one, chosen) for one in feedings)


def _fitted(one: Feeding, chosen: Feeding) -> Feeding:
    known, wanted = ([spec.name for spec in side.inputs] for side in (chosen, one))
    if set(wanted) <= set(known):
        return one
    pairs = list(zip(one.inputs, chosen.inputs, strict=False))
    if not set(wanted) & set(known) and len(wanted) == len(known) and all(_fits(*pair) for pair in pairs):
        return replace(one, renamed={mine.name: theirs.name for mine, theirs in pairs})
    raise DataError(
        f"{one.name} wants {', '.join(wanted)} fed, and {chosen.name} wants {', '.join(known)}",
        hint="the same data go into every side, so their inputs must be called alike, or be alike in number and shape",
    )


def _fits(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether some array has the shape of both."""
    if one.shape is None or other.shape is None:
        return True
    sizes = zip(one.shape, other.shape, strict=False)
    return len(one.shape) == len(other.shape) and all(
        mine == theirs or isinstance(mine, str) or isinstance(theirs, str) for mine, theirs in sizes
    )


def _is_grid(end: IntegerEnd) -> bool:
    return end.scale is not None or end.is_image


def _converted(array: Array, spec: TensorSpec, end: IntegerEnd | None) -> Array:
    """One input's data in the element type that a side takes."""
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "f" and end is not None and end.preprocess is not None:
        return image_from_tensor(array, preprocess_from_text(end.preprocess), where=spec.name)
    if array.dtype.kind == "f" and end is not None and end.scale is not None and wanted.kind in "iu":
        return _on_grid(array, wanted, end.scale, end.zero_point or 0)
    if array.dtype.kind == wanted.kind == "f":
        with np.errstate(over="ignore"):  # beyond FP16 they are infinite, as on the device
            return array.astype(wanted)
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(str(wanted))
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise DataError(
                f"the data go from {array.min()} to {array.max()}, which does not fit {wanted.name}", where=spec.name
            )
        return array.astype(wanted)
    raise DataError(f"the data are {array.dtype.name}, and one side takes {wanted.name}", where=spec.name)


def _on_grid(array: Array, wanted: np.dtype[np.generic], scale: float, zero_point: int) -> Array:
    """The nearest integers of a grid, half to even, as ONNX's QuantizeLinear rounds."""
    limits = np.iinfo(str(wanted))
    steps = np.rint(array.astype(np.float32) / np.float32(scale)) + zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max), wanted)
