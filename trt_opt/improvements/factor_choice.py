"""The factors that balance a group's channels between activations and the weights that read them."""

from __future__ import annotations

import numpy as np

from trt_opt.improvements.channel_flow import ChannelFlow, ConstantUse
from trt_opt.improvements.channel_groups import Group
from trt_opt.improvements.channel_unknowns import Floats
from trt_opt.sensitivity.layers import QuantizedLayer

MIGRATION_STRENGTHS = (1.0, 0.75, 0.5, 0.25)
"""How much of the unevenness goes into the weights (SmoothQuant's alpha)."""

LARGEST_FACTOR = 2.0**8
"""Channels that INT8 rounds to zero altogether are not raised any further: a channel that is silent on these data may
be loud on others."""

SMALLEST_WEIGHT_SHARE = 2.0**-8


def balanced_factors(flow: ChannelFlow, group: Group, strength: float) -> Floats:
    """Factors by SmoothQuant's rule s = r^a / w^(1-a), as powers of two, which change no mantissa.

    r is the channel's range and w the magnitude of the weights that read it, both as shares of the largest that has
    the same scale: in a depthwise layer, where each weight scale serves one channel, w is 1 throughout and s = r^a.
    The factors are moved together so that the tensor's range stays.

    Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
    2022, equation 4.

    Args:
        flow: The walked graph.
        group: What is to be balanced.
        strength: a, from 0 (nothing moves) to 1 (all ranges become equal).

    Returns:
        float64 [unknowns], 1 outside the group.
    """
    ranges, weights = np.zeros(flow.unknowns.count), np.zeros(flow.unknowns.count)
    for reading in group.readings:
        np.maximum.at(ranges, reading.ids.reshape(-1), reading.relative.reshape(-1))
        for use in weight_uses(flow, reading.layer, exponent=1):
            ids, shares = _weight_shares(flow, use, reading.layer)
            np.maximum.at(weights, ids, shares)
    factors = np.ones(flow.unknowns.count)
    roots = group.roots[ranges[group.roots] > 0]
    if not roots.size:
        return factors
    inverse = np.maximum(weights[roots], SMALLEST_WEIGHT_SHARE) ** (1 - strength)
    wanted = ranges[roots] ** strength / np.where(weights[roots] > 0, inverse, 1.0)
    wanted = wanted * (ranges[roots] / wanted).max()
    wanted = np.clip(wanted, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    factors[roots] = _power_of_two(wanted)
    return factors


def weight_uses(flow: ChannelFlow, layer: QuantizedLayer, *, exponent: int) -> list[ConstantUse]:
    """Where a layer's quantised weights take up the factors of its input (1) or its output (-1)."""
    return [
        use
        for use in flow.uses
        if use.node == layer.node and use.position in layer.weights and use.exponent == exponent
    ]


def _weight_shares(flow: ChannelFlow, use: ConstantUse, layer: QuantizedLayer) -> tuple[np.ndarray, np.ndarray]:
    """Unknowns, and the magnitudes of the weights that read them as shares of the largest with the same scale."""
    quantizer = layer.weights[use.position]
    values = np.abs(np.asarray(flow.index.constant(quantizer.tensor), np.float64))
    others = tuple(axis for axis in range(values.ndim) if axis != quantizer.axis)
    largest = values.max(axis=others if quantizer.axis is not None else None, keepdims=True)
    shares = values / np.where(largest > 0, largest, 1.0)
    ids = np.broadcast_to(flow.unknowns.roots(use.ids), values.shape)
    return ids.reshape(-1), shares.reshape(-1)


def _power_of_two(factors: Floats) -> Floats:
    """The nearest, by ratio."""
    return np.asarray(2.0 ** np.rint(np.log2(factors)), np.float64)
