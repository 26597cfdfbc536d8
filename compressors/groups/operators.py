"""What every operator of a graph does to rows and columns: the table of rules.

A rule gets the walk and one call and answers the value that it makes, or a list of them. An operator that is not in the
table fixes whatever enters it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from compressors.groups.rules.call import Rule
from compressors.groups.rules.constants import constant, filled_like, full, message, shaped
from compressors.groups.rules.convolutions import convolution, transposed_convolution
from compressors.groups.rules.elementwise import (
    added,
    chosen,
    clamped,
    compared,
    divided,
    filled,
    multiplied,
    per_channel,
    powered,
    same,
    scaled_shifted,
    shifted,
)
from compressors.groups.rules.indexing import (
    accumulated,
    arg_reduced,
    embedded,
    gathered,
    index_selected,
    indexed,
    ranked,
    scattered,
    segmented,
)
from compressors.groups.rules.joining import (
    block_diagonal,
    concatenated,
    gated,
    parted,
    selected,
    sliced,
    stacked,
    unbound,
)
from compressors.groups.rules.norms import batch_norm, group_norm, layer_norm, softmax, weight_normalised
from compressors.groups.rules.products import attention, einsum, linear, matmul, matrix_vector, sum_and_product
from compressors.groups.rules.recurrent import recurrent, recurrent_cell
from compressors.groups.rules.reductions import normed, pooled, reduced
from compressors.groups.rules.views import (
    expanded,
    flipped,
    moved,
    padded,
    permuted,
    repeated,
    shuffled_space,
    swapped,
    unfolded,
    unsqueezed,
    viewed,
)


def _table() -> dict[str, Rule]:
    groups: Sequence[tuple[Rule, str]] = (
        (
            same,
            "relu relu6 leaky_relu elu selu celu gelu silu mish tanh hardtanh hardswish softsign abs neg sqrt sin tan",
        ),
        (
            same,
            "erf sign sinh asinh atan square sgn floor ceil round trunc expm1 log1p hardshrink softshrink tanhshrink",
        ),
        (
            same,
            "rrelu threshold contiguous clone detach alias to _to_copy type_as dropout feature_dropout alpha_dropout",
        ),
        (same, "lift_fresh_copy lift_fresh lift zero positive real conj resolve_conj resolve_neg float half double"),
        (shifted, "sigmoid hardsigmoid exp exp2 cos cosh softplus log_sigmoid reciprocal rsqrt log log2 log10"),
        (shifted, "logical_not bitwise_not isnan isinf isfinite erfc logit acos"),
        (powered, "pow float_power"),
        (clamped, "clamp clamp_min clamp_max clip"),
        (filled, "masked_fill"),
        (added, "add sub subtract rsub maximum minimum fmax fmin hypot logical_or bitwise_or"),
        (multiplied, "mul multiply logical_and bitwise_and"),
        (divided, "div divide true_divide floor_divide remainder fmod"),
        (compared, "eq ne lt le gt ge equal xlogy atan2"),
        (chosen, "where"),
        (scaled_shifted, "addcmul addcdiv"),
        (gated, "glu"),
        (per_channel, "prelu"),
        (linear, "linear"),
        (matmul, "matmul mm bmm"),
        (matrix_vector, "mv dot vdot"),
        (sum_and_product, "addmm baddbmm"),
        (einsum, "einsum"),
        (attention, "scaled_dot_product_attention"),
        (convolution, "conv1d conv2d conv3d"),
        (transposed_convolution, "conv_transpose1d conv_transpose2d conv_transpose3d"),
        (recurrent, "lstm gru rnn_tanh rnn_relu"),
        (recurrent_cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
        (weight_normalised, "_weight_norm"),
        (batch_norm, "batch_norm instance_norm"),
        (layer_norm, "layer_norm rms_norm"),
        (group_norm, "group_norm"),
        (softmax, "softmax log_softmax _softmax _log_softmax"),
        (partial(reduced, exact=True), "sum"),
        (partial(reduced, exact=False, text="takes a mean over the units"), "mean"),
        (partial(reduced, exact=False, text="takes the largest or least over the units"), "amax amin max min median"),
        (partial(reduced, exact=False, text="takes a statistic over the units"), "var std aminmax"),
        (partial(reduced, exact=False, text="multiplies all units"), "prod all any"),
        (partial(reduced, exact=False, text="sums over the units", keeps_zero=False), "logsumexp"),
        (normed, "linalg_vector_norm norm"),
        (pooled, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices"),
        (pooled, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
        (pooled, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"),
        (pooled, "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d"),
        (pooled, "upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa"),
        (viewed, "view reshape flatten unflatten _unsafe_view squeeze view_as reshape_as ravel _reshape_alias"),
        (permuted, "permute"),
        (swapped, "transpose t swapaxes swapdims numpy_T"),
        (moved, "movedim moveaxis"),
        (unsqueezed, "unsqueeze"),
        (expanded, "expand expand_as broadcast_to"),
        (repeated, "repeat tile"),
        (flipped, "flip"),
        (padded, "constant_pad_nd pad"),
        (concatenated, "cat concat concatenate"),
        (block_diagonal, "block_diag"),
        (stacked, "stack"),
        (parted, "chunk split split_with_sizes"),
        (sliced, "slice narrow"),
        (selected, "select"),
        (unbound, "unbind"),
        (indexed, "index"),
        (index_selected, "index_select"),
        (gathered, "gather"),
        (embedded, "embedding"),
        (scattered, "scatter scatter_add scatter_reduce index_add index_reduce index_copy"),
        (segmented, "segment_reduce"),
        (arg_reduced, "argmax argmin"),
        (ranked, "topk sort"),
        (accumulated, "cumsum"),
        (shuffled_space, "pixel_shuffle"),
        (unfolded, "im2col"),
        (partial(constant, zeros=True), "zeros new_zeros"),
        (partial(constant, zeros=False), "ones new_ones empty new_empty rand randn"),
        (partial(filled_like, zeros=True), "zeros_like"),
        (partial(filled_like, zeros=False), "ones_like empty_like rand_like randn_like"),
        (full, "full full_like new_full"),
        (shaped, "arange eye linspace scalar_tensor tensor one_hot"),
        (message, "message"),
    )
    return {name: rule for rule, names in groups for name in names.split()}


RULES: Mapping[str, Rule] = _table()
"""By the name of an operator without its overload, and without the `_` of one that writes in place."""
