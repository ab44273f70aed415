"""Graph-surgeon passes, one per file, and the order they run in."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from trt_opt.errors import RequestError
from trt_opt.passes.base import Pass
from trt_opt.passes.clean_up.fold_batch_normalization import FoldBatchNormalization
from trt_opt.passes.clean_up.fold_constants import FoldConstants
from trt_opt.passes.clean_up.fold_if import FoldIf
from trt_opt.passes.clean_up.fold_known_sizes import FoldKnownSizes
from trt_opt.passes.clean_up.fold_scale_and_bias import FoldScaleAndBias
from trt_opt.passes.clean_up.initialisers_not_inputs import InitialisersNotInputs
from trt_opt.passes.clean_up.raise_opset import RaiseOpset
from trt_opt.passes.clean_up.remove_dead_nodes import RemoveDeadNodes
from trt_opt.passes.clean_up.remove_identities import RemoveIdentities
from trt_opt.passes.clean_up.unique_node_names import UniqueNodeNames
from trt_opt.passes.contrib.decompose_embedding_normalization import DecomposeEmbeddingNormalization
from trt_opt.passes.contrib.decompose_fused_convolution import DecomposeFusedConvolution
from trt_opt.passes.contrib.decompose_fused_group_normalization import DecomposeFusedGroupNormalization
from trt_opt.passes.contrib.decompose_fused_layer_normalization import DecomposeFusedLayerNormalization
from trt_opt.passes.contrib.decompose_fused_matmul import DecomposeFusedMatmul
from trt_opt.passes.contrib.decompose_gelu import DecomposeGelu
from trt_opt.passes.contrib.decompose_grouped_query_attention import DecomposeGroupedQueryAttention
from trt_opt.passes.contrib.decompose_multi_head_attention import DecomposeMultiHeadAttention
from trt_opt.passes.contrib.decompose_packed_attention import DecomposePackedAttention
from trt_opt.passes.contrib.decompose_rotary_embedding import DecomposeRotaryEmbedding
from trt_opt.passes.contrib.decompose_small_contrib_operators import DecomposeSmallContribOperators
from trt_opt.passes.contrib.replace_withdrawn_operators import ReplaceWithdrawnOperators
from trt_opt.passes.control_flow.give_loops_a_condition import GiveLoopsACondition
from trt_opt.passes.control_flow.remove_inactive_dropout import RemoveInactiveDropout
from trt_opt.passes.control_flow.tensors_instead_of_sequences import TensorsInsteadOfSequences
from trt_opt.passes.control_flow.unroll_loops import UnrollLoops
from trt_opt.passes.ends.freeze_inputs import FreezeInputs
from trt_opt.passes.ends.widen_io import WidenIo
from trt_opt.passes.integers.decompose_bit_operations import DecomposeBitOperations
from trt_opt.passes.integers.reduce_booleans_as_integers import ReduceBooleansAsIntegers
from trt_opt.passes.integers.reinterpret_integers import ReinterpretIntegers
from trt_opt.passes.integers.widen_integers import WidenIntegers
from trt_opt.passes.layers.attention_bounds_as_mask import AttentionBoundsAsMask
from trt_opt.passes.layers.batch_statistics import BatchStatistics
from trt_opt.passes.layers.couple_forget_gates import CoupleForgetGates
from trt_opt.passes.layers.expand_functions import ExpandFunctions
from trt_opt.passes.layers.layer_normalization_statistics import LayerNormalizationStatistics
from trt_opt.passes.layers.time_first_recurrence import TimeFirstRecurrence
from trt_opt.passes.mathematics.array_feature_extractor_to_gather import ArrayFeatureExtractorToGather
from trt_opt.passes.mathematics.binarizer_to_greater import BinarizerToGreater
from trt_opt.passes.mathematics.dft_to_matmul import DftToMatMul
from trt_opt.passes.mathematics.expand_optimizer_step import ExpandOptimizerStep
from trt_opt.passes.mathematics.floor_mod_to_fmod import FloorModToFmod
from trt_opt.passes.mathematics.multiply_vectors_as_matrices import MultiplyVectorsAsMatrices
from trt_opt.passes.mathematics.scatter_elements_with_reduction import ScatterElementsWithReduction
from trt_opt.passes.mathematics.scatter_nd_with_reduction import ScatterNdWithReduction
from trt_opt.passes.mathematics.stft_to_conv import StftToConv
from trt_opt.passes.mathematics.tensor_scatter_to_where import TensorScatterToWhere
from trt_opt.passes.mathematics.tf_idf_to_comparisons import TfIdfToComparisons
from trt_opt.passes.mathematics.unroll_cumulative_product import UnrollCumulativeProduct
from trt_opt.passes.mathematics.unroll_determinant import UnrollDeterminant
from trt_opt.passes.quantised.emulate_dequantize_linear import EmulateDequantizeLinear
from trt_opt.passes.quantised.emulate_dynamic_quantize_linear import EmulateDynamicQuantizeLinear
from trt_opt.passes.quantised.emulate_quantize_linear import EmulateQuantizeLinear
from trt_opt.passes.quantised.emulate_quantized_conv import EmulateQuantizedConv
from trt_opt.passes.quantised.emulate_quantized_matmul import EmulateQuantizedMatMul
from trt_opt.passes.quantised.fp8_as_qdq import Fp8AsQdq
from trt_opt.passes.quantised.symmetric_weights import SymmetricWeights
from trt_opt.passes.shapes.fix_reduction_axes import FixReductionAxes
from trt_opt.passes.shapes.one_hot_of_declared_depth import OneHotOfDeclaredDepth
from trt_opt.passes.shapes.range_of_declared_length import RangeOfDeclaredLength
from trt_opt.passes.shapes.reshape_to_declared_shape import ReshapeToDeclaredShape
from trt_opt.passes.vision.affine_grid_as_sum import AffineGridAsSum
from trt_opt.passes.vision.column_to_image_as_gather import ColumnToImageAsGather
from trt_opt.passes.vision.deformable_conv_as_grid_sample import DeformableConvAsGridSample
from trt_opt.passes.vision.gather_max_pooling_indices import GatherMaxPoolingIndices
from trt_opt.passes.vision.lp_pooling_as_average import LpPoolingAsAverage
from trt_opt.passes.vision.max_unpooling_as_scatter import MaxUnpoolingAsScatter
from trt_opt.passes.vision.non_max_suppression_as_plugin import NonMaxSuppressionAsPlugin
from trt_opt.passes.vision.pool_integers_as_floats import PoolIntegersAsFloats
from trt_opt.passes.vision.resize_to_matrices import ResizeToMatrices
from trt_opt.passes.vision.round_pooling_down import RoundPoolingDown
from trt_opt.passes.vision.unroll_average_pooling import UnrollAveragePooling
from trt_opt.passes.vision.unroll_max_pooling import UnrollMaxPooling

PASSES: Mapping[str, Pass] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            UniqueNodeNames(),
            InitialisersNotInputs(),
            RemoveDeadNodes(),
            FoldKnownSizes(),
            FoldConstants(),
            FoldIf(),
            RemoveIdentities(),
            FoldBatchNormalization(),
            FoldScaleAndBias(),
        )
    }
)
"""The passes of a rewrite, in order: each finds more to do after those before it."""

REPAIRS: Mapping[str, Pass] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            ReplaceWithdrawnOperators(),
            DecomposePackedAttention(),
            DecomposeMultiHeadAttention(),
            DecomposeGroupedQueryAttention(),
            DecomposeRotaryEmbedding(),
            DecomposeEmbeddingNormalization(),
            DecomposeFusedGroupNormalization(),
            DecomposeFusedLayerNormalization(),
            DecomposeFusedConvolution(),
            DecomposeFusedMatmul(),
            DecomposeGelu(),
            DecomposeSmallContribOperators(),
            RemoveInactiveDropout(),
            UnrollLoops(),
            GiveLoopsACondition(),
            TensorsInsteadOfSequences(),
            FixReductionAxes(),
            ReshapeToDeclaredShape(),
            OneHotOfDeclaredDepth(),
            RangeOfDeclaredLength(),
            TimeFirstRecurrence(),
            CoupleForgetGates(),
            AttentionBoundsAsMask(),
            LayerNormalizationStatistics(),
            BatchStatistics(),
            RoundPoolingDown(),
            GatherMaxPoolingIndices(),
            UnrollMaxPooling(),
            UnrollAveragePooling(),
            LpPoolingAsAverage(),
            PoolIntegersAsFloats(),
            ResizeToMatrices(),
            ColumnToImageAsGather(),
            MaxUnpoolingAsScatter(),
            AffineGridAsSum(),
            DeformableConvAsGridSample(),
            DftToMatMul(),
            StftToConv(),
            UnrollCumulativeProduct(),
            FloorModToFmod(),
            ScatterNdWithReduction(),
            ScatterElementsWithReduction(),
            TensorScatterToWhere(),
            TfIdfToComparisons(),
            ExpandOptimizerStep(),
            UnrollDeterminant(),
            ArrayFeatureExtractorToGather(),
            BinarizerToGreater(),
            MultiplyVectorsAsMatrices(),
            SymmetricWeights(),
            EmulateQuantizeLinear(),
            EmulateDynamicQuantizeLinear(),
            EmulateQuantizedMatMul(),
            EmulateQuantizedConv(),
            EmulateDequantizeLinear(),
            ExpandFunctions(),
            ReduceBooleansAsIntegers(),
            DecomposeBitOperations(),
            ReinterpretIntegers(),
            WidenIntegers(),
        )
    }
)
"""The passes for what a target refuses or misreads, in order; they touch nothing else."""

ON_REQUEST: Mapping[str, Pass] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            RaiseOpset(),
            Fp8AsQdq(),
            NonMaxSuppressionAsPlugin(),
        )
    }
)
"""Passes that run only where something asks for them."""


EXPLAINED: Mapping[str, Pass] = MappingProxyType(
    {**PASSES, **REPAIRS, **ON_REQUEST, **{entry.name: entry for entry in (FreezeInputs({}), WidenIo())}}
)
"""All of them, and those that change a model's inputs and outputs before the others run."""


def find_pass(name: str) -> Pass:
    """The pass of this name.

    Raises:
        RequestError: There is none; the message lists those there are and the closest.
    """
    known = {**PASSES, **REPAIRS, **ON_REQUEST}
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
    return (EXPLAINED[name] if name in EXPLAINED else find_pass(name)).documentation
