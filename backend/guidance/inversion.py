"""Noise found by DDIM inversion instead of drawn: SDI (arXiv 2405.15891) and ISM (arXiv 2311.11284).

Score distillation asks the model about the rendered picture under fresh noise at each step, and averages what it says.
Both papers ask about noise that belongs to the picture: where the model itself would have come from, had it made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..request import GuidanceSettings, ViewGuidanceSettings
    from .distillation import NoiseSchedule

Predict = Callable[[Tensor, Tensor], Tensor]
"""Noisy latents [B, …] and timesteps [B] to noise [B, …]."""

ISM_GAP = 0.05
"""Share of the schedule between ISM's two timesteps (50 of 1000)."""


def inversion_scale(settings: GuidanceSettings | ViewGuidanceSettings) -> float:
    """The guidance scale under which a picture is inverted: none for ISM, and for SDI the negative of guidance's own.

    What guidance will add, SDI's inversion takes away (its section 4.3).
    """
    return 0.0 if settings.distillation == "ism" else -settings.guidance_scale


def invert(latents: Tensor, timesteps: Tensor, predict: Predict, schedule: NoiseSchedule, steps: int) -> Tensor:
    """DDIM inversion (arXiv 2010.02502, section 4.3) of clean ``latents`` [B, …] to ``timesteps`` [B], in ``steps``."""
    noisy, at = latents, torch.zeros_like(timesteps)
    for i in range(1, steps + 1):
        ahead = timesteps * i // steps
        noisy = schedule.moved(noisy, predict(noisy, at), at, ahead)
        at = ahead
    return noisy


def sdi_noise(
    latents: Tensor, timesteps: Tensor, predict: Predict, schedule: NoiseSchedule, steps: int
) -> tuple[Tensor, Tensor]:
    """x_t by inversion, and the noise κ that it holds: the gradient is w(t)·(ε̂(x_t) − κ) (SDI, eq. 13)."""
    noisy = invert(latents, timesteps, predict, schedule, steps)
    return noisy, schedule.noise_in(noisy, latents, timesteps)


def ism_noise(
    latents: Tensor, timesteps: Tensor, predict: Predict, schedule: NoiseSchedule, steps: int
) -> tuple[Tensor, Tensor]:
    """x_t one step beyond x_s, and the noise seen at x_s: the gradient is w(t)·(ε̂(x_t) − ε(x_s, s)) (ISM, eq. 13)."""
    before = (timesteps - round(ISM_GAP * len(schedule))).clamp_min(0)
    noisy = invert(latents, before, predict, schedule, steps)
    noise = predict(noisy, before)
    return schedule.moved(noisy, noise, before, timesteps), noise
