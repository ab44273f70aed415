"""The adapter's whole way from a model to an engine that runs, over a strict stand-in for each version of TensorRT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract_models import integer_matrix_product, quantised_convolution, saved, two_convolutions
from stand_in_engines import record_of
from vendor_bindings import Bindings

import calibrators.native
from calibrators import cache_from_text
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.backends.process import Worker
from trt_opt.backends.tensorrt import ENVIRONMENT, TensorRTBackend
from trt_opt.errors import MissingError, StageError, TargetError, UnsupportedModelError
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.shapes import ShapeRange
from trt_opt.values.target import TensorRTTarget

pytestmark = pytest.mark.contract

PLAIN = BuildOptions("tensorrt")

OPEN_BATCH = {"x": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}


DLA_CORES = 2


@pytest.fixture(scope="module")
def backend(bindings: Bindings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorRTBackend]:
    """The adapter with a child on the stand-in, one for all builds of a version."""
    file = tmp_path_factory.mktemp("python") / "python"
    python = bindings.write_python(file, TENSORRT_STAND_IN_DLA_CORES=str(DLA_CORES))
    with TensorRTBackend(TensorRTTarget(), python=str(python)) as made:
        yield made


def files_in(folder: Path, model: onnx.ModelProto, **more: object) -> BuildFiles:
    """The files of a build of a model."""
    found = BuildFiles(saved(model, folder / "model.onnx"), folder / "model.engine")
    return replace(found, **more)  # type: ignore[arg-type]


def build(backend: TensorRTBackend, files: BuildFiles, options: BuildOptions) -> dict:
    """Builds, and gives what the builder was told."""
    backend.build(files, options, Silent(), timeout_s=60)
    return record_of(files.engine)


def test_no_options_set_nothing(backend: TensorRTBackend, tmp_path: Path) -> None:
    """A static float model without options builds with no flag, and with the one profile it needs."""
    record = build(backend, files_in(tmp_path, two_convolutions(1)), PLAIN)
    assert record["settings"]["flags"] == []
    assert record["settings"]["profiles"] == [{"x": [[1, 3, 8, 8]] * 3}]
    assert record["strongly_typed"] == backend.support.binds_types


def test_all_options_of_the_version_arrive(backend: TensorRTBackend, bindings: Bindings, tmp_path: Path) -> None:
    """Every option that the version's row allows is set on the builder's configuration, and no other."""
    support = backend.support
    source = bindings.run("import tensorrt_bindings as t; print(list(t.TacticSource.__members__)[-1])").strip()
    options = BuildOptions(
        "tensorrt",
        profile=OPEN_BATCH,
        workspace_bytes=1 << 28,
        optimization_level=4 if support.optimization_level else None,
        version_compatible=support.version_compatible,
        hardware_compatible=support.hardware_compatible,
        tactic_sources=(source,),
    )
    settings = build(backend, files_in(tmp_path, two_convolutions()), options)["settings"]
    assert settings["pools"] == {"WORKSPACE": 1 << 28}
    assert settings["tactic_sources"] == [source]
    assert settings["profiles"] == [{"x": [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]}]
    assert settings["properties"]["builder_optimization_level"] == (4 if support.optimization_level else 3)
    assert settings["properties"]["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert settings["flags"] == ["VERSION_COMPATIBLE"]


def test_an_option_the_version_lacks_is_refused(backend: TensorRTBackend, tmp_path: Path) -> None:
    """What a row does not allow never reaches the child."""
    without = replace(backend.support, optimization_level=False)
    options = replace(PLAIN, optimization_level=4)
    kept, backend.support = backend.support, without
    try:
        with pytest.raises(TargetError, match="no such option"):
            build(backend, files_in(tmp_path, two_convolutions(1)), options)
    finally:
        backend.support = kept
    assert not (tmp_path / "model.engine").exists()


def test_strong_types_or_flags_build_a_quantised_graph(backend: TensorRTBackend, tmp_path: Path) -> None:
    """Q/DQ pairs build as every version wants them: with the INT8 flag before 10, by their types after it."""
    typed = backend.support.binds_types
    options = replace(PLAIN, strongly_typed=typed, int8=not typed, fp16=not typed)
    record = build(backend, files_in(tmp_path, quantised_convolution()), options)
    assert record["settings"]["flags"] == ([] if typed else ["FP16", "INT8"])
    layers = backend.layers(tmp_path / "model.engine", options)
    assert [(layer.nodes, layer.precision) for layer in layers] == [(("conv1",), "int8")]


def test_weak_types_where_they_are_a_choice(backend: TensorRTBackend, tmp_path: Path) -> None:
    """Asked for weak types, versions with flags set FP16 and hold a layer in FP32; others stay strongly typed."""
    options = replace(PLAIN, strongly_typed=False, fp16=True, float32_layers=("conv2", "no such layer"))
    files = files_in(tmp_path, two_convolutions(1))
    built = backend.build(files, options, Silent(), timeout_s=60)
    record = record_of(files.engine)
    if backend.support.precision_flags:
        assert record["settings"]["flags"] == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
        assert record["layer_precisions"] == {"conv2": "FLOAT"}
        assert any("no such layer" in warning for warning in built.warnings)
    else:
        assert record["settings"]["flags"] == []
        assert record["strongly_typed"]


def test_refused_node_is_named(backend: TensorRTBackend, tmp_path: Path) -> None:
    """The node that the parser refuses is named in every version, also where the error itself does not."""
    model = saved(integer_matrix_product(), tmp_path / "model.onnx")
    report = backend.parse(model, ["MatMulInteger", "Relu"])
    assert [(node.node, node.op_type) for node in report.refused] == [("product", "MatMulInteger")]
    assert report.unknown_operators == ("MatMulInteger",)
    with pytest.raises(UnsupportedModelError, match="MatMulInteger"):
        build(backend, BuildFiles(model, tmp_path / "model.engine"), PLAIN)


def test_open_dimensions_want_a_profile(backend: TensorRTBackend, tmp_path: Path) -> None:
    """An open batch without a profile is refused by name, not built for size 1."""
    with pytest.raises(UnsupportedModelError, match="no optimization profile"):
        build(backend, files_in(tmp_path, two_convolutions()), PLAIN)


def test_timings_are_kept_for_the_next_build(backend: TensorRTBackend, tmp_path: Path) -> None:
    """The timing cache is written, read by the next build, and what is in it stays in it."""
    kept = tmp_path / "kept" / "gpu.timing"
    build(backend, files_in(tmp_path, two_convolutions(1), timing_cache=kept), PLAIN)
    assert b'"relu1"' in kept.read_bytes()
    typed = backend.support.binds_types
    options = replace(PLAIN, strongly_typed=typed, int8=not typed)
    build(backend, files_in(tmp_path, quantised_convolution(), timing_cache=kept), options)
    assert b'"relu1"' in kept.read_bytes()
    assert b'"quantize_x"' in kept.read_bytes()


def test_engine_runs_and_agrees(backend: TensorRTBackend, tmp_path: Path) -> None:
    """Polygraphy's runner feeds the engine two batch sizes, and the outputs are ONNX Runtime's."""
    model = two_convolutions()
    options = replace(PLAIN, profile=OPEN_BATCH)
    build(backend, files_in(tmp_path, model), options)
    numbers = np.random.default_rng(0)
    reference = OnnxRuntimeRunner(model, optimised=False)
    with backend.runner(tmp_path / "model.engine", options) as engine, reference:
        for batch in (3, 1):
            feed = {"x": numbers.standard_normal((batch, 3, 8, 8)).astype(np.float32)}
            np.testing.assert_allclose(engine.infer(feed)["y"], reference.infer(feed)["y"], atol=1e-5)


def test_version_compatible_engine_is_let_run(backend: TensorRTBackend, tmp_path: Path) -> None:
    """An engine with a runtime of its own, which is code, loads where that is allowed and only there."""
    files = files_in(tmp_path, two_convolutions(1))
    options = replace(PLAIN, version_compatible=True)
    build(backend, files, options)
    assert [layer.name for layer in backend.layers(files.engine, options)] == ["conv1", "relu1", "conv2"]
    with pytest.raises(StageError, match="host code"):
        backend.layers(files.engine, PLAIN)


@pytest.mark.parametrize(("algorithm", "header"), [("entropy", "EntropyCalibration2"), ("minmax", "MinMaxCalibration")])
def test_native_calibration(
    backend: TensorRTBackend, bindings: Bindings, tmp_path: Path, algorithm: str, header: str
) -> None:
    """Every batch is fed, the cache that TensorRT writes is kept, and the next build takes it instead of data."""
    if not backend.support.int8_calibrators:
        pytest.skip(f"TensorRT {bindings.version} has no INT8 calibrators")
    batches = np.random.default_rng(0).standard_normal((3, 1, 3, 8, 8)).astype(np.float32)
    (tmp_path / "batches").mkdir()
    for number, batch in enumerate(batches):
        np.savez(tmp_path / "batches" / f"{number:04}.npz", **{"input-0": batch})
    calibration = {
        "algorithm": algorithm,
        "module": calibrators.native.__file__,
        "batches": str(tmp_path / "batches"),
        "expected": {"inputs": ["x"], "batches": 3, "batch_size": 1},
        "read_cache": None,
        "write_cache": str(tmp_path / "new.cache"),
    }
    options = replace(PLAIN, strongly_typed=False, int8=True)
    files = files_in(tmp_path, two_convolutions(1), calibration=calibration)
    built = backend.build(files, options, Silent(), timeout_s=60)
    assert built.calibration == {"batches": 3, "offered": 3, "from_cache": False, "wrote_cache": True}
    cache = cache_from_text((tmp_path / "new.cache").read_text())
    assert cache.algorithm == header
    assert cache.scales["x"] == pytest.approx(float(np.abs(batches).max()) / 127, rel=1e-6)
    again = {**calibration, "batches": None, "read_cache": str(tmp_path / "new.cache"), "write_cache": None}
    files = files_in(tmp_path, two_convolutions(1), calibration=again)
    assert build(backend, files, options)["calibration"]["from_cache"]


def test_dla_is_set_with_its_fallback(backend: TensorRTBackend, tmp_path: Path) -> None:
    """The core, the device type and GPU fallback arrive where the version builds for DLA, and are refused elsewhere."""
    typed = backend.support.strongly_typed == "always"
    options = replace(PLAIN, strongly_typed=typed, fp16=not typed, dla_core=1, gpu_fallback=True)
    files = files_in(tmp_path, two_convolutions(1))
    if not backend.support.dla:
        with pytest.raises(TargetError, match="does not build for Deep Learning Accelerators"):
            build(backend, files, options)
        return
    settings = build(backend, files, options)["settings"]
    assert "GPU_FALLBACK" in settings["flags"]
    assert settings["properties"]["default_device_type"] == "DLA"
    assert settings["properties"]["DLA_core"] == 1


def test_dla_that_is_not_here_is_missing(backend: TensorRTBackend, tmp_path: Path) -> None:
    """The third of two accelerators is an error before anything is built."""
    if not backend.support.dla:
        pytest.skip(f"{backend.library} does not build for DLA")
    with pytest.raises(MissingError, match=f"this machine has {DLA_CORES}"):
        build(backend, files_in(tmp_path, two_convolutions(1)), replace(PLAIN, dla_core=DLA_CORES))


class InterruptedAtTheFirstStep(Silent):
    """A progress whose user presses Ctrl-C as soon as it moves."""

    def advance(self, amount: int = 1) -> None:
        """Ctrl-C."""
        raise KeyboardInterrupt


def test_a_build_stops_when_it_is_interrupted(backend: TensorRTBackend, bindings: Bindings, tmp_path: Path) -> None:
    """Where the builder asks whether to go on, Ctrl-C ends the build, leaves no engine, and the child stands ready."""
    if not backend.support.progress_monitor:
        pytest.skip(f"a build of {backend.library} cannot be stopped")
    slow = bindings.write_python(tmp_path / "python", TENSORRT_STAND_IN_STEP_S="0.1")
    files = files_in(tmp_path, two_convolutions(1))
    request = backend._request(files, PLAIN)
    with Worker(ENVIRONMENT, python=str(slow)) as child:
        with pytest.raises(KeyboardInterrupt):
            child.ask("build", request, timeout_s=60, progress=InterruptedAtTheFirstStep())
        assert child.ask("parse", request, timeout_s=60)["refused"] == []
    assert not files.engine.exists()
