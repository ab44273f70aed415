"""What the engine inspector says, read; and what was asked for, held against it."""

from __future__ import annotations

import json

import pytest

from trt_opt.backends.inspector import layers_from_text
from trt_opt.build.built_precision import mismatches
from trt_opt.errors import StageError
from trt_opt.values.precision import LayerDecision, Precision, PrecisionPlan


def tensor(words: str) -> dict[str, object]:
    """An input or output, as the inspector writes it."""
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 16, 8, 8], "Format/Datatype": words}


CONV = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [tensor("Thirty-two wide channel vectorized row major Int8 format")],
    "Outputs": [tensor("Row major linear FP16 format")],
    "Weights": {"Type": "Int8", "Count": 432},
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8",
    "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
}
REFORMAT = {
    "Name": "Reformatting CopyNode for Input Tensor 0 to conv1",
    "LayerType": "Reformat",
    "Inputs": [tensor("Row major linear FP32")],
    "Outputs": [tensor("Row major linear Int8")],
    "Metadata": "",
}
HALF = {
    "Name": "fc",
    "LayerType": "gemm",
    "Inputs": [{"Name": "a", "Format": "Linear", "Datatype": "Half"}],
    "Outputs": [{"Name": "b", "Format": "Linear", "Datatype": "Float"}],
    "Metadata": "[ONNX Layer: fc]",
}
BLOCK = {
    "Name": "{ForeignNode[softmax_in...softmax]}",
    "LayerType": "Myelin",
    "Inputs": [tensor("Row major linear FP32")],
    "Outputs": [tensor("Row major linear FP32")],
}
COUNTER = {
    "Name": "shape",
    "LayerType": "shape_call",
    "Inputs": [tensor("Row major linear INT32")],
    "Outputs": [tensor("Row major linear INT32")],
}


def text(*layers: object) -> str:
    """The inspector's answer."""
    return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


def plan(**asked: Precision) -> PrecisionPlan:
    """What was asked for, by node."""
    return PrecisionPlan(tuple(LayerDecision(name, "Conv", precision, "r", "") for name, precision in asked.items()))


def test_a_layer_computes_in_the_narrowest_type_it_reads() -> None:
    """INT8 in and FP16 out is INT8; a reformat from FP32 reads FP32; "Half" is FP16."""
    found = layers_from_text(text(CONV, REFORMAT, HALF, BLOCK, COUNTER))
    assert [layer.precision for layer in found] == ["int8", "fp32", "fp16", "fp32", "other"]
    assert found[0].tactic.startswith("sm80")
    assert found[0].kind == "CaskConvolution"


def test_nodes_come_from_the_metadata_or_the_name() -> None:
    """Metadata names them; before 8.6 the layer's name does, by its parts."""
    without = {key: value for key, value in CONV.items() if key != "Metadata"}
    for layer in (CONV, without):
        assert layers_from_text(text(layer))[0].nodes == ("conv1", "relu1")
    assert set(layers_from_text(text(BLOCK))[0].nodes) >= {"softmax_in", "softmax"}


def test_engines_without_details_give_names_alone() -> None:
    """A list of names is what a plain profiling verbosity gives."""
    found = layers_from_text(text("conv1 + relu1", "fc"))
    assert [layer.nodes for layer in found] == [("conv1", "relu1"), ("fc",)]
    assert {layer.precision for layer in found} == {""}


@pytest.mark.parametrize("answer", ["", "null", "[]", "{}", '{"Layers": 5', '{"Layers": 5}'])
def test_other_text_is_an_error(answer: str) -> None:
    """Whatever is not the inspector's answer is said to be none."""
    with pytest.raises(StageError, match="inspector"):
        layers_from_text(answer)


def test_what_differs_is_named_with_a_reason() -> None:
    """Asked INT8, got FP16; nodes that no layer names are left out."""
    layers = layers_from_text(text(CONV, REFORMAT, HALF, BLOCK))
    found = mismatches(
        plan(conv1="int8", relu1="int8", fc="int8", softmax="fp16", folded="int8"), layers, builder_chooses=False
    )
    assert [(entry.node, entry.asked, entry.got) for entry in found] == [
        ("fc", "int8", "fp16"),
        ("softmax", "fp16", "fp32"),
    ]
    assert "ForeignNode" in found[1].because
    chosen = mismatches(plan(fc="int8"), layers, builder_chooses=True)
    assert "fastest" in chosen[0].because


def test_a_node_in_several_layers_counts_with_the_narrowest() -> None:
    """Its reformat in FP32 does not make an INT8 convolution a mismatch."""
    reformat = {**REFORMAT, "Metadata": "[ONNX Layer: conv1]"}
    assert not mismatches(plan(conv1="int8"), layers_from_text(text(reformat, CONV)), builder_chooses=False)
