"""TensorRT without NVIDIA's libraries: its own Python bindings, with stand-ins for the classes that need them."""

from tensorrt_bindings import *  # noqa: F403
from tensorrt_bindings import __version__

from ._building import Builder
from ._configuration import IBuilderConfig, IOptimizationProfile, ITimingCache
from ._inspector import EngineInspector
from ._memory import IHostMemory
from ._network import ILayer, INetworkDefinition, ITensor, OnnxParser, ParserError
from ._running import ICudaEngine, IExecutionContext, Runtime

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
