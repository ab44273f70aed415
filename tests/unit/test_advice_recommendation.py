"""The decision procedure of `trt-opt advise`: a table of situations, and what follows from each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_opt.advising import recommend
from trt_opt.advising.verdict import is_accurate
from trt_opt.backends.hardware import device_called, hardware_for
from trt_opt.errors import RequestError
from trt_opt.values.advice import (
    AdviceFacts,
    AdviceRequest,
    ComputeShare,
    Method,
    MethodFigures,
    SimulatedAccuracy,
)
from trt_opt.values.hardware import Hardware
from trt_opt.values.samples import DataProvenance
from trt_opt.values.target import target_from_text

SAMPLES = DataProvenance("calibration.npz", "0" * 64, 128)
EVALUATION = DataProvenance("test.npz", "1" * 64, 450)
RANDOM = replace(SAMPLES, source="random:8", random=True)

CONVOLUTIONS = ComputeShare(2_000_000_000, 1_900_000_000, 1_800_000_000, 10_000_000, 5_000_000, ())
PRODUCTS = ComputeShare(50_000_000, 50_000_000, 50_000_000, 50_000_000, 50_000_000, ())
NARROW = replace(CONVOLUTIONS, wide_macs=200_000_000)
UNKNOWN = ComputeShare(0, 0, 0, 0, 5_000_000, ())

EVERY_METHOD = ("static", "weights-only", "full-integer", "fp8")


def labelled(top1: float) -> SimulatedAccuracy:
    """An accuracy against labels, of a model that is right in 76 of 100 cases."""
    return SimulatedAccuracy(450, 0.76, top1, 0.9, 15.0, False)


def sqnr(decibels: float) -> SimulatedAccuracy:
    """An accuracy without classes."""
    return SimulatedAccuracy(450, None, None, None, decibels, False)


def row(method: Method, size: int | None, accuracy: SimulatedAccuracy | None, weights: str = "") -> MethodFigures:
    """A row of the table."""
    return MethodFigures(method, weights, method.upper(), size, accuracy, "" if size else "cannot: it has no layer")


GOOD = labelled(0.758)
BAD = labelled(0.70)


def figures(
    static: SimulatedAccuracy | None = GOOD,
    int8: SimulatedAccuracy | None = GOOD,
    int4: SimulatedAccuracy | None = BAD,
    fp8: SimulatedAccuracy | None = GOOD,
) -> tuple[MethodFigures, ...]:
    """All rows, with these accuracies."""
    return (
        row("fp32", 20_000_000, labelled(0.76)),
        row("fp16", 10_000_000, labelled(0.76)),
        row("static", 5_100_000, static),
        row("weights-only", 5_050_000, int8, "int8"),
        row("weights-only", 2_700_000, int4, "int4"),
        row("fp8", 5_100_000, fp8),
    )


def hardware(device: str | None = None, target: str | None = None) -> Hardware:
    """The hardware that --device and --target name."""
    return hardware_for(target_from_text(target) if target else None, device_called(device) if device else None)


def facts(device: str = "rtx-4090", *, target: str | None = None, edge: bool = False, **changes: object) -> AdviceFacts:
    """A convolutional network with data and labels whose static INT8 is good, but for what is changed."""
    request = AdviceRequest("net.onnx", target, device, "calibration.npz", "test.npz", edge=edge)
    whole = AdviceFacts(
        request=request,
        hardware=hardware(device, target),
        fp32_bytes=20_000_000,
        figures=figures(),
        compute=CONVOLUTIONS,
        methods=EVERY_METHOD,
        calibration=SAMPLES,
        evaluation=EVALUATION,
        has_labels=True,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


NO_DATA = {"calibration": None, "evaluation": None, "figures": figures(None, None, None, None)}
UNMEASURED = figures(None, None, None, None)
WEIGHT_BOUND = {"compute": PRODUCTS, "fp32_bytes": 200_000_000}
WITHOUT_STATIC = tuple(replace(entry, weight_bytes=None) if entry.method == "static" else entry for entry in figures())
ONLY_STATIC = figures()[:3]

SITUATIONS: dict[str, tuple[AdviceFacts, str, str]] = {
    "good static INT8": (facts(), "static", ""),
    "good static INT8 on a board": (facts("orin"), "static", ""),
    "INT8 by DP4A": (facts("gtx-1080"), "static", ""),
    "without labels, a good SQNR": (facts(figures=figures(sqnr(25.0))), "static", ""),
    "without labels, a bad SQNR": (facts("orin", figures=figures(sqnr(12.0))), "qat", ""),
    "SQNR NaN": (facts("orin", figures=figures(sqnr(float("nan")))), "qat", ""),
    "labels outweigh SQNR": (facts(figures=figures(replace(GOOD, sqnr_db=5.0))), "static", ""),
    "not simulated": (facts(figures=UNMEASURED), "static", ""),
    "no INT8: Nano": (facts("nano"), "fp16", ""),
    "no INT8: TX2": (facts("tx2"), "fp16", ""),
    "no INT8: Turing with TensorRT-RTX": (facts("t4", target="rtx:7.5"), "fp16", ""),
    "INT8 on a small part": (facts(compute=replace(CONVOLUTIONS, int8_macs=10, wide_macs=10)), "fp16", ""),
    "INT8 in narrow layers alone": (facts(compute=NARROW), "fp16", ""),
    "no layer for INT8": (facts(figures=WITHOUT_STATIC), "fp16", ""),
    "shapes unknown": (facts(compute=UNKNOWN), "static", ""),
    "no data": (facts(**NO_DATA), "weights-only", "int8"),
    "random data": (facts(calibration=RANDOM, evaluation=RANDOM, figures=figures(BAD, BAD)), "weights-only", "int8"),
    "no data, no weights-only": (facts(**{**NO_DATA, "figures": ONLY_STATIC}), "fp16", ""),
    "no calibration data, weights-only is bad": (facts(calibration=None, figures=figures(None, BAD)), "fp16", ""),
    "weight-bound, INT4 is bad": (facts(**WEIGHT_BOUND), "weights-only", "int8"),
    "weight-bound, INT4 is good": (facts(**WEIGHT_BOUND, figures=figures(int4=GOOD)), "weights-only", "int4"),
    "weight-bound, INT4 unmeasured": (facts(**{**NO_DATA, **WEIGHT_BOUND}), "weights-only", "int8"),
    "weight-bound, no INT4 there": (
        facts("xavier", **WEIGHT_BOUND, figures=figures(int4=GOOD)),
        "weights-only",
        "int8",
    ),
    "weight-bound, weights-only is bad": (facts(**WEIGHT_BOUND, figures=figures(int8=BAD)), "static", ""),
    "products of a large batch": (
        facts(**{**WEIGHT_BOUND, "compute": replace(PRODUCTS, weights=100_000)}),
        "static",
        "",
    ),
    "products that fit the cache": (facts(compute=PRODUCTS, fp32_bytes=4_000_000), "static", ""),
    "static misses, FP8 does not": (facts(figures=figures(BAD)), "fp8", ""),
    "static misses, FP8 is not there": (facts("rtx-3060", figures=figures(BAD)), "qat", ""),
    "static and FP8 miss": (facts(figures=figures(BAD, fp8=BAD)), "qat", ""),
    "static misses, FP8 unmeasured": (facts(figures=figures(BAD, fp8=None)), "qat", ""),
    "an engine for Ampere and Ada cannot be FP8": (
        facts(figures=figures(BAD), hardware=hardware(target="rtx:8.6+8.9")),
        "qat",
        "",
    ),
    "integers at both ends": (facts("orin", edge=True), "full-integer", ""),
    "integers at both ends, inaccurate": (facts("orin", edge=True, figures=figures(BAD)), "qat", ""),
    "integers at both ends, no such method": (facts("orin", edge=True, methods=("static",)), "static", ""),
    "integers at both ends, no INT8": (facts("nano", edge=True), "fp16", ""),
    "came quantised": (facts(came_quantized=True), "as-given", ""),
    "came quantised, no INT8 there": (facts("nano", came_quantized=True), "fp16", ""),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_has_its_method(situation: str) -> None:
    """The method, its weights, and reasons that are sentences."""
    given, method, weights = SITUATIONS[situation]
    found = recommend(given)
    assert (found.method, found.weights) == (method, weights)
    assert found.reasons
    assert all(reason.endswith(".") and reason[0].isupper() for reason in found.reasons), found.reasons
    assert found.command.startswith("trt-opt ")


def test_the_target_is_the_users() -> None:
    """Two points lost are too many for one point, and few enough for three."""
    given = facts("orin", figures=figures(labelled(0.74)))
    assert recommend(given).method == "qat"
    generous = replace(given, request=replace(given.request, target_drop=3.0))
    assert recommend(generous).method == "static"


@pytest.mark.parametrize(
    ("accuracy", "target", "is_enough"),
    [
        # 3 % of other answers may cost up to three points; a low SQNR as well says that they do.
        (SimulatedAccuracy(450, None, None, 0.97, 40.0, False), 4.0, True),
        (SimulatedAccuracy(450, None, None, 0.97, 40.0, False), 1.0, None),
        (SimulatedAccuracy(450, None, None, 0.97, 12.0, False), 1.0, False),
        # one answer of twenty is five points, and might be chance; one of five hundred is not lost too much
        (SimulatedAccuracy(20, 0.80, 0.75, 0.95, 12.0, False), 1.0, None),
        (SimulatedAccuracy(20, 0.80, 0.50, 0.70, 12.0, False), 1.0, False),
        (SimulatedAccuracy(500, 0.80, 0.798, 0.95, 12.0, False), 1.0, True),
        # better than the model, or equal to it, is enough
        (SimulatedAccuracy(20, 0.80, 0.85, 0.95, 12.0, False), 0.0, True),
        (SimulatedAccuracy(20, None, None, None, None, True), 0.0, True),
        (SimulatedAccuracy(20, None, None, None, None, False), 1.0, None),
        (SimulatedAccuracy(20, None, None, None, 20.0, False), 1.0, True),
        (SimulatedAccuracy(20, None, None, None, float("nan"), False), 1.0, False),
    ],
)
def test_a_miss_must_be_more_than_chance(accuracy: SimulatedAccuracy, target: float, is_enough: bool | None) -> None:
    """Few samples, or no labels, leave the question open; an open question does not call for training."""
    assert is_accurate(accuracy, target) is is_enough


def test_the_best_calibrator_is_advised_by_name() -> None:
    """Entropy misses and minmax does not: static INT8 with minmax, in reasons and command."""
    rows = (*figures(BAD), replace(row("static", 5_100_000, GOOD), calibrator="minmax"))
    found = recommend(facts("rtx-3060", figures=rows))
    assert found.method == "static"
    assert "--int8 --calibrator minmax " in found.command
    assert any("minmax calibrator" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (
            facts("rtx-3060"),
            "trt-opt build net.onnx --int8 --calib-data calibration.npz --eval-data test.npz --target rtx:8.6",
            None,
        ),
        (
            facts("orin"),
            "trt-opt bundle net.onnx -o net.static.bundle --int8 --calib-data calibration.npz --eval-data test.npz "
            "--target tensorrt:10.16@orin",
            "trt-opt build net.static.bundle",
        ),
        (
            facts("orin", target="tensorrt:8.6@orin"),
            "trt-opt bundle net.onnx -o net.static.bundle --int8 --calib-data calibration.npz --eval-data test.npz "
            "--target tensorrt:8.6@orin",
            "trt-opt build net.static.bundle",
        ),
        (
            facts(
                "orin",
                target="tensorrt:8.6@orin",
                request=AdviceRequest("net.onnx", "tensorrt:8.6@orin", None, "calibration.npz"),
            ),
            "trt-opt quantize net.onnx -o net.static.onnx --int8 --calib-data calibration.npz "
            "--target tensorrt:8.6@orin",
            "trtexec --onnx=net.static.onnx --saveEngine=net.static.engine --int8 --fp16",
        ),
        (
            facts("t4", request=AdviceRequest("net.onnx", "tensorrt:10.3", "t4", "calibration.npz")),
            "trt-opt quantize net.onnx -o net.static.onnx --int8 --calib-data calibration.npz "
            "--target tensorrt:10.3@t4",
            "trtexec --onnx=net.static.onnx --saveEngine=net.static.engine --stronglyTyped",
        ),
        (
            facts("t4", request=AdviceRequest("net.onnx", "tensorrt", None, "calibration.npz", "test.npz")),
            "trt-opt build net.onnx --int8 --calib-data calibration.npz --eval-data test.npz --target tensorrt",
            None,
        ),
        (
            facts("nano", **NO_DATA),
            "trt-opt quantize net.onnx -o net.fp16.onnx --no-int8 --fp16 --calib-data calibration.npz",
            "trtexec --onnx=net.fp16.onnx --saveEngine=net.fp16.engine --fp16",
        ),
        (
            facts(**WEIGHT_BOUND, figures=figures(int4=GOOD)),
            "trt-opt build net.onnx --quantization weights-only --weights int4 --calib-data calibration.npz "
            "--eval-data test.npz --target rtx:8.9",
            None,
        ),
        (facts("orin", figures=figures(BAD)), "trt-opt qat net.onnx -o net.qat --calib-data calibration.npz", None),
        (facts("nano", came_quantized=True), "trt-opt advise FLOAT_MODEL.onnx --device nano", None),
    ],
)
def test_the_command_is_complete(given: AdviceFacts, command: str, then: str | None) -> None:
    """What is printed can be pasted: data, target, and the flags the device's TensorRT needs."""
    found = recommend(given)
    assert (found.command, found.then) == (command, then)


def test_paths_with_spaces_are_quoted_and_random_data_are_not_passed_on() -> None:
    """A command must survive a shell; random numbers were good for the advice alone."""
    given = facts(calibration=RANDOM, evaluation=RANDOM)
    request = AdviceRequest("my net.onnx", device="rtx-4090", calib_data="random:8")
    command = recommend(replace(given, request=request)).command
    assert command == "trt-opt build 'my net.onnx' --quantization weights-only --weights int8 --target rtx:8.9"


@pytest.mark.parametrize(
    ("given", "caveat"),
    [
        (facts("rtx-3060"), "lists INT8 for the weights of matrix products alone"),
        (facts("t4"), "speed on the device was not measured here"),
        (facts("gtx-1080"), "without tensor cores"),
        (facts("orin"), "DLA"),
        (facts(**NO_DATA), "as stored or unpacked"),
        (facts("orin"), "JetPack 5.1 or 6.0"),
        (facts(compute=ComputeShare(10**6, 10**6, 10**6, 0, 10**5, ())), "launching kernels takes longer"),
        (facts(evaluation=replace(EVALUATION, samples=20)), "one answer is 5.0 points"),
        (facts(fp16_kept={"exp": "reaches 1e9"}), "1 layer stays FP32"),
        (facts(refused=("Unique 'u': no importer",)), "refuses 1 node"),
        (facts(compute=replace(CONVOLUTIONS, not_counted={"LSTM": 2})), "2 LSTM"),
        (facts(hardware=hardware(target="tensorrt")), "nobody said where"),
        (facts(edge=True, methods=("static",)), "no full-integer method"),
    ],
)
def test_what_was_not_measured_is_said(given: AdviceFacts, caveat: str) -> None:
    """Every caveat appears where it applies, and the plain case has none of the others."""
    assert any(caveat in entry for entry in recommend(given).caveats)
    plain = facts("h100")
    assert recommend(plain).caveats == ("speed on the device was not measured here: time it against FP16",)


@pytest.mark.parametrize("points", [-0.1, 101.0, float("nan")])
def test_a_target_must_be_points(points: float) -> None:
    """Between 0 and 100."""
    with pytest.raises(RequestError, match="points"):
        AdviceRequest("net.onnx", target_drop=points)
