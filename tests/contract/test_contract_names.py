"""Every name of TensorRT's module that the adapter uses, held against NVIDIA's own bindings."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from vendor_bindings import VERSIONS, Bindings, bindings_or_skip
from vendor_names import names_used

import calibrators
import trt_opt
from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.values.tensorrt_version import TensorRTSupport

pytestmark = pytest.mark.contract

ADAPTER = (
    *sorted((Path(trt_opt.__file__).parent / "backends" / "worker").glob("*.py")),
    Path(calibrators.__file__).parent / "native.py",
)

GUARDS: dict[str, Callable[[TensorRTSupport], bool]] = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": lambda support: support.explicit_batch_flag,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": lambda support: support.strongly_typed == "flag",
    "IProgressMonitor": lambda support: support.progress_monitor,
    "HardwareCompatibilityLevel": lambda support: support.hardware_compatible,
    "HardwareCompatibilityLevel.AMPERE_PLUS": lambda support: support.hardware_compatible,
    "BuilderFlag.VERSION_COMPATIBLE": lambda support: support.version_compatible,
    "BuilderFlag.FP16": lambda support: support.precision_flags,
    "BuilderFlag.INT8": lambda support: support.precision_flags,
}
"""Names that not every version has, and the part of the capability table under which alone the adapter uses them."""

EXISTING = """
import json, sys
import tensorrt_bindings as trt

def exists(name):
    owner = trt
    for part in name.split("."):
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True

print(json.dumps({name: exists(name) for name in json.loads(sys.argv[1])}))
"""


def existing(bindings: Bindings, names: list[str]) -> dict[str, bool]:
    """Whether the real module has each name."""
    return json.loads(bindings.run(EXISTING, json.dumps(names)))


def test_every_name_exists_where_it_may_be_used(bindings: Bindings) -> None:
    """What a version lacks stands behind a part of the capability table that is off for that version."""
    used = {name: f"{file.name}:{line}" for file in ADAPTER for name, line in names_used(file).items()}
    there = existing(bindings, sorted(used))
    support = support_of(bindings.version)
    unguarded = {name: used[name] for name in used if not there[name] and name not in GUARDS}
    open_guards = [name for name in used if not there[name] and name in GUARDS and GUARDS[name](support)]
    assert unguarded == {}
    assert open_guards == []


def test_the_adapters_names_are_found_in_its_source() -> None:
    """The names are read from the code: a handful that it certainly uses is among them."""
    used = {name for file in ADAPTER for name in names_used(file)}
    certain = {
        "Builder",
        "OnnxParser",
        "Runtime",
        "ILogger.ERROR",
        "MemoryPoolType.WORKSPACE",
        "BuilderFlag.GPU_FALLBACK",
    }
    assert certain <= used


def test_names_are_followed_through_variables(tmp_path: Path) -> None:
    """A part of the module in a variable counts as the module's."""
    file = tmp_path / "source.py"
    file.write_text(
        "def f(self, request):\n    names, trt = request, self._trt\n    flags = trt.A\n    return flags.B, names.C\n"
    )
    assert names_used(file) == {"A": 3, "A.B": 4}


@pytest.mark.parametrize("name", ["BuilderFlag.INT9", "IInt8EntropyCalibrator3"])
def test_a_name_that_no_version_has_is_missed(bindings: Bindings, name: str) -> None:
    """The question put to the bindings can be answered with no."""
    assert existing(bindings, [name, "BuilderFlag.GPU_FALLBACK"]) == {name: False, "BuilderFlag.GPU_FALLBACK": True}


@pytest.mark.parametrize("file", ADAPTER, ids=lambda file: file.name)
def test_the_child_can_be_read_by_python_3_8(file: Path) -> None:
    """JetPack 5 ships Python 3.8: the child's files hold no newer syntax."""
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_stand_in_models_nothing_that_no_version_has() -> None:
    """A misspelt member of a stand-in would silently be left out: each exists in one version at least."""
    script = """
import json
import tensorrt_bindings as vendor
import tensorrt
from tensorrt._strict import MODELLED
print(json.dumps([f"{owner}.{name}" for owner, names in MODELLED.items() for name in names
                  if not hasattr(getattr(vendor, owner), name)]))
"""
    absent = [set(json.loads(bindings_or_skip(version).run(script, stand_in=True))) for version in VERSIONS]
    assert set.intersection(*absent) == set()
