"""The builder's configuration, optimization profiles and timing caches."""

from __future__ import annotations

import json
from typing import Any

import tensorrt_bindings as vendor

from ._memory import IHostMemory
from ._network import MAJOR
from ._strict import make, stand_in

TIMINGS = b"STAND-IN TIMINGS "


@stand_in
class IOptimizationProfile:
    """The smallest, best and largest shape of each dynamic input."""

    def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        """Keeps what set_shape of every version takes; a contradiction is an error at once, as there."""
        shapes = [tuple(vendor.Dims(shape)) for shape in (smallest, best, largest)]
        if not _ascends(shapes):
            raise ValueError(f"Shape provided for min is inconsistent with other shapes: {name}")
        self._s.shapes[name] = shapes

    def get_shape(self, name: str) -> list[Any]:
        return [vendor.Dims(shape) for shape in self._s.shapes.get(name, [])]

    def set_shape_input(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        self._s.values[name] = [[int(number) for number in numbers] for numbers in (smallest, best, largest)]

    def get_shape_input(self, name: str) -> list[Any]:
        return self._s.values.get(name, [])

    def __bool__(self) -> bool:
        return True


def _ascends(shapes: list[tuple[int, ...]]) -> bool:
    smallest, best, largest = shapes
    return len({len(shape) for shape in shapes}) == 1 and all(
        low <= middle <= high for low, middle, high in zip(smallest, best, largest, strict=True)
    )


@stand_in
class ITimingCache:
    """What was timed: names of layers, under a header with the version."""

    def serialize(self) -> IHostMemory:
        return IHostMemory(TIMINGS + json.dumps([self._s.version, sorted(self._s.entries)]).encode())

    def combine(self, other: Any, ignore_mismatch: bool) -> bool:
        if other._s.version != self._s.version and not ignore_mismatch:
            return False
        self._s.entries |= other._s.entries
        return True

    def reset(self) -> bool:
        self._s.entries.clear()
        return True


def timing_cache(content: bytes) -> ITimingCache | None:
    """A cache from its bytes; None where they are no cache."""
    if not content:
        return make(ITimingCache, version=vendor.__version__, entries=set())
    if not content.startswith(TIMINGS):
        return None
    version, entries = json.loads(content[len(TIMINGS) :])
    return make(ITimingCache, version=version, entries=set(entries))


@stand_in
class IBuilderConfig:
    """All that a build is told."""

    @property
    def flags(self) -> int:
        return self._s.flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._s.flags = value

    def set_flag(self, flag: Any) -> None:
        self._s.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self._s.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._s.flags >> int(flag) & 1)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._s.pools[pool.name] = int(size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._s.pools.get(pool.name, 1 << 30)

    def set_tactic_sources(self, sources: int) -> bool:
        self._s.tactic_sources = int(sources)
        return True

    def get_tactic_sources(self) -> int:
        return self._s.tactic_sources

    def create_timing_cache(self, content: Any) -> ITimingCache | None:
        return timing_cache(bytes(content))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache is None or (cache._s.version != vendor.__version__ and not ignore_mismatch):
            return False
        self._s.timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._s.timing_cache

    def add_optimization_profile(self, profile: Any) -> int:
        self._s.profiles.append(profile)
        return len(self._s.profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._s.profiles)

    def set_calibration_profile(self, profile: Any) -> bool:
        self._s.calibration_profile = profile
        return True

    def get_calibration_profile(self) -> Any:
        return self._s.calibration_profile

    def set_device_type(self, layer: Any, kind: Any) -> None:
        self._s.device_types[layer.name] = kind

    def get_device_type(self, layer: Any) -> Any:
        return self._s.device_types.get(layer.name, self.default_device_type)

    def is_device_type_set(self, layer: Any) -> bool:
        return layer.name in self._s.device_types

    def reset_device_type(self, layer: Any) -> None:
        self._s.device_types.pop(layer.name, None)

    def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802  the vendor's name
        return layer._s.operator in ("Conv", "Relu", "Add", "MaxPool", "AveragePool", "ConvTranspose")

    def set_quantization_flag(self, flag: Any) -> None:
        self._s.quantization_flags |= 1 << int(flag)

    def clear_quantization_flag(self, flag: Any) -> None:
        self._s.quantization_flags &= ~(1 << int(flag))

    def get_quantization_flag(self, flag: Any) -> bool:
        return bool(self._s.quantization_flags >> int(flag) & 1)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._s.preview_features[feature.name] = enable

    def get_preview_feature(self, feature: Any) -> bool:
        return self._s.preview_features.get(feature.name, False)


def new_configuration() -> IBuilderConfig:
    """A configuration as the builder creates it."""
    made = make(
        IBuilderConfig,
        flags=1 << int(vendor.BuilderFlag.TF32),
        pools={},
        tactic_sources=0,
        timing_cache=None,
        profiles=[],
        calibration_profile=None,
        device_types={},
        quantization_flags=0,
        preview_features={},
    )
    made._s.stored.update(
        default_device_type=vendor.DeviceType.GPU,
        DLA_core=-1,
        profiling_verbosity=vendor.ProfilingVerbosity.LAYER_NAMES_ONLY,
        engine_capability=vendor.EngineCapability.STANDARD,
        builder_optimization_level=3,
        hardware_compatibility_level=vendor.HardwareCompatibilityLevel.NONE,
    )
    return made


def settings_of(config: IBuilderConfig) -> dict[str, Any]:
    """What a configuration was told, as plain data."""
    state = config._s
    names = vendor.BuilderFlag.__members__
    plain = {key: getattr(value, "name", value) for key, value in state.stored.items()}
    return {
        "flags": sorted(name for name, flag in names.items() if config.get_flag(flag)),
        "pools": state.pools,
        "tactic_sources": sorted(
            name for name, source in vendor.TacticSource.__members__.items() if state.tactic_sources >> int(source) & 1
        ),
        "profiles": [{**profile._s.shapes, **profile._s.values} for profile in state.profiles],
        "properties": {key: value for key, value in plain.items() if isinstance(value, (str, int, float, bool))},
        "major": MAJOR,
    }
