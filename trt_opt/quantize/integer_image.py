"""A UINT8 image as a graph input: the arithmetic of its preprocessing inside the graph."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.datasets.preprocess import Preprocess
from trt_opt.errors import RequestError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import spec_of
from trt_opt.graph.writer import GraphWriter
from trt_opt.values.tensors import TensorSpec

FLOATS = frozenset({"float32", "float16", "bfloat16", "float64"})


def image_input(index: GraphIndex, preprocess: Preprocess) -> str:
    """The name of the one float input that the preprocessing leads to.

    Raises:
        RequestError: There is none, or more than one.
    """
    inputs = tuple(spec_of(value) for value in index.model.graph.input if value.name in index.inputs)
    found = [spec.name for spec in inputs if index.readers(spec.name) and _fits(spec, preprocess)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, inputs)) or "nothing"
    wanted = f"float input of {preprocess.channels} channel(s) in {preprocess.layout} order"
    if found:
        raise RequestError(
            f"an image can go into one {wanted}, and this model has {len(found)}: {', '.join(found)}",
            hint="leave --image-input out: all inputs are then INT8",
        )
    raise RequestError(
        f"an image cannot go into this model: it has no {wanted}, it takes {listed}",
        hint="say layout and color in --preprocess as the model wants them, or leave --image-input out",
    )


def _fits(spec: TensorSpec, preprocess: Preprocess) -> bool:
    if spec.dtype not in FLOATS or spec.shape is None or len(spec.shape) not in (3, 4):
        return False
    return spec.shape[-3 if preprocess.layout == "NCHW" else -1] == preprocess.channels


def take_image(writer: GraphWriter, value: onnx.ValueInfoProto, target: str, preprocess: Preprocess) -> None:
    """Makes a graph input a UINT8 image with the channels last, and computes the float tensor from it.

    Cast, the channels' order, `(pixel - mean / scale) * (scale / std)`, the layout. The subtraction comes first because
    pixels and their differences fit FP16 better than sums of products do. TensorRT wants the Cast right behind.

    Args:
        writer: The graph.
        value: The graph input; is edited.
        target: The name of the float tensor that the nodes write.
        preprocess: How an image becomes that tensor.
    """
    tensor_type = value.type.tensor_type
    kind, tensor_type.elem_type = tensor_type.elem_type, TensorProto.UINT8
    rank = len(tensor_type.shape.dim)
    steps: list[tuple[str, tuple[str, ...], dict[str, object]]] = [("Cast", (), {"to": TensorProto.FLOAT})]
    if preprocess.color == "BGR":
        steps.append(("Gather", (writer.constant(f"{value.name}_bgr", np.array([2, 1, 0])),), {"axis": rank - 1}))
    offset, factor = affine_of(preprocess)
    if offset.any():
        steps.append(("Sub", (writer.constant(f"{value.name}_mean", offset.astype(np.float32)),), {}))
    if (factor != 1).any():
        steps.append(("Mul", (writer.constant(f"{value.name}_factor", factor.astype(np.float32)),), {}))
    if preprocess.layout == "NCHW":
        _put_channels_last(tensor_type.shape)
        to_first = [*range(rank - 3), rank - 1, rank - 3, rank - 2]
        steps.append(("Transpose", (), {"perm": to_first}))
    if kind != TensorProto.FLOAT:
        steps.append(("Cast", (), {"to": kind}))
    tensor = value.name
    for number, (op_type, constants, attributes) in enumerate(steps, 1):
        written = target if number == len(steps) else writer.tensor(f"{value.name}_{op_type.lower()}")
        writer.first(writer.made(op_type, (tensor, *constants), written, **attributes))
        tensor = written


def affine_of(preprocess: Preprocess) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The offset and factor of `x = (pixel - offset) * factor`, shape [channels] in the order the model gets them."""
    ones = np.ones(preprocess.channels)
    return ones * np.array(preprocess.mean) / preprocess.scale, preprocess.scale / (ones * np.array(preprocess.std))


def image_instruction(preprocess: Preprocess) -> str:
    """What the caller feeds: "feed the RGB image, … as UINT8, channels last"."""
    color = "grey" if preprocess.color == "L" else "RGB"
    parts = [f"feed the {color} image"]
    if isinstance(preprocess.resize, tuple):
        parts.append(f"resized to {_size_text(preprocess.resize)} ({preprocess.interpolation})")
    elif preprocess.resize is not None:
        parts.append(f"its shorter side resized to {preprocess.resize} ({preprocess.interpolation})")
    if preprocess.crop is not None:
        parts.append(f"its centre of {_size_text(preprocess.crop)} cropped")
    return f"{', '.join(parts)}, as UINT8 with the channels last"


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} pixels (width x height)"


def _put_channels_last(shape: onnx.TensorShapeProto) -> None:
    dims = [onnx.TensorShapeProto.Dimension() for _ in shape.dim]
    order = [*range(len(dims) - 3), len(dims) - 2, len(dims) - 1, len(dims) - 3]
    for dim, place in zip(dims, order, strict=True):
        dim.CopyFrom(shape.dim[place])
    del shape.dim[:]
    shape.dim.extend(dims)
