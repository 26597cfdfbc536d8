"""Constant sparse matrices in compressed rows whose transpose is known, and products with dense ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class Csr:
    """A sparse matrix `[rows, columns]` that nothing is learnt of; `matrix @ x` is differentiable in `x`, also twice.

    The gradient is a product with the transpose. PyTorch would transpose at every call; here it is known. Entries at
    the same place are added up.
    """

    def __init__(self, matrix: Tensor, transpose: Tensor, order: Tensor) -> None:
        self.matrix, self.transpose = matrix, transpose
        self._order = order  # of the transpose's values among those of the matrix

    @staticmethod
    def of(row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Csr:
        """The matrix with `values [m]` at `(row [m], column [m])`; rows ascend."""
        order = column.argsort(stable=True)
        transpose = _matrix(_starts(column[order], shape[1]), row[order], values[order], (shape[1], shape[0]))
        return Csr(_matrix(_starts(row, shape[0]), column, values, shape), transpose, order)

    def with_values(self, values: Tensor) -> Csr:
        """Other `values [m]` at the same places, in the order of `matrix`."""
        return Csr(_refilled(self.matrix, values), _refilled(self.transpose, values[self._order]), self._order)

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    @cached_property
    def dense(self) -> Tensor:
        """The same as a dense tensor."""
        return self.matrix.to_dense()

    def __matmul__(self, x: Tensor) -> Tensor:
        """`[rows, columns]` times `[columns, f]`, in the dtype of `x`; half precision is added up in float32."""
        product: Tensor = _Product.apply(x, self.matrix, self.transpose)
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return torch.mm(matrix, x.to(matrix.dtype)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        _, ctx.matrix, ctx.transpose = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient, ctx.transpose, ctx.matrix), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *constants: None) -> Tensor:
        product: Tensor = _Product.apply(tangent, ctx.matrix, ctx.transpose)
        return product

    @staticmethod
    def vmap(info: Any, places: tuple[int | None, ...], x: Tensor, *matrices: Tensor) -> tuple[Tensor, int]:
        """Several dense matrices side by side are one."""
        assert places[0] is not None
        columns = x.movedim(places[0], 1)
        product: Tensor = _Product.apply(columns.flatten(1), *matrices)
        return product.unflatten(1, columns.shape[1:]), 1


def _starts(ascending: Tensor, count: int) -> Tensor:
    """Where the entries of each row begin `[count + 1]`, by the rows of all of them."""
    return torch.searchsorted(ascending.contiguous(), torch.arange(count + 1, device=ascending.device))


def _refilled(matrix: Tensor, values: Tensor) -> Tensor:
    return _matrix(matrix.crow_indices(), matrix.col_indices(), values, matrix.shape)


def _matrix(starts: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, tuple(shape), check_invariants=False)
