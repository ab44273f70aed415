"""`trt-opt bundle`: what goes into a bundle, and what is refused before or while it is made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import conv, model_of, node, weights
from onnx import TensorProto, numpy_helper
from typer.testing import Result

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.bundling.reading import opened_bundle
from trt_opt.graph.load import load_model
from trt_opt.samples import DIGITS

MODEL, CALIBRATION, TEST = (str(DIGITS / name) for name in ("model.onnx", "calibration.npz", "test.npz"))

DATA = ("--calib-data", CALIBRATION, "--eval-data", TEST)


def bundled(*arguments: str, model: str = MODEL, data: tuple[str, ...] = DATA) -> Result:
    """The command with its data and an output."""
    return run("bundle", model, *data, "-o", "app.bundle", *arguments)


def operators(model: onnx.ModelProto) -> set[str]:
    """The kinds of nodes."""
    return {entry.op_type for entry in model.graph.node}


def has_halves(model: onnx.ModelProto) -> bool:
    """Whether an FP16 number is in the graph, or a Cast to it."""
    casts = [entry for entry in model.graph.node if entry.op_type == "Cast"]
    halves = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    return bool(halves) or any(entry.attribute[0].i == TensorProto.FLOAT16 for entry in casts)


@pytest.mark.parametrize(("target", "halves"), [("tensorrt:8.6@orin", False), ("tensorrt:10.3@orin", True)])
def test_the_graph_is_what_the_version_takes(target: str, halves: bool, folder: Path) -> None:
    """TensorRT 8 gets Q/DQ in float32 and flags, TensorRT 10 the types in the graph."""
    assert bundled("--int8", "--target", target).exit_code == 0
    with opened_bundle(folder / "app.bundle") as opened:
        model, conf = load_model(opened.folder / "model.onnx"), (opened.folder / "build.conf").read_text()
    assert "QuantizeLinear" in operators(model)
    assert has_halves(model) is halves
    assert (f"STRONGLY_TYPED={'yes' if halves else 'no'}" in conf, "PRECISION=int8-explicit\n" in conf) == (True, True)
    assert f"FP16={'no' if halves else 'yes'}\n" in conf


def test_the_answers_are_the_float_models(folder: Path) -> None:
    """The samples are spread over the data, the expected outputs the float model's, the others the quantised one's."""
    assert bundled("--int8", "--target", "tensorrt:10.3@orin", "--samples", "3").exit_code == 0
    images = np.load(TEST)["image"].reshape(-1, 1, 1, 8, 8)
    with (
        opened_bundle(folder / "app.bundle") as opened,
        OnnxRuntimeRunner(load_model(MODEL), optimised=True) as float32,
    ):
        fed = [np.fromfile(opened.folder / f"samples/00{n}/input-0.bin", "<f4").reshape(1, 1, 8, 8) for n in range(3)]
        expected = [np.fromfile(opened.folder / f"samples/00{n}/output-0.bin", "<f4") for n in range(3)]
        simulated = [np.loadtxt(opened.folder / f"samples/00{n}/quantised-0.txt") for n in range(3)]
        texts = [np.loadtxt(opened.folder / f"samples/00{n}/output-0.txt", np.float32) for n in range(3)]
        right = [float32.infer({"image": image})["logits"].reshape(-1) for image in fed]
        least = opened.bundle.least_sqnr_db
    places = [next(place for place, image in enumerate(images) if np.array_equal(image, one)) for one in fed]
    assert places[0] < len(images) / 3 < places[1] < 2 * len(images) / 3 < places[2]
    np.testing.assert_array_equal(expected, right)
    np.testing.assert_array_equal(texts, expected)
    noise = np.square(np.array(simulated) - np.array(expected, np.float64)).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) - 3 == pytest.approx(least, abs=0.02)


def test_implicit_carries_a_cache_and_asks_for_less(folder: Path) -> None:
    """The graph is float, the cache is there, and what is simulated are the INT8 layers of the placement policy."""
    assert bundled("--quantization", "implicit", "--target", "tensorrt:8.6@orin").exit_code == 0
    with opened_bundle(folder / "app.bundle") as opened:
        assert (opened.folder / "calibration.cache").read_text().startswith("TRT-8600-EntropyCalibration2\nimage: ")
        assert "QuantizeLinear" not in operators(load_model(opened.folder / "model.onnx"))
        assert opened.bundle.precision == "int8-implicit"
        sqnr_db = opened.bundle.outputs[0].sqnr_db
    assert sqnr_db is not None
    assert 20 < sqnr_db < 50
    assert opened.bundle.least_sqnr_db == pytest.approx(sqnr_db - 6, abs=0.01)


def test_the_same_request_gives_the_same_bytes(folder: Path) -> None:
    """Whenever it is made, under whatever name."""
    made = []
    for name in ("first.bundle", "second.bundle"):
        assert bundled("--int8", "--target", "tensorrt@orin", "-o", name).exit_code == 0
        made.append((folder / name).read_bytes())
    assert made[0] == made[1]


def test_check_shows_what_is_in_it(folder: Path) -> None:
    """For people and as JSON; a damaged bundle is refused with exit code 2 and nothing else happens."""
    assert bundled("--int8", "--target", "tensorrt@orin").exit_code == 0
    shown = run("bundle", "--check", "app.bundle")
    assert shown.exit_code == 0
    assert "TensorRT 10.16 on orin" in shown.output
    assert "as its checksum says" in shown.output
    plain = json.loads(run("bundle", "--check", "app.bundle", "--json").stdout)
    assert (plain["kind"], plain["bundle"]["samples"], plain["written"]) == ("BundleReport", 8, False)
    content = (folder / "app.bundle").read_bytes()
    (folder / "app.bundle").write_bytes(content.replace(b"PRECISION=int8", b"PRECISION=int9"))
    refused = run("bundle", "--check", "app.bundle")
    assert refused.exit_code == 2
    assert "build.conf is not what SHA256SUMS says" in refused.output
    assert run("build", "app.bundle").exit_code == 2
    assert not (folder / "engines").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--int8",), 2, "a bundle is for TensorRT on another machine"),
        (("--int8", "--target", "rtx:8.6"), 2, "is built here"),
        (("--int8", "--target", "tensorrt@norin"), 2, "did you mean 'orin'"),
        (("--int8", "--target", "tensorrt:8.6@thor"), 2, "does not support"),
        (("--int8", "--target", "tensorrt:8.2"), 2, "too old"),
        (("--int8", "--target", "tensorrt@orin", "--samples", "0"), 2, "--samples"),
        (("--int8", "--target", "tensorrt@orin", "--samples", "1000"), 2, "--samples"),
        (("--quantization", "full-integer", "--target", "tensorrt@orin"), 2, "integer ends"),
        (("--quantization", "implicit", "--target", "tensorrt:11.4"), 2, "calibration cache"),
        (("--quantization", "fp8", "--target", "tensorrt:10.3@orin"), 2, "FP8"),
        (("--int8", "--use-dla", "0", "--target", "tensorrt@orin-nano"), 2, "no Deep Learning Accelerator"),
        (("--nms", "split", "--target", "tensorrt@orin"), 2, "NonMaxSuppression"),
        (("--min-shapes", "image:9x1x8x8", "--max-shapes", "image:9x1x8x8", "--target", "tensorrt@orin"), 2, "none of"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], code: int, told: str, folder: Path) -> None:
    """With a reason, and without a file."""
    done = bundled(*arguments)
    assert done.exit_code == code, done.output
    assert told in done.output
    assert not list(folder.iterdir())


def test_nothing_to_judge_by_is_refused(folder: Path) -> None:
    """Without evaluation data no engine could be judged; without an output file there is nothing to write."""
    no_data = bundled("--int8", "--target", "tensorrt@orin", data=("--calib-data", CALIBRATION))
    assert (no_data.exit_code, "--eval-data" in no_data.output) == (2, True)
    nowhere = run("bundle", MODEL, *DATA, "--int8", "--target", "tensorrt@orin")
    assert (nowhere.exit_code, "-o app.bundle" in nowhere.output) == (2, True)
    (folder / "app.bundle").write_bytes(b"mine")
    taken = bundled("--int8", "--target", "tensorrt@orin")
    assert (taken.exit_code, "--force" in taken.output) == (2, True)
    assert (folder / "app.bundle").read_bytes() == b"mine"


def with_class_number(opset: int = 17) -> onnx.ModelProto:
    """A convolution picked from by an INT64 input, whose class number is an output too."""
    nodes = [
        conv("conv", "x", "a", "w"),
        node("GlobalAveragePool", "pool", ["a"], "b"),
        node("Flatten", "flatten", ["b"], "c"),
        node("Gather", "gather", ["c", "n"], "y", axis=1),
        node("ArgMax", "argmax", ["c"], "k", axis=1),
    ]
    model = model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 2], "k": [1, 1]}, {"w": weights(16, 16, 3, 3)}, opset)
    picked = model.graph.input.add()
    picked.CopyFrom(onnx.helper.make_tensor_value_info("n", TensorProto.INT64, [2]))
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    return model


def saved_with_data(model: onnx.ModelProto, folder: Path) -> tuple[str, ...]:
    """Writes a model and data for it; the options that name them."""
    onnx.save(model, folder / "odd.onnx")
    random = np.random.default_rng(0)
    x, n = random.standard_normal((8, 1, 16, 8, 8), np.float32), random.integers(0, 16, (8, 2))
    (folder / "data").mkdir()
    for number in range(8):
        np.savez(folder / "data" / f"{number}.npz", x=x[number], n=n[number])
    return ("--calib-data", "data", "--eval-data", "data", "--allow-same-data")


@pytest.mark.parametrize(("target", "kind"), [("tensorrt:8.6@orin", "int32"), ("tensorrt:10.3@orin", "int64")])
def test_integers_travel_as_the_engine_wants_them(target: str, kind: str, folder: Path) -> None:
    """TensorRT before 10 makes INT32 of INT64 inputs; integer outputs are named, and not compared."""
    data = saved_with_data(with_class_number(), folder)
    done = bundled("--int8", "--target", target, model="odd.onnx", data=data)
    assert done.exit_code == 0, done.output
    with opened_bundle(folder / "app.bundle") as opened:
        assert [(given.name, given.dtype) for given in opened.bundle.inputs] == [("x", "float32"), ("n", kind)]
        assert [output.name for output in opened.bundle.outputs] == ["y"]
        assert opened.bundle.not_compared == ("k",)
        assert (opened.folder / "samples/000/input-1.bin").stat().st_size == 2 * np.dtype(kind).itemsize


def test_a_name_that_a_shell_cannot_hold_is_refused(folder: Path) -> None:
    """The tensor is named, and what to do; nothing is written."""
    model = with_class_number()
    model.graph.input[0].name = model.graph.node[0].input[0] = "x$(reboot)"
    data = saved_with_data(model, folder)
    for file in (folder / "data").iterdir():
        arrays = dict(np.load(file))
        np.savez(file, **{"x$(reboot)": arrays["x"], "n": arrays["n"]})
    done = bundled("--int8", "--target", "tensorrt@orin", model="odd.onnx", data=data)
    assert done.exit_code == 3, done.output
    assert "x$(reboot)" in done.output
    assert not (folder / "app.bundle").exists()


def test_answers_that_are_no_numbers_are_refused(folder: Path) -> None:
    """No engine can be judged by NaN."""
    model = with_class_number()
    del model.graph.output[1]
    del model.graph.node[4]
    model.graph.node[3].output[0] = "z"
    model.graph.node.extend([node("Log", "log", ["z"], "l"), node("Mul", "mul", ["l", "zero"], "y")])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    data = saved_with_data(model, folder)
    done = bundled("--target", "tensorrt@orin", model="odd.onnx", data=data)
    assert done.exit_code == 2, done.output
    assert "NaN or infinite" in done.output
    assert not (folder / "app.bundle").exists()


def test_a_missed_budget_is_told_by_the_exit_code(folder: Path) -> None:
    """As with `quantize`: the file is written, and the gate says no."""
    done = bundled("--int8", "--min-sqnr", "500", "--target", "tensorrt@orin", "--json")
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["search"]["verdict"] == "FAIL"
    assert (folder / "app.bundle").exists()
    assert not list(folder.glob(".*"))
