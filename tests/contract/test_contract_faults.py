"""Faults planted in a copy of the adapter, each of which the contract must catch."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from contract_models import saved, two_convolutions
from vendor_bindings import Bindings

from trt_opt.backends.process import WORKER, FailedRequestError, Worker
from trt_opt.backends.tensorrt import ENVIRONMENT
from trt_opt.backends.tensorrt_versions import support_of

pytestmark = pytest.mark.contract

CREATE = "builder.create_network(network_flags(trt, request))"

FAULTS = {
    "wrong attribute": ("errors=parser.num_errors", "errors=parser.error_count", "AttributeError"),
    "wrong keyword": (CREATE, "builder.create_network(flag=network_flags(trt, request))", "TypeError"),
}
"""What is wrong → the adapter's text, what stands there instead, and how the child fails."""

GONE_IN_11 = ('if support["explicit_batch_flag"]:', "if flags.EXPLICIT_BATCH:")


def planted(folder: Path, old: str, new: str) -> Path:
    """A copy of the child's files with one text replaced."""
    copy = folder / "worker"
    shutil.copytree(WORKER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "networks.py"
    text = file.read_text(encoding="utf-8")
    assert old in text, "the adapter has changed: the fault finds no place"
    file.write_text(text.replace(old, new), encoding="utf-8")
    return copy


def parse(bindings: Bindings, python: Path, folder: Path, script: Path) -> str:
    """Lets a child parse a model; "done", or the class of its error."""
    model = saved(two_convolutions(), folder / "model.onnx")
    request = {"model": str(model), "support": asdict(support_of(bindings.version)), "operators": ["Conv"]}
    with Worker(ENVIRONMENT, python=str(python), script=script) as child:
        try:
            return str(child.ask("parse", request, timeout_s=60)["event"])
        except FailedRequestError as error:
            return error.kind


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(bindings: Bindings, tensorrt_python: Path, tmp_path: Path, fault: str) -> None:
    """A name or call that the bindings do not take fails in every version."""
    old, new, kind = FAULTS[fault]
    assert parse(bindings, tensorrt_python, tmp_path, planted(tmp_path, old, new)) == kind


def test_a_name_that_is_gone_is_caught_where_it_is_gone(
    bindings: Bindings, tensorrt_python: Path, tmp_path: Path
) -> None:
    """A flag of 8 to 10 that is used without asking the capability table fails on 11 alone."""
    expected = "AttributeError" if bindings.version.startswith("11.") else "done"
    assert parse(bindings, tensorrt_python, tmp_path, planted(tmp_path, *GONE_IN_11)) == expected


def test_the_adapter_without_a_fault_is_well(bindings: Bindings, tensorrt_python: Path, tmp_path: Path) -> None:
    """The same request to the adapter as it is succeeds."""
    assert parse(bindings, tensorrt_python, tmp_path, WORKER) == "done"
