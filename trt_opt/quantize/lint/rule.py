"""What a rule of the lint is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trt_opt.quantize.lint.linted_graph import LintedGraph
from trt_opt.values.lint import Finding, RuleDescription, Severity


@dataclass(frozen=True, slots=True)
class Breach:
    """A place where a rule is broken.

    Attributes:
        nodes: The nodes concerned, the one to look at first in front.
        message: What is wrong.
        severity: Where it differs from the rule's.
        remedy: Where it differs from the rule's.
    """

    nodes: tuple[str, ...]
    message: str
    severity: Severity | None = None
    remedy: str | None = None


Check = Callable[[LintedGraph], Iterator[Breach]]
"""Finds a rule's breaches, in graph order."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and how it is checked."""

    about: RuleDescription
    check: Check

    @property
    def name(self) -> str:
        """Its name."""
        return self.about.name

    def findings(self, graph: LintedGraph) -> Iterator[Finding]:
        """Where the graph breaks it."""
        for breach in self.check(graph):
            yield Finding(
                rule=self.name,
                severity=breach.severity or self.about.severity,
                nodes=breach.nodes,
                message=breach.message,
                remedy=breach.remedy or self.about.remedy,
                is_fixable=self.about.is_fixable,
            )
