"""A guidance that knows what it wants: pulls pictures to a red ellipsoid's. Fast, and its result can be measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from backend.cameras import CameraBatch, rays
from backend.guidance import GuidanceResult
from backend.request import MeshSettings, OptimizeSettings, RefineSettings, Request

AXES = np.array([0.65, 0.4, 0.5], np.float32)
"""Half axes of the ellipsoid around the origin."""
BLUE = (0.1, 0.2, 0.9)
RED = (0.9, 0.1, 0.1)
"""sRGB."""


def silhouettes(cameras: CameraBatch, side: int) -> Tensor:
    """[B, side, side] bool: where the ellipsoid is seen."""
    origins, directions = rays(cameras, side, side)
    o, d = (origins / AXES)[:, None, None, :], directions / AXES
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    return torch.from_numpy(b * b - a * c > 0)


class SilhouetteGuidance:
    """The squared distance to the target's picture, with noise as a diffusion model's gradient has it.

    ``spoil`` gets the call's number and the result, and may put anything in its place.
    """

    def __init__(self, spoil: Callable[[int, GuidanceResult], GuidanceResult] | None = None) -> None:
        self.calls = 0
        self.progress: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self._spoil = spoil

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        inside = silhouettes(cameras, images.shape[-1])[:, None]
        background = images[:, :, :1, :1]
        target = torch.where(inside, torch.tensor(RED).view(1, 3, 1, 1), background)
        difference = images - target
        noise = torch.randn(images.shape, generator=generator)
        result = GuidanceResult(difference + 0.05 * noise, float(difference.square().mean()))
        self.progress.append(progress)
        self.shapes.append(tuple(images.shape))
        self.calls += 1
        return self._spoil(self.calls, result) if self._spoil else result


class BluePainter(SilhouetteGuidance):
    """Distils a red ellipsoid, and paints blue ones."""

    def __init__(self) -> None:
        super().__init__()
        self.painted: list[tuple[float, CameraBatch]] = []

    def repaint(
        self,
        images: Tensor,
        cameras: CameraBatch,
        strength: float,
        settings: RefineSettings,
        generator: torch.Generator,
    ) -> Tensor:
        self.painted.append((strength, cameras))
        inside = silhouettes(cameras, images.shape[-1])[:, None]
        noise = 0.01 * torch.randn(images.shape, generator=generator)
        return (torch.where(inside, torch.tensor(BLUE).view(1, 3, 1, 1), images[:, :, :1, :1]) + noise).clamp(0, 1)


def small_request(iterations: int = 60, **changes: object) -> Request:
    """A request that runs in a second or two."""
    settings: dict[str, object] = {
        "iterations": iterations,
        "resolution": 24,
        "grid_levels": 6,
        "grid_log2_size": 12,
        "grid_finest": 64,
        "samples_per_ray": 24,
        "occupancy_resolution": 16,
        "checkpoint_every": 20,
        "preview_every": 1000,
        **changes,
    }
    return Request(
        prompt="a red ellipsoid",
        seed=3,
        optimize=OptimizeSettings(**settings),  # pyright: ignore[reportArgumentType]
        mesh=MeshSettings(grid_resolution=32, faces=800, texture_size=64),
    ).validated()
