"""The texture: which point of the surface each texel shows, what colour field and pictures have there, and no seams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit  # pyright: ignore[reportMissingTypeStubs]
from scipy import ndimage

from ..rendering import linear_to_srgb
from .isosurface import CHUNK, FieldLike, field_device, query_density
from .mesh import Booleans, Bytes, Floats, Integers, to_bytes
from .projection import PictureView, project

BORDER = 1.5
"""Texels this close to a chart (in texels) are baked too, at the chart's nearest point: bilinear lookups touch them."""
DEPTH_SAMPLES = 13
OUTSIDE, INSIDE = 1.0, 3.0
"""The visible depth of a vertex is sought from this many voxels outside the surface to this many inside."""


@dataclass(frozen=True)
class Baked:
    """A surface that a texture is made for: where the field has it, and where it is to be."""

    vertices: Floats
    """[V, 3], in the field."""
    normals: Floats
    """[V, 3], unit."""
    faces: Integers
    """[F, 3]."""
    uvs: Floats
    """[V, 2]."""
    moved: Floats
    """[V, 3], in the pictures: the vertices, or what they were moved to."""
    moved_normals: Floats
    """[V, 3], unit."""


def bake_albedo(
    field: FieldLike,
    surface: Baked,
    size: int,
    spacing: float,
    report: Callable[[float], None],
    views: Sequence[PictureView] = (),
    strength: float = 1.0,
) -> Bytes:
    """The albedo on a surface, as an sRGB texture [size, size, 3] (row 0: v = 1) without an empty texel.

    The mesh stands where light is half absorbed, and decimation moved it a little. The field's colours are therefore
    read at the depth from which most of a ray's light comes that enters along the inward normal, within a few voxels
    (``spacing``). What ``views`` show is theirs, by ``strength`` in [0, 1].
    """
    texels = texels_of(surface.faces, surface.uvs, size)
    depth = visible_depth(field, surface.vertices, surface.normals, spacing)
    points = (surface.vertices - depth[:, None] * surface.normals).astype(np.float32)
    albedo = _albedo(field, texels.at(points), report)
    if views and strength > 0.0:
        points, normals = texels.at(surface.moved), texels.at(surface.moved_normals)
        colour, share = project(views, surface.moved, surface.faces, points, normals)
        albedo += strength * share[:, None] * (colour - albedo)
    image = np.zeros((size, size, 3), np.uint8)
    image[texels.covered] = _srgb_bytes(albedo)
    return fill_nearest(image, texels.covered)


def visible_depth(field: FieldLike, vertices: Floats, normals: Floats, spacing: float) -> Floats:
    """[V], expected depth along the inward normal of the light that a ray in this direction collects."""
    depths = np.linspace(-OUTSIDE * spacing, INSIDE * spacing, DEPTH_SAMPLES, dtype=np.float32)
    points = (vertices[:, None] - depths[None, :, None] * normals[:, None]).reshape(-1, 3).astype(np.float32)
    density = query_density(field, points).reshape(len(vertices), DEPTH_SAMPLES)
    optical = density.astype(np.float64) * (depths[1] - depths[0])
    before = np.cumsum(optical, axis=1) - optical
    weights = np.exp(-before) * -np.expm1(-optical)
    total = weights.sum(axis=1)
    expected = (weights * depths).sum(axis=1) / np.maximum(total, 1e-12)
    return np.where(total > 1e-3, expected, 0.0).astype(np.float32)


@dataclass(frozen=True)
class Texels:
    """Which texels show a surface, and where on it they are."""

    covered: Booleans
    """[T, T]."""
    corners: Integers
    """[N, 3]: the vertices of each covered texel's triangle, in row order."""
    weights: Floats
    """[N, 3], of the corners; of sum 1."""

    def at(self, values: Floats) -> Floats:
        """Values [V, C] of the vertices at the texels: [N, C]."""
        return np.einsum("nc,nci->ni", self.weights, values[self.corners]).astype(np.float32)


def texels_of(faces: Integers, uvs: Floats, size: int, border: float = BORDER) -> Texels:
    """The texels of a texture of side ``size`` that show an unwrapped surface.

    Conservative: texels whose centre is outside every triangle but within ``border`` texels of one, show the
    nearest point of that triangle.
    """
    pixels = np.stack([uvs[:, 0] * size - 0.5, (1.0 - uvs[:, 1]) * size - 0.5], axis=1).astype(np.float64)
    owner, weights = _nearest_triangles(pixels, faces, size, border)
    covered = owner >= 0
    return Texels(covered, faces[owner[covered]], weights[covered])


def fill_nearest(image: Bytes, covered: Booleans) -> Bytes:
    """The image with every texel that is not covered given the colour of the nearest that is."""
    if covered.all() or not covered.any():
        return image
    nearest: Any = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return image[nearest[0], nearest[1]]


def _albedo(field: FieldLike, points: Floats, report: Callable[[float], None]) -> Floats:
    """Linear albedo [N, 3] of the field at points [N, 3]."""
    device = field_device(field)
    result = np.zeros((len(points), 3), np.float32)
    with torch.no_grad():
        for start in range(0, len(points), CHUNK):
            part = torch.from_numpy(points[start : start + CHUNK]).to(device)
            albedo = field.query(part).albedo.float().nan_to_num(0.5).clamp(0.0, 1.0)
            result[start : start + CHUNK] = albedo.cpu().numpy()
            report(min(1.0, (start + CHUNK) / len(points)))
    return result


def _srgb_bytes(linear: Floats) -> Bytes:
    """SRGB bytes [N, 3] of linear colours [N, 3]."""
    result = np.zeros(linear.shape, np.uint8)
    for start in range(0, len(linear), CHUNK):
        result[start : start + CHUNK] = to_bytes(
            linear_to_srgb(torch.from_numpy(linear[start : start + CHUNK])).numpy()
        )
    return result


@njit(cache=True)
def _nearest_triangles(pixels: Any, faces: Any, size: Any, border: Any) -> Any:
    """For each texel the triangle nearest to its centre within the border, and the nearest point's weights."""
    owner = np.full((size, size), -1, np.int32)
    best = np.full((size, size), border * border + 1e-9)
    weights = np.zeros((size, size, 3), np.float32)
    found = np.zeros(3)
    for f in range(len(faces)):
        ax, ay = pixels[faces[f, 0], 0], pixels[faces[f, 0], 1]
        bx, by = pixels[faces[f, 1], 0], pixels[faces[f, 1], 1]
        cx, cy = pixels[faces[f, 2], 0], pixels[faces[f, 2], 1]
        first_x = max(int(np.ceil(min(ax, bx, cx) - border)), 0)
        last_x = min(int(np.floor(max(ax, bx, cx) + border)), size - 1)
        first_y = max(int(np.ceil(min(ay, by, cy) - border)), 0)
        last_y = min(int(np.floor(max(ay, by, cy) + border)), size - 1)
        for y in range(first_y, last_y + 1):
            for x in range(first_x, last_x + 1):
                if best[y, x] == 0.0:
                    continue
                distance = _closest_point(x, y, ax, ay, bx, by, cx, cy, found)
                if distance < best[y, x]:
                    best[y, x] = distance
                    owner[y, x] = f
                    weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = found[0], found[1], found[2]
    return owner, weights


@njit(cache=True)
def _closest_point(x: Any, y: Any, ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any, weights: Any) -> Any:
    """Squared distance from (x, y) to a triangle (0 inside), and the barycentric weights of its closest point."""
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area != 0.0:
        u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
        v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
        w = 1.0 - u - v
        if u >= 0.0 and v >= 0.0 and w >= 0.0:
            weights[0], weights[1], weights[2] = u, v, w
            return 0.0
    nearest = np.inf
    for edge in range(3):
        if edge == 0:
            px, py, qx, qy = ax, ay, bx, by
        elif edge == 1:
            px, py, qx, qy = bx, by, cx, cy
        else:
            px, py, qx, qy = cx, cy, ax, ay
        dx, dy = qx - px, qy - py
        length = dx * dx + dy * dy
        t = ((x - px) * dx + (y - py) * dy) / length if length > 0.0 else 0.0
        t = min(max(t, 0.0), 1.0)
        ox, oy = px + t * dx - x, py + t * dy - y
        distance = ox * ox + oy * oy
        if distance < nearest:
            nearest = distance
            weights[edge] = 1.0 - t
            weights[(edge + 1) % 3] = t
            weights[(edge + 2) % 3] = 0.0
    return nearest
