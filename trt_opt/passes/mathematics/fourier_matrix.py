"""The discrete Fourier transform as a matrix of real numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_ELEMENTS = 1 << 24
"""A transform whose matrix is larger (64 MiB in float32) is not written as one; 4096 real samples, one-sided, fit."""

WIDENED = frozenset({"float16", "bfloat16"})
"""Types in which sums over a whole signal lose too much; they are computed in float32."""


@dataclass(frozen=True)
class FourierTransform:
    """A transform of signals of `samples` numbers, as ONNX's DFT defines it.

    Attributes:
        samples: How many numbers it reads along the axis.
        parts: 1 for real numbers, 2 for pairs of real and imaginary part.
        length: Of the transform; the signal is cut or padded with zeros to it.
        inverse: From the frequencies to the signal, divided by the length.
        onesided: Frequencies of a real signal, of which one half says all.
    """

    samples: int
    parts: int
    length: int
    inverse: bool = False
    onesided: bool = False

    @property
    def bins(self) -> int:
        """How many numbers it makes."""
        return self.length // 2 + 1 if self.onesided and not self.inverse else self.length

    @property
    def parts_made(self) -> int:
        """1 where the result is real, 2 where it is complex."""
        return 1 if self.onesided and self.inverse else 2

    @property
    def elements(self) -> int:
        """Of the matrix."""
        return self.samples * self.parts * self.bins * self.parts_made

    def matrix(self) -> NDArray[np.float64]:
        """The matrix `[samples * parts, bins * parts_made]`, whose rows are the transforms of single ones."""
        rows = self.samples * self.parts
        units = np.eye(rows).reshape(rows, self.samples, self.parts)
        signals = units[..., 0] if self.parts == 1 else units[..., 0] + 1j * units[..., 1]
        if self.inverse and self.onesided:
            return np.asarray(np.fft.irfft(signals, self.length), np.float64)
        transform = np.fft.ifft if self.inverse else np.fft.fft
        made = transform(signals, self.length)[:, : self.bins]
        return np.stack([made.real, made.imag], axis=-1).reshape(rows, self.bins * 2)
