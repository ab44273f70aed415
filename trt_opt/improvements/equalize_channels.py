"""Cross-layer equalisation: channels of one tensor get like ranges, at the cost of the weights around it."""

from __future__ import annotations

from trt_opt.improvements.channel_groups import Group
from trt_opt.improvements.improvement import Improved, Subject
from trt_opt.improvements.scale_moving import with_moved_scales
from trt_opt.quantize.rules import COMPUTE_OPS
from trt_opt.values.progress import Progress


class EqualizeChannels:
    """Divides channels where a Conv, ConvTranspose, Gemm or MatMul makes them and multiplies them where they are read.

    What it does: INT8 has one scale for a whole activation: a channel that is small beside the others is left a few of
    the 256 numbers. A factor per channel passes unchanged through Relu, pooling, data movement, sums and
    concatenations whose operands get the same factors; the layer that makes the channel divides its weights by it,
    which its weight scales, one per output channel, take up without loss, and all layers that read it multiply theirs.
    Clip gets bounds per channel (Relu and Min), so that ReLU6 is exact. All factors are powers of two: the float model
    gives the same bits as before.

    When it declines: A graph output, a subgraph, or an operator through which no factor passes (Sigmoid, Softmax …)
    reads the tensor; the channels differ by less than a factor of 4; or the layers that read the tensor, measured with
    their scaled weights, do not gain 0.5 dB.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019; the balance
    between activations and weights that Xiao et al., "SmoothQuant", 2022, found.
    """

    name = "equalize_channels"
    summary = "gives the channels of an activation like ranges, by factors that the layers around it take up"

    def improved(self, subject: Subject, progress: Progress) -> Improved:
        """Tries every tensor that layers with weights make and read, and keeps what lowers the readers' errors.

        Args:
            subject: The model and its data.
            progress: Told of every sample.

        Raises:
            DataError: A sample cannot be run.
        """
        return with_moved_scales(subject, progress, made_by_layers)


def made_by_layers(group: Group) -> bool:
    """Whether every factor begins in a layer with weights."""
    return all(node.op_type in COMPUTE_OPS for node in group.makers)
