"""A picture of what the optimizer will see."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import write_atomically
from .colour import Floats, over

SIDE = 256
"""Pixels a panel has at least; smaller images are enlarged by whole numbers, so that their pixels show."""
_CHECKS = 16
_LIGHT, _DARK = 0.80, 0.66


def preview_image(rgba: Floats, depth: Floats | None = None, normals: Floats | None = None) -> Floats:
    """The object [S, S, 4] on a checker and, beside it, depth [S, S] (near is light) and normals [S, S, 3]. sRGB."""
    panels = [over(rgba, _checker(len(rgba))[..., None])]
    if depth is not None:
        known = np.isfinite(depth)
        low, high = (float(depth[known].min()), float(depth[known].max())) if known.any() else (0.0, 1.0)
        grey = np.where(known, 1.0 - 0.9 * (np.nan_to_num(depth) - low) / max(high - low, 1e-12), 0.0)
        panels.append(np.repeat(grey[..., None], 3, axis=-1))
    if normals is not None:
        known = np.any(normals != 0.0, axis=-1, keepdims=True)
        panels.append(np.where(known, normals * 0.5 + 0.5, 0.0))
    return np.concatenate(panels, axis=1).astype(np.float32)


def save_preview(path: Path, rgba: Floats, depth: Floats | None = None, normals: Floats | None = None) -> None:
    """Write :func:`preview_image` as a PNG, whole or not at all. Raises OutputError."""
    times = -(-SIDE // len(rgba))
    image = np.round(np.clip(preview_image(rgba, depth, normals), 0.0, 1.0) * 255.0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(image, np.ones((times, times, 1), np.uint8))).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def _checker(size: int) -> Floats:
    """[size, size], two greys."""
    index = np.arange(size) * _CHECKS // size
    return np.where((index[:, None] + index[None]) % 2 == 0, _LIGHT, _DARK).astype(np.float32)
