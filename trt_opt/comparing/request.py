"""What a comparison of models was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from trt_opt.compare import Limits
from trt_opt.values.timing import TimingSettings

QUICK = TimingSettings(rounds=10, round_s=0.1, warm_up_s=5.0)
"""How sides are timed beside their accuracy: enough to tell 1.7 from 1, not 1.02 from 1."""


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """What `trt-opt compare` was asked for; the fields are its options.

    Attributes:
        files: The reference, then every candidate: ONNX files, engines, or folders of the engine store.
        data: The samples, with labels if there are any.
        preprocess: How images become inputs.
        limits: The bounds of the verdict, and the metric.
        layerwise: Whether inner tensors are compared too, where both sides are ONNX graphs.
        threshold_db: The SQNR below which an inner tensor has parted; None for the least SQNR of `limits`, or else
            the default.
        timing: How the sides are timed; None where they are not.
        pythons: Interpreters with TensorRT, one for each version that engines want.
        command: The arguments, for repeating it.
    """

    files: tuple[str, ...]
    data: str
    preprocess: str | None = None
    limits: Limits = field(default_factory=Limits)
    layerwise: bool = False
    threshold_db: float | None = None
    timing: TimingSettings | None = QUICK
    pythons: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
