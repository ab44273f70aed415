"""The real TensorRT-RTX parser and ahead-of-time builder, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, residual_block, weights

from trt_opt.backends.library_backend import cleaned
from trt_opt.backends.tensorrt_rtx import TensorRTRTXBackend
from trt_opt.errors import UnsupportedModelError, WorkerError
from trt_opt.guilty_node import guilty_node
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.shapes import ShapeRange
from trt_opt.values.target import RtxTarget

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

OPTIONS = BuildOptions("rtx:8.6")


@pytest.fixture(scope="module")
def backend() -> Iterator[TensorRTRTXBackend]:
    """One child process for all tests of this file."""
    with TensorRTRTXBackend(RtxTarget(((8, 6),))) as running:
        yield running


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def with_an_operator_tensorrt_lacks() -> onnx.ModelProto:
    """Relu, then Unique, whose output size depends on the data."""
    nodes = [node("Relu", "relu", ["x"], "a"), node("Unique", "unique_values", ["a"], "y")]
    return model_of(nodes, {"x": [4]}, {"y": ["n"]}, {})


def test_a_model_becomes_an_engine(backend: TensorRTRTXBackend, tmp_path: Path) -> None:
    """An engine file of the reported size, with the model's inputs and outputs."""
    engine = tmp_path / "model.engine"
    built = backend.build(BuildFiles(saved(residual_block(), tmp_path), engine), OPTIONS, Silent(), 300)
    assert engine.stat().st_size == built.engine_bytes > 10_000
    assert [str(spec) for spec in built.inputs] == ["x: float32 [1x16x8x8]"]
    assert [spec.name for spec in built.outputs] == ["y"]


def test_the_parser_names_the_node_it_refuses(backend: TensorRTRTXBackend, tmp_path: Path) -> None:
    """The report names node and operator; asking for an engine is an error that names them too."""
    file = saved(with_an_operator_tensorrt_lacks(), tmp_path)
    refused = backend.parse(file).refused
    assert [(entry.node, entry.op_type) for entry in refused] == [("unique_values", "Unique")]
    with pytest.raises(UnsupportedModelError, match=r"unique_values.*Unique"):
        backend.build(BuildFiles(file, tmp_path / "model.engine"), OPTIONS, Silent(), 300)


def test_the_child_serves_on_after_a_refusal(backend: TensorRTRTXBackend, tmp_path: Path) -> None:
    """A refused model does not spoil the next one."""
    assert backend.parse(saved(with_an_operator_tensorrt_lacks(), tmp_path)).refused
    assert not backend.parse(saved(residual_block(), tmp_path)).refused


def test_a_dynamic_input_takes_the_profile(backend: TensorRTRTXBackend, tmp_path: Path) -> None:
    """A dynamic batch builds with a profile and is refused without one."""
    nodes = [conv("conv1", "x", "y", "w")]
    model = model_of(nodes, {"x": ["batch", 16, 8, 8]}, {"y": ["batch", 16, 8, 8]}, {"w": weights(16, 16, 3, 3)})
    file, engine = saved(model, tmp_path), tmp_path / "model.engine"
    profile = {"x": ShapeRange((1, 16, 8, 8), (4, 16, 8, 8), (8, 16, 8, 8))}
    built = backend.build(BuildFiles(file, engine), BuildOptions("rtx:8.6", profile=profile), Silent(), 300)
    assert built.inputs[0].shape == ("?", 16, 8, 8)
    with pytest.raises(UnsupportedModelError, match="profile"):
        backend.build(BuildFiles(file, engine), OPTIONS, Silent(), 300)


def test_a_builder_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """The time-out is an error that names the option."""
    with TensorRTRTXBackend(RtxTarget(((8, 6),))) as backend, pytest.raises(WorkerError, match="took longer"):
        backend.build(
            BuildFiles(saved(residual_block(), tmp_path), tmp_path / "model.engine"), OPTIONS, Silent(), 0.001
        )


def test_one_engine_for_several_gpus_costs_little(tmp_path: Path) -> None:
    """Four compute capabilities add less than a tenth to the engine's size."""
    sizes = []
    for capabilities in (((8, 6),), ((8, 0), (8, 6), (8, 9), (12, 0))):
        with TensorRTRTXBackend(RtxTarget(capabilities)) as backend:
            options = BuildOptions(str(backend.target))
            file = saved(residual_block(), tmp_path)
            sizes.append(backend.build(BuildFiles(file, tmp_path / "e"), options, Silent(), 300).engine_bytes)
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Assertion failed: (a == b): only 1-D tensors are supported", "only 1-D tensors are supported"),
        ('Assertion failed: creator && "Plugin not found"', "Plugin not found"),
        ("ModelImporter.cpp:140 In function parse: [8] no importer", "no importer"),
        ("plain words\n  over two lines", "plain words over two lines"),
    ],
)
def test_messages_lose_source_positions_and_keep_their_words(raw: str, clean: str) -> None:
    """What users read is the reason, not TensorRT's source code."""
    assert cleaned(raw) == clean


def test_bisection_finds_the_node_that_stops_the_build() -> None:
    """With a builder that refuses any graph holding a Sigmoid, the Sigmoid is found in a few tries."""
    nodes = [node("Relu", "relu0", ["x"], "t0")]
    nodes += [node("Sigmoid" if at == 21 else "Relu", f"n{at}", [f"t{at - 1}"], f"t{at}") for at in range(1, 40)]
    model = model_of(nodes, {"x": [4]}, {"t39": [4]}, {"unused": np.zeros(1, np.float32)})
    tried: list[int] = []

    def builds(prefix: onnx.ModelProto) -> bool:
        onnx.checker.check_model(prefix)
        tried.append(len(prefix.graph.node))
        return all(entry.op_type != "Sigmoid" for entry in prefix.graph.node)

    found = guilty_node(model, builds)
    assert found is not None
    assert found.name == "n21"
    assert len(tried) <= 6
