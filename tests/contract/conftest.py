"""Real bindings and the interpreters on them, for every version in turn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vendor_bindings import VERSIONS, Bindings, bindings_or_skip


@pytest.fixture(scope="session", params=VERSIONS)
def bindings(request: pytest.FixtureRequest) -> Bindings:
    """NVIDIA's bindings of one version after the other."""
    return bindings_or_skip(request.param)


@pytest.fixture(scope="session")
def tensorrt_python(bindings: Bindings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with TensorRT's stand-in on those bindings, for `--tensorrt-python`."""
    return bindings.write_python(tmp_path_factory.mktemp("python") / f"python-{bindings.version}")
