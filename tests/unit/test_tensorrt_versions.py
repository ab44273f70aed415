"""The capability table of TensorRT's versions; tests/contract holds it against NVIDIA's bindings."""

from __future__ import annotations

import pytest

from trt_opt.backends.hardware import devices
from trt_opt.backends.tensorrt_versions import TENSORRT_RTX, rows, support_of
from trt_opt.errors import TargetError
from trt_opt.values.hardware import numbers_of


@pytest.mark.parametrize(
    ("version", "row"),
    [
        ("8.5", "8.5"),
        ("8.5.3.1", "8.5"),
        ("8.6.1", "8.6"),
        ("10", "10.0"),
        ("10.3.0", "10.0"),
        ("10.16.1.11", "10.8"),
        ("11.4.0.106", "11.0"),
        ("11.4.1", "11.4.1"),
        ("12.0", "11.4.1"),
    ],
)
def test_a_version_has_the_row_it_falls_into(version: str, row: str) -> None:
    """Rows hold until the next begins."""
    assert support_of(version).first == row


def test_too_old_a_version_is_refused() -> None:
    """JetPack 4's TensorRT 8.2 is told what is needed."""
    with pytest.raises(TargetError, match=r"8\.2 is too old.*\n.*8\.5"):
        support_of("8.2")


def test_rows_are_in_order_and_every_board_finds_one() -> None:
    """No row is reached by nobody, and each JetPack from 5 on has one."""
    firsts = [numbers_of(row.first) for row in rows()]
    assert firsts == sorted(set(firsts))
    versions = {version for device in devices().values() for version in device.jetpack.values()}
    for version in versions - {"8.2"}:
        support_of(version)


def test_types_bind_where_flags_are_gone() -> None:
    """A version without precision flags is strongly typed always, and has no calibrators."""
    for row in (*rows(), *rows(TENSORRT_RTX)):
        if not row.precision_flags:
            assert row.strongly_typed == "always"
            assert not row.int8_calibrators
        assert row.precision_flags or not row.explicit_batch_flag
