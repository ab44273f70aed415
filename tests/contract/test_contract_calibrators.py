"""Native calibrators, called through the C++ objects that NVIDIA's bindings make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vendor_bindings import VERSIONS, Bindings, bindings_or_skip

import calibrators.native
from trt_opt.backends.tensorrt_versions import support_of

pytestmark = pytest.mark.contract

LOADED = """
import ctypes, importlib.util, json, sys
import numpy as np
import tensorrt as trt

spec = importlib.util.spec_from_file_location("native", sys.argv[1])
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
"""

CALLED = (
    LOADED
    + """
from tensorrt._virtual import Calibrator

def batches(last):
    yield {"a": np.full((1, 2), 3, np.float32), "b": np.full((1, 4), 5, np.float32)}
    if last == "broken":
        raise OSError("the disk is gone")

def floats(address, count):
    return list((ctypes.c_float * count).from_address(address))

made = native.native_calibrator(trt, sys.argv[2], batches(sys.argv[3]), cache=b"kept", batch_size=1)
seen = Calibrator(made)
found = {"size": seen.batch_size(), "cache": repr(seen.read_cache())}
found["algorithm"] = str(trt.CalibrationAlgoType(seen.algorithm()))
first = seen.batch(["a", "b"])
found["first"] = [floats(first[0], 2), floats(first[1], 4)]
found["second"] = seen.batch(["a", "b"])
seen.write_cache(b"TRT-8601-X")
try:
    found["written"] = repr(made.outcome().written)
except native.NativeCalibrationError as error:
    found["outcome"] = str(error)
print(json.dumps(found))
"""
)

CALIBRATING_VERSIONS = [version for version in VERSIONS if support_of(version).int8_calibrators]


def called(version: str, algorithm: str, last: str) -> dict[str, Any]:
    """What TensorRT sees of a native calibrator of one batch, and what the calibrator says afterwards."""
    output = bindings_or_skip(version).run(CALLED, calibrators.native.__file__, algorithm, last, stand_in=True)
    return dict(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize("algorithm", ["entropy", "minmax"])
@pytest.mark.parametrize("version", CALIBRATING_VERSIONS)
def test_the_bindings_call_all_four_callbacks(version: str, algorithm: str) -> None:
    """The batch's numbers are at the addresses, the end is None, and caches go both ways."""
    kinds = {"entropy": "ENTROPY_CALIBRATION_2", "minmax": "MINMAX_CALIBRATION"}
    assert called(version, algorithm, "good") == {
        "size": 1,
        "algorithm": f"CalibrationAlgoType.{kinds[algorithm]}",
        "cache": "b'kept'",
        "first": [[3.0] * 2, [5.0] * 4],
        "second": None,
        "written": "b'TRT-8601-X'",
    }


@pytest.mark.parametrize("version", CALIBRATING_VERSIONS)
def test_an_exception_reads_as_the_end_and_is_raised_afterwards(version: str) -> None:
    """What breaks in the middle of calibration ends it for TensorRT, and the outcome says why."""
    found = called(version, "entropy", "broken")
    assert found["second"] is None
    assert found["outcome"] == "OSError: the disk is gone"


@pytest.mark.parametrize("version", CALIBRATING_VERSIONS)
def test_the_bindings_themselves_swallow_an_exception(version: str) -> None:
    """Without the calibrator's own guard, an exception is the end of the data to TensorRT: the guard is needed."""
    script = """
import tensorrt as trt
from tensorrt._virtual import Calibrator

class Unguarded(trt.IInt8EntropyCalibrator2):
    def __init__(self):
        trt.IInt8EntropyCalibrator2.__init__(self)
    def get_batch(self, names):
        raise RuntimeError("lost")

print(Calibrator(Unguarded()).batch(["a"]))
"""
    assert bindings_or_skip(version).run(script, stand_in=True).strip() == "None"


@pytest.mark.parametrize("version", [version for version in VERSIONS if version not in CALIBRATING_VERSIONS])
def test_a_version_without_calibrators_is_told_so(version: str) -> None:
    """Where the classes are gone, the module still loads, and asking for one says what to do instead."""
    script = (
        LOADED
        + """
try:
    native.native_calibrator(trt, "entropy", [])
except native.NativeCalibrationError as error:
    print(error)
"""
    )
    said = bindings_or_skip(version).run(script, calibrators.native.__file__, stand_in=True)
    assert f"tensorrt {version} has no IInt8EntropyCalibrator2" in said
    assert "Q/DQ" in said


def test_a_progress_monitor_is_heard_and_stops(bindings: Bindings) -> None:
    """The adapter's monitor, called by the bindings, passes on the outermost phase and stops once it is cancelled."""
    if not support_of(bindings.version).progress_monitor:
        pytest.skip(f"TensorRT {bindings.version} has no progress monitor")
    script = """
import json, sys, threading
sys.path.insert(0, sys.argv[1])
import listening
import tensorrt as trt
from tensorrt._virtual import ProgressMonitor

class Channel:
    def __init__(self):
        self.cancelled, self.events = threading.Event(), []
    def __call__(self, message):
        self.events.append(message)

channel = Channel()
made = listening.progress_monitor(trt, channel)
monitor = ProgressMonitor(made)
monitor.phase_start("Building", None, 3)
monitor.phase_start("Timing", "Building", 9)
goes_on = [monitor.step_complete("Timing", 0), monitor.step_complete("Building", 0)]
channel.cancelled.set()
goes_on.append(monitor.step_complete("Building", 1))
monitor.phase_finish("Timing")
monitor.phase_finish("Building")
print(json.dumps([goes_on, channel.events]))
"""
    from trt_opt.backends.process import WORKER

    goes_on, events = json.loads(bindings.run(script, str(WORKER), stand_in=True))
    assert goes_on == [True, True, False]
    assert events == [
        {"event": "progress", "phase": "Building", "steps": 3},
        {"event": "step", "phase": "Building", "step": 0},
        {"event": "step", "phase": "Building", "step": 1},
    ]
