"""Pictures projected onto the surface: the colour of what a picture's camera saw, and how far it is to be believed.

A field is soft, and its colours are those of a picture seen at a hundred pixels; the picture itself has the detail. A
point takes a picture's colour where the camera sees it: nothing stands before it, it faces the camera, and it lies
inside the picture's mask. Near the edges of all of this (grazing surfaces, the mask's rim, the outlines of parts that
stand before others) surface and picture are never registered to the pixel, so belief falls there, smoothly, and what
was baked from the field takes over: no seams, and nothing of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..cameras import CameraBatch, nearest_pixels, world_to_ndc
from ..rendering import srgb_to_linear
from .mesh import Booleans, Bytes, Floats, Integers
from .rasterize import depth_map

FACING = (0.2, 0.5)
"""Cosines between the normal and the way to the camera at which a picture begins to be believed, and is in full."""
MARGIN = (0.005, 0.025)
"""The same of the distance, in radii of the ball, from the mask's edge or from the outline of a part in front."""
STEP = 0.04
"""A difference in depth between neighbouring pixels that is the outline of a part in front, in radii."""
BEHIND = 0.015
"""A point is hidden if it lies this much behind what the camera sees, in radii."""
SOLID = 0.98
"""Opacity of a pixel whose colour is all the object's."""
FINEST = 512
"""Side of the depth map, at least; the picture's own where that is larger."""
CHUNK = 1 << 18
"""Points that are looked at together."""
SHARPNESS = 4.0
"""Of several pictures, one that faces the surface counts by this power of the cosine."""

Doubles = NDArray[np.float64]
PictureKind = Literal["picture", "mirror image", "sketch"]
"""A mirror image of a picture tells what no picture does; a sketch is a guess."""


@dataclass(frozen=True)
class PictureView:
    """A picture of the object as its camera saw it."""

    camera: CameraBatch
    """One."""
    rgba: Bytes
    """[S, S, 4] straight sRGB and opacity; row 0 is the top."""
    weight: float = 1.0
    """Beside other pictures; above 0."""
    kind: PictureKind = "picture"


def project(
    views: Sequence[PictureView], vertices: Floats, faces: Integers, points: Floats, normals: Floats
) -> tuple[Floats, Floats]:
    """What pictures say of ``points`` [N, 3] on a surface with ``normals`` [N, 3], of any length.

    Linear colours [N, 3], and [N] the share in [0, 1] that they are to have beside what is known otherwise: 0 where no
    picture sees the point. ``vertices`` and ``faces`` are the surface, which hides parts of itself.
    """
    pictures = [_Seen(view, vertices, faces) for view in views if view.kind == "picture"]
    others = [_Seen(view, vertices, faces) for view in views if view.kind != "picture"]
    colour, share, seen = _together(pictures, points, normals)
    guess, belief, _ = _together(others, points, normals)
    more = np.minimum(belief, 1.0 - seen)
    total = share + more
    mixed = (share[:, None] * colour + more[:, None] * guess) / np.maximum(total, np.float32(1e-12))[:, None]
    return mixed.astype(np.float32), total


def _together(views: Sequence[_Seen], points: Floats, normals: Floats) -> tuple[Floats, Floats, Floats]:
    """Of several pictures the mean colours [N, 3], how far [N] they are to be believed, and whether they see it [N]."""
    total = np.zeros((len(points), 3), np.float32)
    weights = np.zeros(len(points), np.float32)
    unbelieved, unseen = np.ones_like(weights), np.ones_like(weights)
    for seen in views:
        for start in range(0, len(points), CHUNK):
            part = slice(start, start + CHUNK)
            colour, belief, sight, cosine = seen.at(points[part], normals[part])
            weight = seen.weight * belief * cosine**SHARPNESS
            total[part] += weight[:, None] * colour
            weights[part] += weight
            unbelieved[part] *= 1.0 - belief
            unseen[part] *= 1.0 - sight
    total /= np.maximum(weights, 1e-12)[:, None]
    return total, 1.0 - unbelieved, 1.0 - unseen


class _Seen:
    """A surface as one picture's camera sees it."""

    def __init__(self, view: PictureView, vertices: Floats, faces: Integers) -> None:
        self.camera, self.weight = view.camera, view.weight
        depth = depth_map(vertices, faces, view.camera, max(FINEST, len(view.rgba)))
        self.pixel = 2.0 / len(depth) / float(view.camera.focal[0].min())
        """Side of a pixel of the depth map, for each unit of depth."""
        self.depth = np.where(np.isfinite(depth), depth, 0.0)
        self.trust = _trust(view.rgba, depth, self.pixel * float(self.depth.max()))
        self.colour = _linear(view.rgba)

    def at(self, points: Floats, normals: Floats) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        """Of points [N, 3]: linear colours [N, 3], belief [N] in [0, 1], sight [N], and cosines [N] to the camera.

        Sight is 1 where the camera sees the point, believed or not, and fades where it hardly does; it is not below
        the belief.
        """
        away = self.camera.position[0].astype(np.float64) - points
        cosine = _cosine(normals, away)
        place = places(self.camera, points)
        depth = away @ self.camera.camera_to_world[0, :3, 2].astype(np.float64)
        slope = np.sqrt(1.0 - cosine**2) / np.maximum(cosine, FACING[0])
        slack = BEHIND + self.pixel * depth * slope
        visible = depth <= _lookup(self.depth[..., None], place, order=0)[:, 0] + slack
        belief = _ramp(cosine, FACING) * _lookup(self.trust[..., None], place)[:, 0] * visible
        return _lookup(self.colour, place), belief, _ramp(cosine, (0.0, FACING[0])) * visible, cosine


def places(camera: CameraBatch, points: NDArray[np.floating]) -> Doubles:
    """Where points [N, 3] land in the picture of one camera: [N, 2] in ndc, beyond it for those behind the camera."""
    place = world_to_ndc(camera, points)[0].astype(np.float64)
    return np.where(np.isfinite(place), place, 2.0)


def pixels(place: Doubles, size: int) -> Doubles:
    """Rows and columns [N, 2] of places [N, 2] (ndc) in a picture of ``size`` × ``size`` pixels (middles: integers)."""
    return np.stack([(1.0 - place[:, 1]) * 0.5 * size - 0.5, (place[:, 0] + 1.0) * 0.5 * size - 0.5], axis=1)


def _trust(rgba: Bytes, depth: Doubles, finer_pixel: float) -> Doubles:
    """[S, S] in [0, 1]: how far each pixel is from the mask's edge, and from outlines in the depth map of the surface.

    Distances are lengths of the object, of which a pixel of the depth map has ``finer_pixel``: the blurred rim of a
    large picture is left out as well as that of a small one.
    """
    size, share = len(rgba), len(depth) / len(rgba)
    inside = _distance(rgba[..., 3] >= SOLID * 255.0) * share
    nearest = nearest_pixels(len(depth), size)
    clear = _distance(~_outlines(depth))[np.ix_(nearest, nearest)]
    return _ramp(np.minimum(inside, clear) * finer_pixel, MARGIN)


def _cosine(a: NDArray[np.floating], b: Doubles) -> Doubles:
    """[N], between vectors [N, 3], not below 0."""
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.clip((a * b).sum(axis=1) / np.maximum(length, 1e-12), 0.0, 1.0)


def _outlines(depth: Doubles) -> Booleans:
    """Pixels [S, S] beside which the depth jumps; what is beyond the surface's own outline is the mask's business."""
    known = np.where(np.isfinite(depth), depth, np.nan)
    result = np.zeros(depth.shape, bool)
    for axis in range(2):
        jump = np.abs(np.diff(known, axis=axis)) > STEP
        low, high = (slice(None, -1), slice(1, None))
        result[(low, slice(None)) if axis == 0 else (slice(None), low)] |= jump
        result[(high, slice(None)) if axis == 0 else (slice(None), high)] |= jump
    return result


def _distance(inside: Booleans) -> Doubles:
    """Of each pixel from the nearest that is not ``inside``, in pixels; beyond the picture nothing is."""
    padded = np.pad(inside, 1)
    result: Any = ndimage.distance_transform_edt(padded)
    return result[1:-1, 1:-1]


def _linear(rgba: Bytes) -> Doubles:
    """[S, S, 3]: linear colours, each pixel that is not all the object's with those of the nearest that is."""
    solid = rgba[..., 3] >= SOLID * 255.0
    table = srgb_to_linear(torch.arange(256) / 255.0).numpy().astype(np.float64)
    colour = table[rgba[..., :3]]
    if not solid.any():
        return colour
    nearest: Any = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    return colour[nearest[0], nearest[1]]


def _lookup(image: Doubles, place: Doubles, order: int = 1) -> Doubles:
    """Values [N, C] of an image [S, S, C] at places [N, 2] (ndc): bilinear, or the nearest pixel's (order 0)."""
    where = pixels(place, len(image)).T
    mode = "constant" if order == 1 else "nearest"
    planes = [ndimage.map_coordinates(image[..., c], where, order=order, mode=mode) for c in range(image.shape[2])]
    return np.stack(planes, axis=1)


def _ramp(value: Doubles, ends: tuple[float, float]) -> Doubles:
    """From 0 at the first end to 1 at the second, smoothly."""
    share = np.clip((value - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)
