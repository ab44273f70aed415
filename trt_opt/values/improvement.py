"""What a rewrite gained that makes a model lose less in INT8."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gain:
    """One layer before and after.

    Attributes:
        node: The layer.
        what: What was changed, in a few words: "3 of 64 channels scaled by up to 40".
        before_db: SQNR at the layer's output with the layer in INT8 and its inputs as in the float model, dB, on
            calibration samples that the change was not fitted to where there are enough; None without an error.
        after_db: The same afterwards.
    """

    node: str
    what: str
    before_db: float | None
    after_db: float | None


@dataclass(frozen=True, slots=True)
class Declined:
    """One layer that was left as it is.

    Attributes:
        node: The layer.
        why: The reason, in one sentence.
    """

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class ImprovementReport:
    """What one improvement did to a model.

    Attributes:
        name: As written after --skip-pass: "equalize_channels".
        gains: The layers it changed.
        declined: The layers it looked at and left.
        before_db: SQNR of the whole model in INT8 at its worst output against the model as given, dB, on the samples
            that steer the search; None without an error.
        after_db: The same afterwards.
        kept: Whether the result was kept: False where the model as a whole became no better.
    """

    name: str
    gains: tuple[Gain, ...] = ()
    declined: tuple[Declined, ...] = ()
    before_db: float | None = None
    after_db: float | None = None
    kept: bool = False
