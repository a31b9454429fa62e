"""Between linear light and sRGB (IEC 61966-2-1), differentiable everywhere with slopes of at most 12.92."""

from __future__ import annotations

import torch
from torch import Tensor

_LINEAR_KNEE = 0.0031308
_SRGB_KNEE = 0.04045


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Encode linear colour as sRGB: any shape, [0, 1] to [0, 1]; negative values stay on the straight part."""
    curve = 1.055 * linear.clamp(min=_LINEAR_KNEE).pow(1.0 / 2.4) - 0.055
    return torch.where(linear <= _LINEAR_KNEE, 12.92 * linear, curve)


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """Decode sRGB to linear colour: any shape, [0, 1] to [0, 1]; the inverse of :func:`linear_to_srgb`."""
    curve = ((srgb.clamp(min=_SRGB_KNEE) + 0.055) / 1.055).pow(2.4)
    return torch.where(srgb <= _SRGB_KNEE, srgb / 12.92, curve)
