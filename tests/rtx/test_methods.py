"""Every form that the quantisation methods write, built by the real TensorRT-RTX builder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, weights
from onnx import TensorProto

from trt_opt.backends.tensorrt_rtx import TensorRTRTXBackend
from trt_opt.errors import UnsupportedModelError
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.calibration import TensorRange
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.target import RtxTarget

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx


@pytest.fixture(scope="module")
def ampere() -> Iterator[TensorRTRTXBackend]:
    """Builds for SM 8.6."""
    with TensorRTRTXBackend(RtxTarget(((8, 6),))) as running:
        yield running


@pytest.fixture(scope="module")
def ada() -> Iterator[TensorRTRTXBackend]:
    """Builds for SM 8.9."""
    with TensorRTRTXBackend(RtxTarget(((8, 9),))) as running:
        yield running


def engine_bytes(model: onnx.ModelProto, backend: TensorRTRTXBackend, folder: Path) -> int:
    """The size of the engine that the model becomes."""
    onnx.save(model, folder / "model.onnx")
    options = BuildOptions(str(backend.target))
    return backend.build(
        BuildFiles(folder / "model.onnx", folder / "model.engine"), options, Silent(), 300
    ).engine_bytes


def stored(model: onnx.ModelProto, request: PrecisionRequest) -> onnx.ModelProto:
    """The model in the precisions asked for; every tensor reaches 4."""
    graph = float_graph(model, request)
    return quantized_graph(graph, {name: TensorRange(-4.0, 4.0, 4.0, 1) for name in graph.taps.all}).model


def single(
    operator: str, names: list[str], shapes: tuple[list[int], list[int]], *weight: int, **attributes: object
) -> onnx.ModelProto:
    """One node with the constant `w`."""
    only = node(operator, "only", names, "y", **attributes)
    return model_of([only], {"x": shapes[0]}, {"y": shapes[1]}, {"w": weights(*weight)})


def looked_up() -> onnx.ModelProto:
    """Gather from a table."""
    model = model_of([node("Gather", "g", ["w", "x"], "y")], {"x": [4]}, {"y": [4, 64]}, {"w": weights(2000, 64)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


INT8_FORMS = {
    "conv": residual_block(),
    "depthwise": single("Conv", ["x", "w"], ([1, 64, 8, 8], [1, 64, 6, 6]), 64, 1, 3, 3, group=64),
    "conv-1d": single("Conv", ["x", "w"], ([1, 32, 8], [1, 64, 6]), 64, 32, 3),
    "conv-3d": single("Conv", ["x", "w"], ([1, 8, 8, 8, 8], [1, 16, 6, 6, 6]), 16, 8, 3, 3, 3),
    "conv-transpose": single("ConvTranspose", ["x", "w"], ([1, 32, 8, 8], [1, 16, 10, 10]), 32, 8, 3, 3, group=2),
    "gemm": single("Gemm", ["x", "w"], ([64, 4], [4, 32]), 32, 64, transA=1, transB=1),
    "gemm-left": single("Gemm", ["w", "x"], ([64, 4], [32, 4]), 32, 64),
    "matmul-odd": single("MatMul", ["x", "w"], ([4, 37], [4, 19]), 37, 19),
    "matmul-left": single("MatMul", ["w", "x"], ([2, 64, 4], [2, 33, 4]), 33, 64),
    "matmul-batched": single("MatMul", ["x", "w"], ([3, 4, 64], [3, 4, 32]), 3, 64, 32),
    "table": looked_up(),
}

INT4_FORMS = {
    "matmul": single("MatMul", ["x", "w"], ([4, 256], [4, 64]), 256, 64),
    "matmul-3d": single("MatMul", ["x", "w"], ([2, 4, 256], [2, 4, 64]), 256, 64),
    "matmul-batched": single("MatMul", ["x", "w"], ([3, 4, 256], [3, 4, 64]), 3, 256, 64),
    "matmul-200": single("MatMul", ["x", "w"], ([4, 200], [4, 64]), 200, 64),
    "matmul-odd": single("MatMul", ["x", "w"], ([4, 66], [4, 63]), 66, 63),
    "gemm": single("Gemm", ["x", "w"], ([4, 256], [4, 64]), 256, 64),
    "gemm-transposed": single("Gemm", ["x", "w"], ([4, 256], [4, 64]), 64, 256, transB=1),
}

FP8_FORMS = {
    "residual": residual_block(),
    "pooled": pooled(),
    "conv-transpose": single("ConvTranspose", ["x", "w"], ([1, 32, 8, 8], [1, 16, 10, 10]), 32, 16, 3, 3),
    "matmul-odd": single("MatMul", ["x", "w"], ([4, 37], [4, 19]), 37, 19),
}


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("form", INT8_FORMS)
def test_int8_weights_build(form: str, fp16: bool, ampere: TensorRTRTXBackend, tmp_path: Path) -> None:
    """The builder takes every form that the rules store in INT8."""
    model = stored(INT8_FORMS[form], PrecisionRequest("weights-only", fp16))
    assert any(tensor.data_type == TensorProto.INT8 and tensor.dims for tensor in model.graph.initializer)
    assert engine_bytes(model, ampere, tmp_path) > 0


WITHOUT_BLOCKS_OF_16 = ("matmul-odd", "matmul-200")
"""Neither 66 nor 200 is a multiple of 16."""


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize(
    ("form", "size"),
    [(form, size) for form in INT4_FORMS for size in (16, 128) if size > 16 or form not in WITHOUT_BLOCKS_OF_16],
)
def test_int4_weights_build(form: str, size: int, fp16: bool, ampere: TensorRTRTXBackend, tmp_path: Path) -> None:
    """The builder takes every form that the rules store in INT4."""
    request = PrecisionRequest("weights-only", fp16, weights="int4", block_size=size)
    model = stored(INT4_FORMS[form], request)
    assert any(tensor.data_type == TensorProto.INT4 for tensor in model.graph.initializer)
    assert engine_bytes(model, ampere, tmp_path) > 0


def test_int4_asked_for_everywhere_builds(ampere: TensorRTRTXBackend, tmp_path: Path) -> None:
    """Where INT4 is not taken the rules chose INT8: the builder would crash on a left operand in INT4."""
    request = PrecisionRequest("weights-only", weights="int4", block_size=64)
    for model in INT8_FORMS.values():
        assert engine_bytes(stored(model, request), ampere, tmp_path) > 0


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("form", FP8_FORMS)
def test_fp8_builds_for_ada(form: str, fp16: bool, ada: TensorRTRTXBackend, tmp_path: Path) -> None:
    """The builder takes FP8 convolutions and products for SM 8.9."""
    model = stored(FP8_FORMS[form], PrecisionRequest("fp8", fp16))
    assert any(tensor.data_type == TensorProto.FLOAT8E4M3FN and tensor.dims for tensor in model.graph.initializer)
    assert engine_bytes(model, ada, tmp_path) > 0


def test_fp8_is_refused_for_ampere(ampere: TensorRTRTXBackend, tmp_path: Path) -> None:
    """Why `require_target` asks for 8.9: the builder has no FP8 kernels for SM 8.6."""
    with pytest.raises(UnsupportedModelError):
        engine_bytes(stored(residual_block(), PrecisionRequest("fp8")), ampere, tmp_path)


@pytest.mark.parametrize(
    ("request_", "share"),
    [
        (PrecisionRequest("weights-only"), 0.27),
        (PrecisionRequest("weights-only", weights="int4"), 0.15),
        (PrecisionRequest("weights-only", True, weights="int4"), 0.15),
    ],
    ids=["int8", "int4", "int4+fp16"],
)
def test_the_engine_keeps_the_small_weights(
    request_: PrecisionRequest, share: float, ampere: TensorRTRTXBackend, tmp_path: Path
) -> None:
    """An engine of one large product shrinks as its weights do."""
    model = single("MatMul", ["x", "w"], ([4, 2048], [4, 2048]), 2048, 2048)
    whole = engine_bytes(model, ampere, tmp_path)
    assert engine_bytes(stored(model, request_), ampere, tmp_path) < share * whole


def test_a_convolution_with_int8_weights_shrinks_too(ampere: TensorRTRTXBackend, tmp_path: Path) -> None:
    """To less than half, kernels included."""
    nodes = [conv("conv1", "x", "y", "w")]
    values = np.tile(weights(512, 64, 3, 3), (1, 8, 1, 1))
    model = model_of(nodes, {"x": [1, 512, 8, 8]}, {"y": [1, 512, 8, 8]}, {"w": values})
    whole = engine_bytes(model, ampere, tmp_path)
    assert engine_bytes(stored(model, PrecisionRequest("weights-only")), ampere, tmp_path) < 0.5 * whole
