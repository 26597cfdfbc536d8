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
        transpose = _matrix(starts(column[order], shape[1]), row[order], values[order], (shape[1], shape[0]))
        return Csr(_matrix(starts(row, shape[0]), column, values, shape), transpose, order)

    def with_values(self, values: Tensor) -> Csr:
        """Other `values [m]` at the same places, in the order of `matrix`."""
        transpose = _refilled(self.transpose, self.transposed(values))
        return Csr(_refilled(self.matrix, values), transpose, self._order)

    @cached_property
    def t(self) -> Csr:
        """The transpose."""
        return Csr(self.transpose, self.matrix, self._order.argsort())

    def transposed(self, values: Tensor) -> Tensor:
        """Values `[m]` in the order of the transpose."""
        return values.index_select(0, self._order)

    def weighted(self, values: Tensor, x: Tensor) -> Tensor:
        """Values `[m]` in the places of the matrix, in its order, times `x [columns, f]`: differentiable in both, as
        often as one likes."""
        product: Tensor = _Weighted.apply(values, x, self)
        return product

    def sampled(self, one: Tensor, other: Tensor) -> Tensor:
        """The inner products `[m]` of rows of `one [rows, f]` and `other [columns, f]` in the places of the matrix, in
        its order: differentiable in both, as often as one likes."""
        products: Tensor = _Sampled.apply(one, other, self)
        return products

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    @property
    def entries(self) -> int:
        return self.matrix.values().numel()

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


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, x: Tensor, places: Csr) -> Tensor:
        dtype = places.matrix.dtype
        with torch.autocast(x.device.type, enabled=False):
            return torch.mm(_refilled(places.matrix, values.to(dtype)), x.to(dtype)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Csr], output: Tensor) -> None:
        *tensors, ctx.places = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, x = ctx.saved_tensors
        of_values, of_x = ctx.needs_input_grad[:2]
        return (
            ctx.places.sampled(gradient, x).to(values.dtype) if of_values else None,
            ctx.places.t.weighted(ctx.places.transposed(values), gradient) if of_x else None,
            None,
        )


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(one: Tensor, other: Tensor, places: Csr) -> Tensor:
        matrix = places.matrix
        if matrix.values().numel() > matrix.shape[0] * matrix.shape[1]:  # torch refuses that many at the same places
            row = torch.arange(matrix.shape[0], device=one.device).repeat_interleave(matrix.crow_indices().diff())
            return (one.index_select(0, row) * other.index_select(0, matrix.col_indices())).sum(1)
        with torch.autocast(one.device.type, enabled=False):
            found = torch.sparse.sampled_addmm(matrix, one.to(matrix.dtype), other.to(matrix.dtype).t(), beta=0.0)
        return found.values().to(one.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Csr], output: Tensor) -> None:
        *tensors, ctx.places = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        one, other = ctx.saved_tensors
        of_one, of_other = ctx.needs_input_grad[:2]
        return (
            ctx.places.weighted(gradient, other).to(one.dtype) if of_one else None,
            ctx.places.t.weighted(ctx.places.transposed(gradient), one).to(other.dtype) if of_other else None,
            None,
        )


def starts(ascending: Tensor, count: int) -> Tensor:
    """Where the entries of each row begin `[count + 1]`, by the rows of all of them."""
    return torch.searchsorted(ascending.contiguous(), torch.arange(count + 1, device=ascending.device))


def _refilled(matrix: Tensor, values: Tensor) -> Tensor:
    return _matrix(matrix.crow_indices(), matrix.col_indices(), values, matrix.shape)


def _matrix(starts: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, tuple(shape), check_invariants=False)
