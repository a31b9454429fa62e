"""Views of random objects with their depth and normals: the training set of the depth model."""

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
from torch.nn import functional as F

from .dataset import sample_light
from .instances import COMPOSITE, make_instance
from .kept import Arrays, kept_arrays
from .model import IMAGE_SIZE
from .true_maps import TrueMaps, kept_maps
from .view_dataset import before_white, picture, sample_cameras

CAMERAS = (2, 5, 6, 7, 8)
"""Of an object's cameras: one from where pictures are taken, the others from all around."""
ASSEMBLIES = 0.3
"""Share of the objects that are of no kind, beside those that chance makes: what has no name must be looked at."""
_COARSEST = 0.4
"""Side, as a share of its own, to which a picture is at most shrunk and blown up again."""


@dataclass(frozen=True)
class DepthViews:
    """N views."""

    pictures: NDArray[np.uint8]
    """[N, S, S, 3] sRGB, before white."""
    depth: NDArray[np.float16]
    """[N, S, S], see :data:`.true_maps.Maps`."""
    normals: NDArray[np.int8]
    """[N, S, S, 3], see there."""


def make_depth_views(start: int, end: int, seed: int) -> DepthViews:
    """Of objects ``start`` to ``end`` of a seed's endless row, each from CAMERAS."""
    count, row = (end - start) * len(CAMERAS), 0
    pictures = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    depth = np.empty((count, IMAGE_SIZE, IMAGE_SIZE), np.float16)
    normals = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.int8)
    for i in range(start, end):
        rng = np.random.default_rng((seed, i))
        kind = COMPOSITE if rng.random() < ASSEMBLIES else None
        solids, cameras = make_instance(rng, kind).solids, sample_cameras(rng)
        for v in CAMERAS:
            camera = cameras[v : v + 1]
            seen = picture(solids, camera, sample_light(rng, camera.position[0]))
            pictures[row] = np.rint(before_white(seen) * 255)
            depth[row], normals[row] = kept_maps(solids, camera)
            row += 1
    return DepthViews(pictures, depth, normals)


def kept_depth_views(folder: Path, objects: int, seed: int, workers: int, report: Callable[[int], None]) -> DepthViews:
    """Of ``objects`` objects, rendered once and kept in ``folder``; see :func:`.kept_arrays`."""
    kept = kept_arrays(folder, objects, functools.partial(_arrays, seed=seed), workers, report)
    return DepthViews(**{name: array.reshape(-1, *array.shape[2:]) for name, array in kept.items()})


def _arrays(start: int, end: int, seed: int) -> Arrays:
    """A row an object."""
    rows = vars(make_depth_views(start, end, seed))
    return {name: array.reshape(end - start, len(CAMERAS), *array.shape[1:]) for name, array in rows.items()}


@dataclass(frozen=True)
class DepthPairs:
    """B pictures and what they show."""

    pictures: Tensor
    """[B, 3, S, S] in [−1, 1]."""
    maps: TrueMaps


class DepthBatches:
    """Random views on the device, half of them in the mirror; the pictures as drawings are: blurred, off, in noise."""

    def __init__(self, views: DepthViews, device: torch.device, seed: int) -> None:
        self.views, self.device = views, device
        self.rng = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> DepthPairs:
        """``count`` of them."""
        which = torch.randint(len(self.views.depth), (count,), generator=self.rng, device=self.device).cpu().numpy()
        pairs = self.shown(which)
        mirror = torch.rand(count, generator=self.rng, device=self.device) < 0.5
        images = torch.where(mirror[:, None, None, None], pairs.pictures.flip(-1), pairs.pictures)
        return DepthPairs(self._worn(images), pairs.maps.mirrored(mirror))

    def shown(self, which: NDArray[Any]) -> DepthPairs:
        """The views ``which`` [B], as they are."""
        pictures = torch.from_numpy(np.asarray(self.views.pictures[which], np.float32)).to(self.device)
        maps = TrueMaps.of(self.views.depth[which], self.views.normals[which], self.device)
        return DepthPairs(pictures.permute(0, 3, 1, 2) / 127.5 - 1, maps)

    def _worn(self, images: Tensor) -> Tensor:
        """Every other one coarser, brighter or darker and with noise, as far as chance has it."""
        count = len(images)

        def some(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, 1, 1, generator=self.rng, device=self.device)

        side = int(some(_COARSEST, 1.0)[0] * IMAGE_SIZE)  # one for all of them
        coarse = F.interpolate(images, size=side, mode="bilinear", antialias=True)
        coarse = F.interpolate(coarse, size=IMAGE_SIZE, mode="bilinear")
        noise = torch.randn(images.shape, generator=self.rng, device=self.device)
        worn = coarse * some(0.85, 1.1, 1) + some(-0.05, 0.05, 3) + noise * some(0.0, 0.06, 1)
        return torch.where(some(0.0, 1.0, 1) < 0.5, worn, images).clamp(-1, 1)
