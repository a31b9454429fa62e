"""Losses on what is rendered, beside the guidance."""

from __future__ import annotations

from torch import Tensor

from .. import schedules
from ..rendering import RenderOutput
from ..request import OptimizeSettings


def regulariser(step: int, output: RenderOutput, settings: OptimizeSettings, *, thin: bool) -> Tensor:
    """The weighted sum of orientation, opacity and entropy losses; without ``thin`` of the first alone."""
    weights = schedules.loss_weights(step, settings)
    total = weights.orientation * output.orientation_loss
    if thin:
        total = total + weights.opacity * opacity_loss(output.opacity) + weights.entropy * entropy_loss(output.opacity)
    return total


def opacity_loss(opacity: Tensor) -> Tensor:
    """Mean of √(opacity² + 0.01) over the pixels (DreamFusion, App. A.2): keeps empty space empty."""
    return (opacity.square() + 0.01).sqrt().mean()


def entropy_loss(opacity: Tensor) -> Tensor:
    """Mean binary entropy of each pixel's opacity, in bits: makes pixels solid or empty."""
    p = opacity.clamp(1e-5, 1 - 1e-5)
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()
