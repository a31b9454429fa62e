"""The training set of the model of hidden sides: pictures, and what is there to be seen all around, also from below.

A rig takes no pictures from below, but there the object's shape is open to the eye as nowhere else: what is between
wheels or legs. So beside the views there are maps from below, without pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cameras import orbit_cameras
from .instances import make_instance
from .kept import Arrays, kept_arrays
from .model import IMAGE_SIZE
from .true_maps import TrueMaps, kept_maps
from .view_dataset import DISTANCE, FIELD_OF_VIEW, ViewBatches, Views

BELOW = 3
"""Maps from below of one object."""
ELEVATION = (-75.0, -10.0)
"""Theirs, in degrees; down to where the rig's own begin."""
_CHANCE = 1
"""Tells their random numbers from those of the object's views."""


@dataclass(frozen=True)
class Below:
    """Maps from below of each of N objects."""

    angles: NDArray[np.float32]
    """[N, BELOW, 2], azimuth and elevation in degrees."""
    depth: NDArray[np.float16]
    """[N, BELOW, S, S], see :data:`.true_maps.Maps`."""
    normals: NDArray[np.int8]
    """[N, BELOW, S, S, 3], see there."""


def make_below(start: int, end: int, seed: int) -> Below:
    """Of objects ``start`` to ``end`` of a seed's row, which are those of :func:`.view_dataset.make_views`."""
    angles = np.empty((end - start, BELOW, 2), np.float32)
    depth = np.empty((end - start, BELOW, IMAGE_SIZE, IMAGE_SIZE), np.float16)
    normals = np.empty((*depth.shape, 3), np.int8)
    for i in range(end - start):
        solids = make_instance(np.random.default_rng((seed, start + i))).solids
        rng = np.random.default_rng((seed, start + i, _CHANCE))
        angles[i] = np.stack((rng.uniform(-180, 180, BELOW), rng.uniform(*ELEVATION, BELOW)), 1)
        cameras = orbit_cameras(angles[i, :, 0], angles[i, :, 1], DISTANCE, FIELD_OF_VIEW)
        for v in range(BELOW):
            depth[i, v], normals[i, v] = kept_maps(solids, cameras[v : v + 1])
    return Below(angles, depth, normals)


def kept_below(folder: Path, count: int, seed: int, workers: int, report: Callable[[int], None]) -> Below:
    """``count`` objects of ``seed``, made once and kept in ``folder``; see :func:`.kept_arrays`."""
    return Below(**kept_arrays(folder, count, functools.partial(_arrays, seed=seed), workers, report))


def _arrays(start: int, end: int, seed: int) -> Arrays:
    return vars(make_below(start, end, seed))


@dataclass(frozen=True)
class MapPairs:
    """B pictures and what is there to be seen from other places, or from the same."""

    references: Tensor
    """[B, 3, S, S] in [−1, 1]."""
    poses: Tensor
    """[B, 4], see :func:`.view_dataset.stable_poses`."""
    maps: TrueMaps


class MapBatches(ViewBatches):
    """Random pairs of a picture and maps on the device; half of them in the mirror."""

    def __init__(self, views: Views, below: Below, device: torch.device, seed: int) -> None:
        super().__init__(views, device, seed)
        self.below = below
        self.angles = torch.cat((self.angles, torch.from_numpy(np.array(below.angles)).to(device)), 1)

    def draw_maps(self, count: int) -> MapPairs:
        """``count`` of them; every place is as likely, also the picture's own."""
        which, reference, mirror = self.choose(count)
        target = self.integers(self.angles.shape[1], count)
        maps = self._maps(which.cpu().numpy(), target.cpu().numpy()).mirrored(mirror)
        return MapPairs(self.images(which, reference, mirror), self.poses(which, target, reference, mirror), maps)

    def _maps(self, which: NDArray[Any], target: NDArray[Any]) -> TrueMaps:
        shown = self.views.depth.shape[1]
        above, under = np.minimum(target, shown - 1), np.maximum(target - shown, 0)
        is_under = target >= shown
        depth = np.where(is_under[:, None, None], self.below.depth[which, under], self.views.depth[which, above])
        normals = np.where(
            is_under[:, None, None, None], self.below.normals[which, under], self.views.normals[which, above]
        )
        return TrueMaps.of(depth, normals, self.device)
