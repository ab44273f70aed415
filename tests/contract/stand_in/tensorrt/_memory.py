"""Bytes that the library owns, readable as a buffer."""

from __future__ import annotations

from typing import Any

import tensorrt_bindings as vendor

from ._signatures import STAND_INS

SHOWN = ("nbytes", "dtype", "__enter__", "__exit__")


class IHostMemory(bytes):
    """A buffer that hides all else that bytes can do, as the vendor's class has a buffer alone."""

    __enter__ = vendor.IHostMemory.__enter__
    __exit__ = vendor.IHostMemory.__exit__

    @property
    def nbytes(self) -> int:
        return bytes.__len__(self)

    @property
    def dtype(self) -> Any:
        return vendor.DataType.INT8

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise TypeError("object of type 'tensorrt_bindings.tensorrt.IHostMemory' has no len()")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("'tensorrt_bindings.tensorrt.IHostMemory' object is not subscriptable")

    def __iter__(self) -> Any:
        raise TypeError("'tensorrt_bindings.tensorrt.IHostMemory' object is not iterable")

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in SHOWN:
            raise AttributeError(f"'tensorrt_bindings.tensorrt.IHostMemory' object has no attribute '{name}'")
        return bytes.__getattribute__(self, name)


STAND_INS["IHostMemory"] = IHostMemory
