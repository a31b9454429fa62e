"""The heads on the CPU where numba is installed: the loops of :mod:`.head_kernels` inside autograd functions.

Ranges of samples are shared among threads, and their sums over samples added in order: the same on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import head_kernels as kernels
from .prior import activate_, activation_slope
from .workers import in_pieces, run_kernels, share_count

if TYPE_CHECKING:
    from .heads import Heads

_RANGE = 4096
"""Samples of a range; waking a thread for fewer saves nothing."""


def fits(encoding: Tensor, hidden: int) -> bool:
    """Whether the loops take this encoding [N, K] and heads with so many hidden units each."""
    return encoding.device.type == "cpu" and encoding.dtype == torch.float32 and hidden % kernels.UNITS == 0


def query(encoding: Tensor, x: Tensor, hidden: Tensor, outputs: Sequence[Tensor], heads: Heads) -> Any:
    """Density [N], and albedo [N, 3] if there is its head: ``outputs`` has an [O, H] for each, ``hidden`` is [M, K]."""
    return _Query.apply(encoding, x, hidden, heads, *outputs)


def covector(encoding: Tensor, hidden: Tensor, density: Tensor) -> Any:
    """As :func:`.heads.density_covector`."""
    return _Covector.apply(encoding, hidden, density)


def unit_normals(prior: Tensor, along: Tensor, shortest: float) -> Any:
    """As :func:`.heads.unit_normals`."""
    return _UnitNormals.apply(prior, along, shortest)


def _ranges(n: int, work: Callable[[int, int, int], None]) -> None:
    """Call ``work(range, low, high)`` for every range of n samples, shared among threads."""
    count = -(-n // _RANGE)

    def task(share: int, shares: int) -> None:
        for index in range(share, count, shares):
            work(index, index * _RANGE, min(n, (index + 1) * _RANGE))

    run_kernels(task, share_count(count))


def _rows(tensor: Tensor) -> Any:
    """[N, K] as a contiguous array [K, N]; without a copy where it is the view of one."""
    return tensor.detach().t().contiguous().numpy()


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


class _Query(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoding: Tensor, x: Tensor, hidden: Tensor, heads: Heads, *outputs: Tensor) -> Any:
        n, rows, weights = len(x), _rows(encoding), [_array(output) for output in outputs]
        density, albedo = x.new_empty(1, n), x.new_empty(sum(map(len, weights)) - 1, n)
        first, features = _array(hidden), (0,) * len(rows)

        def work(_: int, low: int, high: int) -> None:
            for i, (output, raw) in enumerate(zip(weights, (density, albedo), strict=False)):
                mine = first[i * heads.hidden : (i + 1) * heads.hidden]
                kernels.forward(rows, mine, output, raw.numpy(), low, high, features, (0,) * len(output))

        _ranges(n, work)
        density = activate_(density.add_(heads.offset(x)), heads.activation)
        in_pieces(torch.sigmoid_, albedo)
        ctx.save_for_backward(encoding, hidden, density, albedo, *outputs)
        ctx.heads = heads
        return (density[0], albedo.t()) if len(albedo) else density[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        encoding, hidden, density, albedo, *outputs = ctx.saved_tensors
        heads: Heads = ctx.heads
        given = [grad_outputs[0][None] * activation_slope(density, heads.activation)]
        if len(albedo):
            given.append(grad_outputs[1].t() * (albedo - albedo * albedo))
        rows, to_raw = _rows(encoding), [_array(each) for each in given]
        weights, first = [_array(output) for output in outputs], _array(hidden)
        n, count, features = rows.shape[1], -(-rows.shape[1] // _RANGE), (0,) * len(rows)
        to_rows, to_hidden = torch.empty(rows.shape), torch.zeros(count, *first.shape)
        to_outputs = [torch.zeros(count, *reversed(output.shape)) for output in weights]

        def work(index: int, low: int, high: int) -> None:
            for i, output in enumerate(weights):
                part = slice(i * heads.hidden, (i + 1) * heads.hidden)
                sums = to_hidden[index, part].numpy(), to_outputs[i][index].numpy()
                kernels.backward(
                    rows, first[part], output, to_raw[i], to_rows.numpy(), *sums, low, high, i > 0, features,
                    (0,) * len(output),
                )  # fmt: skip

        _ranges(n, work)
        return to_rows.t(), None, to_hidden.sum(0), None, *(each.sum(0).t() for each in to_outputs)


class _Covector(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoding: Tensor, hidden: Tensor, density: Tensor) -> Tensor:
        rows, first, output = _rows(encoding), _array(hidden), _array(density)
        out = torch.empty(rows.shape)

        def work(_: int, low: int, high: int) -> None:
            kernels.covector(rows, first, output, out.numpy(), low, high, (0,) * len(rows))

        _ranges(rows.shape[1], work)
        ctx.save_for_backward(encoding, hidden, density)
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        encoding, hidden, density = ctx.saved_tensors
        rows, along, first, output = _rows(encoding), _rows(grad_outputs[0]), _array(hidden), _array(density)
        count = -(-rows.shape[1] // _RANGE)
        to_hidden, to_density = torch.zeros(count, *first.shape), torch.zeros(count, len(first), 1)

        def work(index: int, low: int, high: int) -> None:
            sums = to_hidden[index].numpy(), to_density[index].numpy()
            kernels.covector_backward(rows, first, output, along, *sums, low, high, (0,) * len(rows))

        _ranges(rows.shape[1], work)
        return None, to_hidden.sum(0), to_density.sum(0).t()


class _UnitNormals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prior: Tensor, along: Tensor, shortest: float) -> Tensor:
        ctx.least, ctx.inverse = np.float32(shortest), np.empty(len(prior), np.float32)
        out = torch.empty(3, len(prior))
        kernels.unit_normals(_array(prior), _rows(along), ctx.least, out.numpy(), ctx.inverse)
        ctx.save_for_backward(out)
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (normals,) = ctx.saved_tensors
        out = torch.empty_like(normals)
        kernels.unit_normals_backward(_rows(grad_outputs[0]), normals.numpy(), ctx.least, ctx.inverse, out.numpy())
        return None, out.t(), None
