"""The number formats that quantised tensors are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.values.placement import FormatName


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """Numbers that a scale is multiplied with.

    Attributes:
        name: As decisions and tensor names call it.
        element_type: ONNX's.
        lowest: The most negative number that weights use.
        largest: The largest number: a threshold divided by it is the scale.
        mantissa_bits: Of a floating-point format, without the leading one; None for integers.
        least_exponent: Of a floating-point format's normal numbers.
    """

    name: FormatName
    element_type: int
    lowest: int
    largest: int
    mantissa_bits: int | None = None
    least_exponent: int = 0

    def rounded(self, numbers: NDArray[np.floating]) -> NDArray[np.float32]:
        """The nearest numbers of the format, ties to even as QuantizeLinear rounds, what is beyond its ends cut off."""
        wide = np.asarray(numbers, np.float32)
        if self.mantissa_bits is not None:
            step = np.exp2(self._exponents(wide) - self.mantissa_bits).astype(np.float32)
            wide = np.rint(wide / step) * step
        cut: NDArray[np.float32] = np.clip(np.rint(wide) if self.mantissa_bits is None else wide, *self.ends)
        return cut

    @property
    def ends(self) -> tuple[np.float32, np.float32]:
        """The lowest and the largest number."""
        return np.float32(self.lowest), np.float32(self.largest)

    def tensor(self, numbers: NDArray[np.float32], name: str) -> onnx.TensorProto:
        """An initialiser of these numbers, which the format must hold exactly."""
        made = TensorProto(name=name, data_type=self.element_type, dims=numbers.shape)
        made.raw_data = self._bytes(numbers.ravel()).tobytes()
        return made

    def _bytes(self, numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
        if self.mantissa_bits is not None:
            return self._float_codes(numbers)
        codes = np.frombuffer(numbers.astype(np.int8).tobytes(), np.uint8)
        if self.element_type != TensorProto.INT4:
            return codes
        # Two to a byte, the first in the low half (ONNX's TensorProto.raw_data).
        halves = np.append(codes, np.zeros(codes.size % 2, np.uint8)) & 0xF
        return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8)

    def _float_codes(self, numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Sign, exponent and mantissa; below the least exponent the leading one is missing and counts as zero."""
        bits = self.mantissa_bits or 0
        exponents = self._exponents(numbers)
        mantissas = np.abs(numbers) / np.exp2(exponents - bits)
        codes = (exponents - self.least_exponent) * 2**bits + mantissas + 128 * np.signbit(numbers)
        return np.asarray(codes).astype(np.uint8)

    def _exponents(self, numbers: NDArray[np.float32]) -> NDArray[np.int32]:
        """The powers of two below the magnitudes, not under the least one."""
        exponents = np.frexp(numbers)[1] - 1
        kept: NDArray[np.int32] = np.where(
            numbers == 0, self.least_exponent, np.maximum(exponents, self.least_exponent)
        )
        return kept


INT8 = NumberFormat("int8", TensorProto.INT8, -127, 127)
"""Symmetric; activations may reach -128, which costs nothing, weights never do."""

INT4 = NumberFormat("int4", TensorProto.INT4, -8, 7)
"""All 16 numbers are used: which threshold is best is searched for, see `blocks`."""

FP8 = NumberFormat("fp8", TensorProto.FLOAT8E4M3FN, -448, 448, mantissa_bits=3, least_exponent=-6)
"""E4M3FN (Micikevicius et al. 2022, "FP8 Formats for Deep Learning"): no infinity, steps of 2^-9 at zero."""

FORMATS: Mapping[FormatName, NumberFormat] = MappingProxyType({entry.name: entry for entry in (INT8, INT4, FP8)})
"""By name."""
