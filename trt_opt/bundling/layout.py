"""Which files a bundle has, and how large those are that follow from its description."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from trt_opt.values.bundle import Bundle

SUMS = "SHA256SUMS"
DESCRIPTION = "bundle.json"
CONF = "build.conf"
MODEL = "model.onnx"
CACHE = "calibration.cache"
RECIPE = "recipe.toml"

MOST_SAMPLES = 999
"""Samples are numbered with three digits."""

MOST_TENSORS = 1000
"""Inputs, and outputs, that a bundle can number."""

ELEMENT_TYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "float32": np.dtype("<f4"),
        "float16": np.dtype("<f2"),
        "int64": np.dtype("<i8"),
        "int32": np.dtype("<i4"),
        "int8": np.dtype("<i1"),
        "uint8": np.dtype("<u1"),
        "bool": np.dtype("?"),
    }
)
"""The element types of inputs, as they lie in a sample's file."""

_NAME = re.compile(
    r"SHA256SUMS|bundle\.json|build\.conf|model\.onnx|calibration\.cache|recipe\.toml"
    r"|samples/\d{3}/(input-K\.bin|output-K\.(bin|txt)|quantised-K\.txt)".replace("K", r"(0|[1-9]\d{0,2})"),
    re.ASCII,
)


def is_known_name(name: str) -> bool:
    """Whether some bundle has a file of this name."""
    return _NAME.fullmatch(name) is not None


def input_file(sample: int, number: int) -> str:
    """What is fed: raw little-endian elements in C order."""
    return f"samples/{sample:03}/input-{number}.bin"


def output_file(sample: int, number: int, kind: str = "bin") -> str:
    """What the float model gives, as raw float32 ("bin") or as text ("txt")."""
    return f"samples/{sample:03}/output-{number}.{kind}"


def quantised_file(sample: int, number: int) -> str:
    """What the simulated quantised model gives, as text."""
    return f"samples/{sample:03}/quantised-{number}.txt"


def names_of(bundle: Bundle) -> tuple[str, ...]:
    """All files of a bundle but `SHA256SUMS`, sorted."""
    fixed = [DESCRIPTION, CONF, MODEL, RECIPE, *([CACHE] if bundle.precision == "int8-implicit" else [])]
    texts = [
        name
        for sample in range(bundle.samples)
        for number in range(len(bundle.outputs))
        for name in (output_file(sample, number, "txt"), quantised_file(sample, number))
    ]
    return tuple(sorted([*fixed, *texts, *(name for name, _ in sizes_of(bundle))]))


def sizes_of(bundle: Bundle) -> Iterator[tuple[str, int]]:
    """The sizes in bytes of the samples' raw files."""
    for sample in range(bundle.samples):
        for number, given in enumerate(bundle.inputs):
            yield input_file(sample, number), math.prod(given.shape) * ELEMENT_TYPES[given.dtype].itemsize
        for number, output in enumerate(bundle.outputs):
            yield output_file(sample, number), math.prod(output.shape) * 4


def sums_text(hashes: Mapping[str, str]) -> str:
    """`SHA256SUMS`: what `sha256sum -c` reads.

    Args:
        hashes: File name → SHA-256 in hexadecimal, in the archive's order.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
