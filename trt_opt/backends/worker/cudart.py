"""CUDA's runtime library, called through ctypes."""

from __future__ import annotations

import ctypes


class CudaError(Exception):
    """A function of CUDA's runtime failed."""


def runtime():
    """CUDA's runtime library, which Polygraphy has found and loaded."""
    from polygraphy import cuda

    return cuda.wrapper().handle


def call(function, *arguments):
    """Calls a function of CUDA's runtime by its name.

    Raises:
        CudaError: With its code.
    """
    code = getattr(runtime(), function)(*arguments)
    if code != 0:
        raise CudaError("{} failed with CUDA error {}".format(function, code))


def free_bytes():
    """Free memory on the GPU."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    return free.value
