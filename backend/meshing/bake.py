"""The texture: which point of the surface each texel shows, what colour the field has there, and no seams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit  # pyright: ignore[reportMissingTypeStubs]
from scipy import ndimage

from ..rendering import linear_to_srgb
from .isosurface import CHUNK, FieldLike, field_device, query_density
from .mesh import Booleans, Bytes, Floats, Integers, to_bytes

BORDER = 1.5
"""Texels this close to a chart (in texels) are baked too, at the chart's nearest point: bilinear lookups touch them."""
DEPTH_SAMPLES = 13
OUTSIDE, INSIDE = 1.0, 3.0
"""The visible depth of a vertex is sought from this many voxels outside the surface to this many inside."""


def bake_albedo(
    field: FieldLike,
    vertices: Floats,
    faces: Integers,
    uvs: Floats,
    normals: Floats,
    size: int,
    spacing: float,
    report: Callable[[float], None],
) -> Bytes:
    """The field's albedo on a surface, as an sRGB texture [size, size, 3] (row 0: v = 1) without an empty texel.

    The mesh stands where light is half absorbed, and decimation moved it a little. Colours are therefore read at the
    depth from which most of a ray's light comes that enters along the inward normal, within a few voxels (``spacing``).
    """
    depth = visible_depth(field, vertices, normals, spacing)
    points = (vertices - depth[:, None] * normals).astype(np.float32)
    covered, positions = rasterize_uv(points, faces, uvs, size)
    colour = np.zeros((size, size, 3), np.uint8)
    colour[covered] = _albedo_bytes(field, positions, report)
    return fill_nearest(colour, covered)


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


def rasterize_uv(
    points: Floats, faces: Integers, uvs: Floats, size: int, border: float = BORDER
) -> tuple[Booleans, Floats]:
    """Which texels show the surface, [size, size], and the points [N, 3] they show, in row order.

    Conservative: texels whose centre is outside every triangle but within ``border`` texels of one, show the
    nearest point of that triangle.
    """
    pixels = np.stack([uvs[:, 0] * size - 0.5, (1.0 - uvs[:, 1]) * size - 0.5], axis=1).astype(np.float64)
    owner, weights = _nearest_triangles(pixels, faces, size, border)
    covered = owner >= 0
    corners = points[faces[owner[covered]]]
    return covered, np.einsum("nc,nci->ni", weights[covered], corners).astype(np.float32)


def fill_nearest(image: Bytes, covered: Booleans) -> Bytes:
    """The image with every texel that is not covered given the colour of the nearest that is."""
    if covered.all() or not covered.any():
        return image
    nearest: Any = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return image[nearest[0], nearest[1]]


def _albedo_bytes(field: FieldLike, points: Floats, report: Callable[[float], None]) -> Bytes:
    """SRGB bytes [N, 3] of the field's linear albedo at points [N, 3]."""
    device = field_device(field)
    result = np.zeros((len(points), 3), np.uint8)
    with torch.no_grad():
        for start in range(0, len(points), CHUNK):
            part = torch.from_numpy(points[start : start + CHUNK]).to(device)
            albedo = field.query(part).albedo.float().nan_to_num(0.5).clamp(0.0, 1.0)
            result[start : start + CHUNK] = to_bytes(linear_to_srgb(albedo).cpu().numpy())
            report(min(1.0, (start + CHUNK) / len(points)))
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
