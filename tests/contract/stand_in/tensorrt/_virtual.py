"""Calls into objects that Python derived from the vendor's classes, the way the vendor's libraries call them.

NVIDIA's bindings make a C++ object of each; its virtual functions lead through the bindings' own conversions to the
Python methods. So what happens to an exception or to a wrong result is decided by the bindings, not by the stand-in.
The order of the virtual functions is that of NvInferRuntimeBase.h and NvInfer.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import tensorrt_bindings as vendor

OBJECT_OFFSET = 2 * ctypes.sizeof(ctypes.c_void_p)
"""Where pybind11 keeps the C++ object's address: behind CPython's object header."""

VERSIONED = 4
"""Since 10 these classes derive from IVersionedInterface: two functions and a destructor, which takes two places."""

FIRST = 0 if vendor.__version__.startswith("8.") else VERSIONED


class Virtual:
    """The C++ object behind a Python object."""

    def __init__(self, instance: Any, first: int = FIRST) -> None:
        self._instance = instance
        self._object = ctypes.cast(id(instance) + OBJECT_OFFSET, ctypes.POINTER(ctypes.c_void_p))[0]
        self._table = ctypes.cast(self._object, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        self._first = first

    def call(self, index: int, result: Any, *arguments: Any) -> Any:
        """Calls a virtual function: its place behind the base's, its result type, and ctypes values."""
        prototype = ctypes.CFUNCTYPE(result, ctypes.c_void_p, *(type(argument) for argument in arguments))
        return prototype(self._table[self._first + index])(self._object, *arguments)


class Calibrator:
    """IInt8Calibrator."""

    def __init__(self, instance: Any) -> None:
        self._virtual = Virtual(instance)

    def batch_size(self) -> int:
        """What getBatchSize gives."""
        return self._virtual.call(0, ctypes.c_int32)

    def batch(self, names: Sequence[str]) -> list[int] | None:
        """The addresses that getBatch fills in; None where it says that there are no more."""
        texts = (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
        addresses = (ctypes.c_void_p * len(names))()
        places = [ctypes.c_void_p(ctypes.addressof(addresses)), ctypes.c_void_p(ctypes.addressof(texts))]
        more = self._virtual.call(1, ctypes.c_bool, *places, ctypes.c_int32(len(names)))
        return [address or 0 for address in addresses] if more else None

    def read_cache(self) -> bytes | None:
        """The bytes that readCalibrationCache points to."""
        length = ctypes.c_size_t()
        address = self._virtual.call(2, ctypes.c_void_p, ctypes.c_void_p(ctypes.addressof(length)))
        return ctypes.string_at(address, length.value) if address else None

    def write_cache(self, content: bytes) -> None:
        """Hands a cache to writeCalibrationCache."""
        kept = ctypes.create_string_buffer(content, len(content))
        self._virtual.call(3, None, ctypes.c_void_p(ctypes.addressof(kept)), ctypes.c_size_t(len(content)))

    def algorithm(self) -> int:
        """The number that getAlgorithm gives."""
        return self._virtual.call(4, ctypes.c_int32)


class ProgressMonitor:
    """IProgressMonitor, which came with 10."""

    def __init__(self, instance: Any) -> None:
        self._virtual = Virtual(instance)

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        texts = ctypes.c_char_p(name.encode()), ctypes.c_char_p(parent.encode() if parent else None)
        self._virtual.call(0, None, *texts, ctypes.c_int32(steps))

    def step_complete(self, name: str, step: int) -> bool:
        """A step is done; False asks to stop."""
        return self._virtual.call(1, ctypes.c_bool, ctypes.c_char_p(name.encode()), ctypes.c_int32(step))

    def phase_finish(self, name: str) -> None:
        """A phase ends."""
        self._virtual.call(2, None, ctypes.c_char_p(name.encode()))
