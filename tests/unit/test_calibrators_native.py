"""TensorRT's own calibrators, called as the bindings call them: an exception is swallowed, and reads as nothing."""

from __future__ import annotations

import ast
import ctypes
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibrators import native
from calibrators.native import DeviceBuffers, NativeCalibrationError, native_calibrator

X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Base:
    """What a vendor's calibrator class is to its subclasses."""

    def __init__(self) -> None:
        self.is_constructed = True


class EntropyBase(Base):
    """The entropy calibrator."""


class MinMaxBase(Base):
    """The min-max calibrator."""


TENSORRT_10 = types.SimpleNamespace(
    __name__="tensorrt", __version__="10.3.0", IInt8EntropyCalibrator2=EntropyBase, IInt8MinMaxCalibrator=MinMaxBase
)
TENSORRT_11 = types.SimpleNamespace(__name__="tensorrt", __version__="11.4.0")


class HostMemory:
    """Stands for the device: counts, and finds out what is freed twice or used after that."""

    def __init__(self) -> None:
        self.held: dict[int, bytearray] = {}
        self.allocated: list[int] = []

    def allocate(self, size: int) -> int:
        address = 4096 + len(self.allocated)
        self.allocated.append(size)
        self.held[address] = bytearray(size)
        return address

    def address(self, memory: int) -> int:
        return memory

    def copy(self, memory: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        assert array.nbytes <= len(self.held[memory])
        self.held[memory][: array.nbytes] = array.tobytes()

    def free(self, memory: int) -> None:
        del self.held[memory]


class FullMemory(HostMemory):
    """A device with room for one buffer."""

    def allocate(self, size: int) -> int:
        if self.allocated:
            raise RuntimeError("out of memory")
        return super().allocate(size)


def swallowed(call: Callable[[], Any]) -> Any:
    """What the bindings make of a callback."""
    try:
        return call()
    except Exception:  # noqa: BLE001  they swallow every one
        return None


def build(calibrator: Any, memory: HostMemory, names: Iterable[str] = ("x",)) -> list[list[bytes]]:
    """Calibrates as TensorRT does; gives what was on the device at every batch."""
    names = list(names)
    found = swallowed(calibrator.read_calibration_cache)
    if found is not None and bytes(found).startswith(b"TRT-100300"):
        return []
    seen = []
    while pointers := swallowed(lambda: calibrator.get_batch(names)):
        seen.append([bytes(memory.held[pointer]) for pointer in pointers])
    content = bytearray(b"TRT-100300-EntropyCalibration2\nx: 3c010a14\n")
    view = memoryview(content)
    swallowed(lambda: calibrator.write_calibration_cache(view))
    view.release()
    content[:] = bytes(len(content))
    return seen


def calibrated(batches: Any, **more: Any) -> tuple[Any, HostMemory]:
    """A calibrator after TensorRT has used it, and the device."""
    memory = more.pop("memory", None) or HostMemory()
    names, types_ = more.pop("names", ("x",)), more.pop("types", None)
    calibrator = native_calibrator(TENSORRT_10, "entropy", batches, memory=memory, **more)
    if types_:
        calibrator.feed.expect(types_)
    build(calibrator, memory, names)
    return calibrator, memory


@pytest.mark.parametrize(("algorithm", "base"), [("entropy", EntropyBase), ("minmax", MinMaxBase)])
def test_the_class_derives_from_the_vendors(algorithm: str, base: type) -> None:
    """The class asked for is the base, and its own constructor has run, without which the bindings crash."""
    calibrator = native_calibrator(TENSORRT_10, algorithm, [{"x": X}])
    assert isinstance(calibrator, base)
    assert calibrator.is_constructed


@pytest.mark.parametrize("module", [TENSORRT_11, types.SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1")])
def test_a_module_without_calibrators_is_refused(module: Any) -> None:
    """TensorRT 11 and TensorRT-RTX are named, with what is missing and what to do instead."""
    with pytest.raises(NativeCalibrationError, match=r"has no IInt8EntropyCalibrator2.*Q/DQ") as caught:
        native_calibrator(module, "entropy", [{"x": X}])
    assert module.__version__ in str(caught.value)


def test_an_unknown_algorithm_is_refused() -> None:
    """The known ones are listed."""
    with pytest.raises(NativeCalibrationError, match="'kl'; there are entropy, minmax"):
        native_calibrator(TENSORRT_10, "kl", [{"x": X}])


def test_neither_batches_nor_cache_is_refused() -> None:
    """A calibrator with nothing to answer from is none."""
    with pytest.raises(NativeCalibrationError, match="needs batches, or a calibration cache"):
        native_calibrator(TENSORRT_10, "entropy", None)


def test_batches_arrive_in_the_order_of_the_names() -> None:
    """Every batch is on the device when TensorRT reads it, one pointer per name, in TensorRT's order."""
    memory = HostMemory()
    batches = [{"x": X + number, "y": np.full(2, number, np.float32)} for number in range(3)]
    calibrator = native_calibrator(TENSORRT_10, "entropy", batches, memory=memory, batch_size=2)
    seen = build(calibrator, memory, ["y", "x"])
    assert seen == [[batch["y"].tobytes(), batch["x"].tobytes()] for batch in batches]
    assert calibrator.get_batch_size() == 2
    assert calibrator.outcome().batches == 3


def test_one_buffer_per_input_is_freed_when_the_batches_end() -> None:
    """Equal batches need one allocation; TensorRT times kernels after calibration and finds the memory free."""
    memory = HostMemory()
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X}] * 4, memory=memory)
    build(calibrator, memory)
    assert memory.allocated == [X.nbytes]
    assert memory.held == {}
    assert calibrator.get_batch(["x"]) is None
    calibrator.outcome()


def test_a_buffer_grows_and_does_not_shrink() -> None:
    """A larger array gets a new buffer, a smaller one the old; an empty one has an address too."""
    memory = HostMemory()
    buffers = DeviceBuffers(memory)
    for size in (4, 8, 2, 0):
        assert buffers.pointer("x", np.zeros(size, np.float32))
    assert memory.allocated == [16, 32]
    assert len(memory.held) == 1
    assert DeviceBuffers(memory).pointer("y", np.zeros(0, np.float32))
    assert memory.allocated[-1] == 1


def test_what_cannot_grow_is_freed_once() -> None:
    """Memory running out while a buffer grows leaves nothing to free a second time."""
    memory = FullMemory()
    buffers = DeviceBuffers(memory)
    buffers.pointer("x", np.zeros(1, np.float32))
    with pytest.raises(RuntimeError, match="out of memory"):
        buffers.pointer("x", np.zeros(9, np.float32))
    buffers.free()
    assert memory.held == {}


def test_one_buffer_that_cannot_be_freed_does_not_keep_the_others() -> None:
    """All are tried, and the failure is told."""

    class Stubborn(HostMemory):
        def free(self, memory: int) -> None:
            super().free(memory)
            raise RuntimeError("driver shutting down")

    memory = Stubborn()
    buffers = DeviceBuffers(memory)
    for name in "xyz":
        buffers.pointer(name, X)
    with pytest.raises(NativeCalibrationError, match="cannot be freed: driver shutting down"):
        buffers.free()
    assert memory.held == {}


def raising(error: BaseException) -> Iterator[Mapping[str, np.ndarray]]:
    """One good batch, then an error."""
    yield {"x": X}
    raise error


BAD = {
    "a file that cannot be read": (raising(OSError("disk gone")), "OSError: disk gone"),
    "Ctrl-C": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "another shape": (
        [{"x": X}, {"x": X[:1]}],
        r"batch 2, input 'x': the shape is \(1, 3\), the first batch had \(2, 3\)",
    ),
    "a missing input": ([{"y": X}], "batch 1 has nothing for 'x'; it has 'y'"),
    "NaN": ([{"x": X}, {"x": X * np.nan}], "batch 2, input 'x': there are NaNs"),
    "infinity": ([{"x": np.full_like(X, np.inf)}], "NaNs or infinities"),
    "text": ([{"x": np.array(["a"])}], "no element type"),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_error_inside_is_fatal_afterwards(bad: str) -> None:
    """What the bindings swallow is raised after the build, nothing it gave is kept, and the device is free."""
    batches, message = BAD[bad]
    calibrator, memory = calibrated(batches)
    assert memory.held == {}
    with pytest.raises(NativeCalibrationError, match=message):
        calibrator.outcome()
    assert calibrator.feed.written is None


def test_an_error_on_the_device_is_fatal_afterwards() -> None:
    """Memory that runs out is no end of the batches."""
    calibrator, memory = calibrated([{"x": X, "y": X}], memory=FullMemory(), names=("x", "y"))
    with pytest.raises(NativeCalibrationError, match="RuntimeError: out of memory"):
        calibrator.outcome()
    assert memory.held == {}


def test_an_error_while_the_cache_is_written_is_fatal_afterwards() -> None:
    """What `write_calibration_cache` cannot use is told, with the cause."""
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X}], memory=HostMemory())
    calibrator.write_calibration_cache("no buffer")
    with pytest.raises(NativeCalibrationError, match="TypeError") as caught:
        calibrator.outcome()
    assert isinstance(caught.value.__cause__, TypeError)


def test_the_cache_is_copied() -> None:
    """The memoryview dies with the call; the bytes stay."""
    calibrator, _ = calibrated([{"x": X}])
    assert calibrator.outcome().written == b"TRT-100300-EntropyCalibration2\nx: 3c010a14\n"


def test_a_cache_is_read_instead_of_data() -> None:
    """TensorRT gets bytes, and asks for nothing else."""
    calibrator, _ = calibrated(None, cache=b"TRT-100300-EntropyCalibration2\n")
    assert not calibrator.outcome().was_asked


def test_no_cache_reads_as_none() -> None:
    """Not as empty bytes, which some versions take for a cache."""
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X}], memory=HostMemory())
    assert calibrator.read_calibration_cache() is None


def test_a_cache_that_is_not_taken_is_fatal() -> None:
    """Asked for a batch where there is a cache alone, the build must not go on with no ranges."""
    calibrator, _ = calibrated(None, cache=b"TRT-8601-EntropyCalibration2\n")
    with pytest.raises(NativeCalibrationError, match="did not take the calibration cache"):
        calibrator.outcome()


FITTING = [
    (np.float64([1]), "FLOAT", "float32"),
    (np.float16([1]), "HALF", "float32"),
    (np.uint8([1]), "UINT8", "float32"),
    (np.int64([1]), "INT32", "int32"),
    (np.int32([1]), "INT64", "int64"),
    (np.array([True]), "BOOL", "bool"),
]


@pytest.mark.parametrize(("array", "kind", "fed"), FITTING)
def test_elements_are_fed_as_calibration_takes_them(array: np.ndarray, kind: str, fed: str) -> None:
    """Floats in float32 whatever the network takes, indices in the network's own width."""
    memory = HostMemory()
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": array}], memory=memory)
    calibrator.feed.expect({"x": kind})
    assert build(calibrator, memory) == [[array.astype(fed).tobytes()]]


MISFITS = [
    (np.uint8([1]), "FLOAT", "uint8 was given, the network takes FLOAT"),
    (np.float32([1]), "INT32", "float32 was given, the network takes INT32"),
    (np.int64([2**40]), "INT32", "1099511627776 … 1099511627776 does not fit int32"),
    (np.int64([-(2**40)]), "INT32", "-1099511627776 … -1099511627776 does not fit int32"),
    (np.int32([1]), "BOOL", "int32 was given"),
    (np.float64([1e300]), "FLOAT", "infinities"),
]


@pytest.mark.parametrize(("array", "kind", "message"), MISFITS)
def test_elements_of_the_wrong_type_are_refused(array: np.ndarray, kind: str, message: str) -> None:
    """Bytes of another type would be read as numbers that they are not."""
    calibrator, _ = calibrated([{"x": array}], types={"x": kind})
    with pytest.raises(NativeCalibrationError, match=message):
        calibrator.outcome()


class Context:
    """A context of the stand-in for pycuda, on its stack while it is current."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def push(self) -> None:
        self.driver.stack.append(self)

    def pop(self) -> None:
        assert self.driver.stack.pop() is self


class Allocation:
    """Device memory of the stand-in for pycuda."""

    def __init__(self, driver: Driver, size: int) -> None:
        self.driver, self.content, self.is_free = driver, bytearray(size), False

    def __int__(self) -> int:
        return 4096

    def free(self) -> None:
        assert self.driver.stack, "no currently active context?"
        assert not self.is_free
        self.is_free = True


class Driver(types.ModuleType):
    """pycuda.driver as far as it is used: it allocates only where its own stack holds a context, as pycuda does."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.stack: list[Context] = []
        self.retained: list[int] = []
        self.allocations: list[Allocation] = []
        self.is_initialised = False
        self.Context = types.SimpleNamespace(get_current=lambda: self.stack[-1] if self.stack else None)

    def init(self) -> None:
        self.is_initialised = True

    def Device(self, number: int) -> Any:  # noqa: N802  pycuda's name
        def retained() -> Context:
            self.retained.append(number)
            return Context(self)

        return types.SimpleNamespace(retain_primary_context=retained)

    def mem_alloc(self, size: int) -> Allocation:
        assert self.stack, "no currently active context?"
        self.allocations.append(Allocation(self, size))
        return self.allocations[-1]

    def memcpy_htod(self, memory: Allocation, array: np.ndarray) -> None:
        assert self.stack, "no currently active context?"
        memory.content[: array.nbytes] = array.tobytes()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """pycuda's stand-in, importable."""
    driver, package = Driver(), types.ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def test_pycuda_works_in_the_primary_context(driver: Driver) -> None:
    """The first device's primary context, which TensorRT uses too, is current for the time of each call alone."""
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X}])
    assert calibrator.get_batch(["x"]) == [4096]
    assert driver.retained == [0]
    assert bytes(driver.allocations[0].content) == X.tobytes()
    assert driver.stack == []
    assert calibrator.get_batch(["x"]) is None
    assert driver.allocations[0].is_free
    assert driver.stack == []
    calibrator.outcome()


def test_pycuda_keeps_a_context_that_is_current(driver: Driver) -> None:
    """Where the caller made one (pycuda.autoinit), TensorRT works in it, and no other is pushed."""
    Context(driver).push()
    buffers = DeviceBuffers()
    buffers.pointer("x", X)
    buffers.free()
    assert driver.retained == []
    assert len(driver.stack) == 1


def test_the_context_is_given_back_after_an_error(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed allocation leaves no context current that was not before."""

    def full(size: int) -> Allocation:
        raise RuntimeError("cuMemAlloc failed: out of memory")

    monkeypatch.setattr(driver, "mem_alloc", full)
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X}])
    assert calibrator.get_batch(["x"]) is None
    assert driver.stack == []
    with pytest.raises(NativeCalibrationError, match="out of memory"):
        calibrator.outcome()


@pytest.fixture
def polygraphy_cuda(monkeypatch: pytest.MonkeyPatch) -> HostMemory:
    """No pycuda, and Polygraphy's CUDA on host memory; tests/contract has Polygraphy itself over a CUDA runtime."""
    memory = HostMemory()

    def copied(*, dst: int, src: int, nbytes: int, kind: str) -> None:
        assert kind == "to device"
        memory.held[dst][:nbytes] = ctypes.string_at(src, nbytes)

    wrapper = types.SimpleNamespace(malloc=memory.allocate, free=memory.free, memcpy=copied)
    cuda = types.ModuleType("polygraphy.cuda")
    cuda.wrapper = lambda: wrapper  # type: ignore[attr-defined]
    cuda.MemcpyKind = types.SimpleNamespace(HostToDevice="to device")  # type: ignore[attr-defined]
    package = types.ModuleType("polygraphy")
    package.cuda = cuda  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "polygraphy", package)
    monkeypatch.setitem(sys.modules, "polygraphy.cuda", cuda)
    return memory


def test_polygraphy_stands_in_for_pycuda(polygraphy_cuda: HostMemory) -> None:
    """Without pycuda, the CUDA runtime that Polygraphy loads holds the batches."""
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X.T}])
    assert build(calibrator, polygraphy_cuda) == [[np.ascontiguousarray(X.T).tobytes()]]
    assert polygraphy_cuda.held == {}


def test_an_old_pycuda_is_passed_over(
    driver: Driver, polygraphy_cuda: HostMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 2020 pycuda knew no primary contexts, and memory of another context is none for TensorRT."""
    monkeypatch.setitem(sys.modules, "pycuda", types.SimpleNamespace(driver=driver))
    monkeypatch.setattr(driver, "Device", lambda _: types.SimpleNamespace())
    DeviceBuffers().pointer("x", X)
    assert len(polygraphy_cuda.held) == 1
    assert driver.allocations == []


def test_no_way_to_the_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages are named, with what is wrong with each."""
    for name in ("pycuda", "polygraphy"):
        monkeypatch.setitem(sys.modules, name, None)
    calibrator = native_calibrator(TENSORRT_10, "entropy", [{"x": X}])
    calibrator.get_batch(["x"])
    with pytest.raises(NativeCalibrationError, match=r"pycuda: .*; Polygraphy: .*Install pycuda"):
        calibrator.outcome()


def test_the_file_stands_alone() -> None:
    """It is loaded by its path where nothing but NumPy is, and imports no vendor's library."""
    script = """
import importlib.util, sys
for name in ("calibrators", "trt_opt", "tensorrt", "tensorrt_rtx", "polygraphy", "pycuda", "onnx"):
    sys.modules[name] = None
spec = importlib.util.spec_from_file_location("native", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(sorted(module.ALGORITHMS))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, native.__file__], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("['entropy', 'minmax']\n", 0), run.stderr


def test_the_file_is_python_3_8() -> None:
    """JetPack 5 has no later one."""
    ast.parse(Path(native.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
