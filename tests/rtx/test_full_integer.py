"""Engines that take and give integers, built by the real TensorRT-RTX."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import conv, model_of, node, weights
from onnx import TensorProto, helper

from trt_opt.backends.tensorrt_rtx import TensorRTRTXBackend
from trt_opt.datasets.preprocess import Preprocess
from trt_opt.graph.save import save_model
from trt_opt.pipeline import build_engine
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.recipe import Recipe
from trt_opt.samples import DIGITS
from trt_opt.values.calibration import TensorRange
from trt_opt.values.engine import BuildFiles, BuildOptions, Manifest
from trt_opt.values.progress import Silent
from trt_opt.values.target import RtxTarget

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx


def built_digits(folder: Path, *, image: bool) -> tuple[Manifest, str]:
    """The sample's engine, and the note beside it."""
    recipe = Recipe(
        model=str(DIGITS / "model.onnx"),
        quantization="full-integer",
        image_input=image,
        preprocess="layout=NCHW,color=L,scale=1/16" if image else None,
        calib_data=str(DIGITS / "calibration.npz"),
        eval_data=str(DIGITS / "test.npz"),
        min_shapes="image:1x1x8x8",
        opt_shapes="image:4x1x8x8",
        max_shapes="image:8x1x8x8",
        target="rtx:8.6",
        output=str(folder / "engines"),
    )
    outcome = build_engine(recipe, Silent())
    return outcome.manifest, (Path(outcome.engine).parent / "preprocessing.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("image", [False, True], ids=["int8", "image"])
def test_the_sample_becomes_an_engine_with_integer_ends(image: bool, tmp_path: Path) -> None:
    """INT8 or a UINT8 image goes in, INT8 comes out; the FP32 and FP16 engines beside it keep their float ends."""
    manifest, note = built_digits(tmp_path, image=image)
    sizes = "?x8x8x1" if image else "?x1x8x8"
    assert [str(spec) for spec in manifest.inputs] == [f"image: {'uint8' if image else 'int8'} [{sizes}]"]
    assert [str(spec) for spec in manifest.outputs] == ["logits: int8 [?x10]"]
    assert manifest.options.profile["image"].max == ((8, 8, 8, 1) if image else (8, 1, 8, 8))
    assert all(variant.engine_bytes for variant in manifest.variants)
    assert len(manifest.variants) == 3
    task = manifest.variants[-1].accuracy
    assert task is not None
    assert task.candidate_task is not None
    assert task.candidate_task.top1 > 0.98
    assert manifest.ends is not None
    assert manifest.ends.outputs[0].instruction in note


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("image", [None, Preprocess(color="BGR", mean=(104.0, 117.0, 123.0))], ids=["int8", "image"])
def test_many_ends_build(fp16: bool, image: Preprocess | None, tmp_path: Path) -> None:
    """An input read by an INT8 and a float layer, one that goes straight out, an output that is read, an INT64 one."""
    nodes = [
        conv("conv1", "x", "a", "w"),
        node("Sigmoid", "gate", ["x"], "b"),
        node("Identity", "same", ["factor"], "copy"),
        node("Mul", "product", ["a", "factor"], "y"),
        node("ReduceMean", "mean", ["b"], "m"),
        node("Add", "sum", ["y", "m"], "z"),
        node("ArgMax", "best", ["z"], "class", axis=1),
    ]
    shape = [1, 8, 8, 8]
    model = model_of(
        nodes,
        {"x": [1, 3, 8, 8], "factor": [1]},
        {"y": shape, "z": shape, "copy": [1]},
        {"w": weights(8, 3, 3, 3)},
    )
    model.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, [1, 1, 8, 8]))
    graph = float_graph(model, PrecisionRequest("full-integer", fp16, image=image))
    final = quantized_graph(graph, {name: TensorRange(-4.0, 4.0, 4.0, 1) for name in graph.taps.all})
    save_model(final.model, tmp_path / "model.onnx")
    with TensorRTRTXBackend(RtxTarget(((8, 6),))) as backend:
        built = backend.build(
            BuildFiles(tmp_path / "model.onnx", tmp_path / "e"), BuildOptions("rtx:8.6"), Silent(), 300
        )
    assert [spec.dtype for spec in built.inputs] == ["uint8" if image else "int8", "int8"]
    assert [spec.dtype for spec in built.outputs] == ["int8", "int8", "int8", "int64"]
    assert final.ends is not None
    assert [end.name for end in final.ends.outputs] == [spec.name for spec in built.outputs]
