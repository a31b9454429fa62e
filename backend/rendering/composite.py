"""Transmittance compositing of packed samples, differentiable, compiled on the CPU and in PyTorch elsewhere.

Weights are the volume rendering quadrature of Max (1995): w_i = T_i (1 − exp(−σ_i δ_i)), T_i = exp(−Σ_{j<i} σ_j δ_j).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..field.workers import in_pieces
from .compiled import kernels_for


def transmittance_weights(density: Tensor, widths: Tensor, offsets: Tensor) -> Tensor:
    """Weights [N] of samples with densities [N] and widths [N]; ray r owns samples offsets[r] to offsets[r + 1].

    Differentiable with respect to the densities.
    """
    return _apply(_Weights, density, widths, offsets)


def opacities(density: Tensor, widths: Tensor) -> Tensor:
    """1 − exp(−σδ), [N]; all at once, for a loop over rays has no exponential of several numbers at a time."""
    return in_pieces(torch.expm1_, torch.mul(density, widths).neg_()).neg_()


@torch.no_grad()
def depth_before(density: Tensor, widths: Tensor, offsets: Tensor) -> Tensor:
    """Optical depth [N] that each ray has gathered before each of its samples; no gradient."""
    if (kernels := kernels_for(density.device)) is not None:
        return torch.from_numpy(kernels.depth_before(density.numpy(), widths.numpy(), offsets.numpy()))
    padding = _Padding(offsets)
    through = padding.spread(density * widths).cumsum(1)
    return padding.gather(torch.nn.functional.pad(through, (1, 0))[:, :-1])


def accumulate(weights: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
    """Sums [R, C] over each ray of weights [N] times values [N, C]; differentiable with respect to both."""
    return _apply(_Accumulate, weights, values, offsets)


def _apply(function: Any, *arguments: Tensor) -> Tensor:
    return function.apply(*arguments)


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, widths: Tensor, offsets: Tensor) -> Tensor:
        if (kernels := kernels_for(density.device)) is not None:
            alpha = opacities(density.detach(), widths)
            weights, behind = map(torch.from_numpy, kernels.weights_forward(alpha.numpy(), offsets.numpy()))
        else:
            weights, behind = _weights_forward(density.detach(), widths, offsets)
        ctx.save_for_backward(weights, behind, widths, offsets)
        return weights

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: once_differentiable hides the name ctx
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        weights, behind, widths, offsets = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        if (kernels := kernels_for(weights.device)) is not None:
            arrays = (t.numpy() for t in (gradient, weights.detach(), behind, widths, offsets))
            return torch.from_numpy(kernels.weights_backward(*arrays)), None, None
        return _weights_backward(gradient, weights, behind, widths, offsets), None, None


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
        weights, values = weights.detach().contiguous(), values.detach().contiguous()
        ctx.save_for_backward(weights, values, offsets)
        if (kernels := kernels_for(values.device)) is not None:
            return torch.from_numpy(kernels.accumulate_forward(weights.numpy(), values.numpy(), offsets.numpy()))
        return _Padding(offsets).spread(weights[:, None] * values).sum(1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: once_differentiable hides the name ctx
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        weights, values, offsets = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        if (kernels := kernels_for(values.device)) is not None:
            arrays = (t.numpy() for t in (gradient, weights, values, offsets))
            of_weights, of_values = kernels.accumulate_backward(*arrays)
            return torch.from_numpy(of_weights), torch.from_numpy(of_values), None
        each = gradient[_Padding(offsets).rays]
        return (each * values).sum(-1), weights[:, None] * each, None


class _Padding:
    """Between packed samples [N, …] and rays padded to the longest, [R, S, …]; no atomics, so deterministic."""

    def __init__(self, offsets: Tensor) -> None:
        counts = offsets.diff()
        self.n_rays = len(counts)
        self.longest = int(counts.max()) if self.n_rays else 0
        self.rays = torch.repeat_interleave(torch.arange(self.n_rays, device=offsets.device), counts)
        slot = torch.arange(len(self.rays), device=offsets.device) - offsets[self.rays]
        self.place = self.rays * self.longest + slot

    def spread(self, packed: Tensor) -> Tensor:
        padded = packed.new_zeros((self.n_rays * self.longest, *packed.shape[1:]))
        padded[self.place] = packed
        return padded.view(self.n_rays, self.longest, *packed.shape[1:])

    def gather(self, padded: Tensor) -> Tensor:
        return padded.reshape(-1)[self.place]


def _weights_forward(density: Tensor, widths: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    padding = _Padding(offsets)
    depth = padding.spread(density * widths)
    through = depth.cumsum(1)
    weights = torch.exp(depth - through) * -torch.expm1(-depth)
    return padding.gather(weights), padding.gather(torch.exp(-through))


def _weights_backward(gradient: Tensor, weights: Tensor, behind: Tensor, widths: Tensor, offsets: Tensor) -> Tensor:
    padding = _Padding(offsets)
    shares = padding.spread(gradient * weights)
    later = shares.flip(1).cumsum(1).flip(1) - shares
    return widths * (gradient * behind - padding.gather(later))
