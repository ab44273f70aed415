"""What the child process can be asked."""

from __future__ import annotations

import sys

import building
import devices
import networks

import engines


def hello(request, send):
    """Names and versions of the library, and the GPU it would use."""
    trt = networks.load_library()
    return {
        "library": trt.__name__,
        "version": trt.__version__,
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "gpu": devices.first_gpu(),
    }


VERBS = {
    "hello": hello,
    "parse": networks.parse,
    "build": building.build,
    "inspect": engines.inspect,
    "load": engines.load,
    "infer": engines.infer,
    "unload": engines.unload,
}
