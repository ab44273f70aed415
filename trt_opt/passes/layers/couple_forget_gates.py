"""LSTM whose forget gate is one minus its input gate."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input

_WEIGHTS, _RECURRENCE, _BIAS, _PEEPHOLES = 1, 2, 3, 7

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


class CoupleForgetGates(NodePass):
    """Gives the forget gate of an LSTM the negated weights of the input gate.

    What it does: With `input_forget` the forget gate is 1 - sigmoid(z), z being what enters the input gate. That is
    sigmoid(-z): the forget gate's weights, biases and peepholes become the negated ones of the input gate, and the
    attribute goes.

    Why TensorRT wants it: It has no coupled gates.

    Example: LSTM<input_forget=1>(X, W, R) becomes LSTM(X, [Wi, Wo, -Wi, Wc], [Ri, Ro, -Ri, Rc]).

    When it declines: A gate is not a sigmoid; there is no `hidden_size`.
    """

    name = "couple_forget_gates"
    operators = frozenset({"LSTM"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only where gates are coupled."""
        return super().wants(node, edit) and bool(node.attrs.get("input_forget", 0))

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        directions = _DIRECTIONS.get(str(node.attrs.get("direction", "forward")), 1)
        activations = [str(name).lower() for name in node.attrs.get("activations") or ("sigmoid", "tanh", "tanh")]
        if any(activations[3 * direction % len(activations)] != "sigmoid" for direction in range(directions)):
            raise DeclinedError("its gates are coupled, and not by a sigmoid")
        hidden = node.attrs.get("hidden_size")
        if hidden is None:
            raise DeclinedError("it does not say its hidden_size: export the model with it")
        inputs = [optional_input(node, position) for position in range(len(node.inputs))]
        layouts = {_WEIGHTS: "iofc", _RECURRENCE: "iofc", _BIAS: "iofciofc", _PEEPHOLES: "iof"}
        for position, gates in layouts.items():
            if position < len(inputs) and inputs[position] is not None:
                inputs[position] = _coupled(emit, inputs[position], gates, int(hidden))
        attributes = {name: value for name, value in node.attrs.items() if name != "input_forget"}
        emit("LSTM", *inputs, outputs=len(node.outputs), **attributes)
        made = emit.nodes[-1].outputs
        for output, result in zip(node.outputs, made, strict=True):
            result.name = result.name if output.name else ""
        return [result if output.name else None for output, result in zip(node.outputs, made, strict=True)]


def _coupled(emit: Emitter, tensor: gs.Tensor | None, gates: str, hidden: int) -> gs.Tensor:
    """The tensor [direction, gates * hidden, …] with the forget gate's part as the negated one of the input gate."""
    parts = list(emit.split(tensor, [hidden] * len(gates), axis=1))
    for position, gate in enumerate(gates):
        if gate == "f":
            parts[position] = emit("Neg", parts[position - 2])
    made: gs.Tensor = emit("Concat", *parts, axis=1)
    return made
