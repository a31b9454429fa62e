"""Batches for Toybox's training: pictures over backgrounds, what is said of them, and their latents."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..cameras import off_front
from .captions import NAMED_VIEWS, VIEWS, caption, degrees_off_middle
from .dataset import (
    ATTRIBUTES,
    BUILD_NAMES,
    COLOUR_NAMES,
    KIND_NAMES,
    MIRROR_FEATURES,
    SIZE_NAMES,
    Bias,
    Pictures,
)
from .model import IMAGE_SIZE
from .world import Look

CHOICES = {
    "kind": len(KIND_NAMES),
    "colour": len(COLOUR_NAMES) + 1,
    "build": len(BUILD_NAMES) + 1,
    "size": len(SIZE_NAMES) + 1,
    "accent": len(COLOUR_NAMES) + 1,
    "view": len(NAMED_VIEWS) + 1,
}
"""How many things can be said of each attribute; the last is nothing, but for the kind."""
SILENT = {"colour": 0.05, "build": 0.1, "size": 0.1, "accent": 0.05}
"""Share of captions that do not say what the picture shows."""


class Batches:
    """Random batches on the device: images over random plain backgrounds, captions as the web would give them."""

    def __init__(self, pictures: Pictures, bias: Bias, device: torch.device, seed: int) -> None:
        self.device, self.bias = device, bias
        self.rgb, self.alpha = torch.from_numpy(pictures.rgb).to(device), torch.from_numpy(pictures.alpha).to(device)
        self.features = torch.from_numpy(pictures.features).to(device)
        self.labels = {name: torch.from_numpy(getattr(pictures, name)).to(device) for name in ATTRIBUTES}
        self.off_middle = torch.from_numpy(degrees_off_middle(pictures.azimuth, pictures.elevation)).to(device)
        self.ahead = torch.from_numpy(off_front(pictures.azimuth) < 90).to(device)
        self.mirror = torch.from_numpy(MIRROR_FEATURES).to(device)
        self.rng = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, 3, S, S] in [−1, 1], features [B, 16] and indices of pictures [B]."""
        pick = torch.randint(len(self.rgb), (count,), generator=self.rng, device=self.device)
        flip = self.chance(count, 0.5)
        rgb = self.rgb[pick].permute(0, 3, 1, 2).float() / 255
        alpha = self.alpha[pick][:, None].float() / 255
        images = rgb * alpha + self._backgrounds(count) * (1 - alpha)
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
        features = torch.where(flip[:, None], self.features[pick] * self.mirror, self.features[pick])
        return images * 2 - 1, features, pick

    def captions(self, pick: Tensor) -> Tensor:
        """Captions [B] (see :func:`all_captions`) of pictures [B], as biased as the set is."""
        said = {name: values[pick] for name, values in self.labels.items()}
        said["view"] = self._said_views(said["view"], pick)
        for name, silent in SILENT.items():
            said[name] = said[name].masked_fill(self.chance(len(pick), silent), CHOICES[name] - 1)
        caption = self.chance(len(pick), 0.1).long()
        for name in ATTRIBUTES:
            caption = caption * CHOICES[name] + said[name]
        return caption

    def _said_views(self, view: Tensor, pick: Tensor) -> Tensor:
        """The view words [B] for true views [B] of pictures [B]; see :class:`Bias`."""
        count, bias, off_middle = len(view), self.bias, self.off_middle[pick]
        near = torch.exp(-0.5 * (off_middle / bias.named_spread).square())
        front = view == 0
        other = torch.randint(1, len(VIEWS), (count,), generator=self.rng, device=self.device)
        drawn = torch.randint(len(VIEWS), (count,), generator=self.rng, device=self.device)
        said = torch.where(front & self.chance(count, bias.front_misnamed), other, view)
        said = torch.where(~front & self.chance(count, bias.others_misnamed), drawn, said)
        share = torch.where(front, bias.front_named, bias.others_named) * near
        named = torch.rand(count, generator=self.rng, device=self.device) < share
        said = said.masked_fill(~named, len(NAMED_VIEWS))
        beside = torch.exp(-0.5 * ((45.0 - off_middle) / bias.named_spread).square())
        share = bias.three_quarter_named * beside.square() / (near + beside)
        share = share.masked_fill(view == VIEWS.index("overhead"), 0.0)
        quarter = torch.rand(count, generator=self.rng, device=self.device) < share
        return torch.where(quarter, torch.where(self.ahead[pick], len(VIEWS), len(VIEWS) + 1), said)

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
    colours = (*COLOUR_NAMES, None)
    choices = (KIND_NAMES, colours, (*BUILD_NAMES, None), (*SIZE_NAMES, None), colours, (*NAMED_VIEWS, None))
    looks = itertools.product((True, False), *choices)
    grid = [caption(Look(k, c, build, size, accent), view, bare) for bare, k, c, build, size, accent, view in looks]
    return [*grid, ""]
