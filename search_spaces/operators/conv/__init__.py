"""Operations of cells on feature maps.

`EDGE`: made by `(channels, stride, style)`, called with a node `search_spaces.layers.features.Features` of
`[b, channels, h, w]`, answers `[b, channels, ceil(h / stride), ceil(w / stride)]`, or None where nothing is added;
`CELL`: the same, and a `DropPath` or None, through which all but skips go;
`RECTIFIED`: made by `(width, stride)`, called with a map `[n, width, h, w]` that the caller has rectified where the
operation has weights, answers `[n, width, ceil(h / stride), ceil(w / stride)]`.
"""

from search_spaces.operators.operator import Role

EDGE = Role(
    "edge operation",
    group="nas.edge_operations",
    made_by=("channels", "stride", "style"),
    table={
        "none": "search_spaces.operators.conv.zero:Zero",
        "skip_connect": "search_spaces.operators.conv.skip:Skip",
        "nor_conv_1x1": "search_spaces.operators.conv.convolution:Convolution(kernel=1)",
        "nor_conv_3x3": "search_spaces.operators.conv.convolution:Convolution(kernel=3)",
        "avg_pool_3x3": "search_spaces.operators.conv.mean:Mean",
    },
)

CELL = Role(
    "cell operation",
    group="nas.cell_operations",
    made_by=("channels", "stride", "style", "drop_path"),
    table={
        "none": "search_spaces.operators.conv.zero:Zero",
        "max_pool_3x3": "search_spaces.operators.conv.pool:Pool(mode=max)",
        "avg_pool_3x3": "search_spaces.operators.conv.pool:Pool(mode=avg)",
        "skip_connect": "search_spaces.operators.conv.skip:Skip",
        "sep_conv_3x3": "search_spaces.operators.conv.separable:SeparableConvolution(kernel=3)",
        "sep_conv_5x5": "search_spaces.operators.conv.separable:SeparableConvolution(kernel=5)",
        "dil_conv_3x3": "search_spaces.operators.conv.dilated:DilatedConvolution(kernel=3)",
        "dil_conv_5x5": "search_spaces.operators.conv.dilated:DilatedConvolution(kernel=5)",
    },
)

RECTIFIED = Role(
    "NASNet operation",
    group="nas.nasnet_operations",
    made_by=("width", "stride"),
    table={
        "identity": "search_spaces.operators.conv.halving:identity",
        "conv_1x7_7x1": "search_spaces.operators.conv.split:Split(kernel=7)",
        "avg_pool_3x3": "search_spaces.operators.conv.pooling:pooling(kernel=3, mode=avg)",
        "max_pool_5x5": "search_spaces.operators.conv.pooling:pooling(kernel=5, mode=max)",
        "conv_1x1": "search_spaces.operators.conv.full:Convolution(kernel=1)",
        "sep_conv_3x3": "search_spaces.operators.conv.stacked:Separable(kernel=3)",
        "sep_conv_7x7": "search_spaces.operators.conv.stacked:Separable(kernel=7)",
        "conv_1x3_3x1": "search_spaces.operators.conv.split:Split(kernel=3)",
        "dil_conv_3x3": "search_spaces.operators.conv.full:Convolution(kernel=3, dilation=2)",
        "max_pool_3x3": "search_spaces.operators.conv.pooling:pooling(kernel=3, mode=max)",
        "max_pool_7x7": "search_spaces.operators.conv.pooling:pooling(kernel=7, mode=max)",
        "conv_3x3": "search_spaces.operators.conv.full:Convolution(kernel=3)",
        "sep_conv_5x5": "search_spaces.operators.conv.stacked:Separable(kernel=5)",
    },
)
