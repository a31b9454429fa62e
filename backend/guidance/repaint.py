"""Painting a picture over: noise up to a point of the schedule, then denoising (SDEdit, arXiv 2108.01073)."""

from __future__ import annotations

import itertools
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
    """Latents [B, …] painted over with ``strength`` in [0, 1], by ``steps`` steps of DPM-Solver++(2M).

    That is the multistep solver of second order (arXiv 2211.01095, algorithm 2), whose first and last steps are DDIM's;
    it costs one call of ``predict`` a step, as DDIM does, and needs fewer of them. ``predict`` maps noisy latents and
    timesteps [B] to the guided noise. Strength 0 gives the latents back.
    """
    start = min(round(strength * (len(schedule) - 1)), schedule.last)
    if start == 0:
        return latents
    noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents.device)
    times = [torch.full((len(latents),), start * i // steps, device=latents.device) for i in range(steps, 0, -1)]
    noisy = schedule.add_noise(latents, noise, times[0])
    clean = schedule.clean(noisy, predict(noisy, times[0]), times[0])
    ratio, slope = _log_ratio(schedule, times[0], latents.ndim), torch.zeros_like(clean)
    for before, after in itertools.pairwise(times):
        signal, spread = schedule.signal_and_noise(after, latents.ndim)
        ahead = _log_ratio(schedule, after, latents.ndim)
        step = ahead - ratio
        # The picture as it would be seen half a step ahead, by the line through the last two of them.
        guess = clean + 0.5 * step * slope
        before_spread = schedule.signal_and_noise(before, latents.ndim)[1]
        noisy = spread / before_spread * noisy - signal * torch.expm1(-step) * guess
        seen = schedule.clean(noisy, predict(noisy, after), after)
        slope = torch.where(step > 0, (seen - clean) / step.clamp_min(1e-6), slope)
        clean, ratio = seen, ahead
    return clean


def _log_ratio(schedule: NoiseSchedule, timesteps: Tensor, dimensions: int) -> Tensor:
    """λ = log(a / s), half the logarithm of the signal-to-noise ratio."""
    signal, spread = schedule.signal_and_noise(timesteps, dimensions)
    return signal.log() - spread.log()
