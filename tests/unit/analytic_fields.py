"""Fields given by formulas, and what their surfaces are measured by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backend.meshing.isosurface import Surface, extract_surface

SIDES = torch.tensor(
    [[0.9, 0.05, 0.05], [0.05, 0.6, 0.05], [0.05, 0.05, 0.7], [0.8, 0.7, 0.05], [0.5, 0.05, 0.6], [0.02, 0.5, 0.5]]
)
"""Linear colours of a box's sides −x, +x, −y, +y, −z, +z."""
BOX = (0.5, 0.4, 0.3)


@dataclass
class Sample:
    density: Tensor
    albedo: Tensor


class Analytic:
    """A field given by functions of points [N, 3]."""

    def __init__(self, density: Callable[[Tensor], Tensor], albedo: Callable[[Tensor], Tensor] | None = None) -> None:
        self._density = density
        self._albedo = albedo or (lambda x: torch.full_like(x, 0.5))
        self.asked = 0

    def density(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self._density(x)

    def query(self, x: Tensor) -> Sample:
        return Sample(self._density(x), self._albedo(x))


@dataclass
class Occupied:
    binary: Tensor


def ball(density: float, radius: float = 0.5, softness: float = 0.0, centre: tuple[float, ...] = (0.0, 0.0, 0.0)):
    def at(x: Tensor) -> Tensor:
        inside = radius - (x - torch.tensor(centre)).norm(dim=1)
        return density * (torch.sigmoid(inside / softness) if softness else (inside > 0).float())

    return at


def box(x: Tensor) -> Tensor:
    return 200.0 * (x.abs() < torch.tensor(BOX)).all(dim=1).float()


def box_colour(x: Tensor) -> Tensor:
    share = x / torch.tensor(BOX)
    axis = share.abs().argmax(dim=1)
    sign = (share.gather(1, axis[:, None])[:, 0] > 0).long()
    return SIDES[2 * axis + sign]


def quiet(*_: object) -> None:
    pass


def surface_of(density: Callable[[Tensor], Tensor], resolution: int = 48) -> Surface:
    return extract_surface(Analytic(density), None, resolution, quiet)


def radii(surface: Surface) -> np.ndarray:
    return np.linalg.norm(surface.vertices, axis=1)


def is_closed(faces: np.ndarray) -> bool:
    """Every edge is used once in each direction."""
    edges = Counter(map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()))
    return all(count == 1 and edges[b, a] == 1 for (a, b), count in edges.items())
