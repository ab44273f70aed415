"""What the caller of a model with integer ends has to do, as a table and as a note that travels with the engine."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.datasets.preprocess import Preprocess, preprocess_from_text
from trt_opt.values.integer_ends import IntegerEnd, IntegerEnds

PREPROCESSING = "preprocessing.txt"
"""The note's file name."""


def show_ends(ends: IntegerEnds, console: Console) -> None:
    """Prints one line per input and output."""
    table = Table()
    for heading in ("tensor", "side", "type", "shape", "scale", "what to do"):
        table.add_column(heading)
    for end in (*ends.inputs, *ends.outputs):
        scale = "-" if end.scale is None else f"{end.scale:.6g}"
        cells = (end.name, end.direction, end.dtype, _shape_text(end), scale, end.instruction)
        table.add_row(*map(Text, cells))  # a shape in brackets would be read as markup
    console.print(table)


def note_text(ends: IntegerEnds) -> str:
    """The note: formula and NumPy lines for every input and output."""
    parts = ["Inputs and outputs of this model are integers. With NumPy, `import numpy as np`:"]
    parts += [_part(end) for end in (*ends.inputs, *ends.outputs)]
    return "\n\n".join(parts) + "\n"


def _part(end: IntegerEnd) -> str:
    lines = [f"{end.direction} {end.name!r}: {end.dtype} {_shape_text(end)}", end.instruction]
    code = _code(end)
    return "\n".join([*lines, *(f"    {line}" for line in code)])


def _code(end: IntegerEnd) -> tuple[str, ...]:
    if end.preprocess is not None:
        return _image_code(end, preprocess_from_text(end.preprocess))
    if end.scale is None:
        return ()
    limits = np.iinfo(end.dtype)
    scale = f"scale, zero_point = np.float32({np.float32(end.scale)!s}), {end.zero_point}"
    if end.direction == "input":
        return (
            "# x: the float numbers the model was trained with, preprocessed as it was trained",
            scale,
            "steps = np.rint(x / scale) + zero_point",
            f"integers = np.clip(steps, {limits.min}, {limits.max}).astype(np.{end.dtype})  # feed these",
        )
    return (
        "# integers: what comes out",
        scale,
        "y = scale * (integers.astype(np.float32) - zero_point)  # the float numbers",
    )


def _image_code(end: IntegerEnd, steps: Preprocess) -> tuple[str, ...]:
    mode = "L" if steps.color == "L" else "RGB"
    batch = ["np.newaxis"] * (end.shape is None or len(end.shape) == 4)
    axes = ", ".join([*batch, "...", *["np.newaxis"] * (mode == "L")])
    return (
        f'# image: opened with Pillow, image.convert("{mode}"), then resized and cropped as said above',
        f"pixels = np.asarray(image, np.uint8)[{axes}]  # feed these: rows, columns, channels",
        f"# the model goes on by itself: {_arithmetic_text(steps)}",
    )


def _arithmetic_text(steps: Preprocess) -> str:
    mean, std = (":".join(f"{value:g}" for value in values) for values in (steps.mean, steps.std))
    order = ", channels in the order B, G, R" if steps.color == "BGR" else ""
    return f"(pixel * {steps.scale:.8g} - {mean}) / {std}{order}, layout {steps.layout}"


def _shape_text(end: IntegerEnd) -> str:
    return "of any rank" if end.shape is None else "[" + ", ".join(map(str, end.shape)) + "]"
