"""Between images and what a model denoises: latents of a VAE, or the pixels themselves; and the gradient's way back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .distillation import DIAGNOSTICS, ScoreGradient, sds_loss
from .interface import GuidanceResult

UPCAST = "The VAE is beyond the range of half precision: it goes on in float32."
"""What a person is told when :func:`overflowed` says so."""


def image_size(network: Any, vae: Any) -> tuple[int, int]:
    """Height and width of the images that a model of these parts was trained on; ``vae`` is None for pixels."""
    side = network.config.sample_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    return int(height) * factor(vae), int(width) * factor(vae)


def factor(vae: Any) -> int:
    """Pixels to a latent's side; 1 without a VAE."""
    return 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``images`` [B, C, H, W] at ``size``, bilinear; antialiased where that makes them smaller."""
    if images.shape[-2:] == size:
        return images
    smaller = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    return functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)


def encode(vae: Any, images: Tensor, generator: torch.Generator) -> Tensor:
    """Latents [B, C, h, w] float32 of ``images`` [B, 3, H, W] (sRGB in [0, 1], of the model's size), differentiable.

    One sample of the encoder's distribution, drawn with ``generator``, shifted and scaled as the model saw latents in
    training. A tiny VAE has one latent for an image, and without a VAE it is the image itself in [−1, 1]; then nothing
    is drawn.
    """
    if vae is None:
        return 2.0 * images.float() - 1.0
    encoded = vae.encode((2.0 * images - 1.0).to(_dtype(vae)))
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    if hasattr(encoded, "latents"):  # AutoencoderTiny's
        return (encoded.latents.float() - shift) * vae.config.scaling_factor
    posterior = encoded.latent_dist
    mean, spread = posterior.mean.float(), posterior.std.float()
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    return (mean + spread * noise - shift) * vae.config.scaling_factor


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Images [B, 3, H, W] float32 (sRGB, about [0, 1]) of ``latents`` [B, C, h, w]; the other way of :func:`encode`.

    They are not clamped: what is not finite can still be seen (:func:`overflowed`).
    """
    if vae is None:
        return latents / 2 + 0.5
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    images = vae.decode((latents / vae.config.scaling_factor + shift).to(_dtype(vae)), return_dict=False)[0]
    return images.float() / 2 + 0.5


def overflowed(vae: Any, values: Tensor) -> bool:
    """Whether a VAE in float16 made ``values`` that are not finite; then it is in float32 from here on.

    The largest activations of some VAEs (SDXL's among them) are beyond float16's 65504.
    """
    if vae is None or _dtype(vae) != torch.float16 or bool(torch.isfinite(values).all()):
        return False
    vae.to(torch.float32)
    return True


def _dtype(vae: Any) -> torch.dtype:
    """The first parameter's; ``vae.dtype`` looks through all of them, at each step."""
    return next(vae.parameters()).dtype


def judged(images: Tensor, latents: Tensor, score: ScoreGradient, evaluations: int) -> GuidanceResult:
    """The result for ``images`` [B, 3, H, W] (a leaf), of which ``latents`` were encoded and scored.

    ``evaluations`` is the number of latents that the network was asked about.
    """
    loss = sds_loss(latents, score.gradient)
    (gradient,) = torch.autograd.grad(loss, images)
    numbers = torch.cat([loss.detach().view(1), score.diagnostics]).tolist()
    diagnostics = dict(zip(DIAGNOSTICS, numbers[1:], strict=True))
    return GuidanceResult(gradient, numbers[0], {**diagnostics, "evaluations": float(evaluations)})


def fitting_side(side: int, cell: int) -> int:
    """``side`` in pixels, made a whole number of a model's cells of ``cell`` pixels, at least one."""
    return max(math.floor(side / cell + 0.5), 1) * cell
