"""An independent judge of Toybox's pictures: a classifier of kind, colour and view, trained on unbiased true renders.

It is never used in generation; it only tells whether samples show what was asked for.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import Batches
from .captions import VIEWS
from .dataset import COLOUR_NAMES, KIND_NAMES, Bias, make_pictures
from .model import IMAGE_SIZE

UNBIASED = Bias(front_share=0.0, no_view_word=0.0, wrong_view_word=0.0)


@dataclass(frozen=True)
class Verdict:
    """Indices [B] into KIND_NAMES, COLOUR_NAMES and VIEWS."""

    kind: Tensor
    colour: Tensor
    view: Tensor


class Judge(nn.Module):
    """Images [B, 3, 64, 64] in [−1, 1] to logits of kind, colour and view."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 160)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        ]
        self.trunk = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(160 * 16, 256), nn.ReLU(), nn.Dropout(0.1))
        self.heads = nn.ModuleList(nn.Linear(256, n) for n in (len(KIND_NAMES), len(COLOUR_NAMES), len(VIEWS)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Three tensors of logits [B, …]."""
        hidden = self.trunk(images)
        return tuple(head(hidden) for head in self.heads)

    @torch.no_grad()
    def verdict(self, images: Tensor) -> Verdict:
        """The likeliest of each."""
        return Verdict(*(logits.argmax(1) for logits in self.eval()(images)))


def train_judge(
    device: torch.device, pictures: int = 12_000, steps: int = 1_500, seed: int = 77
) -> tuple[Judge, dict[str, float]]:
    """Train on pictures of seed ``seed``; returns the judge and its accuracy on 1 000 pictures of another seed."""
    torch.manual_seed(seed)
    batches = Batches(make_pictures(pictures, seed, IMAGE_SIZE, 0.0, workers=2), UNBIASED, device, seed)
    judge = Judge().to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        images, _, _, pick = batches.draw(64)
        truth = (batches.kind[pick], batches.colour[pick], batches.view[pick])
        loss = sum((F.cross_entropy(guess, t) for guess, t in zip(judge(images), truth, strict=True)), torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    held_out = Batches(make_pictures(1_000, seed + 1, IMAGE_SIZE, 0.0), UNBIASED, device, seed + 1)
    images, _, _, pick = held_out.draw(1_000)
    verdict = judge.verdict(images)
    return judge, {
        name: float((getattr(verdict, name) == getattr(held_out, name)[pick]).float().mean())
        for name in ("kind", "colour", "view")
    }
