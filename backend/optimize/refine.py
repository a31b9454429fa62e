"""The second part of a run: views are painted over by the model, and the field is fitted to the paintings.

Score distillation averages over all that the model could have meant, which blurs eyes and beaks away. A painting is one
picture that the model did mean, near what the field already shows. Painting all views, fitting the field to them and
painting again, ever more lightly, is the iterative dataset update of Instruct-NeRF2NeRF (arXiv 2303.12789) with SDEdit
(arXiv 2108.01073), as in the second stage of DreamGaussian (arXiv 2309.16653).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..cameras import CameraBatch
from ..request import RefineSettings

ERROR_WEIGHT = 1e5
"""Of a painting's mean squared error; as strong as distillation, to which the other losses' weights are made."""
RATE_END = 0.05
"""Share of the learning rate that is left at the end."""
HEADS_FACTOR = 6.0
"""The heads learn faster by this than in the distillation: colours are what is left to be learnt."""


def strength(done: float, settings: RefineSettings) -> float:
    """How much is painted over when the share ``done`` of this part has passed."""
    return settings.strength + done * (settings.strength_end - settings.strength)


def rates(done: float, settings: RefineSettings, learning_rate: float) -> tuple[float, float]:
    """Factors of the grid's and the heads' learning rates, where the grid's is ``learning_rate`` at factor 1."""
    left = max(1.0 - done, RATE_END)
    factor = settings.learning_rate / learning_rate * left
    return factor, HEADS_FACTOR * factor


@dataclass(frozen=True)
class Turn:
    """Which views are due at a step."""

    slots: list[int]
    """Of the views, B of them."""
    begins: bool
    """A round of painting begins: cameras are drawn anew."""
    painted: list[int]
    """Views that are painted anew before: those of this turn and of the next ones, or none."""


def turn(step: int, batch: int, settings: RefineSettings, together: int = 1) -> Turn:
    """The turn at a ``step`` of this part. Neighbouring turns show views from far apart.

    Up to ``together`` views are painted at once, at the first turn of theirs.
    """
    views, turns = settings.views, max(1, together // batch)
    stride = next(s for s in range(max(1, round(0.382 * views)), views + 1) if np.gcd(s, views) == 1)

    def slots(at: int) -> list[int]:
        return [(index * stride) % views for index in range(at * batch, (at + 1) * batch)]

    sweep = step * batch // views
    start = -(-sweep * views // batch)
    if sweep % settings.visits or (step - start) % turns:
        return Turn(slots(step), False, [])
    painted = [slot for at in range(step, step + turns) if at * batch // views == sweep for slot in slots(at)]
    return Turn(slots(step), step == start, list(dict.fromkeys(painted)))


class Paintings(nn.Module):
    """V paintings with their cameras and backgrounds; a part of the run's state."""

    images: Tensor
    """[V, 3, S, S] uint8, sRGB."""
    backgrounds: Tensor
    """[V, 3] float32, sRGB: what the painted view stood before."""
    camera_to_world: Tensor
    """[V, 4, 4] float32."""
    lenses: Tensor
    """[V, 4] float32: focal and center."""
    prompts: Tensor
    """[V] int64: by which prompt each is seen; see :class:`..cameras.CameraBatch`."""

    def __init__(self, settings: RefineSettings, side: int, device: torch.device) -> None:
        super().__init__()
        views = settings.views if settings.iterations else 0
        self.register_buffer("images", torch.zeros((views, 3, side, side), dtype=torch.uint8, device=device))
        self.register_buffer("backgrounds", torch.zeros((views, 3), device=device))
        self.register_buffer("camera_to_world", torch.zeros((views, 4, 4)))
        self.register_buffer("lenses", torch.zeros((views, 4)))
        self.register_buffer("prompts", torch.zeros(views, dtype=torch.int64))

    def aim(self, cameras: CameraBatch, rng: np.random.Generator, white_share: float = 0.0) -> None:
        """Take V new cameras, and a background for each: a random colour, or white for a share of them."""
        self.camera_to_world.copy_(torch.from_numpy(cameras.camera_to_world))
        self.lenses.copy_(torch.from_numpy(np.concatenate([cameras.focal, cameras.center], axis=1)))
        self.prompts.copy_(torch.from_numpy(cameras.prompt))
        self.backgrounds.copy_(torch.from_numpy(rng.random(tuple(self.backgrounds.shape), dtype=np.float32)))
        if white_share:
            self.backgrounds[torch.from_numpy(rng.random(len(cameras)) < white_share)] = 1.0

    def cameras(self, slots: list[int]) -> CameraBatch:
        """The cameras of some views."""
        lenses = self.lenses[slots].numpy()
        prompts = self.prompts[slots].numpy()
        return CameraBatch(self.camera_to_world[slots].numpy(), lenses[:, :2], lenses[:, 2:], prompts)

    def keep(self, slots: list[int], images: Tensor) -> None:
        """Keep the paintings [B, 3, S, S] (in [0, 1]) of some views."""
        self.images[slots] = (images * 255.0).round().to(torch.uint8)

    def shown(self, slots: list[int]) -> Tensor:
        """The paintings [B, 3, S, S] in [0, 1]."""
        return self.images[slots].float() / 255.0


def painting_error(images: Tensor, paintings: Tensor) -> tuple[Tensor, float]:
    """The weighted mean squared error of ``images`` and its gradient by them, [B, 3, S, S]."""
    difference = images.detach() - paintings
    loss = ERROR_WEIGHT * float(difference.square().mean())
    return difference * (2.0 * ERROR_WEIGHT / difference.numel()), loss
