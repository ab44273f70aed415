"""Models with moved scales, and with outliers apart, become engines with as many INT8 layers as before."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, weights

sys.path.insert(0, str(Path(__file__).parents[1] / "ort"))

from channel_models import gated, layer_normalization, mobilenet_block, residual
from improvement_subjects import again, data_of, subject_of

from trt_opt.backends import backend_for
from trt_opt.graph.query import graph_inputs
from trt_opt.improvements.equalize_channels import EqualizeChannels
from trt_opt.improvements.improvement import Improvement
from trt_opt.improvements.isolate_outlier_channels import IsolateOutlierChannels
from trt_opt.improvements.migrate_scales import MigrateScales
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.shapes import ShapeRange
from trt_opt.values.target import target_from_text

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx


def image_of_outliers() -> onnx.ModelProto:
    """Two of 80 channels of the graph's input are a hundred times as large as the others; a residual follows."""
    held = {"w": weights(32, 80, 3, 3, seed=1), "b": weights(32, seed=2), "v": weights(32, 32, 3, 3, seed=3)}
    nodes = [conv("layer", "x", "c", "w", "b"), conv("next", "c", "y", "v")]
    return model_of(nodes, {"x": ["n", 80, 8, 8]}, {"y": ["n", 32, 8, 8]}, held)


CASES: tuple[tuple[Improvement, onnx.ModelProto], ...] = (
    (EqualizeChannels(), mobilenet_block()),
    (EqualizeChannels(), residual()),
    (EqualizeChannels(), gated()),
    (MigrateScales(), layer_normalization()),
    (IsolateOutlierChannels(), image_of_outliers()),
)


@pytest.mark.parametrize(
    ("improvement", "model"),
    CASES,
    ids=[f"{improvement.name}-{number}" for number, (improvement, _) in enumerate(CASES)],
)
@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
def test_the_changed_model_builds(improvement: Improvement, model: onnx.ModelProto, fp16: bool, tmp_path: Path) -> None:
    """The builder takes bounds per channel, masks and float layers beside INT8 ones; no layer leaves INT8."""
    (spec,) = graph_inputs(model)
    shape = tuple(2 if isinstance(size, str) else size for size in spec.shape or ())
    generator = np.random.default_rng(0)
    feeds = [{spec.name: generator.standard_normal(shape).astype(np.float32)} for _ in range(4)]
    for feed in feeds if shape[1] == 80 else ():
        feed[spec.name][:, [3, 50]] *= 100
    folder = tmp_path / "data"
    folder.mkdir()
    subject = subject_of(model, data_of(model, feeds, folder))
    after = again(improvement.improved(subject, Silent()), subject)
    assert after.source.quantized_nodes >= subject.source.quantized_nodes
    graph = float_graph(after.source.model, PrecisionRequest("static", fp16=fp16, spared=after.source.request.spared))
    onnx.save(quantized_graph(graph, after.ranges).model, tmp_path / "model.onnx")
    target = target_from_text("rtx:8.6")
    options = BuildOptions(str(target), profile={spec.name: ShapeRange.fixed(shape)})
    with backend_for(target) as backend:
        built = backend.build(BuildFiles(tmp_path / "model.onnx", tmp_path / "model.engine"), options, Silent(), 300)
    assert built.engine_bytes == (tmp_path / "model.engine").stat().st_size
