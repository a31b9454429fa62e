"""Toybox's VAE encoder: principal components of 4×4 patches, set by hand into an ordinary AutoencoderKL.

A learned encoder takes hours on a CPU before it keeps eyes and beaks; this one is the best linear one at once (16 of 48
components keep 33 dB), and score distillation's gradient passes through it as through a rotation of the pixels. What is
lost at patch borders the decoder learns to put back.

The network is made linear: residual branches are zero, the convolutions pick pixels and project, and the last group
norm and SiLU are held in their linear range by two large constant channels and a large bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4
_CONSTANT = 40.0
"""The constant channels; they make the group norm's variance all but independent of the picture."""
_GAIN, _OFFSET = 8.0, 16.0
"""The last norm's weight and bias: SiLU sees 16 ± 4, where it is the identity to 1e-4."""
_WHITENING = 0.5
"""Components are divided by this power of their deviation: 1 would make fine detail as strong as silhouettes."""
POSTERIOR_STD = 0.03


def principal_components(images: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the 4×4 patches of ``images`` [N, 3, S, S]: basis [count, 3, 4, 4], mean [count] in it, deviations [count]."""
    n, channels, size, _ = images.shape
    cells = size // PATCH
    patches = images.double().reshape(n, channels, cells, PATCH, cells, PATCH).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(-1, channels * PATCH * PATCH)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    basis = vectors.flip(1)[:, :count].T
    basis = basis * torch.sign(basis.sum(1, keepdim=True) + 1e-12)  # an eigenvector's sign is arbitrary
    deviation = values.flip(0)[:count].sqrt()
    return basis.reshape(count, channels, PATCH, PATCH).float(), (basis @ mean).float(), deviation.float()


@dataclass(frozen=True)
class PatchEncoder:
    """The encoder as the one linear map that it is: images [B, 3, S, S] to latents [B, K, S/4, S/4]."""

    basis: Tensor
    """[K, 3, 4, 4]"""
    mean: Tensor
    """[K]"""
    deviation: Tensor
    """[K]"""

    @staticmethod
    def of(images: Tensor, count: int) -> PatchEncoder:
        """From the principal components of ``images``."""
        return PatchEncoder(*principal_components(images, count))

    @staticmethod
    @torch.no_grad()
    def read(vae: Any) -> PatchEncoder:
        """Back out of a VAE that :func:`set_linear_encoder` wrote, by what it makes of 49 pictures."""
        size, count = vae.config.sample_size, 3 * PATCH * PATCH
        probes = torch.eye(count).reshape(count, 3, PATCH, PATCH).tile(1, 1, size // PATCH, size // PATCH)
        answers = vae.encode(torch.cat((torch.zeros_like(probes[:1]), probes))).latent_dist.mode().mean((2, 3))
        basis, shift = (answers[1:] - answers[0]).T, answers[0]
        scale = basis.norm(dim=1)
        deviation = scale**-2 / (scale**-2).mean().sqrt()  # scale's inverse, for a whitening of a half
        basis = (basis / scale[:, None]).reshape(-1, 3, PATCH, PATCH)
        return PatchEncoder(basis, -shift / scale, deviation)

    @property
    def scale(self) -> Tensor:
        """[K], for latents of unit deviation over all."""
        return self.deviation**-_WHITENING / (self.deviation ** (2 - 2 * _WHITENING)).mean().sqrt()

    def to(self, device: torch.device) -> PatchEncoder:
        """On the device."""
        return PatchEncoder(self.basis.to(device), self.mean.to(device), self.deviation.to(device))

    def latents(self, images: Tensor) -> Tensor:
        """What the VAE's encoder gives as the posterior's mean, to a few hundredths, at a fraction of its cost."""
        return (F.conv2d(images, self.basis, stride=PATCH) - self.mean[:, None, None]) * self.scale[:, None, None]

    def images(self, latents: Tensor) -> Tensor:
        """The images [B, 3, S, S] of latents [B, K, S/4, S/4], but for the components that are left out."""
        parts = latents / self.scale[:, None, None] + self.mean[:, None, None]
        return F.conv_transpose2d(parts, self.basis, stride=PATCH)


@torch.no_grad()
def set_linear_encoder(vae: Any, patches: PatchEncoder) -> None:
    """Write the map ``patches`` into the encoder.

    ``vae`` is an AutoencoderKL with three blocks, one group in its norms, no attention; its scaling factor becomes 1.
    """
    count = vae.config.latent_channels
    basis, mean, deviation, scale = patches.basis, patches.mean, patches.deviation, patches.scale
    encoder = vae.encoder
    for parameter in encoder.parameters():
        parameter.zero_()
    encoder.conv_in.weight[:3, :, 1, 1] = torch.eye(3)
    first, second = (block.downsamplers[0].conv for block in encoder.down_blocks[:2])
    _identity(encoder.down_blocks[1].resnets[0].conv_shortcut)
    last = encoder.down_blocks[2].resnets[0].conv_shortcut
    _identity(last)
    for c in range(3):
        for y in range(2):
            for x in range(2):
                pixel = 4 * c + 2 * y + x
                first.weight[pixel, c, y, x] = 1
                for sign, start in ((1, 0), (-1, count)):  # with its negative, a component leaves the norm's mean at 0
                    second.weight[start : start + count, pixel, :2, :2] = sign * basis[:, c, y::2, x::2]
    second.bias[:count], second.bias[count : 2 * count] = -mean, mean
    last.bias[2 * count], last.bias[2 * count + 1] = _CONSTANT, -_CONSTANT
    channels = len(last.bias)
    norm = float(((2 * _CONSTANT**2 + 2 * (deviation**2).sum()) / channels).sqrt())
    encoder.conv_norm_out.weight[:count], encoder.conv_norm_out.bias[:] = _GAIN, _OFFSET
    for k in range(count):
        encoder.conv_out.weight[k, k, 1, 1] = scale[k] * norm / _GAIN
    encoder.conv_out.bias[:count] = -scale * norm / _GAIN * _OFFSET
    encoder.conv_out.bias[count:] = 2 * torch.log(torch.tensor(POSTERIOR_STD))
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    _identity(vae.quant_conv)
    vae.register_to_config(scaling_factor=1.0)


def _identity(layer: nn.Conv2d) -> None:
    same = min(layer.in_channels, layer.out_channels)
    layer.weight[torch.arange(same), torch.arange(same), 0, 0] = 1
