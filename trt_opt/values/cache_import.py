"""What a TensorRT calibration cache covers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trt_opt.values.native_calibration import CacheRecord


@dataclass(frozen=True, slots=True)
class CacheCoverage:
    """How the ranges of a calibration cache met what a model's INT8 layers need.

    A tensor needed is in one of `exact`, `through`, `from_data` and `missing`; an entry of the cache that serves none
    of them is in one of `not_needed`, `unknown`, `unnamed` and `without_range`.

    Attributes:
        file: The cache.
        sha256: The hash of its content.
        version: The TensorRT that wrote it; None where its header does not tell.
        algorithm: "EntropyCalibration2", "MinMaxCalibration" …
        entries: How many tensors it names.
        exact: Tensors needed whose own range the cache holds.
        through: Tensor needed → the tensors of the cache whose range it took, beyond which its values cannot go.
        from_data: Tensors needed whose range came from calibration data.
        missing: Tensor needed that has no range → the layers that stay in float because of it.
        not_needed: Entries for tensors of the model that no INT8 layer needs.
        unknown: Entries whose name the model does not have.
        unnamed: Entries for tensors that TensorRT made itself: they have no name in an ONNX file.
        without_range: Entries with a scale that is none: 0, vanishing, infinite or NaN.
        layers: How many layers run in INT8.
        layers_possible: How many could, had every tensor a range.
        macs: Their share in all multiply-accumulates, 0 … 1; None where shapes are unknown.
        macs_possible: The same, had every tensor a range.
        far_from_data: Tensor → threshold of the cache divided by the largest magnitude in the calibration data, where
            the two are too far apart to be of the same network.
        record: What lies beside the cache and says that it was made for this model; None where nothing does.
    """

    file: str
    sha256: str
    version: str | None
    algorithm: str
    entries: int
    exact: tuple[str, ...]
    through: Mapping[str, tuple[str, ...]]
    from_data: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]
    not_needed: tuple[str, ...]
    unknown: tuple[str, ...]
    unnamed: tuple[str, ...]
    without_range: tuple[str, ...]
    layers: int
    layers_possible: int
    macs: float | None
    macs_possible: float | None
    far_from_data: Mapping[str, float] = field(default_factory=dict)
    record: CacheRecord | None = None

    @property
    def needed(self) -> int:
        """How many tensors need a range."""
        return self.covered + len(self.from_data) + len(self.missing)

    @property
    def covered(self) -> int:
        """How many of them got it from the cache."""
        return len(self.exact) + len(self.through)

    @property
    def unused(self) -> int:
        """How many entries of the cache served nothing."""
        return len(self.not_needed) + len(self.unknown) + len(self.unnamed) + len(self.without_range)

    @property
    def header(self) -> str:
        """What the cache says of itself, in words."""
        return f"{self.algorithm}, TensorRT {self.version or 'of unknown version'}"

    @property
    def layers_in_float(self) -> tuple[str, ...]:
        """The layers that could run in INT8 and do not, each once."""
        return tuple(dict.fromkeys(layer for layers in self.missing.values() for layer in layers))
