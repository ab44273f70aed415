"""The builder: checks what TensorRT's builder refuses, and keeps the graph and the settings as the engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import onnx
import tensorrt_bindings as vendor

from ._calibration import calibrate
from ._configuration import (
    IBuilderConfig,
    IOptimizationProfile,
    new_configuration,
    settings_of,
    timing_cache,
)
from ._inspector import layers_of
from ._memory import IHostMemory
from ._network import MAJOR, INetworkDefinition, new_network
from ._plan import packed
from ._strict import make, stand_in
from ._virtual import ProgressMonitor

DLA_CORES = "TENSORRT_STAND_IN_DLA_CORES"
"""How many Deep Learning Accelerators this machine pretends to have."""

STEP_SECONDS = "TENSORRT_STAND_IN_STEP_S"
"""How long a step takes that a progress monitor hears of."""

PHASES = (("Building engine", None), ("Engine generation", "Building engine"), ("Tactic timing", "Engine generation"))

PRECISIONS = ("FP16", "INT8", "BF16", "FP8")


class BuildError(Exception):
    """What the builder says in its log before it returns None."""


@stand_in
class Builder:
    """Builds by keeping the graph."""

    def _construct(self, logger: Any) -> None:
        if logger is None:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._s.logger = logger

    @property
    def logger(self) -> Any:
        return self._s.logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802  the vendor's name
        return int(os.environ.get(DLA_CORES, "0"))

    @property
    def max_DLA_batch_size(self) -> int:  # noqa: N802  the vendor's name
        return 4096

    @property
    def platform_has_fast_fp16(self) -> bool:
        return True

    @property
    def platform_has_fast_int8(self) -> bool:
        return True

    @property
    def platform_has_tf32(self) -> bool:
        return True

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return new_network(self, int(flags))

    def create_builder_config(self) -> IBuilderConfig:
        return new_configuration()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return make(IOptimizationProfile, shapes={}, values={})

    def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None:
        def log(severity: Any, message: str) -> None:
            self._s.logger.log(severity, message)

        try:
            return IHostMemory(_built(self, network, config, log))
        except BuildError as error:
            log(vendor.ILogger.Severity.ERROR, f"Error Code 4: {error}")
            return None

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return True

    def reset(self) -> None:
        """Nothing to forget."""


def _built(builder: Builder, network: INetworkDefinition, config: IBuilderConfig, log: Any) -> bytes:
    _require_something(network)
    _require_precisions(network, config)
    _require_profiles(network, config)
    _require_dla(builder, network, config, log)
    calibration = None
    if _implicit(network, config):
        if config.int8_calibrator is None:
            log(
                vendor.ILogger.Severity.WARNING,
                "Calibrator is not being used. Users must provide dynamic range for all tensors that are not Int32.",
            )
        else:
            calibration = calibrate(network, config, log)
    _go_through_phases(network, config)
    _time(network, config)
    record = {
        "version": vendor.__version__,
        "strongly_typed": network._s.strongly_typed,
        "settings": settings_of(config),
        "calibration": calibration,
        "inputs": [_end(tensor) for tensor in network._s.inputs],
        "outputs": [_end(tensor) for tensor in network._s.outputs],
        "layers": layers_of(network, config),
        "layer_precisions": _layer_precisions(network),
        "detailed": config.profiling_verbosity == vendor.ProfilingVerbosity.DETAILED,
    }
    return packed(record, _with_outputs(network).SerializeToString())


def _require_something(network: INetworkDefinition) -> None:
    if network._s.model is None or not network._s.outputs:
        raise BuildError("Internal Error (Network must have at least one output)")


def _require_precisions(network: INetworkDefinition, config: IBuilderConfig) -> None:
    """A strongly typed network takes no precision flags; a weak one before 10 wants them for what the graph holds."""
    flags = [name for name in PRECISIONS if _set(config, name)]
    if network._s.strongly_typed:
        if flags:
            raise BuildError(f"API Usage Error (strongly typed networks do not take the flags {', '.join(flags)})")
        if MAJOR < 11 and any(layer.precision_is_set for layer in network._s.layers):
            raise BuildError("API Usage Error (layer precision has been set in a strongly typed network)")
        return
    if MAJOR >= 10:
        return
    operators = {node.op_type for node in network._s.model.graph.node}
    if operators & {"QuantizeLinear", "DequantizeLinear"} and "INT8" not in flags:
        raise BuildError("Internal Error (Int8 precision has been set for a layer, but int8 is not configured)")
    halves = any(node.op_type == "Cast" and node.attribute[0].i == 10 for node in network._s.model.graph.node)
    halves = halves or any(weight.data_type == 10 for weight in network._s.model.graph.initializer)
    if halves and "FP16" not in flags:
        raise BuildError("Internal Error (fp16 precision has been set for a layer, but fp16 is not configured)")


def _set(config: IBuilderConfig, name: str) -> bool:
    flag = getattr(vendor.BuilderFlag, name, None)
    return flag is not None and config.get_flag(flag)


def _require_profiles(network: INetworkDefinition, config: IBuilderConfig) -> None:
    open_ones = [tensor for tensor in network._s.inputs if -1 in tensor._s.shape or tensor._s.is_shape]
    if open_ones and not config._s.profiles:
        raise BuildError("Network has dynamic or shape inputs, but no optimization profile has been defined.")
    for tensor in open_ones:
        for profile in config._s.profiles:
            if tensor.name not in profile._s.shapes and tensor.name not in profile._s.values:
                raise BuildError(f"Optimization profile is missing shape or values for input {tensor.name}")


def _require_dla(builder: Builder, network: INetworkDefinition, config: IBuilderConfig, log: Any) -> None:
    if config.default_device_type != vendor.DeviceType.DLA:
        return
    if config.DLA_core >= builder.num_DLA_cores:
        raise BuildError(f"API Usage Error (DLA core {config.DLA_core} of {builder.num_DLA_cores})")
    for layer in network._s.layers:
        if not config.can_run_on_DLA(layer):
            if not config.get_flag(vendor.BuilderFlag.GPU_FALLBACK):
                raise BuildError(f"{layer.name}: DLA does not support it, and GPU fallback is not enabled.")
            log(vendor.ILogger.Severity.WARNING, f"{layer.name}: falling back to GPU.")


def _implicit(network: INetworkDefinition, config: IBuilderConfig) -> bool:
    has_pairs = any(node.op_type == "QuantizeLinear" for node in network._s.model.graph.node)
    return MAJOR < 11 and _set(config, "INT8") and not has_pairs and not network._s.strongly_typed


def _go_through_phases(network: INetworkDefinition, config: IBuilderConfig) -> None:
    """Tells the progress monitor, where this version has one, and ends when it says so."""
    given = config.progress_monitor if hasattr(type(config), "progress_monitor") else None
    if given is None:
        return
    monitor = ProgressMonitor(given)
    steps = max(1, len(network._s.layers))
    try:
        for name, parent in PHASES:
            monitor.phase_start(name, parent, steps)
        for name, _ in reversed(PHASES):
            for step in range(steps):
                time.sleep(float(os.environ.get(STEP_SECONDS, "0")))
                if not monitor.step_complete(name, step):
                    raise BuildError("Engine building was cancelled by the progress monitor")
    finally:
        for name, _ in reversed(PHASES):
            monitor.phase_finish(name)


def _time(network: INetworkDefinition, config: IBuilderConfig) -> None:
    if config._s.timing_cache is None and not config.get_flag(vendor.BuilderFlag.DISABLE_TIMING_CACHE):
        config._s.timing_cache = timing_cache(b"")
    if config._s.timing_cache is not None:
        config._s.timing_cache._s.entries |= {layer.name for layer in network._s.layers}


def _end(tensor: Any) -> dict[str, Any]:
    shape = [int(size) for size in tensor._s.shape]
    return {"name": tensor.name, "type": tensor._s.dtype.name, "shape": shape, "is_shape": tensor._s.is_shape}


def _layer_precisions(network: INetworkDefinition) -> dict[str, str]:
    return {layer.name: layer._s.stored["precision"].name for layer in network._s.layers if layer._s.stored}


def _with_outputs(network: INetworkDefinition) -> onnx.ModelProto:
    """The graph with the outputs that are marked, in their order."""
    model = onnx.ModelProto()
    model.CopyFrom(network._s.model)
    known = {info.name: info for info in network._s.model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(_outputs(network, known))
    return model


def _outputs(network: INetworkDefinition, known: dict[str, Any]) -> Iterator[onnx.ValueInfoProto]:
    for tensor in network._s.outputs:
        yield known.get(tensor.name) or onnx.ValueInfoProto(name=tensor.name)
