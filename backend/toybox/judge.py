"""An independent judge of what a picture shows: kind, colour and view, learned from true renders.

It has no part in making anything: neither Toybox nor score distillation ever sees it. Its pictures are taken
evenly from all around; half of them are of uncoloured, shaded objects, so that it also judges shape without texture.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import Batches
from .captions import VIEWS
from .dataset import COLOUR_NAMES, KIND_NAMES, Bias, make_pictures
from .model import IMAGE_SIZE

UNBIASED = Bias(0.0, 1.0, 1.0, 0.0, math.inf, 0.0, 0.0)
SEED = 77


@dataclass(frozen=True)
class Verdict:
    """Probabilities of ``kind`` [B, kinds], ``colour`` [B, colours] and ``view`` [B, 4], as their names stand."""

    kind: Tensor
    colour: Tensor
    view: Tensor


class Judge(nn.Module):
    """Images [B, 3, 64, 64] in [−1, 1] to logits of kind, colour and view."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.ReLU())
            for a, b in itertools.pairwise((3, 32, 64, 128, 192))
        ]
        self.trunk = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(192 * 16, 256), nn.ReLU(), nn.Dropout(0.1))
        self.heads = nn.ModuleList(nn.Linear(256, n) for n in (len(KIND_NAMES), len(COLOUR_NAMES), len(VIEWS)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Three tensors of logits [B, …]."""
        hidden = self.trunk(images)
        return tuple(head(hidden) for head in self.heads)

    @torch.no_grad()
    def verdict(self, images: Tensor, chunk: int = 256) -> Verdict:
        """How likely each is."""
        self.eval()
        logits = zip(*(self(part) for part in images.split(chunk)), strict=True)
        return Verdict(*(torch.cat(parts).softmax(1) for parts in logits))


def train_judge(
    device: torch.device, pictures: int = 40_000, steps: int = 10_000, seed: int = SEED, workers: int = 2
) -> tuple[Judge, dict[str, float]]:
    """Train on pictures of seed ``seed``; returns the judge and its accuracy on 1 000 pictures of another seed."""
    torch.manual_seed(seed)
    batches = Batches(
        make_pictures(pictures, seed, IMAGE_SIZE, 0.0, workers=workers, bare_share=0.5), UNBIASED, device, seed
    )
    judge = Judge().to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        images, _, pick = batches.draw(64)
        kind, colour, view = judge(_roughened(images, batches))
        loss = (
            F.cross_entropy(kind, batches.labels["kind"][pick])
            + F.cross_entropy(colour, batches.labels["colour"][pick], ignore_index=len(COLOUR_NAMES))
            + F.cross_entropy(view, batches.labels["view"][pick])
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge, {f"coloured_{name}": share for name, share in _skill(judge, device, seed + 1, 0.0).items()} | {
        f"bare_{name}": share for name, share in _skill(judge, device, seed + 2, 1.0).items() if name != "colour"
    }


def kept_judge(path: Path, device: torch.device | None = None) -> tuple[Judge, dict[str, float]]:
    """The judge kept at ``path``, trained now if there is none."""
    device = device or torch.device("cpu")
    notes = path.with_suffix(".json")
    if path.exists() and notes.exists():
        judge = Judge()
        judge.load_state_dict(torch.load(path, weights_only=True))
        return judge.to(device), json.loads(notes.read_text(encoding="utf-8"))
    judge, skill = train_judge(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(judge.state_dict(), path)
    notes.write_text(json.dumps(skill, indent=2) + "\n", encoding="utf-8")
    return judge, skill


def _roughened(images: Tensor, batches: Batches) -> Tensor:
    """Half of the images blurred, all a little noisy: made objects are never as sharp as true ones."""
    count = len(images)
    coarse = F.interpolate(F.avg_pool2d(images, 2), size=images.shape[-2:], mode="bilinear")
    images = torch.where(batches.chance(count, 0.5)[:, None, None, None], coarse, images)
    noise = torch.randn(images.shape, generator=batches.rng, device=batches.device)
    return images + 0.04 * noise


def _skill(judge: Judge, device: torch.device, seed: int, bare_share: float) -> dict[str, float]:
    batches = Batches(make_pictures(1_000, seed, IMAGE_SIZE, 0.0, bare_share=bare_share), UNBIASED, device, seed)
    images, _, pick = batches.draw(1_000)
    verdict = judge.verdict(images)
    return {
        name: float((getattr(verdict, name).argmax(1) == batches.labels[name][pick]).float().mean())
        for name in ("kind", "colour", "view")
    }
