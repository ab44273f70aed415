"""What a lint found in a model, and what it mended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""An error makes TensorRT refuse the model, crash or compute something else; a warning costs accuracy or speed; a note
is worth knowing."""

RANKS: Mapping[Severity, int] = MappingProxyType({"error": 2, "warning": 1, "note": 0})
"""Higher is worse."""

MendedBy = Literal["nothing", "edit", "import"]
"""`--fix` leaves it, mends it by an edit of the graph, or by importing the quantisation whole."""


@dataclass(frozen=True, slots=True)
class RuleDescription:
    """What a rule is about.

    Attributes:
        name: In kebab-case.
        severity: Of its findings, unless one says otherwise.
        summary: What is wrong, in one line.
        why: What TensorRT makes of it, with the source of that.
        remedy: What to do about it.
        mended_by: What `--fix` does.
    """

    name: str
    severity: Severity
    summary: str
    why: str
    remedy: str
    mended_by: MendedBy = "nothing"

    @property
    def is_fixable(self) -> bool:
        """Whether `--fix` mends it, as a rule."""
        return self.mended_by != "nothing"


@dataclass(frozen=True, slots=True)
class RuleList:
    """All rules, for `--rules`."""

    rules: tuple[RuleDescription, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a model breaks a rule.

    Attributes:
        rule: The rule's name.
        severity: How bad it is here.
        nodes: The nodes concerned, the one to look at first in front.
        message: What is wrong, in one sentence.
        remedy: What to do about it.
        is_fixable: Whether `--fix` tries to mend it.
    """

    rule: str
    severity: Severity
    nodes: tuple[str, ...]
    message: str
    remedy: str
    is_fixable: bool

    @property
    def node(self) -> str:
        """The node to look at first."""
        return self.nodes[0] if self.nodes else ""


@dataclass(frozen=True, slots=True)
class Mended:
    """One thing that `--fix` did.

    Attributes:
        rule: The rule that asked for it.
        node: The node it concerns.
        what: What was done, and what becomes of the numbers.
    """

    rule: str
    node: str
    what: str


@dataclass(frozen=True, slots=True)
class LintReport:
    """A model linted.

    Attributes:
        model: The file.
        findings: What it breaks, in graph order; after `--fix`, what the new file still breaks.
        mended: What `--fix` did.
        output: The file `--fix` wrote, or None.
        notes: What could not be looked at, or not be mended, and why.
    """

    model: str
    findings: tuple[Finding, ...]
    mended: tuple[Mended, ...] = ()
    output: str | None = None
    notes: tuple[str, ...] = ()

    def count(self, severity: Severity) -> int:
        """How many findings are exactly so bad."""
        return sum(entry.severity == severity for entry in self.findings)

    def reaches(self, severity: Severity) -> bool:
        """Whether a finding is at least so bad."""
        return any(RANKS[entry.severity] >= RANKS[severity] for entry in self.findings)
