"""What modules remember of the sizes of their tensors: attributes that follow when the tensors change.

By the type of a module a function that sets its numbers from its tensors, as they are now, and from what they were. A
user's module may have a method `resized()` that does so, called after its tensors, and those within it, have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Resized(Protocol):
    """A module that remembers sizes of its tensors."""

    def resized(self) -> None:
        """Its tensors, or those of modules within it, have other shapes now."""
        ...


def resize(module: nn.Module) -> None:
    """Let a module's attributes follow its tensors."""
    for kind in type(module).__mro__:
        follow = FOLLOWS.get(f"{kind.__module__}.{kind.__qualname__}")
        if follow is not None:
            follow(module)
            break
    if isinstance(module, Resized):
        module.resized()


def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _bilinear(module: Any) -> None:
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _convolution(module: Any) -> None:
    """Where every group has one input, the groups are what was removed; else they stay, and get thinner."""
    rows, columns = module.weight.shape[:2]
    if module.groups > 1 and module.in_channels == module.groups:
        module.groups = rows // (module.out_channels // module.groups)
    module.in_channels, module.out_channels = columns * module.groups, rows


def _transposed(module: Any) -> None:
    module.in_channels, columns = module.weight.shape[:2]
    module.out_channels = columns * module.groups


def _batch_norm(module: Any) -> None:
    held = [one for one in (module.weight, module.running_mean) if one is not None]
    if held:
        module.num_features = len(held[0])


def _group_norm(module: Any) -> None:
    if module.weight is not None:
        if module.num_groups == module.num_channels:
            module.num_groups = len(module.weight)
        module.num_channels = len(module.weight)


def _layer_norm(module: Any) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _embedding(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: Any) -> None:
    module.num_parameters = len(module.weight)


def _recurrent(module: Any) -> None:
    module.hidden_size, module.input_size = module.weight_hh_l0.shape[1], module.weight_ih_l0.shape[1]


def _recurrent_cell(module: Any) -> None:
    module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]


def _pyg_linear(module: Any) -> None:
    module.out_channels, module.in_channels = module.weight.shape


def _pyg_width(module: Any, inside: str) -> None:
    held = getattr(module, inside, None)
    if held is not None:
        module.out_channels, module.in_channels = held.weight.shape[0], _like(module.in_channels, held.weight.shape[1])


def _like(before: Any, width: int) -> Any:
    return (width, width) if isinstance(before, tuple) else width


def _gat(module: Any) -> None:
    """`att_src [1, heads, out]`; the map to all heads has `heads * out` rows."""
    _, module.heads, module.out_channels = module.att_src.shape
    if module.lin is not None:
        module.in_channels = module.lin.weight.shape[1]


def _gatv2(module: Any) -> None:
    _, module.heads, module.out_channels = module.att.shape
    module.in_channels = _like(module.in_channels, module.lin_l.weight.shape[1])


def _cheb(module: Any) -> None:
    module.out_channels, module.in_channels = module.lins[0].weight.shape


def _arma(module: Any) -> None:
    """`init_weight [stacks, in, out]`."""
    module.num_stacks, module.in_channels, module.out_channels = module.init_weight.shape


FOLLOWS: Mapping[str, Callable[[Any], None]] = {
    "torch.nn.modules.linear.Linear": _linear,
    "torch.nn.modules.linear.Bilinear": _bilinear,
    "torch.nn.modules.conv._ConvTransposeNd": _transposed,
    "torch.nn.modules.conv._ConvNd": _convolution,
    "torch.nn.modules.batchnorm._NormBase": _batch_norm,
    "torch.nn.modules.normalization.GroupNorm": _group_norm,
    "torch.nn.modules.normalization.LayerNorm": _layer_norm,
    "torch.nn.modules.normalization.RMSNorm": _layer_norm,
    "torch.nn.modules.sparse.Embedding": _embedding,
    "torch.nn.modules.activation.PReLU": _prelu,
    "torch.nn.modules.rnn.RNNBase": _recurrent,
    "torch.nn.modules.rnn.RNNCellBase": _recurrent_cell,
    "torch_geometric.nn.dense.linear.Linear": _pyg_linear,
    "torch_geometric.nn.conv.gcn_conv.GCNConv": lambda module: _pyg_width(module, "lin"),
    "torch_geometric.nn.conv.sage_conv.SAGEConv": lambda module: _pyg_width(module, "lin_l"),
    "torch_geometric.nn.conv.graph_conv.GraphConv": lambda module: _pyg_width(module, "lin_rel"),
    "torch_geometric.nn.conv.gat_conv.GATConv": _gat,
    "torch_geometric.nn.conv.gatv2_conv.GATv2Conv": _gatv2,
    "torch_geometric.nn.conv.cheb_conv.ChebConv": _cheb,
    "torch_geometric.nn.conv.arma_conv.ARMAConv": _arma,
}
"""By the full name of a type; the nearest in the order of its bases holds."""
