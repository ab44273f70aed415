"""Records which operators the parser of the installed TensorRT-RTX has importers for.

    python scripts/record_supported_operators.py

writes trt_opt/backends/supported_operators.json, on which `rewrite` and `inspect` fall back where no TensorRT package
is installed. Run it again for a new version of the parser.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from trt_opt.acceptance import TABLE
from trt_opt.backends import backend_for
from trt_opt.files import write_atomically
from trt_opt.graph.save import save_model
from trt_opt.values.target import RtxTarget

OUTPUT = Path(__file__).parents[1] / "trt_opt" / "backends" / TABLE


def main() -> None:
    """Asks about every operator ONNX has ever had."""
    operators = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    value = helper.make_tensor_value_info
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "any", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
    file = OUTPUT.with_suffix(".onnx")
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    try:
        with backend_for(RtxTarget()) as backend:
            unknown = set(backend.parse(file, operators).unknown_operators)
            library = backend.library
    finally:
        file.unlink()
    table = {"library": library, "onnx": onnx.__version__, "operators": sorted(operators - unknown)}
    write_atomically(OUTPUT, json.dumps(table, indent=1) + "\n")
    print(f"{OUTPUT.name}: {len(operators - unknown)} of {len(operators)} operators")


if __name__ == "__main__":
    main()
