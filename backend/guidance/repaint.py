"""Painting a picture over: noise up to a point of the schedule, then denoising (SDEdit, arXiv 2108.01073)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .inversion import Predict

if TYPE_CHECKING:
    from .distillation import NoiseSchedule


def repaint(
    latents: Tensor,
    predict: Predict,
    schedule: NoiseSchedule,
    strength: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Latents [B, …] painted over with ``strength`` in [0, 1], by ``steps`` steps of DDIM (arXiv 2010.02502).

    ``predict`` maps noisy latents and timesteps [B] to the guided noise. Strength 0 gives the latents back.
    """
    start = min(round(strength * (len(schedule) - 1)), schedule.last)
    if start == 0:
        return latents
    noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents.device)
    at = torch.full((len(latents),), start, device=latents.device)
    noisy = schedule.add_noise(latents, noise, at)
    for i in range(steps - 1, 0, -1):
        after = torch.full_like(at, start * i // steps)
        noisy = schedule.moved(noisy, predict(noisy, at), at, after)
        at = after
    return schedule.clean(noisy, predict(noisy, at), at)
