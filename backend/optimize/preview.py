"""The picture that shows how far a run is: four sides, two by two."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from ..cameras import CameraBatch, orbit_cameras
from ..rendering import Renderer, RenderOutput, Shading, linear_to_srgb

SIDE = 96
"""Pixels a view."""


def preview_cameras() -> CameraBatch:
    """Front, +X side, back, −X side, from a little above."""
    return orbit_cameras(np.array([0.0, 90.0, 180.0, -90.0]), 15.0, 3.0, 40.0)


@torch.no_grad()
def render_preview(renderer: Renderer) -> RenderOutput:
    """The four sides [4, SIDE, SIDE], lit from the camera, before light grey; draws no random numbers."""
    shading = Shading("lambertian", ambient=0.35, diffuse=0.65)
    grey = torch.full((3,), 0.6)
    return renderer.render(preview_cameras(), SIDE, SIDE, shading=shading, background=grey, rng=None)


def preview_png(output: RenderOutput) -> bytes:
    """Front and +X side above back and −X side, as a PNG file's bytes."""
    views = linear_to_srgb(output.rgb).clamp(0, 1).nan_to_num().cpu().numpy()
    front, right, back, left = np.round(views * 255).astype(np.uint8)
    sheet = np.block([[[front], [right]], [[back], [left]]])
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()
