"""Objects with known mattes, rendered in linear light with supersampled edges, and backgrounds to put them before."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from backend.picture.colour import linear_to_srgb, srgb_to_linear

Array = NDArray[Any]
SUPER = 4
"""Samples a pixel along each axis."""

BACKGROUNDS = ("white", "blue", "black", "gradient", "vignette", "noise", "strong noise", "jpeg")
SHAPES = ("blob", "star", "lollipop", "bust")


def object_matte(shape: str, size: int) -> tuple[Array, Array]:
    """Opacity [S, S] and own colour [S, S, 3] (sRGB) of an object."""
    fine = (np.arange(size * SUPER) + 0.5) / (size * SUPER) * 2.0 - 1.0
    x, y = fine[None], fine[:, None]
    turn, radius = np.arctan2(y, x), np.hypot(x, y)
    solid = {
        "blob": radius < 0.55 + 0.12 * np.cos(3.0 * turn + 0.4),
        "star": radius < 0.40 + 0.22 * np.cos(5.0 * turn),
        "lollipop": (np.hypot(x, y + 0.3) < 0.35) | ((np.abs(x) < 0.03) & (y > -0.3) & (y < 0.8)),
        "bust": (np.hypot(x, y + 0.25) < 0.32) | (np.hypot(x / 0.6, (y - 1.0) / 0.75) < 1.0),
    }[shape]
    alpha = solid.reshape(size, SUPER, size, SUPER).mean(axis=(1, 3))
    at = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(at, at)
    stripes = 0.5 + 0.5 * np.sin(40.0 * u + 7.0 * v)
    colour = np.stack([0.75 - 0.2 * stripes, 0.25 + 0.2 * v, 0.12 + 0.25 * stripes * u], axis=-1)
    eye = np.hypot(u - 0.5, v - (0.5 if shape == "star" else 0.36)) < 0.04
    colour[eye] = (1.0, 1.0, 1.0)  # as white as the white background: it must stay
    return alpha.astype(np.float32), colour.astype(np.float32)


def background(kind: str, size: int, rng: np.random.Generator) -> Array:
    """[S, S, 3] sRGB."""
    at = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(at, at)
    flat = np.ones((size, size, 3))
    if kind == "gradient":
        return (0.55 + 0.3 * v)[..., None] * np.array([0.9, 1.0, 1.05]) * flat
    if kind == "vignette":
        return np.clip(0.95 - 0.5 * ((u - 0.45) ** 2 + (v - 0.5) ** 2), 0, 1)[..., None] * flat
    if kind in {"noise", "strong noise"}:
        sigma = 0.015 if kind == "noise" else 0.05
        return np.clip(np.array([0.55, 0.75, 0.60]) + sigma * rng.normal(size=flat.shape), 0, 1)
    return np.array({"white": (1, 1, 1), "blue": (0.25, 0.4, 0.85), "black": (0, 0, 0), "jpeg": (1, 1, 1)}[kind]) * flat


def picture_of(
    shape: str, kind: str, size: int = 160, seed: int = 0, *, linear: bool = True
) -> tuple[Array, Array, Array]:
    """The picture [S, S, 3] as 8 bits, its true opacity [S, S] and the object's own colour [S, S, 3]."""
    rng = np.random.default_rng(seed)
    alpha, colour = object_matte(shape, size)
    behind, cover = background(kind, size, rng), alpha[..., None]
    if linear:
        mixed = linear_to_srgb(cover * srgb_to_linear(colour) + (1.0 - cover) * srgb_to_linear(behind))
    else:
        mixed = cover * colour + (1.0 - cover) * behind
    if "noise" in kind:  # the sensor's noise lies on the object too
        mixed = mixed + cover * (0.015 if kind == "noise" else 0.05) * rng.normal(size=mixed.shape)
    image = np.round(np.clip(mixed, 0, 1) * 255).astype(np.uint8)
    if kind == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=80)
        image = np.asarray(Image.open(buffer))
    return image, alpha, colour


def soft(alpha: Array, sigma: float) -> Array:
    """The same matte out of focus."""
    return ndimage.gaussian_filter(alpha, sigma)
