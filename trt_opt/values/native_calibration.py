"""What TensorRT's own calibration rests on, and what a calibration cache belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from trt_opt.values.samples import DataProvenance


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """What a calibration cache belongs to; lies beside it as `x.cache.json`, because the cache itself does not say.

    Attributes:
        bytes: The cache's size.
        sha256: The hash of its content.
        model_sha256: The fingerprint of the float graph whose tensors the cache names.
        data: The samples the ranges come from; its hash covers their content and the preprocessing.
        algorithm: Who chose the ranges, and how: "native-entropy", or the text of one of our calibrators.
        tensorrt: The version of TensorRT that wrote the cache, or that it was written for.
        batch_size: How many samples TensorRT saw at a time; 1 where it saw none.
        source_sha256: The fingerprint of the model as it came, which stays the same whatever the target wants
            rewritten; empty where it was not recorded.
    """

    bytes: int
    sha256: str
    model_sha256: str
    data: DataProvenance
    algorithm: str
    tensorrt: str
    batch_size: int = 1
    source_sha256: str = ""


@dataclass(frozen=True, slots=True)
class StoredBatches:
    """The batches that were laid down for TensorRT's calibrator.

    Attributes:
        inputs: The graph inputs in the files' order: the array of the first is `input-0`.
        batches: How many files there are.
        samples: How many samples are in them, each counted once.
        repeated: How many samples, from the front, stand a second time in the last batch to fill it.
        batch_size: How many samples each batch holds.
        shapes: The shape that every batch's array has, input by input.
    """

    inputs: tuple[str, ...]
    batches: int
    samples: int
    repeated: int
    batch_size: int
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class NativeCalibration:
    """How an engine with implicit quantisation got its ranges.

    Attributes:
        algorithm: "native-entropy", "native-minmax", or the calibrator whose cache TensorRT read.
        batches: How many batches TensorRT calibrated with; 0 where it read a cache.
        samples: How many samples were in them, each counted once.
        repeated: How many of them TensorRT saw twice.
        batch_size: How many samples a batch holds.
        from_cache: Whether TensorRT read a cache instead of calibrating.
        record: What the cache belongs to; None where none was read or written.
        warnings: What the user should know, one sentence each.
    """

    algorithm: str
    batches: int
    samples: int
    repeated: int
    batch_size: int
    from_cache: bool
    record: CacheRecord | None = None
    warnings: tuple[str, ...] = ()
