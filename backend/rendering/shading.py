"""How a sample's albedo, normal and light make its colour (DreamFusion, section 3.1 and App. A.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..cameras import CameraBatch

ShadingMode = Literal["albedo", "lambertian", "textureless", "normal"]

_PAPER_DISTANCE = 1.25
"""DreamFusion's mean camera distance; its light is measured in these units."""
_NEAREST_LIGHT = 1.2
_MEAN_COSINE = 0.5
"""Mean cosine over a lit half sphere: what samples without a normal are taken to see."""


@dataclass(frozen=True)
class Shading:
    """How colour is made.

    ``albedo``: the colour alone; ``lambertian``: ``albedo · (ambient + diffuse · max(0, n·l))``; ``textureless``: the
    same with white albedo; ``normal``: ``(n + 1) / 2`` in world axes, as colour.
    """

    mode: ShadingMode = "albedo"
    light: Tensor | None = None
    """[B, 3], a point light for each camera, in world space; None puts it at the camera."""
    ambient: float = 0.1
    """Light from everywhere."""
    diffuse: float = 0.9
    """Light from the point light, without fall-off."""

    @property
    def needs_normals(self) -> bool:
        """Whether the picture cannot be made without normals."""
        return self.mode != "albedo"


def sample_light(cameras: CameraBatch, rng: np.random.Generator) -> Tensor:
    """Draw a point light for each camera: [B, 3] float32 on the CPU, in world space.

    The direction is that of a normal distribution around the camera's position, the distance uniform in [0.8, 1.5]
    (DreamFusion, App. A.2), both in units in which the camera stands at its paper's mean distance of 1.25. Lights are
    kept outside the object's ball.
    """
    unit = cameras.distance[:, None].astype(np.float64) / _PAPER_DISTANCE
    direction = cameras.position / unit + rng.normal(size=(len(cameras), 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    distance = np.maximum(rng.uniform(0.8, 1.5, (len(cameras), 1)) * unit, _NEAREST_LIGHT)
    return torch.from_numpy((direction * distance).astype(np.float32))


def lambert(positions: Tensor, normals: Tensor, lights: Tensor, shading: Shading) -> Tensor:
    """Brightness [M] of points [M, 3] with unit normals [M, 3] under point lights [M, 3]."""
    to_light = torch.nn.functional.normalize(lights - positions, dim=-1)
    return shading.ambient + shading.diffuse * (normals * to_light).sum(-1).clamp(min=0.0)


def unlit(shading: Shading) -> float:
    """Brightness of a sample that counts too little to be given a normal."""
    return shading.ambient + shading.diffuse * _MEAN_COSINE
