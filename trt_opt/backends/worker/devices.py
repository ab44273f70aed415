"""The GPU that CUDA would use, asked of the driver's library itself: TensorRT crashes where there is none."""

from __future__ import annotations

import ctypes

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


def first_gpu():
    """Name, compute capability, memory, UUID and the driver's CUDA version of device 0; None without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, count, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
    cuda.cuDeviceGetName(name, 128, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return {
        "name": name.value.decode(errors="replace"),
        "capability": "{}.{}".format(
            attribute(cuda, CAPABILITY_MAJOR, device), attribute(cuda, CAPABILITY_MINOR, device)
        ),
        "memory_bytes": memory.value,
        "uuid": uuid_of(cuda, device),
        "cuda": "{}.{}".format(version.value // 1000, version.value % 1000 // 10),
    }


def attribute(cuda, number, device):
    """One number about a device."""
    value = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def uuid_of(cuda, device):
    """The device's UUID as nvidia-smi writes it."""
    raw = (ctypes.c_ubyte * 16)()
    cuda.cuDeviceGetUuid(raw, device)
    text = bytes(raw).hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
