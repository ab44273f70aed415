"""SmoothQuant: what makes the channels behind a normalisation uneven goes over into the weights that read them."""

from __future__ import annotations

from trt_opt.improvements.channel_groups import Group
from trt_opt.improvements.equalize_channels import made_by_layers
from trt_opt.improvements.improvement import Improved, Subject
from trt_opt.improvements.scale_moving import with_moved_scales
from trt_opt.values.progress import Progress


class MigrateScales:
    """Divides channels in a normalisation's scale and bias, and multiplies the weights that read them.

    What it does: Behind a normalisation a few channels are often a hundred times as large as the others, and always the
    same ones. The normalisation's own scale and bias (LayerNormalization, RMSNormalization, InstanceNormalization,
    BatchNormalization, or the constant Mul of a decomposed one) take up a factor per channel at no cost; the products
    that read them (query, key and value together) multiply their weights. How much goes over is tried:
    s = r^a / w^(1-a) with several a, and the one with the least measured error is kept. All factors are powers of two.

    When it declines: Something else reads the normalised tensor too (a residual sum, a graph output, a subgraph); the
    channels differ by less than a factor of 4; or the products do not gain 0.5 dB.

    Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
    2022.
    """

    name = "migrate_scales"
    summary = "moves uneven channels behind a normalisation into the weights that read them"

    def improved(self, subject: Subject, progress: Progress) -> Improved:
        """Tries every tensor that a normalisation makes, and keeps what lowers the readers' errors.

        Args:
            subject: The model and its data.
            progress: Told of every sample.

        Raises:
            DataError: A sample cannot be run.
        """
        return with_moved_scales(subject, progress, made_by_a_normalization)


def made_by_a_normalization(group: Group) -> bool:
    """Whether a factor begins in a normalisation, or in a constant that multiplies channels."""
    return not made_by_layers(group)
