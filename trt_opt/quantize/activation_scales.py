"""The scale of every quantiser on an activation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trt_opt.errors import StaleError
from trt_opt.quantize.number_format import FORMATS, NumberFormat
from trt_opt.quantize.scales import scale_of
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement

SHARE_WITHIN = 0.5
"""A tensor that needs two scales takes the larger for both if the smaller is at least half of it: one bit at most."""


def activation_scales(
    placement: Placement, ranges: Mapping[str, TensorRange], *, fp16: bool
) -> dict[tuple[str, str], np.float32]:
    """(tensor, tensor whose range it takes) → scale, for every quantiser of a placement.

    Where one tensor needs two close scales, its own gives way to the larger. Walked from the outputs to the inputs, so
    that what shares the scale of a later tensor follows it.

    Args:
        placement: Where the quantisers are.
        ranges: The calibrated ranges.
        fp16: Whether scales must be exact in FP16.

    Raises:
        StaleError: A range is missing.
    """
    number_format = FORMATS[placement.activation_format]
    of_range = {
        quantizer.range_of: _scale(quantizer.range_of, ranges, number_format, fp16=fp16)
        for quantizer in placement.activations
    }
    rivals: dict[str, list[str]] = {}
    for quantizer in placement.activations:
        rivals.setdefault(quantizer.tensor, []).append(quantizer.range_of)
    for tensor, names in reversed(rivals.items()):
        largest = max(of_range[name] for name in names)
        if tensor in names and of_range[tensor] >= SHARE_WITHIN * largest:
            of_range[tensor] = largest
    return {(quantizer.tensor, quantizer.range_of): of_range[quantizer.range_of] for quantizer in placement.activations}


def _scale(tensor: str, ranges: Mapping[str, TensorRange], number_format: NumberFormat, *, fp16: bool) -> np.float32:
    found = ranges.get(tensor)
    if found is None or found.amax is None:
        raise StaleError(
            "the calibration table has no range for this tensor",
            where=tensor,
            hint="calibrate again: the table was made for other layers",
        )
    return scale_of(found.amax, fp16=fp16, number_format=number_format)
