"""Between sRGB and linear light (IEC 61966-2-1), and pixels that are averaged as light is: linear and premultiplied."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

_LINEAR_KNEE = 0.0031308
_SRGB_KNEE = 0.04045
_NOTHING = 1e-4
"""Opacity below which a pixel has no colour of its own."""


def srgb_to_linear(srgb: ArrayLike) -> Floats:
    """Decode sRGB, any shape, [0, 1] to [0, 1]."""
    value = np.asarray(srgb, np.float32)
    curve = ((np.maximum(value, _SRGB_KNEE) + 0.055) / 1.055) ** 2.4
    return np.where(value <= _SRGB_KNEE, value / 12.92, curve).astype(np.float32)


def linear_to_srgb(linear: ArrayLike) -> Floats:
    """Encode linear light as sRGB, any shape, [0, 1] to [0, 1]."""
    value = np.asarray(linear, np.float32)
    curve = 1.055 * np.maximum(value, _LINEAR_KNEE) ** (1.0 / 2.4) - 0.055
    return np.where(value <= _LINEAR_KNEE, 12.92 * value, curve).astype(np.float32)


def premultiply(rgba: Floats) -> Floats:
    """Straight sRGB [..., 4] to linear light times opacity [..., 4]."""
    alpha = rgba[..., 3:]
    return np.concatenate([srgb_to_linear(rgba[..., :3]) * alpha, alpha], axis=-1)


def unpremultiply(light: Floats) -> Floats:
    """The inverse of :func:`premultiply`; colours are 0 where nothing is."""
    alpha = np.clip(light[..., 3:], 0.0, 1.0)
    there = alpha > _NOTHING
    colour = np.clip(light[..., :3] / np.where(there, alpha, 1.0), 0.0, 1.0)
    return np.concatenate([np.where(there, linear_to_srgb(colour), 0.0), np.where(there, alpha, 0.0)], axis=-1)


def over(rgba: Floats, background: ArrayLike) -> Floats:
    """Straight sRGB [..., 4] over an opaque sRGB background, blended in linear light; [..., 3] sRGB."""
    light = premultiply(rgba)
    return linear_to_srgb(np.clip(light[..., :3] + (1.0 - light[..., 3:]) * srgb_to_linear(background), 0.0, 1.0))
