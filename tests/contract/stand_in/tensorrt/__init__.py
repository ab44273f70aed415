"""TensorRT without NVIDIA's libraries: its own Python bindings, with stand-ins for the classes that need them."""

import sys

from tensorrt_bindings import *  # noqa: F403
from tensorrt_bindings import __version__

from ._building import Builder
from ._configuration import IBuilderConfig, IOptimizationProfile, ITimingCache
from ._inspector import EngineInspector
from ._memory import IHostMemory
from ._network import ILayer, INetworkDefinition, ITensor, OnnxParser, ParserError
from ._running import ICudaEngine, IExecutionContext, Runtime

# Polygraphy imports PyTorch where it is installed, which takes seconds, only to see that no array is a tensor of it.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]

__all__ = [
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "__version__",
]
