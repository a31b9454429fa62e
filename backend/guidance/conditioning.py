"""All that one step asks of the network, as the rows of one call: B unconditional, B positive, N negatives, B told.

The told rows, there only if the model knows cameras, are the positive ones with the camera's tokens behind the words;
the others are padded and masked, since one call of the network is faster than two and masked keys do not count in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..request import GuidanceSettings
from .inversion import inversion_scale
from .perp_neg import Negatives, combine, negative_weights, select_negatives
from .view_prompts import VIEWS, TextEmbeddings, view_weights

NoiseNetwork = Callable[..., Tensor]
"""(noisy latents [R, C, h, w], timesteps [R], tokens [R, L, D], mask [R, L] or None) to noise [R, C, h, w], float32.

Where there are pooled texts [R, E], they are a fifth argument.
"""


@dataclass(frozen=True)
class Condition:
    """The conditions of one step for a batch of B samples."""

    tokens: Tensor
    """[2B + N (+ B), L, D]: unconditional, positive, negatives, told."""
    mask: Tensor | None
    """Of the same rows [rows, L], 1 for a token and 0 for padding; None where nothing is padded."""
    negatives: Negatives
    """The N negatives, in the order of their rows."""
    told: bool = False
    """Whether the told rows are there."""
    pooled: Tensor | None = None
    """Pooled texts of the same rows [rows, E], for models that are told them."""

    def asked(self, end: int, start: int = 0) -> tuple[Any, ...]:
        """What the network is asked about the rows from ``start`` to ``end``, as arguments behind the timesteps."""
        rows = slice(start, end)
        mask = None if self.mask is None else self.mask[rows]
        pooled = () if self.pooled is None else (self.pooled[rows],)
        return (self.tokens[rows], mask, *pooled)


def build_condition(
    text: TextEmbeddings,
    azimuth: NDArray[np.float32],
    elevation: NDArray[np.float32],
    settings: GuidanceSettings,
    camera_tokens: Tensor | None = None,
    prompt: NDArray[np.int64] | None = None,
) -> Condition:
    """The conditions for B cameras at ``azimuth`` and ``elevation`` ([B], degrees).

    ``prompt`` [B] says by which of the text's prompts each is seen (the first if None); its negatives are that prompt's
    own views. ``camera_tokens`` [B, K, D], if any, follow the positive's words in the told rows and nowhere else:
    Perp-Neg is between words, with and without a camera.
    """
    shares = view_weights(azimuth, elevation, settings.overhead_angle, three_quarter=settings.three_quarter_views)
    positive = text.interpolated(shares, prompt)
    unconditional = text.unconditional.expand_as(positive)
    negatives = select_negatives(negative_weights(settings, azimuth, elevation), positive.device)
    rows = negatives.view
    if prompt is not None:
        rows = rows + len(VIEWS) * torch.as_tensor(prompt, device=rows.device)[negatives.sample]
    words = torch.cat([unconditional, positive, text.views[rows]])
    if camera_tokens is None:
        return Condition(words, None, negatives, pooled=_pooled(text, text.interpolated_pooled(shares, prompt), rows))
    told = torch.cat([positive, camera_tokens.to(positive.dtype)], dim=1)
    padded = words.new_zeros(len(words), told.shape[1], words.shape[2])
    padded[:, : words.shape[1]] = words
    mask = words.new_ones(len(words) + len(told), told.shape[1])
    mask[: len(words), words.shape[1] :] = 0.0
    return Condition(torch.cat([padded, told]), mask, negatives, told=True)


def _pooled(text: TextEmbeddings, positive: Tensor | None, negatives: Tensor) -> Tensor | None:
    """Pooled texts of the rows without a camera [2B + N, E]; ``negatives`` [N] are places in the views."""
    if positive is None or text.pooled_views is None or text.pooled_unconditional is None:
        return None
    return torch.cat([text.pooled_unconditional.expand_as(positive), positive, text.pooled_views[negatives]])


def guided_noise(
    network: NoiseNetwork, noisy: Tensor, timesteps: Tensor, condition: Condition, settings: GuidanceSettings
) -> Tensor:
    """Guided noise [B, C, h, w] for ``noisy`` [B, C, h, w] at ``timesteps`` [B], by one call of ``network``.

    Every row, the negatives' too, meets the latent and the timestep of its own sample. A told camera has a scale of its
    own (composed as in InstructPix2Pix, arXiv 2211.09800, eq. 3): s_camera · (ε(words, camera) − ε(words)) is added to
    what the words alone give, so that neither drowns the other.
    """
    batch, own = len(noisy), condition.negatives.sample
    told = noisy[:batch] if condition.told else noisy[:0]
    latents = torch.cat([noisy, noisy, noisy[own], told])
    times = torch.cat([timesteps, timesteps, timesteps[own], timesteps[: len(told)]])
    noise = network(latents, times, *condition.asked(len(latents)))
    unconditional, positive, negative, seen = noise.split([batch, batch, len(own), len(told)])
    projected = settings.negatives == "perpendicular"
    guided = combine(
        unconditional, positive, negative, condition.negatives, settings.guidance_scale, projected=projected
    )
    return guided + settings.camera_scale * (seen - positive) if condition.told else guided


def inversion_noise(
    network: NoiseNetwork, noisy: Tensor, timesteps: Tensor, condition: Condition, settings: GuidanceSettings
) -> Tensor:
    """The noise [B, C, h, w] by which a picture is inverted, words alone, at :func:`.inversion.inversion_scale`."""
    batch = len(noisy)
    scale = inversion_scale(settings)
    rows = batch if scale == 0.0 else 2 * batch
    copies = rows // batch
    noise = network(noisy.repeat(copies, 1, 1, 1), timesteps.repeat(copies), *condition.asked(rows))
    unconditional, positive = noise[:batch], noise[-batch:]
    return unconditional + scale * (positive - unconditional)
