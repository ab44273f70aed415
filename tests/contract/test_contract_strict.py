"""What the stand-in for TensorRT lets through, and what it does not."""

from __future__ import annotations

import json

import pytest
from vendor_bindings import Bindings

pytestmark = pytest.mark.contract

ATTEMPTS = """
import json, sys
import tensorrt as trt

class Silent(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        pass

builder = trt.Builder(Silent())
network = builder.create_network(0)
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
found = {}
for text in json.loads(sys.argv[1]):
    try:
        exec(text)
        found[text] = "accepted"
    except Exception as error:
        found[text] = type(error).__name__
print(json.dumps(found))
"""


def attempted(bindings: Bindings, *attempts: str) -> dict[str, str]:
    """What became of each line of code: "accepted", or the exception's name."""
    return json.loads(bindings.run(ATTEMPTS, json.dumps(attempts), stand_in=True))


RIGHT = (
    "builder.create_network(flags=0)",
    "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 20)",
    "config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, pool_size=1 << 20)",
    "config.set_timing_cache(config.create_timing_cache(b''), ignore_mismatch=False)",
    "config.DLA_core = 0",
    "config.builder_optimization_level = 3",
    "profile.set_shape('x', (1, 2), [1, 2], trt.Dims((2, 2)))",
    "config.add_optimization_profile(profile)",
    "trt.OnnxParser(network, Silent())",
    "trt.Runtime(Silent()).engine_host_code_allowed = True",
)

WRONG = {
    "config.dla_core = 0": "AttributeError",
    "config.set_flags(1)": "AttributeError",
    "trt.BuilderFlag.INT9": "AttributeError",
    "network.layers": "AttributeError",
    "builder.num_DLA_cores = 1": "AttributeError",
    "builder.num_DLA_cores()": "TypeError",
    "builder.create_network(flag=0)": "TypeError",
    "builder.create_network(0, 1)": "TypeError",
    "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)": "TypeError",
    "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5)": "TypeError",
    "config.set_memory_pool_limit('WORKSPACE', 1)": "TypeError",
    "config.set_timing_cache(config.create_timing_cache(b''))": "TypeError",
    "config.set_flag(trt.DeviceType.DLA)": "TypeError",
    "config.builder_optimization_level = 'high'": "TypeError",
    "config.default_device_type = 1": "TypeError",
    "profile.set_shape('x', 'a', 'b', 'c')": "TypeError",
    "profile.set_shape('x', [1], [1])": "TypeError",
    "trt.IBuilderConfig()": "TypeError",
    "trt.Builder('logger')": "TypeError",
    "trt.OnnxParser(config, Silent())": "TypeError",
    "len(config.create_timing_cache(b'').serialize())": "TypeError",
    "config.create_timing_cache(b'').serialize().decode()": "AttributeError",
}

GONE_IN_11 = (
    "config.int8_calibrator",
    "config.set_calibration_profile(profile)",
    "trt.BuilderFlag.INT8",
    "trt.BuilderFlag.FP16",
    "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "trt.IInt8EntropyCalibrator2",
    "trt.ILayer.precision",
    "trt.ITensor.set_dynamic_range",
)


def test_what_the_bindings_take_is_taken(bindings: Bindings) -> None:
    """Calls as NVIDIA documents them go through in every version."""
    assert attempted(bindings, *RIGHT) == dict.fromkeys(RIGHT, "accepted")


def test_what_the_bindings_refuse_is_refused(bindings: Bindings) -> None:
    """A wrong name, keyword, number or type of arguments raises what pybind11 raises."""
    assert attempted(bindings, *WRONG) == WRONG


def test_names_that_are_gone_in_11_are_gone_there_alone(bindings: Bindings) -> None:
    """The calibrators, the precision flags and the layers' precision exist up to 10 and not in 11."""
    is_eleven = bindings.version.startswith("11.")
    expected = "AttributeError" if is_eleven else "accepted"
    assert attempted(bindings, *GONE_IN_11) == dict.fromkeys(GONE_IN_11, expected)


def test_real_and_strict_classes_have_the_same_members(bindings: Bindings) -> None:
    """A stand-in has every public name of the vendor's class, as the same kind of member, and no other."""
    script = """
import json
import tensorrt_bindings as vendor
import tensorrt
from tensorrt._signatures import STAND_INS

def kinds(owner):
    return {name: isinstance(getattr(owner, name), property) for name in dir(owner) if not name.startswith("_")}

differing = []
for name, kind in STAND_INS.items():
    if kind is tensorrt.IHostMemory:
        shown = {"nbytes", "dtype"}
        if shown != set(kinds(vendor.IHostMemory)):
            differing.append(name)
    elif kinds(kind) != kinds(getattr(vendor, name)) or kind is not getattr(tensorrt, name):
        differing.append(name)
print(json.dumps([len(STAND_INS), differing]))
"""
    count, differing = json.loads(bindings.run(script, stand_in=True))
    assert count == 14
    assert differing == []


def test_every_signature_can_be_read(bindings: Bindings) -> None:
    """No method that the stand-in models goes unchecked because its docstring was not understood."""
    script = """
import json
import tensorrt_bindings as vendor
import tensorrt
from tensorrt._signatures import signatures_of
from tensorrt._strict import MODELLED

unread = []
for owner, names in MODELLED.items():
    for name in names:
        member = getattr(getattr(vendor, owner), name, None)
        if member is None or isinstance(member, property):
            continue
        if not signatures_of(name, member.__doc__):
            unread.append(f"{owner}.{name}")
print(json.dumps(unread))
"""
    assert json.loads(bindings.run(script, stand_in=True)) == []
