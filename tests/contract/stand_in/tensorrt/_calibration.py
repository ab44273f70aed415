"""The builder's own INT8 calibration, calling back as TensorRT 8 and 10 do."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import tensorrt_bindings as vendor

from ._numbers import NUMPY_TYPES, ONNX_TYPES, session_of
from ._virtual import Calibrator

HEADERS = {
    "LEGACY_CALIBRATION": "LegacyCalibration",
    "ENTROPY_CALIBRATION": "EntropyCalibration",
    "ENTROPY_CALIBRATION_2": "EntropyCalibration2",
    "MINMAX_CALIBRATION": "MinMaxCalibration",
}
"""CalibrationAlgoType → how a cache begins."""


def calibrate(network: Any, config: Any, log: Any) -> dict[str, Any]:
    """Asks the calibrator for its cache, else feeds its batches; returns what happened, as plain data."""
    calibrator = Calibrator(config.int8_calibrator)
    algorithm = vendor.CalibrationAlgoType(calibrator.algorithm()).name
    header = f"TRT-{_number()}-{HEADERS[algorithm]}"
    calibrator.batch_size()
    found = calibrator.read_cache()
    if found:
        first = found.decode().split("\n", 1)[0]
        if first.endswith(f"-{HEADERS[algorithm]}"):
            return {"header": first, "from_cache": True, "batches": 0}
        log(vendor.ILogger.Severity.ERROR, "Calibration table does not match calibrator algorithm type.")
    ranges: dict[str, float] = {}
    batches = 0
    for feed in _fed(network, config, calibrator):
        batches += 1
        for name, values in feed.items():
            ranges[name] = max(ranges.get(name, 0.0), float(np.abs(values).max()))
    lines = [f"{name}: {struct.pack('>f', amax / 127).hex()}" for name, amax in ranges.items()]
    calibrator.write_cache("\n".join([header, *lines, ""]).encode())
    return {"header": header, "from_cache": False, "batches": batches}


def _number() -> str:
    """8.6.1 → 8601, 10.3.0 → 100300."""
    major, minor, patch = (int(part) for part in vendor.__version__.split(".")[:3])
    return f"{major}{minor}{patch:02}" if major < 10 else f"{major}{minor:02}{patch:02}"


def _fed(network: Any, config: Any, calibrator: Calibrator) -> Iterator[dict[str, np.ndarray]]:
    """Every tensor's values, a batch at a time."""
    model = onnx.ModelProto()
    model.CopyFrom(network._s.model)
    known = {info.name for info in model.graph.output}
    for node in model.graph.node:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name and name not in known)
    session = session_of(model)
    names = [tensor.name for tensor in network._s.inputs]
    shapes = {tensor.name: _calibration_shape(tensor, config) for tensor in network._s.inputs}
    while True:
        addresses = calibrator.batch(names)
        if addresses is None:
            return
        feed = {}
        for tensor, address in zip(network._s.inputs, addresses, strict=True):
            feed[tensor.name] = _read(address, shapes[tensor.name], _fed_as(tensor.dtype))
        taken = {given.name: feed[given.name].astype(ONNX_TYPES[given.type]) for given in session.get_inputs()}
        found = session.run(None, taken)
        yield {**feed, **dict(zip((output.name for output in session.get_outputs()), found, strict=True))}


def _calibration_shape(tensor: Any, config: Any) -> tuple[int, ...]:
    profile = config._s.calibration_profile or (config._s.profiles or [None])[0]
    shapes = profile._s.shapes.get(tensor.name) if profile is not None else None
    return shapes[1] if shapes else tensor._s.shape


def _fed_as(kind: Any) -> np.dtype:
    """Calibration feeds indices and flags as they are, and all else in float32 (as Polygraphy's calibrator does)."""
    return NUMPY_TYPES[kind.name if kind.name in ("INT32", "INT64", "BOOL") else "FLOAT"]


def _read(address: int, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    count = int(np.prod(shape))
    return np.frombuffer(ctypes.string_at(address, count * kind.itemsize), kind).reshape(shape)
