"""From samples to sums over rays: weights, normals where they count, light; compiled on the CPU, else in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiled import compose_kernels_for, kernels_for
from .composite import accumulate, transmittance_weights
from .march import Samples
from .shading import Shading, lambert, unlit

NormalOf = Callable[[Tensor], Tensor]
"""Unit normals [M, 3] at positions [M, 3]."""


class View(NamedTuple):
    """What is told about R rays."""

    directions: Tensor
    """[R, 3]."""
    light: Tensor
    """[R, 3], where each ray's light is."""
    shading: Shading
    least: float
    """Samples of no more weight get no normal."""


def compose(
    samples: Samples, density: Tensor, albedo: Tensor, view: View, normal_of: NormalOf | None
) -> tuple[Tensor, Tensor]:
    """Sums [R, C] over each ray of colour, distance, weight and, with ``normal_of``, normals; and the orientation.

    C is 5, or 8 with normals. The orientation is Σ w · max(0, n·d)² of all rays, without a gradient through w.
    """
    if kernels_for(density.device) is not None and density.dtype == torch.float32:
        return _compiled(samples, density, albedo, view, normal_of)
    return _plain(samples, density, albedo, view, normal_of)


def _plain(
    samples: Samples, density: Tensor, albedo: Tensor, view: View, normal_of: NormalOf | None
) -> tuple[Tensor, Tensor]:
    weights = transmittance_weights(density, samples.widths, samples.offsets)
    columns = [albedo, samples.distances[:, None], torch.ones_like(samples.distances[:, None])]
    orientation = weights.new_zeros(())
    if normal_of is not None:
        seen = (weights.detach() > view.least).nonzero()[:, 0]
        normal = normal_of(samples.positions[seen])
        columns[0] = _shade(albedo, samples, view, seen, normal)
        away = (normal * view.directions[samples.rays[seen]]).sum(-1).clamp(min=0.0)
        orientation = (weights.detach()[seen] * away.square()).sum()
        columns.append(torch.zeros_like(samples.positions).index_copy(0, seen, normal))
    return accumulate(weights, torch.cat(columns, -1), samples.offsets), orientation


def _shade(albedo: Tensor, samples: Samples, view: View, seen: Tensor, normal: Tensor) -> Tensor:
    """Colour [N, 3] of all samples; those of ``seen`` have the normals [M, 3]."""
    shading = view.shading
    if shading.mode == "albedo":
        return albedo
    if shading.mode == "normal":
        return torch.full_like(samples.positions, 0.5).index_copy(0, seen, normal * 0.5 + 0.5)
    lit = lambert(samples.positions[seen], normal, view.light[samples.rays[seen]], shading)
    brightness = torch.full_like(samples.distances, unlit(shading)).index_copy(0, seen, lit)[:, None]
    return brightness.expand(-1, 3) if shading.mode == "textureless" else albedo * brightness


def _compiled(
    samples: Samples, density: Tensor, albedo: Tensor, view: View, normal_of: NormalOf | None
) -> tuple[Tensor, Tensor]:
    device = density.device
    widths, offsets = samples.widths.numpy(), samples.offsets.numpy()
    weights, behind = kernels_for(device).weights_forward(density.detach().contiguous().numpy(), widths, offsets)
    least = view.least if normal_of is not None else np.inf
    slot, positions = compose_kernels_for(device).seen(weights, np.float32(least), samples.positions.numpy())
    normal = density.new_empty(0, 3) if normal_of is None else normal_of(torch.from_numpy(positions))
    kept = _Kept(samples, view, weights, behind, slot, 5 if normal_of is None else 8)
    composed: Any = _Compose.apply(density, albedo, normal, kept)
    return composed


class _Kept(NamedTuple):
    """What both ways need."""

    samples: Samples
    view: View
    weights: Any
    behind: Any
    slot: Any
    channels: int

    def arguments(self) -> tuple[Any, ...]:
        """What both loops are told of the samples, rays and lights."""
        samples, view, shading = self.samples, self.view, self.view.shading
        tensors = (samples.positions, samples.distances, samples.offsets, view.light, view.directions)
        lamp = np.array([shading.ambient, shading.diffuse, unlit(shading)], np.float32)
        modes = compose_kernels_for(samples.positions.device).MODES
        return (self.slot, *(each.contiguous().numpy() for each in tensors), modes.index(shading.mode), lamp)


class _Compose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, albedo: Tensor, normal: Tensor, kept: _Kept) -> Any:
        colours, normals = albedo.detach().t().contiguous(), normal.detach().t().contiguous()
        kernels = compose_kernels_for(density.device)
        summed, orientation = kernels.forward(
            kept.weights, colours.numpy(), normals.numpy(), *kept.arguments(), kept.channels
        )
        ctx.save_for_backward(colours, normals)
        ctx.kept = kept
        return torch.from_numpy(summed), density.new_tensor(orientation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        colours, normals = ctx.saved_tensors
        kept: _Kept = ctx.kept
        kernels, gradient = compose_kernels_for(colours.device), grad_outputs[0].contiguous().numpy()
        told, normal = kept.arguments(), normals.numpy()
        found = kernels.backward(
            gradient, kept.weights, kept.behind, kept.samples.widths.numpy(), colours.numpy(), normal, *told
        )
        coloured = kept.view.shading.mode in {"albedo", "lambertian"}
        to_density, to_albedo = torch.from_numpy(found[0]), torch.from_numpy(found[1]).t() if coloured else None
        if kept.channels == 5:
            return to_density, to_albedo, None, None
        turned = np.float32(grad_outputs[1].numpy())
        to_normal = kernels.backward_normals(gradient, turned, found[2], kept.weights, normal, *told)
        return to_density, to_albedo, torch.from_numpy(to_normal).t(), None
