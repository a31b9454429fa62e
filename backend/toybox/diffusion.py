"""What the denoisers' trainings share: timesteps, noise, and what is to be predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from .encoder import POSTERIOR_STD, PatchEncoder

SHAPING = (0.3, 0.95)
"""Share of the schedule where shape and view are decided; four in five timesteps are drawn there."""
_SHAPING_SHARE = 0.8


def posterior_sample(patches: PatchEncoder, images: Tensor, rng: torch.Generator) -> Tensor:
    """Latents [B, 16, 16, 16] as the VAE's encoder would draw them."""
    mean = patches.latents(images)
    return mean + POSTERIOR_STD * torch.randn(mean.shape, generator=rng, device=mean.device)


def shaping_timesteps(count: int, total: int, rng: torch.Generator) -> Tensor:
    """Timesteps [count] below ``total``."""

    def uniform() -> Tensor:
        return torch.rand(count, generator=rng, device=rng.device)

    low, high = SHAPING
    share = torch.where(uniform() < _SHAPING_SHARE, low + (high - low) * uniform(), uniform())
    return (share * total).long()


def noised(clean: Tensor, timesteps: Tensor, alphas: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """``clean`` [B, C, h, w] with noise at ``timesteps`` [B] of the schedule ``alphas`` [T], and its v; both alike."""
    noise = torch.randn(clean.shape, generator=rng, device=clean.device)
    a = alphas[timesteps][:, None, None, None]
    return a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
