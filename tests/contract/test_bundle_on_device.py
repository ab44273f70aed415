"""From a bundle to an engine, with NVIDIA's bindings, a stand-in for what is behind them, and a made-up GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import run
from stand_in_engines import record_of
from typer.testing import Result
from vendor_bindings import bindings_or_skip

from trt_opt.bundling.archive import write_archive
from trt_opt.bundling.layout import output_file
from trt_opt.bundling.packing import packed
from trt_opt.bundling.reading import opened_bundle
from trt_opt.samples import DIGITS

pytestmark = pytest.mark.contract

DATA = ("--calib-data", str(DIGITS / "calibration.npz"), "--eval-data", str(DIGITS / "test.npz"))

IMPLICIT = ("--quantization", "implicit")

ORIN = {"CUDA_STAND_IN_CAPABILITY": "8.7", "TENSORRT_STAND_IN_DLA_CORES": "2"}


_made: dict[tuple[str, ...], bytes] = {}
"""Bundles by their options: the same options give the same bytes."""


def bundled(target: str, *arguments: str) -> Path:
    """A bundle of the digits model, two samples in it, in the current folder."""
    path = Path("app.bundle")
    arguments = ("--int8", "--target", target, "--samples", "2", *arguments)
    if arguments not in _made:
        done = run("bundle", str(DIGITS / "model.onnx"), *DATA, "-o", str(path), "--force", *arguments)
        assert done.exit_code == 0, done.output
        _made[arguments] = path.read_bytes()
    path.write_bytes(_made[arguments])
    return path


def built(version: str, folder: Path, *arguments: str, variables: Mapping[str, str] = ORIN) -> Result:
    """`trt-opt build` of the bundle with a version of TensorRT on a board."""
    python = bindings_or_skip(version).write_python(folder.parent / f"python-{version}", **variables)
    return run("build", "app.bundle", "--tensorrt-python", str(python), *arguments)


def manifests(folder: Path) -> list[dict[str, object]]:
    """Of all engines in the store."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("engines/*/*/manifest.json"))]


@pytest.mark.parametrize(
    ("version", "target", "method"),
    [
        ("8.6.1", "tensorrt:8.6@orin", ()),
        ("8.6.1", "tensorrt:8.6@orin", IMPLICIT),
        ("10.3.0", "tensorrt:10.3@orin", ()),
        ("10.3.0", "tensorrt:10.3@orin", IMPLICIT),
        ("11.4.0.106", "tensorrt", ()),
    ],
)
def test_a_good_engine_enters_the_store_with_its_verdict(
    version: str, target: str, method: tuple[str, ...], folder: Path
) -> None:
    """It is run on the samples; verdict, simulation and GPU are in the manifest, and the next time it is there."""
    bundled(target, *method)
    done = built(version, folder, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["verdict"], told["reused"], told["library"]) == ("PASS", False, f"tensorrt {version}")
    (manifest,) = manifests(folder)
    (variant,) = manifest["variants"]
    assert variant["on_gpu"]["verdict"] == "PASS"
    assert variant["on_gpu"]["samples"] == variant["accuracy"]["samples"] == manifest["evaluation"]["samples"] == 2
    assert manifest["gpu"]["capability"] == "8.7"
    assert (manifest["cache"] is not None) == (method == IMPLICIT)
    settings = json.dumps(record_of(Path(told["engine"])))
    assert "1073741824" in settings
    again = json.loads(built(version, folder, "--json").stdout)
    assert (again["reused"], again["engine"], again["verdict"]) == (True, told["engine"], "PASS")
    assert run("engines", "verify").exit_code == 0


def test_a_wrong_engine_is_thrown_away(folder: Path) -> None:
    """An engine that answers otherwise than its model fails, exit code 1, and no store is left."""
    path = bundled("tensorrt:8.6@orin")
    with opened_bundle(path) as opened:
        found = {file: (opened.folder / file).read_bytes() for file in (record.name for record in opened.bundle.files)}
    del found["build.conf"]
    for kind in ("bin", "txt"):
        first, second = output_file(0, 0, kind), output_file(1, 0, kind)
        found[first], found[second] = found[second], found[first]
    write_archive(path, packed(opened.bundle, found)[1])
    done = built("8.6.1", folder)
    assert done.exit_code == 1, done.output
    assert "FAIL" in done.output
    assert "thrown away" in done.output
    assert not manifests(folder)
    assert json.loads(built("8.6.1", folder, "--json").stdout)["engine"] is None


@pytest.mark.parametrize(
    ("target", "version", "variables", "code", "told"),
    [
        ("tensorrt:8.6@orin", "10.3.0", ORIN, 5, "8.6"),
        ("tensorrt:10.3@orin", "8.6.1", ORIN, 5, "10.3"),
        ("tensorrt:10.3@orin", "10.16.1.11", ORIN, 5, "10.3"),
        ("tensorrt:8.6@orin", "8.6.1", {"CUDA_STAND_IN_CAPABILITY": "7.2"}, 2, "8.7"),
        ("tensorrt", "8.6.1", ORIN, 2, "reads every scale as FP32"),
    ],
)
def test_another_machine_is_refused_before_building(
    target: str, version: str, variables: dict[str, str], code: int, told: str, folder: Path
) -> None:
    """Another TensorRT, older or newer, another board, and a graph that this TensorRT would misread: with a hint."""
    bundled(target)
    done = built(version, folder, variables=variables)
    assert done.exit_code == code, done.output
    assert told in done.output
    assert "try:" in done.output
    assert sorted(path.name for path in folder.iterdir()) == ["app.bundle"]


def test_the_bundle_has_decided(folder: Path) -> None:
    """What a bundle fixes cannot be asked for again; what is about the machine can."""
    bundled("tensorrt:8.6@orin", "--use-dla", "1", "--gpu-fallback")
    refused = built("8.6.1", folder, "--int8")
    assert (refused.exit_code, "--int8: the bundle has decided that" in refused.output) == (2, True)
    assert built("8.6.1", folder, "--workspace-mib", "64").exit_code == 0
    (manifest,) = manifests(folder)
    assert manifest["options"]["workspace_bytes"] == 64 * 2**20
    assert (manifest["options"]["dla_core"], manifest["options"]["gpu_fallback"]) == (1, True)


def test_a_build_can_be_repeated_from_its_manifest(folder: Path) -> None:
    """`build --from` finds the bundle, which must be the same file."""
    bundled("tensorrt:10.3@orin")
    assert built("10.3.0", folder).exit_code == 0
    manifest = next(folder.glob("engines/*/*/manifest.json"))
    python = str(folder.parent / "python-10.3.0")
    again = run("build", "--from", str(manifest), "--tensorrt-python", python, "--json")
    assert (again.exit_code, json.loads(again.stdout)["reused"]) == (0, True)
    bundled("tensorrt:10.3@orin", *IMPLICIT)
    assert run("build", "--from", str(manifest), "--tensorrt-python", python).exit_code == 2
