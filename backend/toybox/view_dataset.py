"""Views of random objects before white, and pairs of them: the training set of the novel-view model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cameras import CameraBatch, orbit_cameras, sample_orbit
from ..picture.colour import linear_to_srgb
from ..request import OrbitRig
from .dataset import sample_light
from .instances import make_instance
from .kept import Arrays, kept_arrays
from .model import IMAGE_SIZE
from .raycast import Light, render
from .shapes import Solids
from .true_maps import kept_maps

REFERENCE_AZIMUTH, REFERENCE_ELEVATION = (-70.0, 70.0), (-5.0, 35.0)
"""Where a person would take a picture from, in degrees."""
REFERENCES, AROUND = 3, 6
"""Views of one object: from where pictures are taken, and from all around as the rig of a job draws them."""
VIEWS = REFERENCES + AROUND
OTHER_REFERENCE_SHARE = 0.2
"""Pairs whose reference may be any view, for pictures from the side and from behind."""
DISTANCE, FIELD_OF_VIEW = OrbitRig().distance[0], OrbitRig().field_of_view[0]
_SUPERSAMPLE = 2
_AMBIENT = 0.4


@dataclass(frozen=True)
class Views:
    """V views of each of N objects; the first REFERENCES views of each are such as people take."""

    pictures: NDArray[np.uint8]
    """[N, V, S, S, 3] sRGB."""
    angles: NDArray[np.float32]
    """[N, V, 2], azimuth and elevation in degrees."""
    depth: NDArray[np.float16]
    """[N, V, S, S], see :data:`.true_maps.Maps`."""
    normals: NDArray[np.int8]
    """[N, V, S, S, 3], see there."""


def sample_cameras(rng: np.random.Generator) -> CameraBatch:
    """The V cameras of one object; all at the rig's distance, with its lens."""
    azimuth, elevation = rng.uniform(*REFERENCE_AZIMUTH, REFERENCES), rng.uniform(*REFERENCE_ELEVATION, REFERENCES)
    near, around = orbit_cameras(azimuth, elevation, DISTANCE, FIELD_OF_VIEW), sample_orbit(OrbitRig(), AROUND, rng)
    return CameraBatch(
        np.concatenate((near.camera_to_world, around.camera_to_world)),
        np.concatenate((near.focal, around.focal)),
        np.concatenate((near.center, around.center)),
    )


def lamp(camera: CameraBatch) -> Light:
    """A lamp a little above the camera, by which held-out objects are shown."""
    x, y, z = camera.position[0].tolist()
    return Light((x, y, z + 1.0), _AMBIENT)


def picture(
    solids: Solids, camera: CameraBatch, light: Light, size: int = IMAGE_SIZE, supersample: int = _SUPERSAMPLE
) -> NDArray[np.float32]:
    """The object seen by one camera: [S, S, 4] in [0, 1], sRGB with straight alpha."""
    (fx, fy), (cx, cy) = camera.focal[0].tolist(), camera.center[0].tolist()
    linear, cover = render(solids, camera.camera_to_world[0], (fx, fy), (cx, cy), size, light, supersample)
    return np.concatenate((linear_to_srgb(np.clip(linear, 0, 1)), cover[..., None]), 2)


def before_white(rgba: NDArray[np.float32]) -> NDArray[np.float32]:
    """[..., 4] with straight alpha to [..., 3], mixed as sRGB."""
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def make_views(start: int, end: int, seed: int) -> Views:
    """Objects ``start`` to ``end`` of a seed's endless row: the same seed gives the same row."""
    pictures = np.empty((end - start, VIEWS, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    angles = np.empty((end - start, VIEWS, 2), np.float32)
    depth = np.empty(pictures.shape[:-1], np.float16)
    normals = np.empty(pictures.shape, np.int8)
    for i in range(end - start):
        rng = np.random.default_rng((seed, start + i))
        solids, cameras = make_instance(rng).solids, sample_cameras(rng)
        angles[i] = np.stack((cameras.azimuth, cameras.elevation), 1)
        for v in range(VIEWS):
            camera = cameras[v : v + 1]
            seen = picture(solids, camera, sample_light(rng, camera.position[0]))
            pictures[i, v] = np.rint(before_white(seen) * 255)
            depth[i, v], normals[i, v] = kept_maps(solids, camera)
    return Views(pictures, angles, depth, normals)


def kept_views(folder: Path, count: int, seed: int, workers: int, report: Callable[[int], None]) -> Views:
    """``count`` objects of ``seed``, rendered once and kept in ``folder``; see :func:`.kept_arrays`."""
    return Views(**kept_arrays(folder, count, functools.partial(_arrays, seed=seed), workers, report))


def _arrays(start: int, end: int, seed: int) -> Arrays:
    return vars(make_views(start, end, seed))


@dataclass(frozen=True)
class Pairs:
    """B views and, of the same objects, the pictures they are to be made from."""

    targets: Tensor
    """[B, 3, S, S] in [−1, 1]."""
    references: Tensor
    """[B, 3, S, S] in [−1, 1]."""
    poses: Tensor
    """[B, 4], see :func:`stable_poses`."""


class ViewBatches:
    """Random pairs on the device; half of them in the mirror, since everything is mirror-symmetric."""

    def __init__(self, views: Views, device: torch.device, seed: int) -> None:
        self.device, self.views = device, views
        self.angles = torch.from_numpy(np.array(views.angles)).to(device)
        self.rng = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> Pairs:
        """``count`` pairs of two different views."""
        which, reference, mirror = self.choose(count)
        views = self.views.pictures.shape[1]
        target = (reference + 1 + self.integers(views - 1, count)) % views
        targets, references = (self.images(which, view, mirror) for view in (target, reference))
        return Pairs(targets, references, self.poses(which, target, reference, mirror))

    def choose(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Objects and views of them that are shown [count], and which are in the mirror."""
        which = self.integers(len(self.angles), count)
        anywhere = self.chance(count, OTHER_REFERENCE_SHARE)
        views = self.views.pictures.shape[1]
        reference = torch.where(anywhere, self.integers(views, count), self.integers(REFERENCES, count))
        return which, reference, self.chance(count, 0.5)

    def poses(self, which: Tensor, target: Tensor, reference: Tensor, mirror: Tensor) -> Tensor:
        """Of views ``target`` of objects ``which`` beside views ``reference`` [count], in the mirror or not."""
        return stable_poses(self._angles(which, target, mirror), self._angles(which, reference, mirror))

    def front_poses(self, which: Tensor, reference: Tensor, mirror: Tensor) -> Tensor:
        """Of the objects' fronts, at the height of their middles, beside the same."""
        seen = self._angles(which, reference, mirror)
        return stable_poses(torch.zeros_like(seen), seen)

    def _angles(self, which: Tensor, view: Tensor, mirror: Tensor) -> Tensor:
        angles = self.angles[which, view]
        return torch.stack((torch.where(mirror, -angles[:, 0], angles[:, 0]), angles[:, 1]), 1)

    def images(self, which: Tensor, view: Tensor, mirror: Tensor) -> Tensor:
        """[count, 3, S, S] in [−1, 1]."""
        chosen = torch.from_numpy(self.views.pictures[which.cpu().numpy(), view.cpu().numpy()]).to(self.device)
        images = chosen.permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.where(mirror[:, None, None, None], images.flip(3), images)

    def chance(self, count: int, share: float) -> Tensor:
        """True [count] with probability ``share``."""
        return torch.rand(count, generator=self.rng, device=self.device) < share

    def integers(self, below: int, count: int) -> Tensor:
        """[count], each of 0 to ``below`` − 1 as likely."""
        return torch.randint(below, (count,), generator=self.rng, device=self.device)


def stable_poses(targets: Tensor, references: Tensor) -> Tensor:
    """Relative poses [B, 4] of Stable Zero123's kind, of ``targets`` [B, 2] (azimuth, elevation; degrees).

    The same numbers as :func:`..guidance.relative_pose.relative_poses` gives pairs of cameras.
    """
    turn, rise = (torch.deg2rad(targets - references)).unbind(1)
    polar = math.pi / 2 - torch.deg2rad(references[:, 1])
    return torch.stack((-rise, turn.sin(), turn.cos(), polar), 1)
