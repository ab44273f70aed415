"""What the child process does with TensorRT or TensorRT-RTX: parse, and build through Polygraphy's loaders."""

from __future__ import annotations

import os
import re
import sys
import time

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


def hello(request, send):
    """Names and versions."""
    trt = load_library()
    return {"library": trt.__name__, "version": trt.__version__, "python": sys.version.split()[0]}


def parse(request, send):
    """Lets the parser see a model and reports every node it refuses."""
    trt = load_library()
    log = listening.listener(trt)
    _builder, network, parser, refused = parsed(trt, request["model"], log)
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


def build(request, send):
    """Builds an engine into the file `engine`.

    Raises:
        RefusedError: The parser or the builder does not take the model.
    """
    from polygraphy.backend.trt import EngineBytesFromNetwork

    trt = load_library()
    log = listening.listener(trt)
    started = time.time()
    builder, network, parser, refused = parsed(trt, request["model"], log)
    if refused:
        raise RefusedError(refused)
    request["profile"] = profile_with_values(network, request["profile"], request.get("values") or {})
    require_profile(network, request["profile"])
    config = configuration(trt, request, listening.progress_monitor(trt, send))
    try:
        engine = EngineBytesFromNetwork((builder, network, parser), config)()
    except Exception as error:
        reason = " ".join(log.errors) or str(error)
        raise RefusedError([{"node": "", "op_type": "", "reason": reason}]) from error
    with open(request["engine"], "wb") as file:
        file.write(engine)
    seconds = time.time() - started
    size = os.path.getsize(request["engine"])
    return dict(ends_of(network), engine_bytes=size, seconds=seconds, warnings=log.warnings)


def parsed(trt, model, log):
    """A model as a network, and the nodes the parser refused."""
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    accepted = parser.parse_from_file(model)
    refused = [] if accepted else [refusal(parser.get_error(index), log) for index in range(parser.num_errors)]
    if not accepted and not refused:
        refused = [{"node": "", "op_type": "", "reason": " ".join(log.errors) or "the parser gave no reason"}]
    return builder, network, parser, refused


def profile_with_values(network, shapes, values):
    """One entry per input that needs one: the values of shape tensors, the shapes of others."""
    entries = dict(shapes)
    for tensor in inputs_of(network):
        if tensor.is_shape_tensor:
            entries.pop(tensor.name, None)
            if tensor.name in values:
                entries[tensor.name] = values[tensor.name]
    return entries


def require_profile(network, profile):
    """Refuses what Polygraphy would silently build for size 1, and what needs values that a profile lacks.

    Raises:
        RefusedError: Names the input.
    """
    for tensor in inputs_of(network):
        if tensor.name in profile:
            continue
        if tensor.is_shape_tensor:
            reason = "the input {!r} decides a shape, and engines need its value when they are built".format(
                tensor.name
            )
            raise RefusedError([{"node": tensor.name, "op_type": "graph input", "reason": reason}])
        if -1 in tuple(tensor.shape):
            reason = "the input {!r} has dynamic dimensions and no optimization profile".format(tensor.name)
            raise RefusedError([{"node": tensor.name, "op_type": "graph input", "reason": reason}])


def refusal(error, log):
    """A parser error as plain data; some carry no node, which then only the log names."""
    node = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    if not node and not error.func().startswith("importInput"):
        text = "\n".join(log.errors)
        named = re.findall(r"^Node name: (.*)$", text, re.MULTILINE) or re.findall(r'\nname: "(.*)"', text)
        operators = re.findall(r"While parsing node number \d+ \[(\w+)", text)
        node = named[-1].strip() if named else node
        importer = re.match(r"(?:import|check)([A-Z]\w+)$", error.func())
        operator = operators[-1] if operators else (importer.group(1) if importer else operator)
    return {"node": node, "op_type": operator, "reason": error.desc()}


def configuration(trt, request, monitor):
    """The builder's options as a Polygraphy loader."""
    from polygraphy.backend.trt import Profile

    profile = Profile()
    for name, (smallest, best, largest) in request["profile"].items():
        profile.add(name, min=smallest, opt=best, max=largest)
    options = {"profiles": [profile] if request["profile"] else None}
    if request.get("workspace_bytes"):
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: request["workspace_bytes"]}
    if request.get("optimization_level") is not None:
        options["builder_optimization_level"] = request["optimization_level"]
    if monitor is not None:
        options["progress_monitor"] = monitor
    if trt.__name__ == "tensorrt_rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        return CreateConfigRTX(compute_capabilities=[tuple(pair) for pair in request["capabilities"]], **options)
    from polygraphy.backend.trt import CreateConfig

    return CreateConfig(**options)


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
