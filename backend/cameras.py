"""Cameras: from rigs to poses, and from poses to rays. numpy only, so Blender's side may use it too.

World: right-handed, +Z up, the object's front looks along −Y. Azimuth 0° is the front, 90° is seen from +X; elevation
90° is straight above. A camera looks down its −Z with +Y up. Intrinsics are normalised: a camera-space point lands at
``ndc = focal · (X, Y) / −Z + center``, ndc in [−1, 1], x right, y up; image row 0 is the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import RequestError
from .reference import camera_prompts
from .request import FixedCamera, OrbitRig, Range

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

_POLE = 1e-5
"""Below this share of its distance from the vertical axis, a position says nothing about azimuth."""
_ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CameraBatch:
    """B pinhole cameras."""

    camera_to_world: Floats
    """[B, 4, 4], rotation and translation only."""
    focal: Floats
    """[B, 2], normalised, x and y."""
    center: Floats
    """[B, 2], principal point in ndc."""
    own_prompt: Indices | None = None
    """[B], of each camera's prompt: 0 is the request's, n the n-th of its cameras' own; None: all 0."""

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def __getitem__(self, index: slice | Indices) -> CameraBatch:
        """The cameras of a slice, or those of some places."""
        own = None if self.own_prompt is None else self.own_prompt[index]
        return CameraBatch(self.camera_to_world[index], self.focal[index], self.center[index], own)

    @property
    def prompt(self) -> Indices:
        """[B]; see ``own_prompt``."""
        return np.zeros(len(self), np.int64) if self.own_prompt is None else self.own_prompt

    @property
    def position(self) -> Floats:
        """[B, 3], in world space."""
        return self.camera_to_world[:, :3, 3]

    @property
    def distance(self) -> Floats:
        """[B], of the position from the origin."""
        return np.linalg.norm(self.position, axis=-1)

    @property
    def azimuth(self) -> Floats:
        """[B], degrees in (−180, 180], of the position; for a camera on the vertical axis, that of its right side."""
        x, y = self.position[:, 0], self.position[:, 1]
        on_axis = np.hypot(x, y) <= _POLE * self.distance
        right = self.camera_to_world[:, :3, 0]
        degrees = np.degrees(np.where(on_axis, np.arctan2(right[:, 1], right[:, 0]), np.arctan2(x, -y)))
        return np.where(degrees <= -180.0, np.float32(180.0), degrees).astype(np.float32)

    @property
    def elevation(self) -> Floats:
        """[B], degrees in [−90, 90], of the position."""
        position = self.position
        return np.degrees(np.arctan2(position[:, 2], np.hypot(position[:, 0], position[:, 1]))).astype(np.float32)


def off_front(azimuth: ArrayLike) -> Doubles:
    """How far azimuths (degrees, of any range) are turned from the front, to either side: as many in [0, 180]."""
    turn = np.abs(np.asarray(azimuth, np.float64)) % 360.0
    return np.minimum(turn, 360.0 - turn)


def orbit_cameras(
    azimuth: ArrayLike, elevation: ArrayLike, distance: ArrayLike, field_of_view: ArrayLike
) -> CameraBatch:
    """Cameras that look at the origin with +Z up; scalars and arrays are broadcast.

    Angles in degrees (``field_of_view`` of a square image), distance in radii of the object's ball. At elevation ±90°
    the azimuth still decides the roll, as the limit from below does.
    """
    arrays = [np.atleast_1d(np.asarray(v, np.float64)) for v in (azimuth, elevation, distance, field_of_view)]
    turn, rise, radius, fov = np.broadcast_arrays(*arrays)
    right, up, back = _orbit_axes(np.radians(turn), np.radians(rise))
    return _batch(right, up, back, back * radius[:, None], fov)


def middle_cameras(azimuth: ArrayLike, elevation: ArrayLike, rig: OrbitRig) -> CameraBatch:
    """:func:`orbit_cameras` at the middle of a rig's distances and lenses."""
    return orbit_cameras(azimuth, elevation, sum(rig.distance) / 2, sum(rig.field_of_view) / 2)


def sample_orbit(rig: OrbitRig, batch: int, rng: np.random.Generator) -> CameraBatch:
    """Draw ``batch`` cameras from an orbit (DreamFusion, App. A.2).

    Azimuths are stratified: the range is cut into ``batch`` equal parts and each part gets one camera. Elevation is
    uniform in area with probability ``area_share`` and uniform in angle otherwise. The position is jittered uniformly,
    the target and the up vector normally. Up is measured in the camera's own orbit frame, so no pole is degenerate.
    """
    low, high = rig.azimuth
    azimuth = low + (high - low) * (np.arange(batch) + rng.random(batch)) / batch
    elevation = _sample_elevation(rig.elevation, rig.area_share, batch, rng)
    distance = rng.uniform(*rig.distance, batch)
    fov = rng.uniform(*rig.field_of_view, batch)
    offset = rng.uniform(-1.0, 1.0, (batch, 3)) * rig.jitter_position
    target = rng.normal(size=(batch, 3)) * rig.jitter_target
    tilt = rng.normal(size=(batch, 3)) * rig.jitter_up

    position = _orbit_axes(np.radians(azimuth), np.radians(elevation))[2] * distance[:, None]
    if rig.jitter_position > 0.0:
        position = position + offset
        azimuth = np.degrees(np.arctan2(position[:, 0], -position[:, 1]))
        elevation = np.degrees(np.arctan2(position[:, 2], np.hypot(position[:, 0], position[:, 1])))
    up = _orbit_axes(np.radians(azimuth), np.radians(elevation))[1] + tilt
    back = _unit(position - target)
    right = _unit(np.cross(up, back))
    return _batch(right, np.cross(back, right), back, position, fov)


def fixed_cameras(cameras: Sequence[FixedCamera]) -> CameraBatch:
    """The given cameras, in order; RequestError if there is none or if a pose is more than rotation and translation."""
    if not cameras:
        raise RequestError("There are no cameras.", "Give at least one, or use the orbit.")
    pose = np.array([camera.camera_to_world for camera in cameras], np.float64).reshape(-1, 4, 4)
    rotation = pose[:, :3, :3]
    skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    bad = (skew > _ROTATION_TOLERANCE) | (np.linalg.det(rotation) < 0) | np.any(pose[:, 3] != (0, 0, 0, 1), axis=-1)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        name = cameras[index].name or f"Camera {index}"
        raise RequestError(f"{name} is scaled, sheared or mirrored.", "Give rotation and translation only.")
    focal = np.array([camera.focal for camera in cameras], np.float32)
    center = np.array([camera.center for camera in cameras], np.float32)
    prompts = ("", *camera_prompts(cameras))
    own = np.array([prompts.index(camera.prompt.strip()) for camera in cameras], np.int64)
    return CameraBatch(pose.astype(np.float32), focal, center, own)


def sample_fixed(cameras: Sequence[FixedCamera], batch: int, rng: np.random.Generator) -> CameraBatch:
    """Draw ``batch`` of the given cameras; none comes twice before each came once. RequestError if there is none."""
    everything = fixed_cameras(cameras)
    rounds = -(-batch // len(everything))
    chosen = np.concatenate([rng.permutation(len(everything)) for _ in range(rounds)])[:batch]
    return everything[chosen]


def rays(cameras: CameraBatch, height: int, width: int) -> tuple[Floats, Floats]:
    """Rays through the pixel centres: origins [B, 3] and unit directions [B, H, W, 3], both in world space."""
    x = (np.arange(width) + 0.5) / width * 2.0 - 1.0
    y = 1.0 - (np.arange(height) + 0.5) / height * 2.0
    focal, center = cameras.focal.astype(np.float64), cameras.center.astype(np.float64)
    across = (x[None] - center[:, :1]) / focal[:, :1]
    upward = (y[None] - center[:, 1:]) / focal[:, 1:]
    right, up, back = np.moveaxis(cameras.camera_to_world[:, None, None, :3, :3].astype(np.float64), -1, 0)
    direction = across[:, None, :, None] * right + upward[:, :, None, None] * up - back
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return cameras.position.copy(), direction.astype(np.float32)


def rays_through(cameras: CameraBatch, points: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Rays through points [B, N, 2] (ndc) of each image: origins [B, 3] and unit directions [B, N, 3], world space."""
    slope = (points - cameras.center[:, None].astype(np.float64)) / cameras.focal[:, None]
    local = np.concatenate([slope, np.full((*slope.shape[:-1], 1), -1.0)], axis=-1)
    # Not a product of matrices: numpy makes one for each camera, and there may be a ray of each alone.
    direction = np.einsum("bij,bnj->bni", cameras.camera_to_world[:, :3, :3].astype(np.float64), local)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return cameras.position.copy(), direction.astype(np.float32)


def places_along(camera: CameraBatch, shown: NDArray[np.bool_], offsets: NDArray[np.floating]) -> Floats:
    """Places [N, P, 3] along the rays of one camera through the N pixels ``shown`` [H, W].

    Each is as far from the camera as the ball's middle is, and by one of the ``offsets`` [P] farther.
    """
    origins, directions = rays(camera, *shown.shape)
    far = (float(np.linalg.norm(origins[0])) + offsets).astype(np.float32)
    return origins[0] + directions[0][shown][:, None] * far[:, None]


def nearest_pixels(size: int, side: int) -> Indices:
    """Which [side] of ``size`` pixels in a row are nearest to the middles of ``side`` pixels in their place."""
    return ((np.arange(side) + 0.5) * (size / side)).astype(np.int64)


def rays_of(cameras: CameraBatch, points: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """One ray of each camera, through ``points`` [B, 2] (ndc): origins [B, 3] and unit directions [B, 3]."""
    origins, directions = rays_through(cameras, points[:, None])
    return origins, directions[:, 0]


def mirror_images(cameras: CameraBatch) -> CameraBatch:
    """Cameras [B] that see of the world's mirror image, across the YZ plane, the mirror images of what these see."""
    flip = np.array((-1.0, 1.0, 1.0, 1.0), np.float32)  # of the world, and of the camera's own right and left
    center = cameras.center * np.array((-1.0, 1.0), np.float32)
    return CameraBatch(flip[:, None] * cameras.camera_to_world * flip, cameras.focal, center, cameras.own_prompt)


def joined(cameras: Sequence[CameraBatch]) -> CameraBatch:
    """Batches as one."""
    return CameraBatch(
        np.concatenate([each.camera_to_world for each in cameras]),
        np.concatenate([each.focal for each in cameras]),
        np.concatenate([each.center for each in cameras]),
        np.concatenate([each.prompt for each in cameras]),
    )


def world_to_ndc(cameras: CameraBatch, points: NDArray[np.floating]) -> Floats:
    """Where points [N, 3] land in each image: [B, N, 2] in ndc; NaN for points that are not in front of the camera."""
    pose = cameras.camera_to_world.astype(np.float64)
    local = (np.asarray(points, np.float64)[None] - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    depth = np.where(local[..., 2:] < 0.0, -local[..., 2:], np.nan)
    return (cameras.focal[:, None] * local[..., :2] / depth + cameras.center[:, None]).astype(np.float32)


def _orbit_axes(azimuth: Doubles, elevation: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Right, up and back axes [B, 3] at azimuth and elevation (radians); closed form, so regular at the poles."""
    sin_a, cos_a, sin_e, cos_e = np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation)
    right = np.stack([cos_a, sin_a, np.zeros_like(sin_a)], axis=-1)
    up = np.stack([-sin_a * sin_e, cos_a * sin_e, cos_e], axis=-1)
    back = np.stack([sin_a * cos_e, -cos_a * cos_e, sin_e], axis=-1)
    return right, up, back


def _sample_elevation(bounds: Range, area_share: float, batch: int, rng: np.random.Generator) -> Doubles:
    """Elevations in degrees: uniform in area (in the sine) or in angle."""
    by_angle = rng.uniform(*bounds, batch)
    low, high = np.sin(np.radians(bounds))
    by_area = np.degrees(np.arcsin(rng.uniform(low, high, batch)))
    return np.where(rng.random(batch) < area_share, by_area, by_angle)


def _batch(right: Doubles, up: Doubles, back: Doubles, position: Doubles, fov: Doubles) -> CameraBatch:
    pose = np.zeros((len(position), 4, 4), np.float32)
    pose[:, :3] = np.stack([right, up, back, position], axis=-1)
    pose[:, 3, 3] = 1.0
    focal = np.repeat(1.0 / np.tan(np.radians(fov) / 2.0)[:, None], 2, axis=1)
    return CameraBatch(pose, focal.astype(np.float32), np.zeros((len(position), 2), np.float32))


def _unit(vectors: Doubles) -> Doubles:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
