"""Pictures of a radiance field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cameras import CameraBatch
from ..cameras import rays as camera_rays
from .compose import Style, View, compose
from .march import RayBundle
from .occupancy import OccupancyGrid
from .randomness import draw_seed
from .shading import Shading
from .termination import RadianceField, visible_samples

NORMAL_WEIGHT = 1e-3
"""Samples of smaller weight get no normal, unless a renderer is told another."""
_CHUNK_SAMPLES = 1 << 18
"""Most samples at once without gradients."""
_FAINT = 1e-3
"""Opacity below which a depth fades to 0."""


@dataclass(frozen=True)
class Shot:
    """Rays of B cameras, and how they are shown."""

    origins: NDArray[np.float32]
    """[B, 3]."""
    directions: NDArray[np.float32]
    """[B, …, 3], unit."""
    shading: Shading
    background: Tensor
    """Linear colour, [3] or [B, …, 3]."""
    want_normals: bool = False
    """Normals are made when this or the shading asks for them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, …], of the rays."""
        return self.directions.shape[:-1]

    @property
    def each(self) -> int:
        """Rays of one camera."""
        return math.prod(self.shape[1:])

    @property
    def style(self) -> Style:
        """How all its rays are shown, wherever their light is."""
        shading = dataclasses.replace(self.shading, light=None)
        return Style(shading, self.want_normals or shading.needs_normals)

    def rays(self, device: torch.device) -> RayBundle:
        """All rays."""
        origins = torch.from_numpy(self.origins).to(device).repeat_interleave(self.each, 0)
        return RayBundle(origins, torch.from_numpy(self.directions).to(device).reshape(-1, 3))

    def light(self, rays: RayBundle) -> Tensor:
        """Where the light of each of its rays is, [R, 3]."""
        light = self.shading.light
        return rays.origins if light is None else light.to(rays.origins).repeat_interleave(self.each, 0)


@dataclass
class RenderOutput:
    """B pictures, or single rays of B cameras, as they were asked for; H × W of each for example."""

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
    """Samples that were composed, of all that was rendered together; those behind opaque matter are not counted."""


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
        shot = shot_of(cameras, height, width, shading, background, want_normals=want_normals)
        return self.render_together([shot], rng)[0]

    def render_together(self, shots: Sequence[Shot], rng: np.random.Generator | None) -> list[RenderOutput]:
        """As :meth:`render`, of all ``shots`` at once: the field is asked about the samples of all in one call."""
        rays, view = self._viewed(shots)
        summed, n_samples = self._in_pieces(rays, view, None if rng is None else draw_seed(rng))
        parts = summed.split([math.prod(shot.shape) for shot in shots])
        return [_shaped(shot, part, n_samples) for shot, part in zip(shots, parts, strict=True)]

    def _viewed(self, shots: Sequence[Shot]) -> tuple[RayBundle, View]:
        """The rays of all, and what is told about them."""
        each = [shot.rays(self.occupancy.density.device) for shot in shots]
        lights = [shot.light(rays) for shot, rays in zip(shots, each, strict=True)]
        styles = tuple(dict.fromkeys(shot.style for shot in shots))
        index = [
            torch.full((len(rays),), styles.index(shot.style), dtype=torch.int32, device=rays.origins.device)
            for shot, rays in zip(shots, each, strict=True)
        ]
        rays = RayBundle(torch.cat([own.origins for own in each]), torch.cat([own.directions for own in each]))
        return rays, View(rays.directions, torch.cat(lights), torch.cat(index), styles, self.normal_weight)

    def _in_pieces(self, rays: RayBundle, view: View, seed: int | None) -> tuple[Tensor, int]:
        """Sums over each ray [R, C], see :func:`.compose.compose`, and the number of samples."""
        whole = len(rays)
        piece = whole if torch.is_grad_enabled() else max(64, _CHUNK_SAMPLES // self.samples_per_ray)
        ranges = [(i, i + piece) for i in range(0, whole, piece)]
        parts = [self._summed(rays.chunk(*each), view.chunk(*each), seed) for each in ranges]
        return torch.cat([summed for summed, _ in parts]), sum(count for _, count in parts)

    def _summed(self, rays: RayBundle, view: View, seed: int | None) -> tuple[Tensor, int]:
        samples, density, albedo = visible_samples(self.field, self.occupancy, rays, self.samples_per_ray, seed)
        return compose(samples, density, albedo, view, self.field.normal), len(samples)


def shot_of(
    cameras: CameraBatch,
    height: int,
    width: int,
    shading: Shading,
    background: Tensor,
    *,
    want_normals: bool = False,
) -> Shot:
    """Whole pictures of B cameras."""
    return Shot(*camera_rays(cameras, height, width), shading, background, want_normals)


def _shaped(shot: Shot, summed: Tensor, n_samples: int) -> RenderOutput:
    """The sums over a shot's rays [R, C] as its pictures, over its background."""
    shape, normals = shot.shape, shot.style.normals
    opacity = summed[:, 4].clamp(max=1.0).view(shape)  # rounding alone exceeds 1
    background = shot.background.to(summed.device)
    return RenderOutput(
        rgb=summed[:, :3].view(*shape, 3) + (1.0 - opacity)[..., None] * background,
        opacity=opacity,
        depth=summed[:, 3].view(shape) / opacity.clamp(min=_FAINT),
        normal=summed[:, 5:8].view(*shape, 3) if normals else None,
        orientation_loss=summed[:, 8].mean() if normals else summed.new_zeros(()),
        n_samples=n_samples,
    )
