"""Calibration caches beside models: what is covered, through whom, what stays in float, and what is refused."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, two_branches_into_a_concat, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from unit.graph_models import model_of as model_from_text

from calibrators import CalibrationCache, text_from_cache
from trt_opt.cache_import import CacheImport, cache_from_file, imported_cache
from trt_opt.cache_import.gaps import NO_RANGE
from trt_opt.errors import DataError, StaleError, TrtOptError, UnsupportedModelError
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.index import GraphIndex
from trt_opt.implicit.caches import expected_record, record_cache
from trt_opt.quantize.range_neighbours import neighbour_of
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.quantize.stage import float_graph, quantized_graph
from trt_opt.recipe import Recipe
from trt_opt.report.cache_import import show_coverage
from trt_opt.values.cache_import import CacheCoverage
from trt_opt.values.calibration import CalibrationTable, TensorRange
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.progress import Silent
from trt_opt.values.samples import DataProvenance

ALL = {"x": 0.1, "b": 0.2, "e": 0.3}
"""Scales for all that the residual block's INT8 layers need."""


def imported(
    model: onnx.ModelProto,
    content: Mapping[str, float] | str,
    folder: Path,
    *,
    given: onnx.ModelProto | None = None,
    method: str = "static",
    fp16: bool = False,
    reuse: bool = False,
) -> CacheImport:
    """What becomes of a model with a cache, without data."""
    file = folder / "old.cache"
    text = content if isinstance(content, str) else text_from_cache(CalibrationCache("8.6.1", "X", content))
    file.write_text(text, encoding="utf-8")
    recipe = Recipe(model="model.onnx", quantization=method, from_cache=str(file), reuse_table=reuse)
    graph = float_graph(model, PrecisionRequest(method, fp16=fp16))
    return imported_cache(recipe, given or model, graph, (None, None), Silent())


def layer_rules(found: CacheImport) -> dict[str, str]:
    """Layer → the rule that decided, in the written graph's plan."""
    graph = quantized_graph(found.graph, found.table.ranges)
    return {layer.node: layer.rule for layer in graph.plan.layers}


def test_every_scale_of_the_graph_is_the_caches(tmp_path: Path) -> None:
    """Tensor by tensor, bit by bit."""
    found = imported(residual_block(), ALL, tmp_path)
    model = quantized_graph(found.graph, found.table.ranges).model
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = {pair.input[0]: constants[pair.input[1]] for pair in model.graph.node if pair.op_type == "QuantizeLinear"}
    assert scales == {name: np.float32(scale) for name, scale in ALL.items()}
    assert (found.coverage.exact, found.coverage.missing, found.coverage.unused) == (("x", "b", "e"), {}, 0)
    assert found.coverage.layers == found.coverage.layers_possible
    assert found.coverage.macs == 1.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "has no range for 'b'"),
        ("b: 0\n", "gives 'b' the scale 0"),
        ("b: 7f800000\n", "gives 'b' a scale that is not finite"),
        ("b: 7fc00000\n", "gives 'b' a scale that is not finite"),
        ("b: 12\n", "gives 'b' the scale 2.5"),
    ],
)
def test_layers_that_read_a_tensor_without_a_range_stay_in_float(line: str, said: str, tmp_path: Path) -> None:
    """The plan tells why; the other layers run in INT8."""
    found = imported(residual_block(), f"TRT-8601-X\nx: 3c010a14\ne: 3c010a14\n{line}", tmp_path)
    plan = {layer.node: layer for layer in quantized_graph(found.graph, found.table.ranges).plan.layers}
    assert [plan[name].precision for name in ("conv1", "conv2", "add", "conv3")] == ["int8", "fp32", "fp32", "int8"]
    assert plan["conv2"].rule == NO_RANGE
    assert said in plan["conv2"].reason
    assert found.coverage.missing == {"b": ("conv2", "add")}
    assert found.coverage.without_range == (("b",) if line else ())
    assert found.coverage.macs == pytest.approx(2 / 3)
    assert any("(2) stay in float" in warning for warning in found.warnings)


def test_entries_that_serve_nothing_are_told_apart(tmp_path: Path) -> None:
    """Tensors of the model that nobody needs, TensorRT's own, names of nowhere, and no ranges."""
    unnamed = ("(Unnamed Layer* 64) [Shuffle]_output", "ONNXTRT_Broadcast_12_output", "conv1_output", "conv2_output_0")
    found = imported(residual_block(), ALL | dict.fromkeys(("a", "c", "nowhere", *unnamed), 1.0) | {"d": 0.0}, tmp_path)
    coverage = found.coverage
    assert coverage.not_needed == ("a", "c")
    assert coverage.unnamed == unnamed
    assert coverage.unknown == ("nowhere",)
    assert coverage.without_range == ("d",)
    assert coverage.entries == 11 == len(coverage.exact) + coverage.unused


def test_names_with_colons_and_spaces_are_matched(tmp_path: Path) -> None:
    """Even at their ends, which a line of a cache does not keep."""
    constants = {"w1": weights(16, 16, 3, 3), "w2": weights(16, 16, 3, 3)}
    nodes = [conv("conv1", "in put:0", " a:b 1 ", "w1"), conv("conv2", " a:b 1 ", "y", "w2")]
    model = model_of(nodes, {"in put:0": [1, 16, 8, 8]}, {"y": [1, 16, 8, 8]}, constants)
    found = imported(model, "TRT-8601-X\nin put:0: 3c010a14\na:b 1: 3d010a14\n", tmp_path)
    assert found.coverage.exact == ("in put:0", " a:b 1 ")
    assert layer_rules(found)["conv2"] == "convolution"


@pytest.mark.parametrize(
    ("body", "known", "through"),
    [
        ("t = Transpose<perm=[0,1,3,2]>(x)", {"x": 1.0}, ("x",)),
        ("u = Transpose<perm=[0,1,3,2]>(x)  t = Identity(x)", {"u": 1.0}, ("u",)),
        ("a = Identity(x)  b = Identity(a)  t = Transpose<perm=[0,1,3,2]>(b)", {"x": 1.0}, ("x",)),
        ("t = MaxPool<kernel_shape=[2,2]>(x)", {"x": 1.0}, ("x",)),
        ("t = Relu(x)  u = MaxPool<kernel_shape=[2,2]>(t)", {"u": 1.0}, None),
        ("t = Relu(x)", {"x": 1.0}, None),
        ("a = Relu(x)  b = Sigmoid(x)  c = Add(a, b)  t = Relu(c)", {"c": 1.0}, ("c",)),
        ("a = Relu(x)  c = Add(a, x)  t = Relu(c)", {"c": 1.0}, None),
        ("a = Neg(x)  t = Concat<axis=1>(x, a)", {"x": 1.0, "a": 2.0}, ("x", "a")),
        ("a = Neg(x)  t = Concat<axis=1>(x, a)", {"x": 1.0}, None),
        ("t = GlobalAveragePool(x)", {"x": 1.0}, None),
        ("t, u = Split<axis=1, num_outputs=2>(x)", {"x": 1.0}, None),
        ("t = Dropout(x)", {"x": 1.0}, ("x",)),
        ("t = Neg(x)", {"t": 1.0, "x": 2.0}, ("t",)),
    ],
)
def test_a_range_is_taken_from_who_holds_the_same_values(
    body: str, known: dict[str, float], through: tuple[str, ...] | None
) -> None:
    """Data movement in both directions, a pool from before it, a concatenation from all parts; nothing else."""
    model = model_from_text(f"g (float[1,4,8,8] x) => (float[a,b,c,d] y) {{ {body}  y = Exp(t) }}", opset=18)
    found = neighbour_of("t", known, (GraphIndex(model),))
    assert (found and found.tensors) == through
    assert found is None or found.amax == max(known[name] for name in found.tensors)


def test_what_the_rewrites_took_out_still_leads_to_a_range(tmp_path: Path) -> None:
    """The cache names a Dropout's output, which the rewritten model has no more."""
    given = model_from_text(
        "g (float[1,16,8,8] x) => (float[1,16,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, w)  b = Dropout(a)"
        "  y = Conv<pads=[1,1,1,1]>(b, w) }",
        w=weights(16, 16, 3, 3),
    )
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(given)
    rewritten.graph.node[2].input[0] = "a"
    del rewritten.graph.node[1]
    found = imported(rewritten, {"x": 1.0, "b": 2.0}, tmp_path, given=given)
    assert found.coverage.through == {"a": ("b",)}
    assert found.table.ranges["a"].amax == 254.0


def test_a_pool_and_a_concatenation_follow_the_layers_behind_them(tmp_path: Path) -> None:
    """They are held back by the layer that lacks a range, not by name."""
    found = imported(two_branches_into_a_concat(), {"x": 1.0, "a": 0.0}, tmp_path)
    assert found.coverage.missing == {"c": ("conv3",)}
    assert layer_rules(found) == {
        "conv1": "convolution",
        "conv2": "convolution",
        "concat": "not-a-compute-layer",
        "conv3": NO_RANGE,
    }


@pytest.mark.parametrize(
    "scales",
    [
        {"image": 1.0, "conv": 1.0},
        {"x": 1.0, "relu": 1.0, "pool": 1.0},
        {"e": 1.0, "a": 1.0, "c": 1.0, "d": 1.0},
        {"x": 1.0, "b": 1.0, "e": 1.0, **{str(number): 1.0 for number in range(4)}},
    ],
)
def test_another_models_cache_is_refused_with_the_figures(scales: dict[str, float], tmp_path: Path) -> None:
    """Whether it covers too little or the model lacks most of its names."""
    with pytest.raises(StaleError, match=r"ranges for \d of the 3 tensors .* has \d of the \d tensors that it names"):
        imported(residual_block(), scales, tmp_path)


def test_reuse_takes_what_fits_unless_nothing_does(tmp_path: Path) -> None:
    """One tensor of three is enough when the user insists, none is not."""
    found = imported(residual_block(), {"e": 1.0, "p": 1.0, "q": 1.0}, tmp_path, reuse=True)
    assert found.coverage.layers == 1
    with pytest.raises(StaleError, match="0 of the 3") as refused:
        imported(residual_block(), {"p": 1.0}, tmp_path, reuse=True)
    assert "--reuse-table" not in str(refused.value)


def test_a_cache_that_leaves_no_layer_is_refused(tmp_path: Path) -> None:
    """A range for the pool alone is none for a layer."""
    nodes = [
        conv("conv1", "x", "a", "w1"),
        node("GlobalAveragePool", "pool", ["a"], "b"),
        node("Flatten", "flatten", ["b"], "c"),
        node("Gemm", "gemm", ["c", "w2"], "y"),
    ]
    constants = {"w1": weights(16, 16, 3, 3), "w2": weights(16, 16)}
    model = model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 16]}, constants)
    with pytest.raises(UnsupportedModelError, match="leaves no layer") as refused:
        imported(model, {"a": 1.0}, tmp_path, reuse=True)
    assert {node for node, _, reason in refused.value.nodes if "no range for" in reason} == {"conv1", "gemm"}


def test_integer_ends_need_their_ranges(tmp_path: Path) -> None:
    """An integer output without a scale cannot be left in float."""
    with pytest.raises(StaleError, match="no range for 'y', and --quantization full-integer needs one"):
        imported(residual_block(), ALL, tmp_path, method="full-integer")
    assert imported(residual_block(), ALL | {"y": 1.0}, tmp_path, method="full-integer").coverage.missing == {}


def test_implicit_quantisation_does_without_what_is_missing(tmp_path: Path) -> None:
    """TensorRT decides; the layers that lack a range are told."""
    found = imported(residual_block(), ALL | {"a": 1.0, "d": 1.0}, tmp_path, method="implicit")
    assert set(found.coverage.missing) == {"c", "y"}
    assert set(found.table.ranges) == {*ALL, "a", "d"}


def test_the_table_says_where_it_comes_from(tmp_path: Path) -> None:
    """Algorithm and version, the cache's hash, no sample; also after it was written and read."""
    found = imported(residual_block(), ALL | {"x": 0.125}, tmp_path)
    table = value_from_json(CalibrationTable, json_from_value(found.table), where="table")
    assert table == found.table
    assert table.calibrator == "cache(X, TensorRT 8.6.1)"
    assert table.data.cache == str(tmp_path / "old.cache")
    assert (table.data.samples, table.data.sha256) == (0, found.coverage.sha256)
    assert table.ranges["x"] == TensorRange(-15.875, 15.875, 15.875, 0)
    assert "says nothing of the model or data" in found.warnings[0]


def test_fp16_without_data_is_warned_of(tmp_path: Path) -> None:
    """Thresholds of a cache are no extremes; those it has still show an overflow."""
    found = imported(residual_block(), ALL | {"y": 1000.0}, tmp_path, fp16=True)
    assert any(warning.startswith("FP16 was chosen without data") for warning in found.warnings)
    plan = {layer.node: layer for layer in quantized_graph(found.graph, found.table.ranges).plan.layers}
    assert "1.27e+05" in quantized_graph(found.graph, found.table.ranges).plan.kept_fp32["conv3"]
    assert plan["conv1"].precision == "int8"
    assert not any("FP16" in warning for warning in imported(residual_block(), ALL, tmp_path).warnings)


def test_the_report_holds_every_figure(tmp_path: Path) -> None:
    """Names in brackets are no markup, and JSON keeps what people are shown in part."""
    scales = ALL | {"[bold]": 1.0, "a": 1.0, "(Unnamed Layer* 3) [Constant]_output": 1.0, "z": 0.0}
    scales.pop("b")
    coverage = imported(residual_block(), scales, tmp_path).coverage
    stream = io.StringIO()
    show_coverage(coverage, Console(file=stream, width=200))
    told = stream.getvalue()
    assert "X, TensorRT 8.6.1, 6 entries; it says nothing of the model or data" in told
    assert (
        "3 tensors need one: 2 in the cache, 0 through a neighbour in the cache, 0 from calibration data, 1 m" in told
    )
    assert "no range for b: conv2" in told
    assert "66.7 % of the multiply-accumulates (of 100.0 % that could be)" in told
    assert "4 entries: 1 for tensors that no INT8 layer needs, 1 for tensors that TensorRT made itself" in told
    assert "1 for names this model does not have ([bold]), 1 without a range (0, infinite or NaN) (z)" in told
    assert value_from_json(CacheCoverage, json_from_value(coverage), where="json") == coverage


WHOLE = b"TRT-8601-EntropyCalibration2\r\nx: 3c010a14\r\nb: 3d010a14\r\ne: 3e010a14"

SOME_SCALES = st.one_of(
    st.sampled_from(["0", "1", "7f800000", "7fc00000", "00800000", "7f7fffff", "3c010a14"]),
    st.floats(2.0**-80, 2.0**80, width=32).map(lambda scale: np.float32(scale).tobytes()[::-1].hex()),
)
ENTRIES = st.dictionaries(
    st.sampled_from([*"abcdefghixy", "nowhere", "(Unnamed Layer* 1) [Shuffle]_output", "conv1_output", "w1"]),
    SOME_SCALES,
    min_size=1,
)
MODELS = {
    "residual": residual_block(),
    "concat": two_branches_into_a_concat(),
    "pooled": pooled(),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(MODELS)), entries=ENTRIES)
def test_whatever_the_cache_holds_the_graph_is_written_or_the_cache_refused(
    name: str, entries: dict[str, str], tmp_path: Path
) -> None:
    """Each tensor and each entry is counted once, each pair has a scale above 0, each layer held back is in float."""
    lines = "".join(f"{entry}: {digits}\n" for entry, digits in entries.items())
    model = MODELS[name]
    try:
        found = imported(model, f"TRT-100300-MinMaxCalibration\r\n{lines}", tmp_path, reuse=True)
    except (StaleError, UnsupportedModelError):
        return
    coverage = found.coverage
    needed = float_graph(model, PrecisionRequest("static")).placement.ranges_needed
    counted = [*coverage.exact, *coverage.through, *coverage.missing]
    assert len(counted) == len(set(counted)) == coverage.needed
    assert set(counted) >= set(needed)
    used = {*coverage.exact, *(source for sources in coverage.through.values() for source in sources)}
    idle = [*coverage.not_needed, *coverage.unknown, *coverage.unnamed, *coverage.without_range]
    assert sorted([*used, *idle]) == sorted(entries)
    graph = quantized_graph(found.graph, found.table.ranges)
    onnx.checker.check_model(graph.model)
    held_back = {layer.node for layer in graph.plan.layers if layer.rule == NO_RANGE}
    assert held_back == set(coverage.layers_in_float)
    assert coverage.layers == graph.plan.count("int8")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.model.graph.initializer}
    for pair in graph.model.graph.node:
        if pair.op_type == "QuantizeLinear":
            scale = constants[pair.input[1]]
            assert scale > 0
            assert math.isfinite(scale)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=60), st.integers(0, 70).map(lambda end: WHOLE[:end]), st.text().map(str.encode)
    )
)
def test_any_file_is_read_or_refused_with_its_line(content: bytes, tmp_path: Path) -> None:
    """Nothing else comes out of a file that is truncated, binary, or something else altogether."""
    file = tmp_path / "any.cache"
    file.write_bytes(content)
    try:
        cache, _ = cache_from_file(file)
    except DataError as error:
        assert str(error).startswith(str(file))
        assert "line " in error.what or "names no tensor" in error.what
    else:
        assert cache.scales or cache.not_finite


@pytest.mark.parametrize("end", range(len(WHOLE) - 7, len(WHOLE)))
def test_a_scale_cut_short_is_noticed(end: int, tmp_path: Path) -> None:
    """Fewer than eight digits without a line end are the start of a scale, not a tiny one."""
    file = tmp_path / "cut.cache"
    file.write_bytes(WHOLE[:end])
    with pytest.raises(DataError, match="line 4: the file ends in the middle of a scale"):
        cache_from_file(file)
    file.write_bytes(WHOLE)
    assert set(cache_from_file(file)[0].scales) == {"x", "b", "e"}


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b'{"kind": "CalibrationTable"}', "--table"),
        ("TRT-1".encode("utf-16"), "UTF-16"),
        (b"\x08\x07pytorch", "trtexec"),
    ],
)
def test_what_is_no_cache_gets_a_hint(content: bytes, hint: str, tmp_path: Path) -> None:
    """A table of this package, a file of a Windows shell, a model."""
    file = tmp_path / "other"
    file.write_bytes(content)
    with pytest.raises(DataError, match="line 1") as refused:
        cache_from_file(file)
    assert hint in str(refused.value.hint)


def test_a_pipe_is_no_cache(tmp_path: Path) -> None:
    """One that nobody writes to is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no regular file"):
        cache_from_file(tmp_path / "pipe")


def test_a_cache_of_zeros_is_not_called_another_models(tmp_path: Path) -> None:
    """It names all the tensors, and has a range for none, whatever the user insists on."""
    for reuse in (False, True):
        with pytest.raises(StaleError, match="all its scales are 0, infinite or NaN"):
            imported(residual_block(), dict.fromkeys(ALL, 0.0), tmp_path, reuse=reuse)


def recorded(model: onnx.ModelProto, folder: Path, *, source: onnx.ModelProto | None = None) -> None:
    """Lays a record beside the cache that `imported` is about to write, of the model it was made with."""
    file = folder / "old.cache"
    file.write_text(text_from_cache(CalibrationCache("8.6.1", "EntropyCalibration2", ALL)), encoding="utf-8")
    record = expected_record(fingerprint(model), DataProvenance("d.npz", "5" * 64, 16), "entropy", "8.6.1")
    record_cache(file, replace(record, source_sha256="" if source is None else fingerprint(source)))


def imported_recorded(model: onnx.ModelProto, folder: Path, *, reuse: bool = False) -> CacheImport:
    """What becomes of a model with the cache recorded before."""
    text = (folder / "old.cache").read_text(encoding="utf-8")
    return imported(model, text, folder, reuse=reuse)


def test_a_record_of_the_model_tells_what_the_cache_was_made_with(tmp_path: Path) -> None:
    """Recorded as it came or as it was made ready; the warning names the samples."""
    other = model_of([node("Relu", "r", ["x"], "y")], {"x": [1]}, {"y": [1]}, {})
    for ready, source in ((residual_block(), None), (other, residual_block())):
        recorded(ready, tmp_path, source=source)
        found = imported_recorded(residual_block(), tmp_path)
        assert found.coverage.record is not None
        assert "made for this model on 16 samples of d.npz" in found.warnings[0]
        console = Console(file=io.StringIO(), width=200)
        show_coverage(found.coverage, console)
        assert "made for this model on 16 samples of d.npz" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_record_of_other_weights_refuses_the_cache(tmp_path: Path) -> None:
    """The names all fit, which is what makes a retrained network's old cache dangerous; the user may insist."""
    trained = residual_block()
    trained.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(trained.graph.initializer[0]) * 2, trained.graph.initializer[0].name
        )
    )
    recorded(residual_block(), tmp_path, source=residual_block())
    with pytest.raises(StaleError, match="made for another model") as refused:
        imported_recorded(trained, tmp_path)
    assert "--reuse-table" in str(refused.value.hint)
    found = imported_recorded(trained, tmp_path, reuse=True)
    assert found.coverage.record is None
    assert "says nothing" in found.warnings[0]


def test_a_record_of_another_content_or_of_no_source_refuses_nothing(tmp_path: Path) -> None:
    """A cache that was edited is no longer what was recorded; a graph rewritten otherwise may be the same model."""
    other = model_of([node("Relu", "r", ["x"], "y")], {"x": [1]}, {"y": [1]}, {})
    recorded(other, tmp_path)
    assert imported_recorded(residual_block(), tmp_path).coverage.record is None
    recorded(other, tmp_path, source=other)
    assert imported(residual_block(), dict(ALL), tmp_path).coverage.record is None


def test_a_folder_or_nothing_is_no_cache(tmp_path: Path) -> None:
    """The error names the path."""
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match="cannot be read") as refused:
            cache_from_file(path)
        assert refused.value.where == str(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "t.json"}, "one of both"),
        ({"quantization": "fp8"}, "not for fp8"),
        ({"quantization": "weights-only"}, "not for weights-only"),
        ({"quantization": "implicit", "calibrator": "native-entropy"}, "makes ranges of its own"),
        ({"max_drop": 1.0}, "search for a budget"),
        ({"min_sqnr": 30.0}, "search for a budget"),
    ],
)
def test_what_does_not_go_with_a_cache_is_refused(options: dict[str, object], said: str) -> None:
    """Before anything is read."""
    with pytest.raises(TrtOptError, match=said):
        Recipe(model="m.onnx", from_cache="old.cache", **options)


def test_a_cache_asks_for_int8() -> None:
    """A build needs no second option for it."""
    recipe = Recipe(model="m.onnx", from_cache="old.cache")
    assert recipe.method == "static"
    assert replace(recipe, quantization="implicit").method == "implicit"
