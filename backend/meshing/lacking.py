"""What the pictures show and the surface lacks: a fog that is made as dense as a surface.

A picture says that there is something along a ray. Where other views did not believe it, optimization ends with a fog:
the ray is half opaque, and no place along it is dense enough to be of the surface. The picture is a fact, and the fog
stands where it contradicts the least; so there it becomes a part of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..cameras import nearest_pixels, places_along
from .mesh import Floats
from .projection import PictureView

RAYS = 128
"""Side of the square of rays through each picture."""
SEEN = 0.5
"""Opacity from which on a ray has met something."""
SHARE = 0.5
"""Of a ray's densest place: what is as dense is of the part that is lacking."""
THICKEST = 0.5
"""Radii; from the nearest to the farthest place of such a part along a ray, about its densest."""


class Thickened:
    """A field whose densities are multiplied by a factor that lies on a grid."""

    def __init__(self, field: Any, factor: Floats) -> None:
        self.field, self.factor = field, factor

    def density(self, x: Tensor) -> Tensor:
        """See :class:`.isosurface.FieldLike`."""
        factor = _looked_up(self.factor, x.detach().cpu().numpy())
        return self.field.density(x) * torch.from_numpy(factor).to(x.device)

    def query(self, x: Tensor) -> Any:
        """The field's own."""
        return self.field.query(x)


def lacking(density: Floats, level: float, pictures: Sequence[PictureView]) -> Floats | None:
    """By how much the density at the nodes [R + 1, R + 1, R + 1] of a grid over [−1, 1]³ is to be multiplied; ≥ 1.

    So that what each of the ``pictures`` shows has places of at least the ``level``, as far as there is a fog; None
    where nothing is lacking.
    """
    found = [_thin(density, level, picture) for picture in pictures]
    if not any(len(wanted) for _, wanted in found):
        return None
    factor = np.ones_like(density)
    for nodes, wanted in found:
        np.maximum.at(factor, tuple(nodes.T), wanted)
    # From rays to the space between them.
    between: Any = ndimage.gaussian_filter(ndimage.grey_dilation(factor, (3, 3, 3)), 1.0)
    return between


def _thin(density: Floats, level: float, picture: PictureView) -> tuple[NDArray[np.int64], Floats]:
    """Nodes [M, 3] in what the picture shows and the surface lacks, and the factors [M] by which they reach it."""
    resolution = len(density) - 1
    row = nearest_pixels(len(picture.rgba), RAYS)
    inside = np.asarray(ndimage.binary_erosion(picture.rgba[np.ix_(row, row)][..., 3] > 127, np.ones((3, 3))), bool)
    step = 2.0 / resolution
    offsets = np.arange(-1.0, 1.0, step)
    places = places_along(picture.camera, inside, offsets)
    along = _looked_up(density, places.reshape(-1, 3)).reshape(places.shape[:2])
    peak, where = along.max(1), along.argmax(1)
    lacks = (peak < level) & (-np.expm1(-along.sum(1) * step) > SEEN)
    near = np.abs(np.arange(len(offsets)) - where[:, None]) * step < THICKEST / 2
    part = lacks[:, None] & near & (along >= SHARE * peak[:, None])
    nodes = np.rint((places[part] + 1.0) / step).astype(np.int64).clip(0, resolution)
    wanted = np.broadcast_to((level / (SHARE * peak.clip(1e-6)))[:, None], part.shape)[part]
    return nodes, wanted.astype(np.float32)


def _looked_up(grid: Floats, points: NDArray[np.floating]) -> Floats:
    """Values [N] of a grid over [−1, 1]³ at points [N, 3], trilinear."""
    where = (points.T + 1.0) * (0.5 * (len(grid) - 1))
    values: Any = ndimage.map_coordinates(grid, where, order=1, mode="nearest")
    return values
