"""Features that are mostly zero: linear maps of them are products with a sparse matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from search_spaces.layers.csr import Csr


class SparseFeatures(Tensor):
    """Features `[nodes, f]` that nothing is learnt of, as a sparse matrix `csr`.

    `functional.linear` and products with a matrix behind it are sparse, and so are the gradients of the weights. To
    everything else it is the dense tensor, which is made at the first time.
    """

    csr: Csr

    @staticmethod
    def __new__(cls, csr: Csr) -> SparseFeatures:
        values = csr.matrix.values()
        made: Any = Tensor._make_wrapper_subclass(cls, csr.shape, dtype=values.dtype, device=values.device)
        made.csr = csr
        found: SparseFeatures = made
        return found

    def __repr__(self) -> str:
        return f"SparseFeatures({self.csr.matrix!r})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if args and isinstance(args[0], SparseFeatures):
            if func is functional.linear:
                return _linear(*args, **(kwargs or {}))
            if func in _PRODUCTS and args[1].dim() == 2 and type(args[1]) is not SparseFeatures:
                return args[0].csr @ args[1]
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        args, kwargs = tree_map_only(SparseFeatures, _dense, (args, kwargs or {}))
        return func(*args, **kwargs)


_PRODUCTS = (torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__)


def _linear(x: SparseFeatures, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = x.csr @ weight.t()
    return product if bias is None else product + bias


def _dense(x: SparseFeatures) -> Tensor:
    return x.csr.dense
