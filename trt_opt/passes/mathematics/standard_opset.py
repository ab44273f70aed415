"""Models of operators outside ONNX's own domain, which often do not import that domain at all."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.graph.opset import with_standard_operators
from trt_opt.passes.node_pass import NodePass
from trt_opt.values.rewriting import PassReport


class ForeignNodePass(NodePass):
    """A NodePass for operators of other domains: its replacements need ONNX's own operators to be imported."""

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Imports them where the model does not, and runs the pass."""
        after, report = super().run(with_standard_operators(model))
        return (after if report.changed else model), report
