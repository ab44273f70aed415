"""The capability table: complete, consistent, and looked up by target and name."""

from __future__ import annotations

import pytest

from trt_opt.backends.hardware import compute_supports, device_called, devices, hardware_for
from trt_opt.errors import RequestError, TargetError
from trt_opt.values.hardware import Hardware, numbers_of
from trt_opt.values.target import RTX_CAPABILITIES, target_from_text


def on(device: str | None, target: str | None = None) -> Hardware:
    """The hardware that --device and --target name."""
    return hardware_for(target_from_text(target) if target else None, device_called(device) if device else None)


def test_every_target_capability_of_tensorrt_rtx_is_in_the_table() -> None:
    """TensorRT-RTX lists FP16 for exactly the compute capabilities it builds for."""
    listed = {name for name, entry in compute_supports().items() if "fp16" in entry.tensorrt_rtx}
    assert listed == {f"{major}.{minor}" for major, minor in RTX_CAPABILITIES}


def test_every_field_has_one_of_its_values() -> None:
    """A slip of the pen in the table shows here."""
    for entry in compute_supports().values():
        assert entry.fp16 in ("fast", "slow")
        assert entry.int8 in ("tensor cores", "DP4A", "no")
        assert all(isinstance(flag, bool) for flag in (entry.bf16, entry.int4_weights, entry.fp8, entry.fp4))
        assert set(entry.tensorrt_rtx) <= {"fp16", "bf16", "int8 weights", "int4 weights", "fp8", "fp4"}
        first, last = entry.tensorrt
        assert numbers_of(first) <= numbers_of(last or "99.0")


def test_what_tensorrt_rtx_lists_the_hardware_can_do() -> None:
    """The two columns do not contradict each other."""
    for entry in compute_supports().values():
        has = {"bf16": entry.bf16, "int4 weights": entry.int4_weights, "fp8": entry.fp8, "fp4": entry.fp4}
        has["int8 weights"] = entry.int8 != "no"
        assert all(has[kind] for kind in entry.tensorrt_rtx if kind in has)


def test_newer_architectures_can_do_what_older_ones_can() -> None:
    """FP4 comes with FP8, FP8 and INT4 weights with INT8 tensor cores."""
    for entry in compute_supports().values():
        assert entry.fp8 or not entry.fp4
        assert entry.int8 == "tensor cores" or not (entry.fp8 or entry.int4_weights)


def test_every_device_has_a_known_capability_and_a_tensorrt_that_supports_it() -> None:
    """No board or card points into the void, and no JetPack brings a TensorRT that does not support its board."""
    for device in devices().values():
        first, last = compute_supports()[device.capability].tensorrt
        for version in device.jetpack.values():
            assert numbers_of(first) <= numbers_of(version) <= numbers_of(last or "99.0"), device.name


@pytest.mark.parametrize(
    ("device", "fp16", "int8", "fp8", "dla"),
    [
        ("nano", True, False, False, False),
        ("tx2", True, False, False, False),
        ("xavier", True, True, False, True),
        ("orin", True, True, False, True),
        ("orin-nano", True, True, False, False),
        ("thor", True, True, True, False),
        ("gtx-1080", False, True, False, False),
        ("t4", True, True, False, False),
        ("l4", True, True, True, False),
        ("h100", True, True, True, False),
    ],
)
def test_boards_and_cards(device: str, fp16: bool, int8: bool, fp8: bool, dla: bool) -> None:
    """What users most need to know of the best-known devices."""
    found = on(device)
    assert (found.has_fast_fp16, found.has_int8, found.has_fp8, found.dla) == (fp16, int8, fp8, dla)


def test_an_old_tensorrt_takes_neither_fp8_nor_int4() -> None:
    """Orin could with the TensorRT of JetPack 6.2, and cannot with that of 5.1."""
    assert on("orin").has_int4_weights
    assert not on(None, "tensorrt:8.5@orin").has_int4_weights


def test_the_library_follows_from_the_device() -> None:
    """TensorRT-RTX where it lists more than FP16, TensorRT elsewhere, in its newest version for the board."""
    assert (on("rtx-3060").library, on("t4").library, on("h100").library) == ("TensorRT-RTX", "TensorRT", "TensorRT")
    assert (on("nano").version, on("orin").version, on("gtx-1080").version) == ("8.2", "10.16", "8.6")
    assert on("h100").version is None


def test_several_capabilities_have_what_all_of_them_have() -> None:
    """An engine for 8.6 and 8.9 cannot be FP8; one for 8.9 alone can."""
    assert not on(None, "rtx:8.6+8.9").has_fp8
    assert on(None, "rtx:8.9").has_fp8


def test_turing_has_int8_in_tensorrt_and_not_in_tensorrt_rtx() -> None:
    """The same card, two libraries."""
    assert on("t4").has_int8
    assert not on("t4", "rtx:7.5").has_int8


def test_unknown_hardware_is_not_refused_int8() -> None:
    """`--target tensorrt` says nothing of the GPU: INT8 is assumed, FP8 is not."""
    found = on(None, "tensorrt")
    assert (found.is_known, found.has_int8, found.has_fp8) == (False, True, False)


@pytest.mark.parametrize("written", ["RTX 3060", "rtx_3060", " rtx-3060 "])
def test_names_are_read_as_people_write_them(written: str) -> None:
    """Spaces, underscores and capitals do not matter."""
    assert device_called(written).title == "GeForce RTX 3060"


@pytest.mark.parametrize(
    ("written", "hint"), [("orin-nana", "orin-nano"), ("rtx3060", "rtx-3060"), ("??", "nano, tx2")]
)
def test_an_unknown_device_names_the_closest(written: str, hint: str) -> None:
    """A slip costs one look at the message."""
    with pytest.raises(RequestError, match=hint):
        device_called(written)


@pytest.mark.parametrize(
    ("device", "target", "message"),
    [
        ("h100", "rtx:8.6", "compute capability 9.0"),
        ("orin", "tensorrt:8.5@xavier", "not for Jetson AGX Orin"),
        (None, "tensorrt:10.3@nano", "TensorRT 8.0 to 8.2"),
        ("thor", "tensorrt:8.6", "10.13 or later"),
    ],
)
def test_target_and_device_must_fit(device: str | None, target: str, message: str) -> None:
    """What cannot run there is said before anything is measured."""
    with pytest.raises(TargetError, match=message):
        on(device, target)
