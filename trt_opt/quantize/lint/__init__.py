"""The last look at a graph before a builder sees it: TensorRT builds wrong graphs without a word.

Sources: NVIDIA's "Working with Quantized Types" for what pairs must look like and where they belong; what is marked
(run) was seen by running TensorRT-RTX 1.7.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import onnx

from trt_opt.errors import RequestError, StageError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import infer_shapes
from trt_opt.quantize.lint.branches import BRANCH_RULES
from trt_opt.quantize.lint.integers import INTEGER_RULES
from trt_opt.quantize.lint.layers import LAYER_RULES
from trt_opt.quantize.lint.linted_graph import LintedGraph
from trt_opt.quantize.lint.pairs import PAIR_RULES
from trt_opt.quantize.lint.rule import Rule
from trt_opt.quantize.lint.scales import SCALE_RULES
from trt_opt.values.calibration import TensorRange
from trt_opt.values.lint import Finding

__all__ = ["RULES", "chosen_rules", "findings_of", "linted_graph", "require_clean"]

RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.name: rule for rule in (*INTEGER_RULES, *SCALE_RULES, *PAIR_RULES, *BRANCH_RULES, *LAYER_RULES)}
)
"""All rules, in the order they are tried."""

OUR_OWN = frozenset({"concat-scales-differ", "concat-branch-not-quantized"})
"""Only warnings elsewhere, but what this package writes must not break them."""


def chosen_rules(only: Iterable[str] = (), ignored: Iterable[str] = ()) -> tuple[Rule, ...]:
    """The rules of these names, or all, less the ignored ones.

    Raises:
        RequestError: There is no such rule, or none is left.
    """
    only, ignored = tuple(only), frozenset(ignored)
    for name in (*only, *sorted(ignored)):
        if name not in RULES:
            close = difflib.get_close_matches(name, RULES, n=1, cutoff=0.4)
            guess = f"did you mean {close[0]}? " if close else ""
            raise RequestError(f"there is no rule {name!r}", hint=f"{guess}`trt-opt lint --rules` lists them")
    chosen = tuple(rule for name, rule in RULES.items() if (not only or name in only) and name not in ignored)
    if not chosen:
        raise RequestError("no rule is left to check", hint="name fewer with --ignore")
    return chosen


def linted_graph(model: onnx.ModelProto, ranges: Mapping[str, TensorRange] | None = None) -> LintedGraph:
    """The model as the rules look at it, types and shapes inferred."""
    return LintedGraph(GraphIndex(with_unique_node_names(infer_shapes(model))), ranges)


def findings_of(
    model: onnx.ModelProto,
    *,
    rules: Iterable[Rule] = RULES.values(),
    ranges: Mapping[str, TensorRange] | None = None,
) -> tuple[Finding, ...]:
    """Where a model breaks rules, the worst first, then rule by rule; nothing for a good one.

    Args:
        model: Of any kind.
        rules: Which rules are checked.
        ranges: Tensor → range seen in data, for FP16.
    """
    graph = linted_graph(model, ranges)
    return tuple(finding for rule in rules for finding in rule.findings(graph))


def require_clean(model: onnx.ModelProto) -> None:
    """Refuses a graph written by this package that breaks a rule: only what makes it wrong counts.

    Args:
        model: Node names unique.

    Raises:
        StageError: Names the first finding, and how many there are.
    """
    graph = LintedGraph(GraphIndex(model))
    strict = [rule for rule in RULES.values() if rule.about.severity != "note"]
    found = [entry for rule in strict for entry in rule.findings(graph)]
    found = [entry for entry in found if entry.severity == "error" or entry.rule in OUR_OWN]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise StageError(f"{found[0].rule}: {found[0].message}{more}", where=f"node {found[0].node!r}")
