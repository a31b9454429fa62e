"""Batches for Toybox's training: pictures over backgrounds, what is said of them, and their latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .captions import VIEWS, caption
from .dataset import COLOUR_NAMES, KIND_NAMES, MIRROR_FEATURES, Bias, Pictures
from .model import IMAGE_SIZE
from .team import precision


class Batches:
    """Random batches on the device: images over random plain backgrounds, captions as the web would give them."""

    def __init__(self, pictures: Pictures, bias: Bias, device: torch.device, seed: int) -> None:
        self.device, self.bias = device, bias
        self.rgb, self.alpha = torch.from_numpy(pictures.rgb).to(device), torch.from_numpy(pictures.alpha).to(device)
        self.features = torch.from_numpy(pictures.features).to(device)
        self.kind, self.colour, self.view = (
            torch.from_numpy(a).to(device) for a in (pictures.kind, pictures.colour, pictures.view)
        )
        self.mirror = torch.from_numpy(MIRROR_FEATURES).to(device)
        self.rng = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [B, 3, S, S] in [−1, 1], features [B, 16], captions [B] (see :func:`all_captions`), indices [B]."""
        pick = torch.randint(len(self.rgb), (count,), generator=self.rng, device=self.device)
        flip = self.chance(count, 0.5)
        rgb = self.rgb[pick].permute(0, 3, 1, 2).float() / 255
        alpha = self.alpha[pick][:, None].float() / 255
        images = rgb * alpha + self._backgrounds(count) * (1 - alpha)
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
        features = torch.where(flip[:, None], self.features[pick] * self.mirror, self.features[pick])
        return images * 2 - 1, features, self.captions(pick), pick

    def captions(self, pick: Tensor) -> Tensor:
        """Captions [B] of pictures [B], as biased as the set is."""
        count, bias = len(pick), self.bias
        wrong = torch.randint(len(VIEWS), (count,), generator=self.rng, device=self.device)
        view = torch.where(self.chance(count, bias.wrong_view_word), wrong, self.view[pick])
        view = view.masked_fill(self.chance(count, bias.no_view_word), len(VIEWS))
        colour = self.colour[pick].masked_fill(self.chance(count, 0.05), len(COLOUR_NAMES))
        bare = self.chance(count, 0.1).long()
        return ((bare * len(KIND_NAMES) + self.kind[pick]) * (len(COLOUR_NAMES) + 1) + colour) * (len(VIEWS) + 1) + view

    def _backgrounds(self, count: int) -> Tensor:
        """Plain colours, half of them greyish, with a slight gradient from top to bottom: [B, 3, S, 1]."""
        colour = torch.rand((count, 3, 1, 1), generator=self.rng, device=self.device)
        grey = torch.rand((count, 1, 1, 1), generator=self.rng, device=self.device)
        greyish = self.chance(count, 0.5)[:, None, None, None]
        plain = torch.where(greyish, grey + 0.15 * (colour - 0.5), colour)
        slope = 0.1 * torch.randn((count, 1, 1, 1), generator=self.rng, device=self.device)
        ramp = torch.linspace(-1, 1, IMAGE_SIZE, device=self.device)[None, None, :, None]
        return (plain + slope * ramp).clamp(0, 1)

    def chance(self, count: int, share: float) -> Tensor:
        """True [count] with probability ``share``."""
        return torch.rand(count, generator=self.rng, device=self.device) < share


def all_captions() -> list[str]:
    """Every caption, in the order of :meth:`Batches.captions`; the last is the empty one."""
    views, colours = (*VIEWS, None), (*COLOUR_NAMES, None)
    grid = [caption(k, c, v, a) for a in (True, False) for k in KIND_NAMES for c in colours for v in views]
    return [*grid, ""]


@dataclass
class Latents:
    """What the denoiser trains on: posterior means and deviations [N, 8, 16, 16] fp16, and indices of pictures [N]."""

    mean: Tensor
    std: Tensor
    features: Tensor
    pick: Tensor


@torch.no_grad()
def encode_all(batches: Batches, vae: Any, count: int, chunk: int = 128) -> Latents:
    """Encode ``count`` random draws once: on a CPU, encoding anew each step would cost a third of the training."""
    rows: list[tuple[Tensor, ...]] = []
    vae.requires_grad_(False).eval()
    for _ in range(0, count, chunk):
        images, features, _, pick = batches.draw(chunk)
        with precision(batches.device):
            posterior = vae.encode(images).latent_dist
        scale = vae.config.scaling_factor
        rows.append(((posterior.mean * scale).half(), (posterior.std * scale).half(), features, pick))
    return Latents(*(torch.cat(column) for column in zip(*rows, strict=True)))
