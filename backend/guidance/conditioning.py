"""All that one step asks of the network, as the rows of a single call: B unconditional, B positive, N negatives.

The three kinds may have different numbers of tokens (a camera adds some), so shorter rows are padded and masked: one
call of the network is faster than two, and masked keys do not count in its attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..request import GuidanceSettings
from .perp_neg import Negatives, combine, negative_weights, select_negatives
from .view_prompts import TextEmbeddings, view_weights

NoiseNetwork = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
"""(noisy latents [R, C, h, w], timesteps [R], tokens [R, L, D], mask [R, L] or None) to noise [R, C, h, w], float32."""


@dataclass(frozen=True)
class Condition:
    """The conditions of one step for a batch of B samples."""

    tokens: Tensor
    """[2B + N, L, D]: unconditional, positive, negatives."""
    mask: Tensor | None
    """[2B + N, L], 1 for a token and 0 for padding; None where nothing is padded."""
    negatives: Negatives
    """The N negatives, in the order of their rows."""


def build_condition(
    text: TextEmbeddings,
    azimuth: NDArray[np.float32],
    elevation: NDArray[np.float32],
    settings: GuidanceSettings,
    camera_tokens: Tensor | None = None,
    camera_in_unconditional: bool = False,
) -> Condition:
    """The conditions for B cameras at ``azimuth`` and ``elevation`` ([B], degrees).

    ``camera_tokens`` [B, K, D] follow the text's in every positive and negative row: a negative differs from its
    positive in words alone. The unconditional rows go without, so that the guidance scale strengthens the camera as it
    does the words, unless ``camera_in_unconditional`` (MVDream's choice: the scale then strengthens the words alone).
    """
    positive = text.interpolated(view_weights(azimuth, elevation, settings.overhead_angle))
    unconditional = text.unconditional.expand_as(positive)
    negatives = select_negatives(negative_weights(settings, azimuth, elevation), positive.device)
    tokens = torch.cat([unconditional, positive, text.views[negatives.view]])
    if camera_tokens is None:
        return Condition(tokens, None, negatives)
    batch = len(positive)
    own = torch.cat([torch.arange(batch, device=tokens.device).repeat(2), negatives.sample])
    extra = camera_tokens.to(tokens.dtype)[own]
    mask = None
    if not camera_in_unconditional:
        mask = tokens.new_ones(len(tokens), tokens.shape[1] + extra.shape[1])
        mask[:batch, tokens.shape[1] :] = 0.0
    return Condition(torch.cat([tokens, extra], dim=1), mask, negatives)


def guided_noise(network: NoiseNetwork, noisy: Tensor, timesteps: Tensor, condition: Condition, scale: float) -> Tensor:
    """Guided noise [B, C, h, w] for ``noisy`` [B, C, h, w] at ``timesteps`` [B], by one call of ``network``.

    Every row, the negatives' too, meets the latent and the timestep of its own sample.
    """
    batch = len(noisy)
    own = condition.negatives.sample
    latents = torch.cat([noisy, noisy, noisy[own]])
    times = torch.cat([timesteps, timesteps, timesteps[own]])
    noise = network(latents, times, condition.tokens, condition.mask)
    unconditional, positive, negative = noise[:batch], noise[batch : 2 * batch], noise[2 * batch :]
    return combine(unconditional, positive, negative, condition.negatives, scale)
