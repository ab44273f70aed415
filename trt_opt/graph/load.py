"""Reading an ONNX file, with its external data, without trusting it."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from trt_opt.errors import ModelFileError
from trt_opt.graph.tensors import element_bits, tensor_bytes, tensors_of

_NOT_ONNX = "give an .onnx file; PyTorch, TensorFlow and other models must be exported to ONNX first"
_FETCH_AGAIN = "copy or download the file again; git repositories may hold a Git LFS pointer in its place"


def load_model(path: str | Path) -> ModelProto:
    """Reads a model and all of its external data into memory.

    Args:
        path: The .onnx file. External data is looked for beside it and nowhere else.

    Raises:
        ModelFileError: There is no such file, it is not ONNX or is cut short, or its external data is missing, cut
            short or outside the model's folder.
    """
    path = Path(path)
    model = _parse(path, _read(path))
    _load_external_data(model, path)
    _check_sizes(model, path)
    return model


def _read(path: Path) -> bytes:
    where = str(path)
    if path.is_dir():
        raise ModelFileError("this is a folder, not a file", where=where, hint="name the .onnx file inside it")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFileError("there is no such file", where=where, hint="check the path") from error
    except OSError as error:
        raise ModelFileError(f"the file cannot be read ({error.strerror})", where=where) from error
    if not content:
        raise ModelFileError("the file is empty", where=where, hint=_FETCH_AGAIN)
    if content.startswith(b"version https://git-lfs"):
        raise ModelFileError("this is a Git LFS pointer, not the model", where=where, hint="run: git lfs pull")
    return content


def _parse(path: Path, content: bytes) -> ModelProto:
    where = str(path)
    try:
        model: ModelProto = ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelFileError(
            "the file is not an ONNX model, or is cut short", where=where, hint=f"{_FETCH_AGAIN}; {_NOT_ONNX}"
        ) from error
    # Protobuf takes many a random file for a message of unknown fields, and one cut at the right place for a whole one.
    has_graph = bool(model.graph.node or model.graph.output)
    if not has_graph and not model.ir_version:
        raise ModelFileError("the file is not an ONNX model", where=where, hint=_NOT_ONNX)
    missing = [
        name
        for name, present in (
            ("a graph", has_graph),
            ("graph outputs", model.graph.output),
            ("an IR version", model.ir_version),
            ("opset imports", model.opset_import),
        )
        if not present
    ]
    if missing:
        what = f"the ONNX model lacks {', '.join(missing)}: it is cut short or was never complete"
        raise ModelFileError(what, where=where, hint=_FETCH_AGAIN)
    return model


def _load_external_data(model: ModelProto, path: Path) -> None:
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = _external_bytes(tensor, path)
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _external_bytes(tensor: TensorProto, path: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    data = _external_path(entries.get("location", ""), path, tensor.name)
    where = f"{path}: external data of {tensor.name!r}"
    expected = tensor_bytes(tensor)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(expected)))
    except ValueError as error:
        raise ModelFileError("offset or length is not a number", where=where) from error
    if offset < 0 or length != expected:
        what = f"offset {offset} and length {length} do not fit a tensor of {expected} bytes"
        raise ModelFileError(what, where=where, hint="export the model again")
    try:
        with data.open("rb") as file:
            file.seek(offset)
            content = file.read(length)
    except FileNotFoundError as error:
        what = f"the file {data.name!r} is missing"
        raise ModelFileError(what, where=where, hint=f"copy it to {data.parent}, beside the model") from error
    except OSError as error:
        raise ModelFileError(f"the file {data.name!r} cannot be read ({error.strerror})", where=where) from error
    if len(content) != length:
        what = f"the file {data.name!r} is cut short: {length} bytes wanted at {offset}, {len(content)} there"
        raise ModelFileError(what, where=where, hint=_FETCH_AGAIN)
    return content


def _external_path(location: str, path: Path, name: str) -> Path:
    """The data file, refused where the model points out of its own folder: it could read any file of this machine."""
    folder = path.resolve().parent
    data = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not data.is_relative_to(folder) or data == folder:
        raise ModelFileError(
            f"external data at {location!r} is outside the model's folder and is not read",
            where=f"{path}: external data of {name!r}",
            hint="save the model again with its external data beside it",
        )
    return data


def _check_sizes(model: ModelProto, path: Path) -> None:
    """Refuses tensors whose stored bytes do not fit their shape: readers would run past the end."""
    for tensor in tensors_of(model):
        known = tensor.data_type in onnx.TensorProto.DataType.values() and tensor.data_type != TensorProto.UNDEFINED
        if not known or any(size < 0 for size in tensor.dims):
            what = f"its element type {tensor.data_type} or shape {list(tensor.dims)} is not valid"
            raise ModelFileError(what, where=f"{path}: tensor {tensor.name!r}", hint="export the model again")
        if not tensor.HasField("raw_data") or tensor.data_type == TensorProto.STRING:
            continue
        if len(tensor.raw_data) != tensor_bytes(tensor):
            what = (
                f"{len(tensor.raw_data)} bytes are stored for shape {list(tensor.dims)} "
                f"of {element_bits(tensor.data_type)}-bit elements"
            )
            raise ModelFileError(what, where=f"{path}: tensor {tensor.name!r}", hint=_FETCH_AGAIN)
