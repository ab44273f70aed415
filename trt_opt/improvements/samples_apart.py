"""The samples that a change is chosen with, and those that it is judged by."""

from __future__ import annotations

from itertools import islice

from trt_opt.values.samples import Dataset, Sample

MOST_SAMPLES = 32
"""Which channels are small, and what that costs, is known from few samples."""

FEWEST_TO_SPLIT = 4


def samples_apart(data: Dataset) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Every other sample to choose with, the rest to judge by; all for both where there are fewer than four.

    A range that holds on the samples it was taken from alone then shows as clipping.
    """
    samples = tuple(islice(data, MOST_SAMPLES))
    return (samples, samples) if len(samples) < FEWEST_TO_SPLIT else (samples[::2], samples[1::2])
