"""Writing an ONNX file whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from onnx import ModelProto, TensorProto

from trt_opt.files import storage_error, write_atomically
from trt_opt.graph.tensors import LARGE_TENSOR_BYTES, model_without_initialisers, raw_bytes, tensor_bytes, weight_bytes

SINGLE_FILE_LIMIT_BYTES = 2_000_000_000
"""A protobuf message holds at most 2 GiB; the rest is left for the nodes."""

_ALIGNMENT_BYTES = 4096
"""Tensors start at page boundaries, so that readers may map the file into memory (onnx's docs/ExternalData.md)."""


def save_model(model: ModelProto, path: str | Path, *, single_file_limit_bytes: int = SINGLE_FILE_LIMIT_BYTES) -> None:
    """Writes the model; weights of models too large for one file go to `<name>.data` beside it.

    The file appears under its name only when complete. Where an older model with external data is overwritten, an
    interruption between the two renames leaves no model, never an old model with new weights.

    Args:
        model: The model, with all data in memory.
        path: Where to; the folder must exist.
        single_file_limit_bytes: Above this many bytes of weights the data goes to a file of its own.

    Raises:
        StorageError: The disk is full, or the folder is missing or cannot be written.
    """
    path = Path(path)
    if weight_bytes(model) <= single_file_limit_bytes:
        write_atomically(path, model.SerializeToString())
        return
    data_path = path.with_name(path.name + ".data")
    temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            light = _with_external_data(model, temporary, data_path.name)
            path.unlink(missing_ok=True)
            temporary.replace(data_path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, data_path) from error
    write_atomically(path, light.SerializeToString())


def _with_external_data(model: ModelProto, data_path: Path, location: str) -> ModelProto:
    """A copy of the model that points into `location`, whose content is written to `data_path`."""
    light = model_without_initialisers(model)
    with data_path.open("xb") as file:
        for tensor in model.graph.initializer:
            kept = light.graph.initializer.add()
            if tensor_bytes(tensor) <= LARGE_TENSOR_BYTES or tensor.data_type == TensorProto.STRING:
                kept.CopyFrom(tensor)
                continue
            raw = raw_bytes(tensor)
            file.write(b"\0" * (-file.tell() % _ALIGNMENT_BYTES))
            kept.name, kept.data_type, kept.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
            kept.dims.extend(tensor.dims)
            for key, entry in (("location", location), ("offset", file.tell()), ("length", len(raw))):
                kept.external_data.add(key=key, value=str(entry))
            file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return light
