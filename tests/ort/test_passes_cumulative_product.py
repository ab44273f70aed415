"""CumProd as products over a triangle."""

from __future__ import annotations

import numpy as np
import pytest
from passes_models import applied, model_of, operators, refused_by

from trt_opt.passes.mathematics.unroll_cumulative_product import UnrollCumulativeProduct
from trt_opt.values.samples import Sample


def cumprod(axis: str = "a", dtype: str = "float", **attributes: int) -> str:
    """A graph of one CumProd."""
    told = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    return f"g ({dtype}[2,3,4] x) => ({dtype}[2,3,4] y) {{ y = CumProd{f'<{told}>' if told else ''}(x, {axis}) }}"


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative_product_keeps_its_numbers(axis: int, exclusive: int, reverse: int) -> None:
    """Every axis, direction and kind gives the numbers of the specification."""
    model = model_of(cumprod(exclusive=exclusive, reverse=reverse), opset=26, ir_version=11, a=np.int64(axis))
    after, report = applied(UnrollCumulativeProduct(), model)
    assert operators(after) == {"Unsqueeze": 1, "Where": 1, "ReduceProd": 1}
    assert len(report.changed) == 1


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_cumulative_product_of_runtime_axis_is_selected(axis: int) -> None:
    """An axis that is a graph input stays one: the products along every axis are computed, one is selected."""
    text = "g (int32[2,3,4] x, int32 a) => (int32[2,3,4] y) { y = CumProd<exclusive = 1>(x, a) }"
    model = model_of(text, opset=26, ir_version=11)
    feed = {"x": np.arange(24, dtype=np.int32).reshape(2, 3, 4) % 5, "a": np.asarray(axis, np.int32)}
    after, _ = applied(UnrollCumulativeProduct(), model, [Sample("axis", feed)])
    assert operators(after) == {"Unsqueeze": 3, "Where": 5, "ReduceProd": 3, "Mod": 1, "Equal": 2}


def test_cumulative_product_along_dynamic_axis_is_declined() -> None:
    """Where the axis may be one of unknown length, the report says how to fix the axis."""
    text = "g (float[N,3] x, int64 a) => (float[N,3] y) { y = CumProd(x, a) }"
    after, report = UnrollCumulativeProduct().run(model := model_of(text, opset=26, ir_version=11))
    assert after is model
    assert "--freeze-input a=" in report.declined[0].why


@pytest.mark.rtx
def test_cumulative_product_becomes_buildable() -> None:
    """TensorRT-RTX refuses the operator and takes what the pass writes."""
    model = model_of(cumprod(), opset=26, ir_version=11, a=np.int64(1))
    assert refused_by(model)
    assert not refused_by(UnrollCumulativeProduct().run(model)[0])
