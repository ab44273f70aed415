"""Graph-surgeon passes, one per file, and the order they run in."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from trt_opt.errors import RequestError
from trt_opt.passes.base import Pass
from trt_opt.passes.fold_batch_normalization import FoldBatchNormalization
from trt_opt.passes.fold_constants import FoldConstants
from trt_opt.passes.fold_scale_and_bias import FoldScaleAndBias
from trt_opt.passes.initialisers_not_inputs import InitialisersNotInputs
from trt_opt.passes.raise_opset import RaiseOpset
from trt_opt.passes.remove_dead_nodes import RemoveDeadNodes
from trt_opt.passes.remove_identities import RemoveIdentities
from trt_opt.passes.unique_node_names import UniqueNodeNames

PASSES: Mapping[str, Pass] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            UniqueNodeNames(),
            InitialisersNotInputs(),
            RemoveDeadNodes(),
            FoldConstants(),
            RemoveIdentities(),
            FoldBatchNormalization(),
            FoldScaleAndBias(),
        )
    }
)
"""The passes of a rewrite, in order: each finds more to do after those before it."""

ON_REQUEST: Mapping[str, Pass] = MappingProxyType({entry.name: entry for entry in (RaiseOpset(),)})
"""Passes that run only where something asks for them."""


def find_pass(name: str) -> Pass:
    """The pass of this name.

    Raises:
        RequestError: There is none; the message lists those there are and the closest.
    """
    known = {**PASSES, **ON_REQUEST}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.4)
    guess = f"did you mean {close[0]}? " if close else ""
    raise RequestError(f"there is no pass {name!r}", hint=f"{guess}the passes are {', '.join(known)}")


def explain(name: str) -> str:
    """What a pass does, why TensorRT wants it, an example, and when it declines.

    Raises:
        RequestError: There is no such pass.
    """
    return find_pass(name).documentation
