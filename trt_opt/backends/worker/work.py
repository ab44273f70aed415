"""What the child process can be asked."""

from __future__ import annotations

import sys

import building
import networks
import probe
import profiling
import timing

import engines


def hello(request, send):
    """Names and versions of the library, and the GPU it would use."""
    trt = networks.load_library()
    return {
        "library": trt.__name__,
        "version": trt.__version__,
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "gpu": first_gpu(),
    }


def first_gpu():
    """The GPU that CUDA would use, and the driver's CUDA; None without one: TensorRT crashes where there is none."""
    found = probe.cuda()
    return dict(found["gpus"][0], cuda=found["cuda"] or "") if found["gpus"] else None


VERBS = {
    "hello": hello,
    "parse": networks.parse,
    "build": building.build,
    "inspect": engines.inspect,
    "load": engines.load,
    "infer": engines.infer,
    "prepare": timing.prepare,
    "time": timing.time,
    "memory": timing.memory,
    "profile": profiling.profile,
    "unload": engines.unload,
}
