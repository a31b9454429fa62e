"""What a model of hidden sides sees all around, as pictures of the shape alone: masks, depths and normals.

They cost no sampling, so there are more of them than sketches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..cameras import CameraBatch, orbit_cameras
from ..depth import resized, with_maps
from ..guidance import Side, ViewMapsModel
from ..picture import Reference
from ..reference_files import ReferenceView
from .agreement import opacity

Floats = NDArray[np.float32]

AZIMUTHS = tuple(range(-180, 180, 30))
ELEVATIONS = (-35.0, 0.0, 40.0)
"""Degrees; every azimuth from each. From below it shows what is between wheels or legs."""


def side_views(model: ViewMapsModel) -> tuple[ReferenceView, ...]:
    """The shape as ``model`` sees it."""
    angles = np.array(list(itertools.product(AZIMUTHS, ELEVATIONS)))
    cameras = orbit_cameras(angles[:, 0], angles[:, 1], model.distance, model.field_of_view)
    return tuple(_view(cameras[i : i + 1], side) for i, side in enumerate(model.seen_from(cameras)))


def masked(pictures: Mapping[str, Floats], sides: Sequence[Side]) -> dict[str, Floats]:
    """The pictures [S, S, 4], opaque where the object most likely is; nearest colours where they had none."""
    return {name: _masked(rgba, side) for (name, rgba), side in zip(pictures.items(), sides, strict=True)}


def _view(camera: CameraBatch, side: Side) -> ReferenceView:
    alpha = opacity(side.mask.numpy())
    picture = Reference(np.concatenate((np.zeros((*alpha.shape, 3), np.float32), alpha[..., None]), -1), "plain")
    return with_maps(ReferenceView(camera, 1.0, (picture,), picture), side.maps)


def _masked(rgba: Floats, side: Side) -> Floats:
    alpha = opacity(resized(side.mask[None], len(rgba))[0])
    nearest: Any = ndimage.distance_transform_edt(rgba[..., 3] < 0.5, return_distances=False, return_indices=True)
    colour = rgba[..., :3][tuple(nearest)] * (alpha > 0)[..., None]
    return np.concatenate((colour, alpha[..., None]), -1).astype(np.float32)
