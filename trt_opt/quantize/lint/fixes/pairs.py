"""Pairs that cost accuracy or speed for nothing: moved, or taken out.

A pair rounds, and cuts off what is beyond its grid's ends. Rounding may always go. Cutting off may be what a Relu was
left out for when the model was quantised or imported: it stays, as a Clip, unless nothing can be beyond the ends.
"""

from __future__ import annotations

import numpy as np
import onnx

from trt_opt.quantize.lint.fixes.constants import evaluated
from trt_opt.quantize.lint.fixes.mender import FEWER, SAME, Mender
from trt_opt.quantize.lint.linted_graph import SENSITIVE_OPS, LintedGraph

CLIP_WITH_INPUTS_SINCE = 12
"""The opset in which Clip has bounds as inputs, in every float type."""

BOUNDS = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
"""What the operators give."""

Ends = tuple[float, float]


def without_orphans(mender: Mender) -> None:
    """Takes out pairs that nothing in INT8 reads, and halves that nobody reads."""
    graph = mender.graph
    for node in graph.quantizers():
        if not mender.index.readers(node.output[0]) and not mender.index.is_read_elsewhere(node.output[0]):
            mender.writer.remove(node.name)
            mender.did(node.name, f"taken out, nobody read it: {SAME}")
        elif graph.is_dq(node) and not graph.reaches_int8(node.output[0]):
            quantizer = _quantizer(node, mender)
            if quantizer is not None and mender.may_edit(quantizer, node):
                mender.did(quantizer.name, f"the pair was taken out{_take_out(mender, quantizer, node)}: {FEWER}")


def floats_for_sensitive_operators(mender: Mender) -> None:
    """Softmax and its like read what is in front of the pair."""
    graph = mender.graph
    for dequantizer in graph.quantizers():
        quantizer = _quantizer(dequantizer, mender) if graph.is_dq(dequantizer) else None
        readers = [reader for reader, _ in mender.index.readers(dequantizer.output[0]) if _is_sensitive(reader, graph)]
        if quantizer is None or not readers or not mender.may_edit(quantizer, dequantizer):
            continue
        name = quantizer.input[0]
        clip = _clip(mender, quantizer, mender.writer.tensor(f"{name}_clipped"))
        if clip is not None:
            mender.writer.behind(dequantizer.name, clip)
            name = clip.output[0]
        for reader in readers:
            mender.reads_instead(reader, dequantizer.output[0], name)
        mender.did(quantizer.name, f"{readers[0].name!r} reads what is in front of the pair{_kept(clip)}: {FEWER}")


def _is_sensitive(reader: onnx.NodeProto, graph: LintedGraph) -> bool:
    if graph.is_float_cast(reader):
        behind = [entry for entry, _ in graph.readers(reader.output[0])]
        return bool(behind) and all(entry.op_type in SENSITIVE_OPS for entry in behind)
    return reader.op_type in SENSITIVE_OPS


def _quantizer(dequantizer: onnx.NodeProto, mender: Mender) -> onnx.NodeProto | None:
    """The other half of a pair of an activation that may be replaced by a Clip; None where it may not."""
    graph = mender.graph
    maker = mender.index.producer(dequantizer.input[0])
    if maker is None or not graph.is_q(maker) or graph.ends(maker) is None or graph.is_build_time(maker.input[0]):
        return None
    if graph.grid(maker) != graph.grid(dequantizer) or graph.opset < CLIP_WITH_INPUTS_SINCE:
        return None
    return maker if mender.same_type(maker.input[0], dequantizer.output[0]) else None


def _take_out(mender: Mender, quantizer: onnx.NodeProto, dequantizer: onnx.NodeProto) -> str:
    """Lets all readers of a pair read floats; in words, what is left of it."""
    source, result = quantizer.input[0], dequantizer.output[0]
    clip = _clip(mender, quantizer, result)
    if clip is None and mender.can_replace(result, source):
        mender.replace(result, source)
    else:
        mender.writer.remove(dequantizer.name)
        mender.writer.behind(dequantizer.name, clip or mender.writer.made("Identity", [source], result))
    return _kept(clip)


def _kept(clip: onnx.NodeProto | None) -> str:
    return "" if clip is None else ", a Clip cuts off what it did"


def _clip(mender: Mender, quantizer: onnx.NodeProto, result: str) -> onnx.NodeProto | None:
    """A Clip of what is in front of the pair to the grid's ends; None where nothing is beyond them."""
    source = quantizer.input[0]
    ends = mender.graph.ends(quantizer) or (-np.inf, np.inf)
    needed = _bounds_needed(source, ends, mender)
    if not any(needed):
        return None
    kind = onnx.helper.tensor_dtype_to_np_dtype(mender.index.element_type(source) or onnx.TensorProto.FLOAT)
    names = ("lowest", "largest")
    bounds = [
        mender.writer.constant(f"{source}_{name}", np.array(end, kind)) if is_needed else ""
        for name, end, is_needed in zip(names, ends, needed, strict=True)
    ]
    return mender.writer.made("Clip", [source, *bounds], result)


def _bounds_needed(source: str, ends: Ends, mender: Mender) -> tuple[bool, bool]:
    """Whether a Clip needs a lower and an upper bound: not where the operator that makes the tensor stays within."""
    maker = mender.index.producer(source)
    op_type = maker.op_type if maker is not None else ""
    low, high = BOUNDS.get(op_type, (0.0 if op_type == "Relu" else -np.inf, np.inf))
    step = (ends[1] - ends[0]) / 255
    return low < ends[0] - step, high > ends[1] + step


def quantized_once(mender: Mender) -> None:
    """Where a tensor is quantised twice in a row, the pair is left that cuts off more."""
    graph = mender.graph
    for second in graph.quantizers():
        first = graph.dequantizer_of(second.input[0]) if graph.is_q(second) else None
        readers = [reader for reader, _ in mender.index.readers(second.output[0])] if first is not None else []
        if first is None or not readers or not all(graph.grid(reader) == graph.grid(second) for reader in readers):
            continue
        if graph.grid(first) is not None and graph.grid(first) == graph.grid(second):
            _drop_second(mender, first, second, readers, what=SAME)
        elif _within(_range_of(first, mender), graph.ends(second), 0.0):
            _drop_second(mender, first, second, readers, what=FEWER)
        else:
            _skip_first(mender, first, second)


def _range_of(dequantizer: onnx.NodeProto, mender: Mender) -> Ends | None:
    """What lies between the smallest and the largest number it gives."""
    stored = evaluated(dequantizer, mender)
    if stored is None:
        return mender.graph.ends(dequantizer)
    return float(stored.astype(np.float64).min()), float(stored.astype(np.float64).max())


def _within(inner: Ends | None, outer: Ends | None, slack: float) -> bool:
    return inner is not None and outer is not None and outer[0] - slack <= inner[0] and inner[1] <= outer[1] + slack


def _drop_second(
    mender: Mender, first: onnx.NodeProto, second: onnx.NodeProto, readers: list[onnx.NodeProto], *, what: str
) -> None:
    """The first pair, or the stored weights, are what is left."""
    source = second.input[0]
    names = [reader.output[0] for reader in readers]
    if any(mender.index.is_read_elsewhere(name) or not mender.same_type(name, source) for name in names):
        return
    if mender.may_edit(second, first, *readers):
        for name in names:
            mender.replace(name, source)
        mender.did(second.name, f"taken out behind {first.name!r}: {what}")


def _skip_first(mender: Mender, first: onnx.NodeProto, second: onnx.NodeProto) -> None:
    """The second pair, which cuts off all that the first did, reads what is in front of it."""
    quantizer = mender.index.producer(first.input[0])
    ends, wider = mender.graph.ends(second), mender.graph.ends(first)
    if quantizer is None or not mender.graph.is_q(quantizer) or ends is None:
        return
    # What is less than half a step inside the end is rounded to the end.
    half_a_step = 0.499 * (ends[1] - ends[0]) / 255
    fits = _within(ends, wider, half_a_step) and mender.same_type(quantizer.input[0], second.input[0])
    if fits and mender.may_edit(quantizer, first, second):
        mender.reads_instead(second, second.input[0], quantizer.input[0])
        mender.did(second.name, f"reads what is in front of {first.name!r}: {FEWER}")


def behind_the_activation(mender: Mender) -> None:
    """A pair in front of a Relu moves behind it, which changes no number: the grid holds zero."""
    graph = mender.graph
    for quantizer in graph.quantizers():
        maker = mender.index.producer(quantizer.input[0])
        readers = mender.index.readers(quantizer.output[0])
        if not graph.is_q(quantizer) or not graph.runs_in_int8(maker) or len(readers) != 1:
            continue
        dequantizer = readers[0][0]
        behind = mender.index.readers(dequantizer.output[0])
        if _quantizer(dequantizer, mender) is None or mender.index.is_read_elsewhere(dequantizer.output[0]):
            continue
        if (
            len(behind) == 1
            and behind[0][0].op_type == "Relu"
            and mender.may_edit(quantizer, dequantizer, behind[0][0])
        ):
            _move(mender, quantizer, dequantizer, behind[0][0])


def _move(mender: Mender, quantizer: onnx.NodeProto, dequantizer: onnx.NodeProto, relu: onnx.NodeProto) -> None:
    writer, result = mender.writer, relu.output[0]
    mender.reads_instead(relu, dequantizer.output[0], quantizer.input[0])
    edited = writer.nodes[relu.name]
    edited.output[0] = writer.tensor(f"{result}_in_float")
    integers = writer.tensor(f"{result}_quantized")
    forth = writer.made("QuantizeLinear", [edited.output[0], *quantizer.input[1:]], integers)
    back = writer.made("DequantizeLinear", [integers, *dequantizer.input[1:]], result)
    forth.attribute.extend(quantizer.attribute)
    back.attribute.extend(dequantizer.attribute)
    writer.behind(relu.name, forth, back)
    mender.did(quantizer.name, f"moved behind {relu.name!r}: {SAME}")
