"""Rendering: occupancy grid, ray marching, compositing, shading, backgrounds."""

from __future__ import annotations

from .background import LearnedBackground
from .colour import linear_to_srgb, srgb_to_linear
from .occupancy import OccupancyGrid
from .renderer import Renderer, RenderOutput, Shot, shot_of
from .shading import Shading, ShadingMode, sample_light
from .termination import RadianceField

__all__ = [
    "LearnedBackground",
    "OccupancyGrid",
    "RadianceField",
    "RenderOutput",
    "Renderer",
    "Shading",
    "ShadingMode",
    "Shot",
    "linear_to_srgb",
    "sample_light",
    "shot_of",
    "srgb_to_linear",
]
