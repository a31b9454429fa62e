"""Pictures of a radiance field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cameras import CameraBatch
from ..cameras import rays as camera_rays
from .compose import View, compose
from .march import RayBundle, march
from .occupancy import OccupancyGrid
from .randomness import draw_seed
from .shading import Shading
from .termination import RadianceField, query_visible

NORMAL_WEIGHT = 1e-3
"""Samples of smaller weight get no normal, unless a renderer is told another."""
_CHUNK_SAMPLES = 1 << 18
"""Most samples at once without gradients."""
_FAINT = 1e-3
"""Opacity below which a depth fades to 0."""


@dataclass
class RenderOutput:
    """B pictures."""

    rgb: Tensor
    """[B, H, W, 3], linear, over the background."""
    opacity: Tensor
    """[B, H, W] in [0, 1]."""
    depth: Tensor
    """[B, H, W], expected distance along the ray; 0 where there is nothing."""
    normal: Tensor | None
    """[B, H, W, 3], weighted mean of the unit normals in world axes, times opacity; None if none were made."""
    orientation_loss: Tensor
    """Scalar: Σ w · max(0, n·d)² of each ray, mean over rays, no gradient through w (Ref-NeRF, Eq. 11); 0 without
    normals."""
    n_samples: int
    """Samples that were composed; those behind opaque matter are not counted."""


@dataclass
class _Rendered:
    """R rays."""

    colour: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor | None
    orientation: Tensor
    n_samples: int

    def shaped(self, shape: tuple[int, ...], background: Tensor) -> RenderOutput:
        """As pictures of a shape, over a background."""
        opacity = self.opacity.view(shape)
        return RenderOutput(
            rgb=self.colour.view(*shape, 3) + (1.0 - opacity)[..., None] * background,
            opacity=opacity,
            depth=self.depth.view(shape),
            normal=None if self.normal is None else self.normal.view(*shape, 3),
            orientation_loss=self.orientation,
            n_samples=self.n_samples,
        )


class Renderer:
    """Volume renderer of a field in the unit ball."""

    def __init__(
        self, field: RadianceField, occupancy: OccupancyGrid, samples_per_ray: int, normal_weight: float = NORMAL_WEIGHT
    ) -> None:
        """``samples_per_ray`` counts along the ball's diameter. Pictures are made on the occupancy grid's device.

        Samples of less than ``normal_weight`` get no normal.
        """
        self.field = field
        self.occupancy = occupancy
        self.samples_per_ray = samples_per_ray
        self.normal_weight = normal_weight

    def render(
        self,
        cameras: CameraBatch,
        height: int,
        width: int,
        *,
        shading: Shading,
        background: Tensor,
        rng: np.random.Generator | None,
        want_normals: bool = False,
    ) -> RenderOutput:
        """Render B cameras.

        ``background`` is linear colour, [3] or [B, H, W, 3]. ``rng`` places the samples (one draw a call); None takes
        the middles of their intervals. Normals are made when the shading or ``want_normals`` asks for them. Under
        ``torch.no_grad`` large pictures are made piece by piece, with the same result.
        """
        device = self.occupancy.density.device
        origins, directions = camera_rays(cameras, height, width)
        bundle = RayBundle(
            torch.from_numpy(origins).to(device).repeat_interleave(height * width, 0),
            torch.from_numpy(directions).to(device).view(-1, 3),
        )
        light = torch.from_numpy(origins) if shading.light is None else shading.light
        light = light.to(device=device, dtype=torch.float32).repeat_interleave(height * width, 0)
        whole = self._render_bundle(bundle, light, shading, rng, want_normals=want_normals)
        return whole.shaped((len(cameras), height, width), background.to(device))

    def render_rays(
        self,
        origins: NDArray[np.float32],
        directions: NDArray[np.float32],
        *,
        shading: Shading,
        background: Tensor,
        rng: np.random.Generator | None,
        want_normals: bool = False,
    ) -> RenderOutput:
        """Render single rays: N of each of B cameras, with ``origins`` [B, 3] and unit ``directions`` [B, N, 3].

        As :meth:`render`; pictures are [B, N] instead of [B, H, W], and ``background`` is [3] or [B, N, 3].
        """
        device = self.occupancy.density.device
        count = directions.shape[1]
        start = torch.from_numpy(origins).to(device).repeat_interleave(count, 0)
        bundle = RayBundle(start, torch.from_numpy(directions).to(device).reshape(-1, 3))
        light = start if shading.light is None else shading.light.to(start).repeat_interleave(count, 0)
        whole = self._render_bundle(bundle, light, shading, rng, want_normals=want_normals)
        return whole.shaped(directions.shape[:2], background.to(device))

    def _render_bundle(
        self, bundle: RayBundle, light: Tensor, shading: Shading, rng: np.random.Generator | None, *, want_normals: bool
    ) -> _Rendered:
        seed = None if rng is None else draw_seed(rng)
        normals = want_normals or shading.needs_normals
        whole = len(bundle)
        piece = whole if torch.is_grad_enabled() else max(64, _CHUNK_SAMPLES // self.samples_per_ray)
        parts = [
            self._render_rays(bundle.chunk(i, i + piece), light[i : i + piece], shading, seed, normals)
            for i in range(0, whole, piece)
        ]
        return _Rendered(
            colour=torch.cat([part.colour for part in parts]),
            opacity=torch.cat([part.opacity for part in parts]),
            depth=torch.cat([part.depth for part in parts]),
            normal=torch.cat([part.normal for part in parts if part.normal is not None]) if normals else None,
            orientation=torch.stack([part.orientation for part in parts]).sum() / whole,
            n_samples=sum(part.n_samples for part in parts),
        )

    def _render_rays(
        self, bundle: RayBundle, light: Tensor, shading: Shading, seed: int | None, normals: bool
    ) -> _Rendered:
        samples = march(bundle, self.occupancy, self.samples_per_ray, seed)
        samples, density, albedo = query_visible(self.field, self.occupancy, samples)
        view = View(bundle.directions, light, shading, self.normal_weight)
        summed, orientation = compose(samples, density, albedo, view, self.field.normal if normals else None)
        opacity = summed[:, 4].clamp(max=1.0)  # rounding alone exceeds 1
        return _Rendered(
            colour=summed[:, :3],
            opacity=opacity,
            depth=summed[:, 3] / opacity.clamp(min=_FAINT),
            normal=summed[:, 5:8] if normals else None,
            orientation=orientation,
            n_samples=len(samples),
        )
