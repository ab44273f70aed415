"""What one version of TensorRT can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TensorRTSupport:
    """A row of the capability table; it holds from `first` until the next row.

    Attributes:
        first: The version the row begins with.
        explicit_batch_flag: Whether a network for the ONNX parser needs the flag EXPLICIT_BATCH.
        precision_flags: Whether the builder has FP16 and INT8 flags, and layers have a precision.
        strongly_typed: Whether the types of the graph's tensors bind the builder: "no", with the network's "flag", or
            "always".
        int8_calibrators: Whether it calibrates by itself and reads calibration caches.
        optimization_level: Whether the builder's effort can be chosen.
        version_compatible: Whether engines can be built that newer versions run.
        hardware_compatible: Whether engines can be built that run on newer GPUs (Ampere and later).
        progress_monitor: Whether a build tells how far it is, and can be stopped.
        parser_names_nodes: Whether the parser's errors carry the node.
        dla: Whether it builds for Deep Learning Accelerators.
        newest_opset: The newest opset its parser is documented for; None where nobody says.
    """

    first: str
    explicit_batch_flag: bool
    precision_flags: bool
    strongly_typed: Literal["no", "flag", "always"]
    int8_calibrators: bool
    optimization_level: bool
    version_compatible: bool
    hardware_compatible: bool
    progress_monitor: bool
    parser_names_nodes: bool
    dla: bool
    newest_opset: int | None = None

    @property
    def binds_types(self) -> bool:
        """Whether the graph's types can decide every precision; older versions want builder flags beside Q/DQ pairs."""
        return self.strongly_typed != "no"
