"""The script that checks engines on a GPU, over TensorRT's stand-in: it passes, fails and skips what it should."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vendor_bindings import bindings_or_skip

pytestmark = pytest.mark.contract

SCRIPTS = Path(__file__).parents[2] / "scripts"

WRONG_ANSWERS = """
import numpy
savez = numpy.savez
def turned_round(file, **arrays):
    savez(file, **{name: array[..., ::-1] for name, array in arrays.items()})
numpy.savez = turned_round
"""
"""For the child alone: it writes what engines answer with this function, and nothing else."""


@dataclass(frozen=True)
class Run:
    """What the script left.

    Attributes:
        code: Its exit code.
        text: Its table.
        plain: Its JSON.
    """

    code: int
    text: str
    plain: Mapping[str, Any]

    def status(self, name: str) -> str:
        """PASS, FAIL or SKIPPED."""
        return str(self._check(name)["status"])

    def reason(self, name: str) -> str:
        """Why."""
        return str(self._check(name)["reason"])

    def figures(self, name: str) -> Mapping[str, Any]:
        """The same in numbers."""
        return dict(self._check(name)["figures"])

    def _check(self, name: str) -> Mapping[str, Any]:
        (found,) = (check for check in self.plain["checks"] if check["name"] == name)
        return dict(found)


def accepted(folder: Path, *arguments: str, only: tuple[str, ...] = (), **variables: str) -> Run:
    """Runs the script, eight digits an engine."""
    command = [sys.executable, str(SCRIPTS / "gpu_acceptance.py"), "--samples", "8", *arguments]
    for name in only:
        command += ["--only", name]
    environment = {name: value for name, value in os.environ.items() if name != "TRT_OPT_TENSORRT_PYTHON"}
    environment |= {"OUT": str(folder), **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    file = folder / "gpu_acceptance.json"
    assert file.is_file(), done.stderr
    return Run(done.returncode, done.stdout, json.loads(file.read_text()))


def test_a_kit_with_its_own_variables_passes(tmp_path: Path) -> None:
    """The kit's variables reach its Python alone; the ranges of both calibrations are compared tensor by tensor."""
    bindings = bindings_or_skip("8.6.1")
    exports = {**bindings.environment(stand_in=True), "KIT_PYTHON": sys.executable}
    kit = tmp_path / "kit"
    kit.mkdir()
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    (kit / "env.sh").write_text("\n".join(["here=$(dirname ${BASH_SOURCE[0]})", *lines, ""]))
    only = ("digits.int8", "digits.scales.minmax", "manifest", "cancel", "dla")
    found = accepted(tmp_path, "--kit", str(kit), only=only)
    assert found.code == 0, found.text
    assert {name: found.status(name) for name in ("library", *only)} == {
        "library": "PASS",
        "digits.int8": "PASS",
        "digits.scales.minmax": "PASS",
        "manifest": "PASS",
        "cancel": "SKIPPED",
        "dla": "SKIPPED",
    }
    assert "no progress monitor" in found.reason("cancel")
    assert set(found.figures("manifest")["refused"]) == {"another GPU", "another version", "a flipped byte"}
    assert found.figures("digits.scales.minmax")["tensors"] > 10
    assert found.figures("digits.scales.minmax")["median"] == pytest.approx(1.0, abs=0.01)
    (library,) = found.plain["libraries"]
    assert library["tactic_sources"] == ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
    assert library["library"] == "tensorrt 8.6.1"


def test_the_gpu_is_what_its_driver_says(tmp_path: Path) -> None:
    """A stand-in is told as the stand-in that it is; what 11 lacks is skipped, and a build can be cancelled."""
    python = bindings_or_skip("11.4.0.106").write_python(tmp_path / "python", TENSORRT_STAND_IN_STEP_S="0.02")
    empty = tmp_path / "empty"
    empty.mkdir()
    only = ("cancel", "digits.native-entropy")
    found = accepted(tmp_path, "--tensorrt-python", str(python), only=only, TRT_OPT_ROOT=str(empty))
    assert found.status("cancel") == "PASS", found.text
    assert found.status("digits.native-entropy") == "SKIPPED"
    (library,) = found.plain["libraries"]
    assert library["gpu"]["name"] == "Stand-In GPU"
    assert library["on_a_gpu"] is False
    assert found.plain["host"]["driver"] is None
    assert "was no GPU" in found.text


def test_times_between_events_are_checked(tmp_path: Path) -> None:
    """With and without a CUDA graph; and where nobody says what the GPU did meanwhile, that is told."""
    python = bindings_or_skip("10.3.0").write_python(tmp_path / "python")
    found = accepted(tmp_path, "--tensorrt-python", str(python), only=("digits.events",))
    assert found.code == 0, found.text
    assert found.status("digits.events") == "PASS"
    assert "NVML tells nothing" in found.reason("digits.events")
    for way in ("plain", "cuda_graph"):
        assert found.figures("digits.events")[way]["compute_ms"] > 0


def test_wrong_answers_fail(tmp_path: Path) -> None:
    """An engine whose outputs are in another order fails with exit code 1; the manifest beside it still passes."""
    bindings = bindings_or_skip("10.3.0")
    (tmp_path / "sitecustomize.py").write_text(WRONG_ANSWERS)
    paths = os.pathsep.join([str(tmp_path), bindings.environment(stand_in=True)["PYTHONPATH"]])
    python = bindings.write_python(tmp_path / "python", PYTHONPATH=paths)
    found = accepted(tmp_path, "--tensorrt-python", str(python), only=("digits.fp16", "manifest"))
    assert found.code == 1
    assert found.status("digits.fp16") == "FAIL"
    assert "below" in found.reason("digits.fp16")
    assert found.status("manifest") == "PASS"
    assert found.plain["exit_code"] == 1


def test_a_bare_machine_says_what_is_missing(tmp_path: Path) -> None:
    """Exit code 5, with the reason; one of two libraries that is missing is a failure."""
    empty = tmp_path / "empty"
    empty.mkdir()
    found = accepted(tmp_path, TRT_OPT_ROOT=str(empty))
    assert found.code == 5
    assert "here is none" in found.reason("library")
    assert found.plain["libraries"][0]["problem"]
    assert [check["name"] for check in found.plain["checks"]] == ["library"]


def test_nothing_checked_is_no_pass(tmp_path: Path) -> None:
    """Without time everything is skipped, with the reason, and the exit code is 1."""
    python = bindings_or_skip("10.3.0").write_python(tmp_path / "python")
    found = accepted(tmp_path, "--tensorrt-python", str(python), "--minutes", "0.1", only=("manifest",))
    assert found.status("manifest") == "SKIPPED"
    assert "no time left" in found.reason("manifest")
    assert found.code == 1


def test_no_check_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is broken, one that hangs and one for which there is no time: each is told, and the next one runs."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from gpu_checks.running import MARGIN_S, Check, Found, results_of

    def broken() -> Found:
        raise ZeroDivisionError("of its own making")

    def hanging() -> Found:
        time.sleep(60)
        return Found("never")

    checks = (
        Check("hangs", "x", hanging, 2, 0.0, 0.2),
        Check("broken", "x", broken, 1),
        Check("too long", "x", hanging, 3, 0.0, 60.0),
        Check("good", "x", lambda: Found("fine"), 0),
    )
    found = list(results_of(checks, time.monotonic() + MARGIN_S + 6))
    assert [(result.name, result.status) for result in found] == [
        ("good", "PASS"),
        ("broken", "FAIL"),
        ("hangs", "FAIL"),
        ("too long", "SKIPPED"),
    ]
    assert "ZeroDivisionError: of its own making" in found[1].reason
    assert found[3].reason.startswith("no time left")
