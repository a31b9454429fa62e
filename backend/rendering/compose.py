"""From samples to sums over rays: weights, normals where they count, light; compiled on the CPU, else in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..field.workers import run_kernels, share_count
from .compiled import compose_kernels_for, kernels_for
from .composite import accumulate, opacities, transmittance_weights
from .march import Samples
from .shading import Shading, lambert, unlit

_SHARED_SAMPLES = 8192
"""Samples of a thread at the least; waking it for fewer saves nothing."""
NormalOf = Callable[[Tensor], Tensor]
"""Unit normals [M, 3] at positions [M, 3]."""


class Style(NamedTuple):
    """How rays are shown."""

    shading: Shading
    """Its light is told for each ray."""
    normals: bool
    """Whether normals are made, and the orientation."""


class View(NamedTuple):
    """What is told about R rays."""

    directions: Tensor
    """[R, 3]."""
    light: Tensor
    """[R, 3], where each ray's light is."""
    style: Tensor
    """[R] int32, which of the styles is a ray's."""
    styles: tuple[Style, ...]
    least: float
    """Samples of no more weight get no normal."""

    def chunk(self, start: int, stop: int) -> View:
        """What is told about the rays of a range."""
        mine = slice(start, stop)
        return self._replace(directions=self.directions[mine], light=self.light[mine], style=self.style[mine])

    @property
    def normals(self) -> bool:
        """Whether any ray has normals."""
        return any(style.normals for style in self.styles)


def compose(samples: Samples, density: Tensor, albedo: Tensor, view: View, normal_of: NormalOf) -> Tensor:
    """Sums [R, C] over each ray of colour, distance, weight and, where any ray has them, normals and orientation.

    C is 5, or 9 with normals. The orientation is Σ w · max(0, n·d)² of a ray, without a gradient through w.
    """
    if kernels_for(density.device) is not None and density.dtype == torch.float32:
        return _compiled(samples, density, albedo, view, normal_of)
    return _plain(samples, density, albedo, view, normal_of)


def _plain(samples: Samples, density: Tensor, albedo: Tensor, view: View, normal_of: NormalOf) -> Tensor:
    weights = transmittance_weights(density, samples.widths, samples.offsets)
    columns = [albedo, samples.distances[:, None], torch.ones_like(samples.distances[:, None])]
    if not view.normals:
        return accumulate(weights, torch.cat(columns, -1), samples.offsets)
    counts = weights.detach() > view.least
    for index, style in enumerate(view.styles):
        if not style.normals:
            counts = counts & (view.style != index)[samples.rays]
    seen = counts.nonzero()[:, 0]
    normal = normal_of(samples.positions[seen])
    columns[0] = _shade(albedo, samples, view, seen, normal)
    columns.append(torch.zeros_like(samples.positions).index_copy(0, seen, normal))
    away = (normal * view.directions[samples.rays[seen]]).sum(-1).clamp(min=0.0).square()
    away = torch.zeros_like(samples.distances).index_copy(0, seen, away)[:, None]
    sums = accumulate(weights, torch.cat(columns, -1), samples.offsets)
    return torch.cat([sums, accumulate(weights.detach(), away, samples.offsets)], -1)


def _shade(albedo: Tensor, samples: Samples, view: View, seen: Tensor, normal: Tensor) -> Tensor:
    """Colour [N, 3] of all samples; those of ``seen`` have the normals [M, 3]."""
    colour, *others = (_shaded(style.shading, albedo, samples, view, seen, normal) for style in view.styles)
    if others:
        style = view.style[samples.rays][:, None]
        for index, other in enumerate(others, 1):
            colour = torch.where(style == index, other, colour)
    return colour


def _shaded(shading: Shading, albedo: Tensor, samples: Samples, view: View, seen: Tensor, normal: Tensor) -> Tensor:
    """The same in one style."""
    if shading.mode == "albedo":
        return albedo
    if shading.mode == "normal":
        return torch.full_like(samples.positions, 0.5).index_copy(0, seen, normal * 0.5 + 0.5)
    lit = lambert(samples.positions[seen], normal, view.light[samples.rays[seen]], shading)
    brightness = torch.full_like(samples.distances, unlit(shading)).index_copy(0, seen, lit)[:, None]
    return brightness.expand(-1, 3) if shading.mode == "textureless" else albedo * brightness


def _compiled(samples: Samples, density: Tensor, albedo: Tensor, view: View, normal_of: NormalOf) -> Tensor:
    device = density.device
    alpha, offsets = opacities(density.detach(), samples.widths), samples.offsets.numpy()
    weights, behind = kernels_for(device).weights_forward(alpha.numpy(), offsets)
    least = np.array([view.least if style.normals else np.inf for style in view.styles], np.float32)
    kernels = compose_kernels_for(device)
    slot, positions = kernels.seen(weights, least, view.style.numpy(), offsets, samples.positions.numpy())
    normal = normal_of(torch.from_numpy(positions)) if view.normals else density.new_empty(0, 3)
    kept = _Kept(samples, view, weights, behind, slot)
    composed: Any = _Compose.apply(density, albedo, normal, kept)
    return composed


class _Kept(NamedTuple):
    """What both ways need."""

    samples: Samples
    view: View
    weights: Any
    behind: Any
    slot: Any

    def share(self, kernel: Callable[..., None], *arguments: Any) -> None:
        """Run a loop over the rays, in as many threads as pay."""
        shares = share_count(len(self.weights) // _SHARED_SAMPLES)
        run_kernels(lambda *mine: kernel(*arguments, *mine), shares)

    def arguments(self) -> tuple[Any, ...]:
        """What all loops are told of the samples, rays and lights."""
        samples, view = self.samples, self.view
        tensors = (samples.positions, samples.distances, samples.offsets, view.light, view.directions, view.style)
        shadings = [style.shading for style in view.styles]
        lamps = np.array([(each.ambient, each.diffuse, unlit(each)) for each in shadings], np.float32)
        names = compose_kernels_for(samples.positions.device).MODES
        modes = np.array([names.index(each.mode) for each in shadings], np.int32)
        return (self.slot, *(each.contiguous().numpy() for each in tensors), modes, lamps)


class _Compose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, albedo: Tensor, normal: Tensor, kept: _Kept) -> Any:
        colours, normals = albedo.detach().t().contiguous(), normal.detach().t().contiguous()
        summed = np.zeros((len(kept.view.style), 9 if kept.view.normals else 5), np.float32)
        arguments = (kept.weights, colours.numpy(), normals.numpy(), *kept.arguments(), summed)
        kept.share(compose_kernels_for(density.device).forward, *arguments)
        ctx.save_for_backward(colours, normals)
        ctx.kept = kept
        return torch.from_numpy(summed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        colours, normals = ctx.saved_tensors
        kept: _Kept = ctx.kept
        kernels, gradient = compose_kernels_for(colours.device), grad_outputs[0].contiguous().numpy()
        told, normal, widths = kept.arguments(), normals.numpy(), kept.samples.widths.numpy()
        found = (np.empty_like(kept.weights), np.empty(colours.shape, np.float32), np.empty_like(kept.weights))
        kept.share(
            kernels.backward, gradient, kept.weights, kept.behind, widths, colours.numpy(), normal, *told, *found
        )
        coloured = any(style.shading.mode in {"albedo", "lambertian"} for style in kept.view.styles)
        to_density, to_albedo = torch.from_numpy(found[0]), torch.from_numpy(found[1]).t() if coloured else None
        if not kept.view.normals:
            return to_density, to_albedo, None, None
        to_normal = np.empty_like(normal)
        kept.share(kernels.backward_normals, gradient, found[2], kept.weights, normal, *told, to_normal)
        return to_density, to_albedo, torch.from_numpy(to_normal).t(), None
