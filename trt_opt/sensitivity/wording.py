"""Numbers in sentences."""

from __future__ import annotations


def percent_text(share: float) -> str:
    """A share in per cent, never rounded to none or all: "4 %", "0.02 %", "99.99 %"."""
    value = 100 * share
    if 0 < value < 0.001:
        return "less than 0.001 %"
    if 99.99 < value < 100:
        return "more than 99.99 %"
    return f"{value:.4g} %" if value >= 99 else f"{value:.2g} %"


def number_text(value: float) -> str:
    """Three digits: "0.031", "4260", "1.5e6"."""
    if 1000 <= abs(value) < 99_950:
        return f"{float(f'{value:.3g}'):.0f}"
    mantissa, mark, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa
