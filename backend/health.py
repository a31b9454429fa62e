"""Is the field still alive? NaN, vanished and exploded fields are noticed and named, long before an empty mesh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .cameras import CameraBatch, rays_through
from .rendering.compiled import view_kernels_for

Reason = Literal["nan", "vanished", "exploded"]

PATIENCE = 50
"""Steps in a row that a field may look dead."""
EMPTY = 0.1
"""A view whose most opaque pixel is below this shows nothing."""
FULL = 0.98
"""A view is full if the rays through the ball's inside have at least this mean opacity."""
INSIDE = 0.5
"""A ray is through the ball's inside if it runs at least this far in it."""
SHELL = (0.9, 1.0)
"""Radii of the shell that an exploded field fills; nothing that was asked for does."""


class Unhealthy(Exception):
    """The run cannot go on from here; ``reason`` is machine-readable, the message names what was seen."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@dataclass
class Health:
    """Counts how long the field has looked dead; goes into checkpoints."""

    empty_steps: int = 0
    full_steps: int = 0

    def observe(self, opacity: Tensor, cameras: CameraBatch, density: Callable[[Tensor], Tensor]) -> None:
        """Look at a step's opacity [B, H, W]; raise Unhealthy when nothing, or only fog, was seen PATIENCE times."""
        empty, full = look(opacity, cameras)
        self.empty_steps = self.empty_steps + 1 if empty else 0
        self.full_steps = self.full_steps + 1 if full else 0
        if self.empty_steps >= PATIENCE:
            raise Unhealthy("vanished", f"The object vanished: {PATIENCE} views in a row are empty.")
        if self.full_steps >= PATIENCE:
            self.full_steps = 0
            if shell_is_full(density, opacity.device):
                raise Unhealthy("exploded", f"The object fills all space: {PATIENCE} views in a row are solid.")


def look(opacity: Tensor, cameras: CameraBatch) -> tuple[bool, bool]:
    """Whether views with ``opacity`` [B, H, W] are empty, and whether they are full.

    Full views come from a dense ball, but also from a camera close to a healthy object: ask :func:`shell_is_full`.
    """
    values = opacity.detach()
    if (kernels := view_kernels_for(values.device)) is not None:
        view = cameras.camera_to_world, cameras.focal, cameras.center
        most, mean = kernels.fullness(values.contiguous().numpy(), *view, INSIDE)
    else:
        most, mean = _fullness(values, cameras)
    return most < EMPTY, mean > FULL


def _fullness(values: Tensor, cameras: CameraBatch) -> tuple[float, float]:
    """The compiled loop's twin; a quarter of the rays says as well how full a view is."""
    some = values[:, ::2, ::2]
    batch, height, width = values.shape
    y, x = np.meshgrid((np.arange(0, height, 2) + 0.5) / height, (np.arange(0, width, 2) + 0.5) / width, indexing="ij")
    points = np.stack([2.0 * x - 1.0, 1.0 - 2.0 * y], axis=-1).reshape(1, -1, 2)
    origins, directions = rays_through(cameras, np.repeat(points, batch, axis=0))
    toward = np.einsum("bnc,bc->bn", directions, origins).reshape(some.shape)
    half_chord_squared = toward**2 - (origins**2).sum(-1)[:, None, None] + 1
    inside = half_chord_squared > (INSIDE / 2) ** 2
    shares = torch.from_numpy((inside / max(inside.sum(), 1)).astype(np.float32)).to(values.device)
    most, mean = torch.stack([values.max(), (some * shares).sum()]).tolist()  # the device is waited for once
    return most, mean


def shell_is_full(density: Callable[[Tensor], Tensor], device: torch.device) -> bool:
    """Whether the ball's outermost shell is nearly opaque all around; ``density`` takes [N, 3] to [N]."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((512, 3))
    points *= rng.uniform(*SHELL, (512, 1)) / np.linalg.norm(points, axis=-1, keepdims=True)
    with torch.no_grad():
        solid = 1 - torch.exp(-density(torch.from_numpy(points.astype(np.float32)).to(device)) * INSIDE)
    return bool((solid > 0.9).float().mean() > 0.9)


def check_number(value: float, name: str) -> None:
    """Raise Unhealthy if a number of the loop is NaN or infinite."""
    if not math.isfinite(value):
        raise Unhealthy("nan", f"The {name} became {value}.")


def check_parameters(parameters: Iterable[Tensor]) -> None:
    """Raise Unhealthy if a parameter is NaN or infinite."""
    if not bool(torch.stack([torch.isfinite(p).all() for p in parameters]).all()):
        raise Unhealthy("nan", "The parameters became NaN or infinite.")
