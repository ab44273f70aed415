"""From an ONNX file to a network: the parser, what it refuses, and what it makes of inputs and outputs."""

from __future__ import annotations

import os
import re

import listening


class RefusedError(Exception):
    """The library does not take the model; carries the refused nodes as plain data."""

    def __init__(self, nodes):
        Exception.__init__(self, nodes[0]["reason"] if nodes else "refused")
        self.nodes = nodes


def load_library():
    """The vendor's module: the one POLYGRAPHY_USE_TENSORRT_RTX names, as in Polygraphy itself."""
    if os.environ.get("POLYGRAPHY_USE_TENSORRT_RTX", "0") != "0":
        import tensorrt_rtx as trt
    else:
        import tensorrt as trt
    return trt


def parse(request, send):
    """Lets the parser see a model and reports every node it refuses."""
    trt = load_library()
    log = listening.listener(trt)
    _builder, network, parser, refused = parsed(trt, request, log)
    unknown = [name for name in request.get("operators", []) if not parser.supports_operator(name)]
    decisive = [tensor.name for tensor in inputs_of(network) if tensor.is_shape_tensor]
    return dict(
        ends_of(network),
        refused=refused,
        warnings=log.warnings,
        errors=parser.num_errors,
        unknown_operators=unknown,
        shape_inputs=decisive,
    )


def parsed(trt, request, log):
    """A model as a network, and the nodes the parser refused."""
    support = request["support"]
    builder = trt.Builder(log)
    network = builder.create_network(network_flags(trt, request))
    parser = trt.OnnxParser(network, log)
    if request.get("version_compatible") or request.get("hardware_compatible"):
        # Such engines have no plugin for InstanceNormalization (NVIDIA's developer guide, "Version Compatibility").
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    accepted = parser.parse_from_file(request["model"])
    errors = [] if accepted else [parser.get_error(index) for index in range(parser.num_errors)]
    refused = [refusal(error, log, support["parser_names_nodes"]) for error in errors]
    if not accepted and not refused:
        refused = [{"node": "", "op_type": "", "reason": " ".join(log.errors) or "the parser gave no reason"}]
    return builder, network, parser, refused


def network_flags(trt, request):
    """The flags the network is made with."""
    support = request["support"]
    flags = trt.NetworkDefinitionCreationFlag
    if support["explicit_batch_flag"]:
        return 1 << int(flags.EXPLICIT_BATCH)
    if support["strongly_typed"] == "flag" and request.get("strongly_typed", True):
        return 1 << int(flags.STRONGLY_TYPED)
    return 0


def refusal(error, log, names_nodes):
    """A parser error as plain data; some carry no node, which then only the log names."""
    node = error.node_name() if names_nodes else ""
    operator = error.node_operator() if names_nodes else ""
    if not node and not error.func().startswith("importInput"):
        text = "\n".join(log.errors)
        named = re.findall(r"^Node name: (.*)$", text, re.MULTILINE) or re.findall(r'\nname: "(.*)"', text)
        operators = re.findall(r"While parsing node number \d+ \[(\w+)", text)
        node = named[-1].strip() if named else node
        importer = re.match(r"(?:import|check)([A-Z]\w+)$", error.func())
        operator = operators[-1] if operators else (importer.group(1) if importer else operator)
    return {"node": node, "op_type": operator, "reason": error.desc()}


def ends_of(network):
    """Inputs and outputs as the library sees them: [name, element type, shape], -1 for dynamic dimensions."""
    inputs = inputs_of(network)
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return {"inputs": [end_of(tensor) for tensor in inputs], "outputs": [end_of(tensor) for tensor in outputs]}


def inputs_of(network):
    """The network's inputs."""
    return [network.get_input(index) for index in range(network.num_inputs)]


def end_of(tensor):
    """One input or output; shapes that cannot be told yet have a negative rank and become None."""
    shape = None if len(tensor.shape) < 0 else [int(size) for size in tensor.shape]
    return [tensor.name, str(tensor.dtype).rsplit(".", 1)[-1].lower(), shape]
