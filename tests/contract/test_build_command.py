"""`trt-opt build` for TensorRT, from the command line to the store, over the stand-in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from vendor_bindings import Bindings

from trt_opt.build.manifest import check_engine, read_manifest
from trt_opt.build.store import ENGINE, EngineStore
from trt_opt.errors import StaleError
from trt_opt.values.engine import Manifest

pytestmark = pytest.mark.contract

DIGITS = Path(__file__).parents[2] / "trt_opt" / "samples" / "digits"
MODEL = str(DIGITS / "model.onnx")
SHAPES = ("--min-shapes", "image:1x1x8x8", "--opt-shapes", "image:1x1x8x8", "--max-shapes", "image:2x1x8x8")
CALIBRATION = ("--calib-data", str(DIGITS / "calibration.npz"))


ONE_VERSION = pytest.mark.parametrize("bindings", ["10.16.1.11"], indirect=True)
"""Where what is shown does not hang on the version."""


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first 40 test digits: an engine of the stand-in answers one at a time."""
    file = tmp_path_factory.mktemp("digits") / "few.npz"
    with np.load(DIGITS / "test.npz") as arrays:
        np.savez(file, **{name: arrays[name][:40] for name in arrays.files})
    return str(file)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineStore:
    """An empty folder to build in."""
    monkeypatch.chdir(tmp_path)
    return EngineStore(tmp_path / "engines")


def built(store: EngineStore, python: Path, *options: str) -> Manifest:
    """The manifest of a build that must succeed; the newest entry's."""
    before = {entry.key for entry in store.entries()}
    done = run("build", MODEL, "--target", "tensorrt", "--tensorrt-python", str(python), *options)
    assert done.exit_code == 0, done.stderr
    made = [entry for entry in store.entries() if entry.key not in before]
    assert len(made) == 1
    return read_manifest(made[0].manifest_path)


def test_an_engine_is_built_run_and_asked_what_it_became(
    store: EngineStore, tensorrt_python: Path, bindings: Bindings, few_digits: str
) -> None:
    """Every precision's engine is measured on the GPU; the manifest has GPU, version, layers and the flags used."""
    manifest = built(store, tensorrt_python, "--int8", *CALIBRATION, "--eval-data", few_digits)
    assert manifest.library == f"tensorrt {bindings.version}"
    assert manifest.gpu is not None
    assert manifest.options.target == f"tensorrt:{bindings.version}"
    assert [variant.name for variant in manifest.variants] == ["FP32", "FP16", "INT8 + FP16"]
    for variant in manifest.variants:
        assert variant.on_gpu is not None
        assert variant.on_gpu.samples == 40
    kinds = {layer.precision for layer in manifest.layers}
    assert {"int8", "fp16"} <= kinds
    weakly_typed = bindings.version.startswith("8.")
    assert manifest.options.strongly_typed != weakly_typed
    assert (manifest.options.int8, manifest.options.fp16) == (weakly_typed, weakly_typed)
    graph = onnx.load(next(store.entries()).path / "model.onnx")
    assert any(node.op_type == "Cast" for node in graph.graph.node) != weakly_typed


@ONE_VERSION
def test_the_same_command_finds_the_engine(store: EngineStore, tensorrt_python: Path) -> None:
    """Nothing is built twice, and another precision is another entry."""
    options = ("--int8", "--no-baselines", *CALIBRATION)
    built(store, tensorrt_python, *options)
    again = run("build", MODEL, "--target", "tensorrt", "--tensorrt-python", str(tensorrt_python), *options, "--json")
    assert json.loads(again.stdout)["reused"] is True
    built(store, tensorrt_python, "--fp16", "--no-baselines", *SHAPES)


@ONE_VERSION
def test_what_builders_timed_is_kept_by_gpu_and_version(
    store: EngineStore, tensorrt_python: Path, bindings: Bindings
) -> None:
    """One file in the store, whole, read by the next build; one that was changed is not."""
    built(store, tensorrt_python, "--no-baselines", *SHAPES)
    (kept,) = (store.root / ".timings").iterdir()
    assert bindings.version in kept.name
    assert kept.name.endswith(".timing")
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    built(store, tensorrt_python, "--fp16", "--no-baselines", *SHAPES)
    assert not [path for entry in store.entries() for path in entry.path.glob("timings*")]


@pytest.mark.parametrize("calibrator", ["entropy", "minmax", "native-entropy", "native-minmax"])
def test_implicit_quantisation_up_to_10(
    store: EngineStore, tensorrt_python: Path, bindings: Bindings, calibrator: str
) -> None:
    """The cache lies beside the engine with what it belongs to; TensorRT 11 is refused before any work."""
    options = ("--quantization", "implicit", "--calibrator", calibrator, "--no-baselines", *CALIBRATION)
    if bindings.version.startswith("11"):
        done = run("build", MODEL, "--target", "tensorrt", "--tensorrt-python", str(tensorrt_python), *options)
        assert done.exit_code == 2
        assert "up to 10" in done.stderr
        assert not list(store.entries())
        return
    manifest = built(store, tensorrt_python, *options)
    assert manifest.implicit is not None
    assert manifest.cache is not None
    record = manifest.implicit.record
    assert record is not None
    assert record.sha256 == manifest.cache.sha256
    native = calibrator.startswith("native")
    assert (manifest.implicit.samples, manifest.implicit.from_cache) == ((128, False) if native else (0, True))
    assert manifest.options.int8
    assert not manifest.options.strongly_typed
    assert store.verify(next(store.entries())).is_good


@ONE_VERSION
def test_native_ranges_are_used_again_unless_they_were_changed(store: EngineStore, tensorrt_python: Path) -> None:
    """The second build reads TensorRT's own cache; after a change to it, TensorRT calibrates anew."""
    options = ("--quantization", "implicit", "--calibrator", "native-entropy", "--no-baselines", *CALIBRATION)
    first = built(store, tensorrt_python, *options)
    second = built(store, tensorrt_python, *options, "--optimization-level", "2")
    assert first.implicit is not None
    assert second.implicit is not None
    assert (first.implicit.from_cache, second.implicit.from_cache) == (False, True)
    (kept,) = (store.root / ".calibrations").glob("*.cache")
    kept.write_text(kept.read_text().replace("image: 3", "image: 4"))
    third = built(store, tensorrt_python, *options, "--optimization-level", "1")
    assert third.implicit is not None
    assert not third.implicit.from_cache
    assert any("was refused" in warning for warning in third.warnings)


@ONE_VERSION
def test_engines_are_refused_elsewhere_before_they_are_touched(store: EngineStore, tensorrt_python: Path) -> None:
    """Another GPU, another version, another library, a flipped byte: each is named."""
    manifest = built(store, tensorrt_python, "--no-baselines", *SHAPES)
    assert manifest.gpu is not None
    engine = next(store.entries()).path / ENGINE
    library, version = manifest.library.split(" ")
    own = tuple(int(part) for part in manifest.gpu.capability.split("."))
    here = {"library": library, "version": version, "capability": own}
    check_engine(manifest, engine, **here)  # type: ignore[arg-type]
    for change, message in (
        ({"capability": (12, 0)}, "the GPU here has 12.0"),
        ({"version": "10.99.1"}, "10.99.1"),
        ({"library": "tensorrt_rtx"}, "tensorrt_rtx"),
    ):
        with pytest.raises(StaleError, match=message):
            check_engine(manifest, engine, **{**here, **change})  # type: ignore[arg-type]
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(StaleError, match="other content"):
        check_engine(manifest, engine, **here)  # type: ignore[arg-type]


@ONE_VERSION
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--target", "tensorrt:7.2"), 5, "the target is TensorRT 7.2"),
        (("--target", "tensorrt@orin"), 2, "compute capability 8.7"),
        (("--target", "tensorrt", "--use-dla", "0"), 2, "Deep Learning Accelerators"),
        (("--target", "tensorrt", "--gpu-fallback"), 2, "--use-dla"),
        (("--target", "tensorrt", "--tactic-source", "NO_SUCH"), 5, "no tactic source NO_SUCH"),
        (("--target", "rtx:8.6", "--use-dla", "0"), 2, "TensorRT-RTX has no --use-dla"),
        (("--target", "tensorrt", "--calibrator", "native-entropy", "--int8", *CALIBRATION), 2, "implicit"),
    ],
)
def test_what_is_not_here_is_refused(
    store: EngineStore, tensorrt_python: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    """Versions, boards and options that this machine lacks, with the exit code of the reason; nothing is left."""
    done = run("build", MODEL, "--no-baselines", *SHAPES, "--tensorrt-python", str(tensorrt_python), *options)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert not list(store.entries())


@ONE_VERSION
def test_the_environment_names_the_interpreter(
    store: EngineStore, tensorrt_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRT_OPT_TENSORRT_PYTHON is as good as the option; one without TensorRT is an error that names it."""
    monkeypatch.setenv("TRT_OPT_TENSORRT_PYTHON", str(tensorrt_python))
    done = run("build", MODEL, "--target", "tensorrt", "--no-baselines", *SHAPES)
    assert done.exit_code == 0, done.stderr
    monkeypatch.setenv("TRT_OPT_TENSORRT_PYTHON", os.devnull)
    failed = run("build", MODEL, "--target", "tensorrt", "--no-baselines", *SHAPES)
    assert failed.exit_code == 5
    assert os.devnull in failed.stderr


@ONE_VERSION
def test_a_budget_is_judged_on_the_engine(store: EngineStore, tensorrt_python: Path) -> None:
    """What the search reports are the engine's figures, not the simulation's."""
    evaluation = ("--eval-data", str(DIGITS / "test.npz"), "--max-drop", "5", "--no-baselines")
    manifest = built(store, tensorrt_python, "--int8", *CALIBRATION, *evaluation)
    assert manifest.search is not None
    assert manifest.search.reported == manifest.variants[-1].on_gpu
    assert manifest.search.reported != manifest.variants[-1].accuracy


@ONE_VERSION
def test_the_table_and_what_is_below_it_tell_one_measurement(
    store: EngineStore, tensorrt_python: Path, few_digits: str
) -> None:
    """What the engine loses is the drop of the engine's figures, also where nothing could be simulated."""
    evaluation = ("--eval-data", few_digits, "--no-baselines", "--quantization", "implicit")
    done = run(
        "build", MODEL, "--target", "tensorrt", "--tensorrt-python", str(tensorrt_python), *CALIBRATION, *evaluation
    )
    assert done.exit_code == 0, done.stderr
    variant = read_manifest(next(store.entries()).manifest_path).variants[-1]
    assert (variant.accuracy, variant.on_gpu is None) == (None, False)
    assert "implicit INT8 + FP16 loses" in done.stdout


@ONE_VERSION
def test_timings_that_cannot_be_kept_do_not_cost_the_engine(store: EngineStore, tensorrt_python: Path) -> None:
    """A file in the way of the timings is told; the entry is whole and nothing else lies in it."""
    store.root.mkdir()
    (store.root / ".timings").touch()
    manifest = built(store, tensorrt_python, "--no-baselines", *SHAPES)
    assert any("not kept" in warning and ".timings" in warning for warning in manifest.builder_warnings)
    (entry,) = store.entries()
    assert store.verify(entry).is_good
    assert not list(entry.path.glob("timings*"))


def test_integer_inputs_are_fed_as_the_engine_takes_them(
    tmp_path: Path, store: EngineStore, tensorrt_python: Path
) -> None:
    """Before 10 the parser makes INT32 of INT64: token ids reach the engine all the same, unless one does not fit."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (int64[4] ids) => (float[4, 1] y)
        <float[3, 1] table = {1.0, 2.0, 3.0}, int64 most = {2}> { i = Min(ids, most) y = Gather(table, i) }"""
    )
    onnx.save(model, tmp_path / "ids.onnx")
    with_ids = ("build", str(tmp_path / "ids.onnx"), "--target", "tensorrt", "--tensorrt-python", str(tensorrt_python))
    np.savez(tmp_path / "fits.npz", ids=np.array([[0, 1, 2, 0]], np.int64))
    done = run(*with_ids, "--eval-data", str(tmp_path / "fits.npz"), "--no-baselines")
    assert done.exit_code == 0, done.stderr
    (entry,) = store.entries()
    (variant,) = read_manifest(entry.manifest_path).variants
    assert variant.on_gpu is not None
    np.savez(tmp_path / "beyond.npz", ids=np.array([[0, 1, 2, 2**40]], np.int64))
    done = run(*with_ids, "--eval-data", str(tmp_path / "beyond.npz"), "--no-baselines")
    narrowed = read_manifest(entry.manifest_path).library.startswith("tensorrt 8.")
    assert ("beyond INT32" in done.stderr) == narrowed
