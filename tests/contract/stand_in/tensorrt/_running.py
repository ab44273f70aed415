"""Engines that run: ONNX Runtime reads and writes the addresses, which are host memory here."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnx
import tensorrt_bindings as vendor

from ._inspector import EngineInspector
from ._memory import IHostMemory
from ._network import MAJOR
from ._numbers import NUMPY_TYPES, ONNX_TYPES, session_of
from ._plan import unpacked
from ._strict import make, stand_in

ERROR = vendor.ILogger.Severity.ERROR


@stand_in
class IExecutionContext:
    """One run of an engine at a time."""

    @property
    def engine(self) -> Any:
        return self._s.engine

    @property
    def name(self) -> str:
        return self._s.stored.get("name", "")

    @property
    def active_optimization_profile(self) -> int:
        return self._s.profile

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self.infer_shapes()

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._s.profile = index
        return index < max(1, len(self._s.engine._s.profiles))

    def set_input_shape(self, name: str, shape: Any) -> bool:
        wanted = tuple(vendor.Dims(shape))
        smallest, _, largest = self._s.engine._shapes(name, self._s.profile)
        inside = len(wanted) == len(smallest) and all(
            low <= size <= high for low, size, high in zip(smallest, wanted, largest, strict=True)
        )
        if not inside:
            self._s.engine._s.logger.log(
                ERROR, f"Error Code 3: setInputShape: {name} {wanted} is not within {smallest} and {largest}"
            )
            return False
        self._s.shapes[name] = wanted
        return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._s.shapes:
            return vendor.Dims(self._s.shapes[name])
        if self.infer_shapes() or self._s.engine._end(name) in self._s.engine._s.record["inputs"]:
            return vendor.Dims(tuple(self._s.engine._end(name)["shape"]))
        return vendor.Dims(self._s.engine._inferred(self._input_shapes())[name])

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._input_shapes().items() if -1 in shape]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._s.addresses[name] = int(address)
        return self._s.engine._end(name) is not None

    def get_tensor_address(self, name: str) -> int:
        return self._s.addresses.get(name, 0)

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._s.allocators[name] = allocator
        return True

    def get_output_allocator(self, name: str) -> Any:
        return self._s.allocators.get(name)

    def set_all_tensors_debug_state(self, state: bool) -> bool:
        return True

    def set_debug_listener(self, listener: Any) -> bool:
        self._s.listener = listener
        return True

    def get_debug_listener(self) -> Any:
        return self._s.listener

    def execute_v2(self, bindings: Any) -> bool:
        names = [end["name"] for end in self._s.engine._ends()]
        self._s.addresses.update(zip(names, (int(address) for address in bindings), strict=True))
        return self._run()

    def execute_async_v2(self, bindings: Any, stream: int, consumed: Any = None) -> bool:
        return self.execute_v2(bindings)

    def execute_async_v3(self, stream: int) -> bool:
        return self._run()

    def report_to_profiler(self) -> bool:
        return True

    def _input_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            end["name"]: self._s.shapes.get(end["name"], tuple(end["shape"]))
            for end in self._s.engine._s.record["inputs"]
        }

    def _run(self) -> bool:
        engine = self._s.engine
        missing = [name for name in self._input_shapes() if not self._s.addresses.get(name)]
        if missing or self.infer_shapes():
            engine._s.logger.log(ERROR, f"Error Code 3: enqueueV3: no address or shape of {missing}")
            return False
        feed = {}
        for given in engine._s.session.get_inputs():
            kind = NUMPY_TYPES[engine._end(given.name)["type"]]
            shape = self._input_shapes()[given.name]
            size = int(np.prod(shape)) * kind.itemsize
            values = np.frombuffer(ctypes.string_at(self._s.addresses[given.name], size), kind).reshape(shape)
            feed[given.name] = values.astype(ONNX_TYPES[given.type])
        names = [output.name for output in engine._s.session.get_outputs()]
        for name, values in zip(names, engine._s.session.run(names, feed), strict=True):
            self._write(name, np.ascontiguousarray(values, NUMPY_TYPES[engine._end(name)["type"]]))
        profiler = self._s.stored.get("profiler")
        for layer in engine._s.record["layers"] if profiler is not None else ():
            profiler.report_layer_time(layer["Name"], 0.01)
        return True

    def _write(self, name: str, values: np.ndarray) -> None:
        allocator = self._s.allocators.get(name)
        address = self._s.addresses.get(name, 0)
        if allocator is not None:
            if MAJOR >= 10:
                address = allocator.reallocate_output_async(name, address, values.nbytes, 256, 0)
            else:
                address = allocator.reallocate_output(name, address, values.nbytes, 256)
            allocator.notify_shape(name, vendor.Dims(values.shape))
        ctypes.memmove(int(address), values.ctypes.data, values.nbytes)


@stand_in
class ICudaEngine:
    """A deserialised engine."""

    @property
    def name(self) -> str:
        return "stand-in"

    @property
    def num_io_tensors(self) -> int:
        return len(self._ends())

    @property
    def num_layers(self) -> int:
        return len(self._s.record["layers"])

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self._s.profiles))

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return False

    @property
    def profiling_verbosity(self) -> Any:
        verbosity = vendor.ProfilingVerbosity
        return verbosity.DETAILED if self._s.record["detailed"] else verbosity.LAYER_NAMES_ONLY

    @property
    def hardware_compatibility_level(self) -> Any:
        properties = self._s.record["settings"]["properties"]
        return getattr(vendor.HardwareCompatibilityLevel, properties["hardware_compatibility_level"])

    @property
    def engine_capability(self) -> Any:
        return vendor.EngineCapability.STANDARD

    @property
    def device_memory_size(self) -> int:
        return 1024

    @property
    def device_memory_size_v2(self) -> int:
        return 1024

    @property
    def streamable_weights_size(self) -> int:
        return 0

    def get_tensor_name(self, index: int) -> str:
        return self._ends()[index]["name"]

    def get_tensor_mode(self, name: str) -> Any:
        is_input = self._end(name) in self._s.record["inputs"]
        return vendor.TensorIOMode.INPUT if is_input else vendor.TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> Any:
        return vendor.Dims(tuple(self._end(name)["shape"]))

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(vendor.DataType, self._end(name)["type"])

    def get_tensor_location(self, name: str) -> Any:
        return vendor.TensorLocation.HOST if self._end(name)["is_shape"] else vendor.TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        return self._end(name)["is_shape"]

    def get_tensor_format(self, name: str, profile: int = 0) -> Any:
        return vendor.TensorFormat.LINEAR

    def get_tensor_profile_shape(self, first: Any, second: Any) -> list[Any]:
        name, profile = (first, second) if isinstance(first, str) else (second, first)
        return [vendor.Dims(shape) for shape in self._shapes(name, profile)]

    def get_tensor_profile_values(self, first: Any, second: Any) -> list[Any]:
        name, profile = (first, second) if isinstance(first, str) else (second, first)
        return self._s.profiles[int(profile)].get(name, [])

    def get_aliased_input_tensor(self, name: str) -> None:
        return None

    def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
        return make(IExecutionContext, engine=self, profile=0, shapes={}, addresses={}, allocators={}, listener=None)

    def create_engine_inspector(self) -> EngineInspector:
        return make(EngineInspector, engine=self)

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._s.content)

    def _ends(self) -> list[dict[str, Any]]:
        return [*self._s.record["inputs"], *self._s.record["outputs"]]

    def _end(self, name: str) -> Any:
        return next((end for end in self._ends() if end["name"] == name), None)

    def _shapes(self, name: str, profile: int) -> list[tuple[int, ...]]:
        """Smallest, best and largest shape of an input."""
        profiles = self._s.profiles
        if profiles and name in profiles[profile] and not self._end(name)["is_shape"]:
            return [tuple(shape) for shape in profiles[profile][name]]
        return [tuple(self._end(name)["shape"])] * 3

    def _inferred(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs for shapes of the inputs; -1 where data decide."""
        model = onnx.ModelProto()
        model.CopyFrom(self._s.model)
        for info in model.graph.input:
            for size, dimension in zip(shapes.get(info.name, ()), info.type.tensor_type.shape.dim, strict=False):
                dimension.dim_value = size
        for info in model.graph.output:
            info.type.tensor_type.ClearField("shape")
        found = {info.name: info for info in onnx.shape_inference.infer_shapes(model).graph.output}
        return {
            name: tuple(
                size.dim_value if size.HasField("dim_value") else -1 for size in kind.type.tensor_type.shape.dim
            )
            for name, kind in found.items()
        }


@stand_in
class Runtime:
    """Takes engines of its own version, and version-compatible ones where host code is allowed."""

    def _construct(self, logger: Any) -> None:
        self._s.logger = logger

    @property
    def logger(self) -> Any:
        return self._s.logger

    def deserialize_cuda_engine(self, engine: Any) -> ICudaEngine | None:
        content = bytes(engine)
        try:
            record, model = unpacked(content)
        except ValueError:
            self._s.logger.log(ERROR, "Error Code 1: Serialization (Serialization assertion magicTagRead failed.)")
            return None
        if not self._takes(record):
            return None
        loaded = onnx.load_from_string(model)
        return make(
            ICudaEngine,
            record=record,
            model=loaded,
            session=session_of(loaded),
            profiles=record["settings"]["profiles"],
            content=content,
            logger=self._s.logger,
        )

    def _takes(self, record: dict[str, Any]) -> bool:
        compatible = "VERSION_COMPATIBLE" in record["settings"]["flags"]
        if compatible and not self._s.stored.get("engine_host_code_allowed"):
            self._s.logger.log(ERROR, "Error Code 1: the plan holds host code, and engine_host_code_allowed is not set")
            return False
        if record["version"] != vendor.__version__ and not compatible:
            self._s.logger.log(ERROR, f"Error Code 6: the plan is of version {record['version']}, rebuild it")
            return False
        return True
