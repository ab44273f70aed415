"""What a night is made of: every model in every precision for every target, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from night_config import Config, Model, Precision, Target
from night_journal import Entry


@dataclass(frozen=True)
class Unit:
    """A model in one precision for one target."""

    model: Model
    precision: Precision
    target: Target

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.series}-{self.target.name}"

    @property
    def series(self) -> str:
        """What it is called in the history, which tells targets apart itself."""
        return f"{self.model.name}-{self.precision.name}"


@dataclass
class UnitResult:
    """What became of a unit.

    Attributes:
        unit: Which.
        steps: Its steps, in order.
        check: What `trt-opt regress check` said, as JSON; empty where it was not reached.
    """

    unit: Unit
    steps: list[Entry] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst of its steps: "failed", "no", "skipped" or "done"."""
        found = {step.status for step in self.steps}
        return next((one for one in ("failed", "no", "skipped") if one in found), "done")

    @property
    def verdict(self) -> str:
        """The worst of the checks and of the measurements that said no; empty where nothing was held against anything.

        A bench that said no was invalid: it tells nothing.
        """
        said = [str(step.facts.get("verdict") or "INCONCLUSIVE") for step in self.steps if step.status == "no"]
        said += [str(self.check.get("verdict"))] if self.check else []
        return next((one for one in ("FAIL", "INCONCLUSIVE", "PASS") if one in said), "")


def units_of(config: Config) -> Iterator[Unit]:
    """Every unit of a configuration."""
    for model in config.models:
        for precision in config.precisions:
            for target in config.targets:
                wanted = not model.precisions or precision.name in model.precisions
                if wanted and (not model.targets or target.name in model.targets):
                    yield Unit(model, precision, target)
