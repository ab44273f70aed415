"""What became of a model that came quantised, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trt_opt.values.changes import Change, Decline

ZeroPoints = Literal["fold", "regrid"]
"""What becomes of zero-points: "fold" keeps every grid and moves its zero-point into the floats around it, "regrid"
chooses a symmetric grid in its place."""

Becomes = Literal["kept", "folded", "regridded", "float"]
"""The pair stays as it is; keeps its scale, its zero-point is gone; has another scale; is gone."""


@dataclass(frozen=True, slots=True)
class ImportedTensor:
    """A quantised activation of the source and what stands for it now.

    Attributes:
        tensor: The dequantised tensor in the normal form of the source.
        scale: The source's step.
        zero_point: The source's zero-point, in its own type.
        dtype: The source's type: "int8", "uint8", "int16", "uint16".
        becomes: What became of the pair.
        new_scale: The step now; None where the pair is gone.
        offset: What `now` is larger by than `tensor`: `tensor` is about `now - offset`.
        now: The tensor in the new model.
        pads: What was padded at `now` and is no part of `tensor`: begin of each spatial axis, then end of each.
        sqnr_db: 10·log10(Σ tensor² / Σ (tensor - (now - offset))²) over all samples, against the source's normal form;
            None where they are equal, or nothing was measured.
        own_sqnr_db: The same where every layer is fed what the source's layer was fed: what this one alone costs. A
            step that rounds the other way is repeated and multiplied by all layers behind it, which `sqnr_db` shows.
    """

    tensor: str
    scale: float
    zero_point: int
    dtype: str
    becomes: Becomes
    new_scale: float | None
    offset: float
    now: str
    pads: tuple[int, ...] = ()
    sqnr_db: float | None = None
    own_sqnr_db: float | None = None

    @property
    def lost_bits(self) -> float:
        """How much coarser the grid became, in bits."""
        return 0.0 if self.new_scale is None else max(0.0, math.log2(self.new_scale / self.scale))


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """Quantised weights of the source.

    Attributes:
        tensor: The dequantised weights.
        becomes: "kept" as they are, "folded" (the zero-point subtracted, exactly), or "regridded".
        sqnr_db: What re-gridding costs; None where nothing is lost.
    """

    tensor: str
    becomes: Becomes
    sqnr_db: float | None = None


@dataclass(frozen=True, slots=True)
class ImportedOutput:
    """An output of the new model against the source's.

    Attributes:
        name: The output.
        sqnr_db: Over all samples; None where they are equal, or the source gives zeros alone; NaN where they cannot be
            compared.
        largest_error: The largest absolute difference.
        unequal: Share of elements that differ, 0 … 1.
        top1_agreement: Share of rows with the same largest element; None where the output gives no classes.
    """

    name: str
    sqnr_db: float | None
    largest_error: float
    unequal: float
    top1_agreement: float | None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How a quantised model was brought into the form that TensorRT takes.

    Attributes:
        kinds: What the source was quantised with: "QDQ", "QOperator", …
        zero_points: What was asked for.
        tensors: The quantised activations.
        weights: The quantised weights.
        outputs: How far the outputs are from the source's; empty where nothing was run.
        changed: What was done, node by node.
        declined: What was left alone, and why.
        samples: On how many samples both were run.
        made_up: Whether these are made-up numbers.
        by_reference: Whether onnx's reference implementation ran the source, because ONNX Runtime's kernels are
            inexact.
        notes: What else is worth knowing.
        undone: Why the source was kept in place of the result; None where it was not.
    """

    kinds: tuple[str, ...]
    zero_points: ZeroPoints
    tensors: tuple[ImportedTensor, ...] = ()
    weights: tuple[ImportedWeights, ...] = ()
    outputs: tuple[ImportedOutput, ...] = ()
    changed: tuple[Change, ...] = ()
    declined: tuple[Decline, ...] = ()
    samples: int = 0
    made_up: bool = False
    by_reference: bool = False
    notes: tuple[str, ...] = ()
    undone: str | None = None

    def count(self, becomes: Becomes) -> int:
        """How many activations became this."""
        return sum(1 for entry in self.tensors if entry.becomes == becomes)

    @property
    def sqnr_db(self) -> float | None:
        """The worst output's; NaN where one cannot be compared, None where all are equal or nothing was run."""
        found = [entry.sqnr_db for entry in self.outputs if entry.sqnr_db is not None]
        return min(found, key=lambda value: -math.inf if math.isnan(value) else value, default=None)
