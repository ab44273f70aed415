"""TensorRT's own INT8 calibrators, for TensorRT up to 10: the builder runs the network and chooses the ranges itself.

Self-contained (standard library and NumPy, Python 3.8), because a child process under another interpreter loads this
file by its path. It imports no TensorRT: a class derived from a vendor's calibrator would break the import where there
is none, so the class is made on demand, from the module that is passed in.

What TensorRT calls from inside its builder must not raise: the bindings print a Python exception and go on, and a
failed `get_batch` then reads as "no more batches". Every exception is therefore kept, and `outcome` raises it once the
builder is back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

ALGORITHMS: Mapping[str, str] = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}
"""Our name of an algorithm → TensorRT's class."""

FED_AS: Mapping[str, tuple[str, str]] = {
    "FLOAT": ("float32", "f"),
    "INT32": ("int32", "iu"),
    "INT64": ("int64", "iu"),
    "BOOL": ("bool", "b"),
}
"""Element type of a network's input → what calibration feeds it with, and which of NumPy's kinds become that."""

FED_AS_FLOAT = ("float32", "fiu")
"""The same for every other type (HALF, UINT8 …): calibration feeds such inputs in float32, whatever they take at run
time. Polygraphy's calibrator does so, and calls it TensorRT's requirement for "non-index calibration inputs"."""

T = TypeVar("T")


class NativeCalibrationError(Exception):
    """TensorRT's calibrator cannot be had, or what it was fed with or gave back cannot be used."""


class PyCudaMemory:
    """Device memory through pycuda, in the context that TensorRT works in.

    TensorRT uses the CUDA runtime, and with it the device's primary context; pycuda knows only contexts that it was
    told of, and allocates nothing without one. So the primary context is retained, and current for the time of a call
    alone. `Device.make_context`, which `pycuda.autoinit` uses, would make another context, whose memory TensorRT's
    kernels cannot read; only where the caller has made one already, TensorRT works in it too.
    """

    name = "pycuda"

    def __init__(self) -> None:
        from pycuda import driver

        driver.init()
        self._driver = driver
        self._context = None
        if driver.Context.get_current() is None:
            # The runtime's device is the first one that CUDA_VISIBLE_DEVICES leaves, unless somebody sets another.
            self._context = driver.Device(0).retain_primary_context()

    def allocate(self, size: int) -> Any:
        """Memory of so many bytes."""
        with self._current():
            return self._driver.mem_alloc(size)

    def address(self, memory: Any) -> int:
        """The pointer."""
        return int(memory)

    def copy(self, memory: Any, array: np.ndarray[Any, Any]) -> None:
        """Copies a contiguous array to the device, and returns when it is there."""
        with self._current():
            self._driver.memcpy_htod(memory, array)

    def free(self, memory: Any) -> None:
        """Gives the memory back."""
        with self._current():
            memory.free()

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        if self._context is None:
            yield
            return
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()


class PolygraphyMemory:
    """Device memory through the CUDA runtime that Polygraphy loads; it works in TensorRT's context by itself."""

    name = "Polygraphy"

    def __init__(self) -> None:
        from polygraphy import cuda

        self._cuda = cuda
        self._wrapper = cuda.wrapper()

    def allocate(self, size: int) -> Any:
        """Memory of so many bytes."""
        return self._wrapper.malloc(size)

    def address(self, memory: Any) -> int:
        """The pointer."""
        return int(memory)

    def copy(self, memory: Any, array: np.ndarray[Any, Any]) -> None:
        """Copies a contiguous array to the device, and returns when it is there."""
        kind = self._cuda.MemcpyKind.HostToDevice
        self._wrapper.memcpy(dst=memory, src=array.ctypes.data, nbytes=array.nbytes, kind=kind)

    def free(self, memory: Any) -> None:
        """Gives the memory back."""
        self._wrapper.free(memory)


def device_memory() -> Any:
    """Device memory through pycuda, or through Polygraphy where pycuda is absent or too old for primary contexts.

    Raises:
        NativeCalibrationError: Neither is installed, or CUDA does not work; the message has both reasons.
    """
    reasons = []
    for kind in (PyCudaMemory, PolygraphyMemory):
        try:
            return kind()
        except Exception as error:  # noqa: BLE001, PERF203  each has exceptions of its own, and so has CUDA
            reasons.append(f"{kind.name}: {error}")
    raise NativeCalibrationError(
        "no memory can be had on the GPU ({}). Install pycuda, or Polygraphy beside the CUDA runtime".format(
            "; ".join(reasons)
        )
    )


class DeviceBuffers:
    """One buffer per input, allocated when it is first needed and again where it is too small.

    Args:
        memory: What `device_memory` gives; None asks for it when the first buffer is needed.
    """

    def __init__(self, memory: Any = None) -> None:
        self._memory = memory
        self._held: dict[str, tuple[Any, int]] = {}

    def pointer(self, name: str, array: np.ndarray[Any, Any]) -> int:
        """The device pointer of an input's buffer, which now holds the array."""
        if self._memory is None:
            self._memory = device_memory()
        array = np.ascontiguousarray(array)
        # An empty tensor gets a byte: TensorRT takes no null pointer.
        size = max(1, array.nbytes)
        held = self._held.get(name)
        if held is None or held[1] < size:
            if held is not None:
                del self._held[name]
                self._memory.free(held[0])
            self._held[name] = (self._memory.allocate(size), size)
        memory = self._held[name][0]
        if array.nbytes:
            self._memory.copy(memory, array)
        return int(self._memory.address(memory))

    def free(self) -> None:
        """Gives all buffers back, each once; one that cannot be freed does not keep the others."""
        first: Exception | None = None
        while self._held:
            _, (memory, _) = self._held.popitem()
            try:
                self._memory.free(memory)
            except Exception as error:  # noqa: BLE001  pycuda and Polygraphy have exceptions of their own
                first = first or error
        if first is not None:
            raise NativeCalibrationError(f"memory on the GPU cannot be freed: {first}") from first


class Feed:
    """What TensorRT's calls are answered from: batches, buffers, a cache, and the first thing that went wrong.

    Args:
        batches: Mappings from input name to array; None where a cache alone is to be read.
        cache: The calibration cache that TensorRT is to take, or None.
        buffers: Where batches go on the device.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, np.ndarray[Any, Any]]] | None,
        cache: bytes | None,
        buffers: DeviceBuffers,
    ) -> None:
        self._batches = None if batches is None else iter(batches)
        self._cache = cache
        self._buffers = buffers
        self._types: Mapping[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._is_exhausted = False
        self.error: BaseException | None = None
        self.batches = 0
        self.was_asked = False
        self.written: bytes | None = None

    def expect(self, types: Mapping[str, str]) -> None:
        """Tells TensorRT's own element types of the inputs, "INT32": what is fed is converted, or refused."""
        self._types = dict(types)

    def guarded(self, answer: Callable[[], T]) -> T | None:
        """The answer; None where it raises or something did before, which `error` then holds."""
        if self.error is not None:
            return None
        try:
            return answer()
        except BaseException as error:  # noqa: BLE001  even Ctrl-C is swallowed by the caller, TensorRT's bindings
            self.error = error
            self._release()
            return None

    def next_batch(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers of the next batch, in the order of the names; None behind the last one."""
        self.was_asked = True
        if self._batches is None:
            raise NativeCalibrationError(
                "TensorRT did not take the calibration cache: it asked for data to calibrate with. A cache holds for "
                "one version of TensorRT and one algorithm"
            )
        batch = None if self._is_exhausted else next(self._batches, None)
        if batch is None:
            self._is_exhausted = True
            self._release()
            return None
        missing = [name for name in names if name not in batch]
        if missing:
            raise NativeCalibrationError(
                f"batch {self.batches + 1} has nothing for {_listed(missing)}; it has {_listed(sorted(batch))}"
            )
        pointers = [self._buffers.pointer(name, self._checked(name, batch[name])) for name in names]
        self.batches += 1
        return pointers

    def cache(self) -> bytes | None:
        """The cache for TensorRT to read."""
        return self._cache

    def keep(self, cache: Any) -> None:
        """Copies the cache that TensorRT gives, a memoryview that ends with the call."""
        self.written = bytes(cache)

    def close(self) -> None:
        """Frees the buffers."""
        self._buffers.free()

    def _release(self) -> None:
        """Frees the buffers as soon as they are not needed; a failure there does not hide an earlier one."""
        try:
            self._buffers.free()
        except NativeCalibrationError as error:
            self.error = self.error or error

    def _checked(self, name: str, given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        where = f"batch {self.batches + 1}, input {name!r}"
        array = _as_fed(np.asarray(given), self._types.get(name), where)
        shape = self._shapes.setdefault(name, array.shape)
        if array.shape != shape:
            raise NativeCalibrationError(
                f"{where}: the shape is {array.shape}, the first batch had {shape}; TensorRT calibrates with one"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NativeCalibrationError(f"{where}: there are NaNs or infinities, which spoil every range")
        return array


def native_calibrator(
    trt: Any,
    algorithm: str,
    batches: Iterable[Mapping[str, np.ndarray[Any, Any]]] | None,
    *,
    cache: bytes | None = None,
    batch_size: int = 1,
    memory: Any = None,
) -> Any:
    """A calibrator for `IBuilderConfig.int8_calibrator`.

    Its `feed` tells afterwards what happened, and `outcome()` must be called once the builder is back, also where it
    failed: it frees the buffers and raises what had to be kept from TensorRT.

    Args:
        trt: The module `tensorrt`.
        algorithm: "entropy" or "minmax".
        batches: Mappings from input name to array, all of the same shapes; None to have a cache read and nothing else.
        cache: A calibration cache for TensorRT to read. It checks the version and the algorithm in its first line and
            nothing else, so check before that it belongs to the model and the data.
        batch_size: The size of the batch axis; TensorRT's documentation wants it to be that of the batches.
        memory: What allocates on the device; None takes pycuda, or Polygraphy.

    Raises:
        NativeCalibrationError: This TensorRT has no such calibrator, the algorithm is unknown, or there is neither
            data nor a cache.
    """
    base = _base_class(trt, algorithm)
    if batches is None and cache is None:
        raise NativeCalibrationError("a calibrator needs batches, or a calibration cache to read")
    feed = Feed(batches, cache, DeviceBuffers(memory))

    class NativeCalibrator(base):  # type: ignore[misc, valid-type]
        """Answers TensorRT from the feed."""

        def __init__(self) -> None:
            # Without the base's own call the bindings crash on the first use.
            base.__init__(self)
            self.feed = feed

        def get_batch_size(self) -> int:
            return batch_size

        def get_batch(self, names: Sequence[str], *_: Any) -> list[int] | None:
            return feed.guarded(lambda: feed.next_batch(names))

        def read_calibration_cache(self, *_: Any) -> bytes | None:
            return feed.guarded(feed.cache)

        def write_calibration_cache(self, cache: Any, *_: Any) -> None:
            feed.guarded(lambda: feed.keep(cache))

        def outcome(self) -> Feed:
            return _outcome(feed)

    return NativeCalibrator()


def _outcome(feed: Feed) -> Feed:
    """The feed, its buffers freed, if nothing went wrong.

    Raises:
        NativeCalibrationError: Something did; its cause is what was raised inside the calibrator.
    """
    try:
        feed.close()
    finally:
        error = feed.error
        if error is not None:
            words = str(error) if isinstance(error, NativeCalibrationError) else f"{type(error).__name__}: {error}"
            raise NativeCalibrationError(words) from error
    return feed


def _base_class(trt: Any, algorithm: str) -> Any:
    if algorithm not in ALGORITHMS:
        raise NativeCalibrationError(f"there is no native calibrator {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    base = getattr(trt, ALGORITHMS[algorithm], None)
    if base is None:
        raise NativeCalibrationError(
            "{} {} has no {}: TensorRT's own INT8 calibrators ended with TensorRT 10, and TensorRT-RTX never had them. "
            "Quantise the graph with Q/DQ pairs instead".format(
                trt.__name__, getattr(trt, "__version__", ""), ALGORITHMS[algorithm]
            )
        )
    return base


def _as_fed(array: np.ndarray[Any, Any], kind: str | None, where: str) -> np.ndarray[Any, Any]:
    """The array in the element type that calibration takes; None leaves it as it is."""
    if array.dtype.kind not in "fiub":
        raise NativeCalibrationError(f"{where}: {array.dtype} is no element type that TensorRT can be fed")
    if kind is None:
        return array
    name, kinds = FED_AS.get(kind, FED_AS_FLOAT)
    wanted = np.dtype(name)
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in kinds:
        raise NativeCalibrationError(f"{where}: {array.dtype} was given, the network takes {kind}")
    if wanted.kind == "i" and array.size:
        limits = np.iinfo(name)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise NativeCalibrationError(f"{where}: {array.min()} … {array.max()} does not fit {wanted}")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return array.astype(wanted)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
