"""Between images and a latent diffusion model: sizes, encoding, and the way back of the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .distillation import DIAGNOSTICS, ScoreGradient, sds_loss
from .interface import GuidanceResult


def image_size(unet: Any, vae: Any) -> tuple[int, int]:
    """Height and width of the images that a model of these parts was trained on."""
    side = unet.config.sample_size
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    return int(height) * factor, int(width) * factor


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``images`` [B, C, H, W] at ``size``, bilinear; antialiased where that makes them smaller."""
    if images.shape[-2:] == size:
        return images
    smaller = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    return functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)


def encode(vae: Any, images: Tensor, generator: torch.Generator) -> Tensor:
    """Latents [B, C, h, w] float32 of ``images`` [B, 3, H, W] (sRGB in [0, 1], of the model's size), differentiable.

    One sample of the encoder's distribution, drawn with ``generator``, shifted and scaled as the model saw latents in
    training.
    """
    posterior = vae.encode((2.0 * images - 1.0).to(vae.dtype)).latent_dist
    mean, spread = posterior.mean.float(), posterior.std.float()
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (mean + spread * noise - shift) * vae.config.scaling_factor


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Images [B, 3, H, W] float32 (sRGB in [0, 1]) of ``latents`` [B, C, h, w]; the other way of :func:`encode`."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    images = vae.decode((latents / vae.config.scaling_factor + shift).to(vae.dtype), return_dict=False)[0]
    return (images.float() / 2 + 0.5).clamp(0.0, 1.0)


def judged(images: Tensor, latents: Tensor, score: ScoreGradient, evaluations: int) -> GuidanceResult:
    """The result for ``images`` [B, 3, H, W] (a leaf), of which ``latents`` were encoded and scored.

    ``evaluations`` is the number of latents that the network was asked about.
    """
    loss = sds_loss(latents, score.gradient)
    (gradient,) = torch.autograd.grad(loss, images)
    numbers = torch.cat([loss.detach().view(1), score.diagnostics]).tolist()
    diagnostics = dict(zip(DIAGNOSTICS, numbers[1:], strict=True))
    return GuidanceResult(gradient, numbers[0], {**diagnostics, "evaluations": float(evaluations)})
