"""The training set of the model of whole shapes: pictures, and what of the space before their cameras is filled.

The space is cut as a camera sees it: a column behind every pixel, SLABS deep, from one radius before the ball's middle
to one behind it. So what a pixel shows lies where the pixel lies, and only the third number must be guessed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..cameras import CameraBatch, orbit_cameras
from .instances import make_instance
from .kept import Arrays, kept_arrays
from .model import IMAGE_SIZE
from .raycast import render_columns
from .shapes import Solids
from .view_dataset import DISTANCE, FIELD_OF_VIEW, ViewBatches, Views

SLABS = 48
"""Cells of a column, between the planes one radius before and one behind the ball's middle."""


def column_cells(solids: Solids, camera: CameraBatch, size: int = IMAGE_SIZE, slabs: int = SLABS) -> NDArray[np.bool_]:
    """Which cells' middles lie in the object: [size, size, slabs], the nearest slab first."""
    (fx, fy), (cx, cy) = camera.focal[0], camera.center[0]
    return render_columns(solids, camera.camera_to_world[0], (fx, fy), (cx, cy), size, slabs)


@dataclass(frozen=True)
class Columns:
    """What is filled before each camera of the :class:`.view_dataset.Views` of N objects."""

    bits: NDArray[np.uint8]
    """[N, V, S, S, SLABS / 8], the nearest slab in the highest bit of the first."""


def make_columns(start: int, end: int, seed: int, angles: Path) -> Columns:
    """Of objects ``start`` to ``end`` of a seed's row, whose views' angles are kept in the file ``angles``."""
    seen = np.load(angles, mmap_mode="r")[start:end]
    bits = np.empty((*seen.shape[:2], IMAGE_SIZE, IMAGE_SIZE, SLABS // 8), np.uint8)
    for i in range(end - start):
        solids = make_instance(np.random.default_rng((seed, start + i))).solids
        cameras = orbit_cameras(seen[i, :, 0], seen[i, :, 1], DISTANCE, FIELD_OF_VIEW)
        for v in range(len(cameras)):
            bits[i, v] = np.packbits(column_cells(solids, cameras[v : v + 1]), axis=-1)
    return Columns(bits)


def kept_columns(
    folder: Path, count: int, seed: int, angles: Path, workers: int, report: Callable[[int], None]
) -> Columns:
    """``count`` objects of ``seed``, made once and kept in ``folder``; see :func:`.kept_arrays`."""
    make = functools.partial(_arrays, seed=seed, angles=angles)
    return Columns(**kept_arrays(folder, count, make, workers, report))


def _arrays(start: int, end: int, seed: int, angles: Path) -> Arrays:
    return vars(make_columns(start, end, seed, angles))


@dataclass(frozen=True)
class ColumnPairs:
    """B pictures, and what is filled behind the pixels that show something."""

    pictures: Tensor
    """[B, 3, S, S] in [−1, 1]."""
    poses: Tensor
    """[B, 4], see :func:`.view_dataset.stable_poses`: the object's front beside the picture."""
    seen: Tensor
    """[B, S, S] bool, where the object is or in the next pixel: N of them."""
    filled: Tensor
    """[N, SLABS], 1 where the object is, else 0."""


class ColumnBatches(ViewBatches):
    """Random pictures with their columns on the device; half of them in the mirror."""

    def __init__(self, views: Views, columns: Columns, device: torch.device, seed: int) -> None:
        super().__init__(views, device, seed)
        self.columns = columns

    def draw_columns(self, count: int) -> ColumnPairs:
        """``count`` of them."""
        which, view, mirror = self.choose(count)
        rows, places, back = which.cpu().numpy(), view.cpu().numpy(), mirror.cpu().numpy()
        bits, known = self.columns.bits[rows, places], ~np.isnan(self.views.depth[rows, places])
        bits[back], known[back] = bits[back, :, ::-1], known[back, :, ::-1]
        seen = np.asarray(ndimage.maximum_filter(known, (1, 3, 3)), bool)
        filled = torch.from_numpy(np.unpackbits(bits[seen], axis=-1)).to(self.device).float()
        pictures, poses = self.images(which, view, mirror), self.front_poses(which, view, mirror)
        return ColumnPairs(pictures, poses, torch.from_numpy(seen).to(self.device), filled)
