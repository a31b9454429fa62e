"""What several drawings of one thing agree on.

Each drawing of a prompt is a little larger or smaller than the next, stands a little beside it, and has a limb too much
or too few. Laid over each other, mirrored where that fits better, most of this averages out: their agreement is closer
to what the model means by the words than any one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..picture.resample import resample, weights

Floats = NDArray[np.float32]

SCALES = (0.92, 0.96, 1.0, 1.04, 1.08)
"""Sizes that are tried, beside that of equal area."""
LEAST_OVERLAP = 0.6
"""What overlaps less with the typical drawing shows something else."""
EDGE = 0.125
"""How far beside one half the share of drawings that cover a pixel still makes it partly opaque."""


@dataclass(frozen=True)
class Placement:
    """A drawing's pixel (row, column), its columns mirrored first if so, comes to (scale · row + top, …)."""

    mirrored: bool
    scale: float
    top: float
    left: float

    def within(self, middle: Placement) -> Placement:
        """The same, as seen where ``middle``'s frame is the picture's own."""
        scale = self.scale / middle.scale
        top, left = (self.top - middle.top) / middle.scale, (self.left - middle.left) / middle.scale
        return Placement(self.mirrored, scale, top, left)

    def __call__(self, planes: Floats) -> Floats:
        """Planes [H, W, C] (or one plane [H, W]) so placed; what comes from beyond the edge is nothing."""
        height, width = planes.shape[:2]
        source = planes[:, ::-1] if self.mirrored else planes
        rows = weights(height, height, -self.top / self.scale, 1.0 / self.scale)
        columns = weights(width, width, -self.left / self.scale, 1.0 / self.scale)
        return resample(source.reshape(height, width, -1), rows, columns).reshape(planes.shape)


def agreement(drawings: list[Floats], symmetry: float, *, mirrored: bool = True) -> Floats:
    """What K ``drawings`` [S, S, 4] (sRGB, straight alpha) agree on, K of at least two: [S, S, 4].

    Opaque is what most of those cover that look like the typical one (see :func:`typical`, also for ``symmetry``), in
    their mean colour, at their mean size and place. ``mirrored``: a drawing may show the mirror image.
    """
    masks = [drawing[..., 3] for drawing in drawings]
    model = masks[typical(masks, symmetry, mirrored=mirrored)]
    placed = [_placement(mask, model, mirrored=mirrored) for mask in masks]
    kept = [index for index, (overlap, _) in enumerate(placed) if overlap >= LEAST_OVERLAP]
    middle = _mean([placed[index][1] for index in kept])
    total = np.zeros_like(drawings[0])
    for index in kept:
        alpha = drawings[index][..., 3:]
        premultiplied = np.concatenate([drawings[index][..., :3] * alpha, alpha], axis=-1)
        total += placed[index][1].within(middle)(premultiplied)
    colour = total[..., :3] / np.maximum(total[..., 3:], 1e-6)
    share = total[..., 3:] / len(kept)
    alpha = opacity(share)
    return np.concatenate([np.clip(colour, 0.0, 1.0) * (alpha > 0), alpha], axis=-1).astype(np.float32)


def opacity(share: NDArray[np.floating]) -> Floats:
    """How opaque pixels are that a ``share`` of drawings covers: at most of them, with a soft edge."""
    return np.clip((share - 0.5) / (2 * EDGE) + 0.5, 0.0, 1.0).astype(np.float32)


def typical(masks: list[Floats], symmetry: float, *, mirrored: bool = True) -> int:
    """Which of K ``masks`` [S, S] the others overlap most with, also ``mirrored`` if they may be: K of at least two.

    Its overlap with its own mirror image counts by ``symmetry`` beside the mean of these.
    """
    stack = np.stack([mask.ravel() for mask in masks])
    flipped = np.stack([mask[:, ::-1].ravel() for mask in masks])
    as_is, turned = _overlaps(stack, stack), _overlaps(stack, flipped)
    best = np.maximum(as_is, turned) if mirrored else as_is
    others = (best.sum(1) - best.diagonal()) / (len(masks) - 1)
    return int(np.argmax(others + symmetry * turned.diagonal()))


def _overlaps(a: Floats, b: Floats) -> Floats:
    """[K, L], area of the intersection by that of the union, of each of ``a`` [K, N] and each of ``b`` [L, N]."""
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1e-6)


def _placement(mask: Floats, model: Floats, *, mirrored: bool) -> tuple[float, Placement]:
    """Where ``mask`` [S, S] overlaps most with ``model`` [S, S], and how much, from 0 to 1."""
    places: list[Placement] = []
    (top, left), size = _middle(model)
    for flipped in (False, True)[: 1 + mirrored]:
        (own_top, own_left), own_size = _middle(mask[:, ::-1] if flipped else mask)
        for factor in SCALES:
            scale = size / own_size * factor
            places.append(Placement(flipped, scale, top - scale * own_top, left - scale * own_left))
    overlaps = _overlaps(np.stack([place(mask).ravel() for place in places]), model.reshape(1, -1))[:, 0]
    best = int(np.argmax(overlaps))
    return float(overlaps[best]), places[best]


def _middle(mask: Floats) -> tuple[tuple[float, float], float]:
    """The centroid (row, column; pixels are 1 wide, the first begins at 0) and the square root of the area."""
    area = max(float(mask.sum()), 1e-6)
    rows, columns = (np.arange(side) + 0.5 for side in mask.shape)
    return (float(mask.sum(1) @ rows) / area, float(mask.sum(0) @ columns) / area), area**0.5


def _mean(places: list[Placement]) -> Placement:
    scale = float(np.exp(np.mean([np.log(place.scale) for place in places])))
    return Placement(
        False, scale, float(np.mean([place.top for place in places])), float(np.mean([place.left for place in places]))
    )
