"""The capability table, row by row, against NVIDIA's own bindings."""

from __future__ import annotations

import dataclasses
import json

import pytest
from vendor_bindings import Bindings

from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.values.tensorrt_version import TensorRTSupport

pytestmark = pytest.mark.contract

QUESTION = """
import json
import tensorrt_bindings as trt

flags = trt.NetworkDefinitionCreationFlag
explicit = "EXPLICIT_BATCH" in flags.__members__
ignored = "EXPLICIT_BATCH : [DEPRECATED] Ignored" in flags.__doc__
typed = "STRONGLY_TYPED" in flags.__members__
always = "Strongly typed mode is always enabled" in flags.__doc__
config = trt.IBuilderConfig
print(json.dumps({
    "explicit_batch_flag": explicit and not ignored,
    "precision_flags": all(name in trt.BuilderFlag.__members__ for name in ("FP16", "INT8"))
        and hasattr(trt.ILayer, "precision"),
    "strongly_typed": "always" if always else "flag" if typed else "no",
    "int8_calibrators": hasattr(trt, "IInt8EntropyCalibrator2") and hasattr(trt, "IInt8MinMaxCalibrator")
        and hasattr(config, "int8_calibrator"),
    "optimization_level": hasattr(config, "builder_optimization_level"),
    "version_compatible": "VERSION_COMPATIBLE" in trt.BuilderFlag.__members__
        and hasattr(trt.Runtime, "engine_host_code_allowed"),
    "hardware_compatible": "AMPERE_PLUS" in trt.HardwareCompatibilityLevel.__members__
        and hasattr(config, "hardware_compatibility_level"),
    "progress_monitor": hasattr(trt, "IProgressMonitor") and hasattr(config, "progress_monitor"),
    "parser_names_nodes": hasattr(trt.ParserError, "node_name") and hasattr(trt.ParserError, "node_operator"),
}))
"""

DOCUMENTED_ONLY = {"first", "dla", "newest_opset"}
"""What NVIDIA's documents say and the bindings cannot: they know DLA also where the builder does not support it."""


def test_row_is_what_the_bindings_have(bindings: Bindings) -> None:
    """Every part of the version's row is as the bindings show it."""
    row = dataclasses.asdict(support_of(bindings.version))
    expected = json.loads(bindings.run(QUESTION))
    assert {name: row[name] for name in expected} == expected


def test_every_part_of_a_row_is_asked_for(bindings: Bindings) -> None:
    """A new column of the table gets a question here, or a reason why not."""
    columns = {field.name for field in dataclasses.fields(TensorRTSupport)}
    assert columns == set(json.loads(bindings.run(QUESTION))) | DOCUMENTED_ONLY


def test_dla_is_offered_only_where_the_bindings_know_it(bindings: Bindings) -> None:
    """A row that offers DLA has its names: core, device type and fallback."""
    script = """
import tensorrt_bindings as trt
print(hasattr(trt.Builder, "num_DLA_cores") and hasattr(trt.IBuilderConfig, "DLA_core")
      and hasattr(trt.DeviceType, "DLA") and hasattr(trt.BuilderFlag, "GPU_FALLBACK"))
"""
    known = bindings.run(script).strip() == "True"
    assert known or not support_of(bindings.version).dla
