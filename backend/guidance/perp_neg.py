"""Perp-Neg: negative prompts that push only where they do not contradict the prompt (arXiv 2304.04968).

With e(c) = ε(x_t, t, c) − ε(x_t, t, ∅), the guided noise is

    ε̂ = ε_∅ + s · (e_pos − Σ w_i · [e_i − ⟨e_i, e_pos⟩ / ‖e_pos‖² · e_pos]),   w_i ≥ 0,

the inner product over one sample's whole latent. The negatives are the prompt's own front and side views: they keep
the model from painting its favourite view on every side (the Janus problem). ∅ is the empty prompt; the user's negative
prompt takes its place everywhere, in Perp-Neg's differences too: it means the same with Perp-Neg on and off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..cameras import off_front
from ..request import GuidanceSettings
from .view_prompts import is_overhead

NEGATIVE_VIEWS = (0, 1)
"""Front and side, as indices into ``view_prompts.VIEWS``."""
NEGLIGIBLE = 1e-3
"""Weights up to this count as zero: threestudio's published constants miss their own zeros by up to 0.0006."""

_FRONT_DECAY, _SIDE_DECAY = 2.0, 10.0
"""Decay factors of stable-dreamfusion's schedule (its defaults)."""


@dataclass(frozen=True)
class Negatives:
    """The N negatives worth evaluating for a batch: a ragged list, none where the weight is zero."""

    sample: Tensor
    """[N] int64: the sample of the batch each belongs to."""
    view: Tensor
    """[N] int64: its view, an index into ``view_prompts.VIEWS``."""
    weight: Tensor
    """[N] float32, positive."""

    def __len__(self) -> int:
        return len(self.weight)


def stable_dreamfusion_weights(azimuth: ArrayLike, strength: float) -> NDArray[np.float64]:
    """Weights [B, 2] of the front and side negatives in stable-dreamfusion (its negative_w is −strength, default −2).

    With r falling from 1 to 0 over each quarter turn: on the front half, front has strength·e^(−2r) (0 where r > 0.8)
    and side strength·e^(−10(1−r)) (0 where r < 0.2); on the back half, front has strength and side
    strength/2·e^(−10r) (0 where r > 0.8). ``azimuth`` [B] in degrees.
    """
    turn = off_front(np.atleast_1d(azimuth)) / 90.0
    ahead = turn < 1.0
    r = np.where(ahead, 1.0 - turn, 2.0 - turn)
    front = np.where(r > 0.8, 0.0, strength * np.exp(-_FRONT_DECAY * r))
    side = np.where(r < 0.2, 0.0, strength * np.exp(-_SIDE_DECAY * (1.0 - r)))
    side_behind = np.where(r > 0.8, 0.0, 0.5 * strength * np.exp(-_SIDE_DECAY * r))
    return np.stack([np.where(ahead, front, strength), np.where(ahead, side, side_behind)], axis=1)


def threestudio_weights(azimuth: ArrayLike, strength: float) -> NDArray[np.float64]:
    """Weights [B, 2] of the front and side negatives in threestudio, multiplied by strength/2.

    With f(a, b, c, r) = a·e^(−b·r) + c and r falling from 1 to 0 over each quarter turn: on the front half
    front has f(4, 0.5, −2.426, r) and side f(4, 0.5, −2.426, 1−r); on the back half front has f(1, 0.5, 0.967, r) and
    side f(1, 0.5, −0.606, r). ``azimuth`` [B] in degrees.
    """
    turn = off_front(np.atleast_1d(azimuth)) / 90.0
    ahead = turn < 1.0
    r = np.where(ahead, 1.0 - turn, 2.0 - turn)

    def falloff(a: float, b: float, c: float, at: NDArray[np.float64]) -> NDArray[np.float64]:
        return a * np.exp(-b * at) + c

    front = np.where(ahead, falloff(4.0, 0.5, -2.426, r), falloff(1.0, 0.5, 0.967, r))
    side = np.where(ahead, falloff(4.0, 0.5, -2.426, 1.0 - r), falloff(1.0, 0.5, -0.606, r))
    return 0.5 * strength * np.stack([front, side], axis=1)


def negative_weights(settings: GuidanceSettings, azimuth: ArrayLike, elevation: ArrayLike) -> NDArray[np.float64]:
    """Weights [B, 2] of the front and side negatives for cameras at ``azimuth`` and ``elevation`` ([B], degrees).

    Auto is stable-dreamfusion here: whoever knows that the model is told the camera turned it off before. All zero if
    Perp-Neg is off, and for overhead views, whose prompt is neither front nor side.
    """
    turn = np.atleast_1d(np.asarray(azimuth, np.float64))
    if settings.perp_neg in ("auto", "stable-dreamfusion"):
        weights = stable_dreamfusion_weights(turn, settings.perp_neg_strength)
    elif settings.perp_neg == "threestudio":
        weights = threestudio_weights(turn, settings.perp_neg_strength)
    else:
        weights = np.zeros((len(turn), len(NEGATIVE_VIEWS)))
    weights[is_overhead(elevation, settings.overhead_angle)] = 0.0
    return weights


def select_negatives(weights: NDArray[np.float64], device: torch.device) -> Negatives:
    """The negatives of ``weights`` [B, 2] that count, sample by sample."""
    sample, column = np.nonzero(weights > NEGLIGIBLE)
    return Negatives(
        sample=torch.as_tensor(sample, dtype=torch.int64, device=device),
        view=torch.as_tensor(np.asarray(NEGATIVE_VIEWS)[column], dtype=torch.int64, device=device),
        weight=torch.as_tensor(weights[sample, column], dtype=torch.float32, device=device),
    )


def perpendicular(vectors: Tensor, reference: Tensor) -> Tensor:
    """The part of each of ``vectors`` [N, …] at right angles to its ``reference`` [N, …], each sample one vector.

    Where the reference is zero, the vector itself.
    """
    flat, along = vectors.flatten(1), reference.flatten(1)
    length = along.square().sum(1, keepdim=True).clamp_min(torch.finfo(along.dtype).tiny)
    share = (flat * along).sum(1, keepdim=True) / length
    return (flat - share * along).view_as(vectors)


def combine(
    unconditional: Tensor,
    positive: Tensor,
    negative: Tensor,
    negatives: Negatives,
    scale: float,
    *,
    projected: bool = True,
) -> Tensor:
    """Guided noise ε̂ [B, …] from ε_∅ [B, …], ε_pos [B, …] and the negatives' noise [N, …] (float32).

    Without negatives this is classifier-free guidance, ε_∅ + s·(ε_pos − ε_∅), at the same scale. Not ``projected``, the
    negatives are taken away whole (Composable Diffusion, arXiv 2206.01714, eq. 13): what Perp-Neg is measured against.
    """
    direction = positive - unconditional
    if len(negatives):
        own = negatives.sample
        away = negative - unconditional[own]
        if projected:
            away = perpendicular(away, direction[own])
        away = away * negatives.weight.view(-1, *[1] * (away.ndim - 1))
        direction = direction.index_add(0, own, away, alpha=-1.0)
    return unconditional + scale * direction
