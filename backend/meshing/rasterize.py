"""Pictures of textured meshes: a z-buffer rasterizer, so that no window, GPU or Blender is needed to see a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from ..cameras import CameraBatch
from ..rendering import linear_to_srgb, srgb_to_linear
from .mesh import Floats, Integers, Mesh

SUPERSAMPLING = 2
BANDS = 8
"""Horizontal bands a picture is cut into; bands of all cameras are drawn in parallel."""
NEAR = 1e-3
"""Triangles with a corner nearer to the camera's plane than this (or behind it) are not drawn."""
AMBIENT, DIFFUSE = 0.45, 0.6
LIGHT_OFFSET = (0.35, 0.5)
"""The lamp stands this far to the right of the camera and above it, in units of its distance, to show relief."""


def render_mesh(mesh: Mesh, cameras: CameraBatch, height: int, width: int, *, lit: bool = True) -> Floats:
    """The mesh as each camera sees it: [B, H, W, 4], sRGB in [0, 1] with straight alpha; row 0 is the top.

    Lambert shading by a lamp near the camera plus ambient light or, not ``lit``, the bare texture, which is read
    bilinearly and perspective-correct; 2 × 2 samples a pixel, averaged in linear light.
    """
    scale = SUPERSAMPLING
    screen = _project(mesh.vertices, cameras, height * scale, width * scale)
    lamps = _lamps(cameras)
    linear = srgb_to_linear(torch.arange(256) / 255.0).numpy()[mesh.texture]
    jobs = len(cameras) * BANDS
    image = np.zeros((len(cameras), height, width, 4), np.float32)
    light = (AMBIENT, DIFFUSE) if lit else (1.0, 0.0)
    _draw(image, screen, lamps, mesh.vertices, mesh.faces, mesh.normals, mesh.uvs, linear, scale, jobs, *light)
    image[..., :3] = linear_to_srgb(torch.from_numpy(image[..., :3]).clamp(0.0, 1.0)).numpy()
    return image


def depth_map(vertices: Floats, faces: Integers, camera: CameraBatch, size: int) -> NDArray[np.float64]:
    """How far a surface is from one camera, along its axis: [size, size], infinite where there is none.

    In the vertices' unit, at the pixels' middles; row 0 is the top.
    """
    screen = _project(vertices, camera, size, size)[0]
    owner, weights = _visible(screen, faces, 0, size, size)
    there = owner >= 0
    corners = 1.0 / np.maximum(screen[..., 2][faces[owner[there]]], 1e-12)
    u, v = weights[there].T.astype(np.float64)
    result = np.full((size, size), np.inf)
    result[there] = u * corners[:, 0] + v * corners[:, 1] + (1.0 - u - v) * corners[:, 2]
    return result


def _project(vertices: Floats, cameras: CameraBatch, height: int, width: int) -> NDArray[np.float64]:
    """[B, V, 3]: pixel x and y (centres at integers), and one over the depth; 0 for vertices that are too near."""
    pose = cameras.camera_to_world.astype(np.float64)
    local = np.einsum("bvi,bij->bvj", vertices[None] - pose[:, None, :3, 3], pose[:, :3, :3])
    depth = -local[..., 2]
    inverse = np.where(depth > NEAR, 1.0 / np.maximum(depth, NEAR), 0.0)
    ndc = cameras.focal[:, None].astype(np.float64) * local[..., :2] * inverse[..., None] + cameras.center[:, None]
    x = (ndc[..., 0] + 1.0) * 0.5 * width - 0.5
    y = (1.0 - ndc[..., 1]) * 0.5 * height - 0.5
    return np.stack([x, y, inverse], axis=-1)


def _lamps(cameras: CameraBatch) -> Floats:
    """[B, 3], positions."""
    right, up = cameras.camera_to_world[:, :3, 0], cameras.camera_to_world[:, :3, 1]
    offset = LIGHT_OFFSET[0] * right + LIGHT_OFFSET[1] * up
    return (cameras.position + offset * cameras.distance[:, None]).astype(np.float32)


@njit(cache=True, parallel=True)
def _draw(
    image: Any,
    screen: Any,
    lamps: Any,
    vertices: Any,
    faces: Any,
    normals: Any,
    uvs: Any,
    texture: Any,
    scale: Any,
    jobs: Any,
    ambient: Any,
    diffuse: Any,
) -> Any:
    """Fill the image [B, H, W, 4] with linear colour and coverage."""
    n_cameras, height, width, _ = image.shape
    bands = jobs // n_cameras
    for job in prange(jobs):
        camera, band = job // bands, job % bands
        top, bottom = height * band // bands, height * (band + 1) // bands
        owner, weights = _visible(screen[camera], faces, top * scale, bottom * scale, width * scale)
        for y in range(top, bottom):
            for x in range(width):
                red, green, blue, hits = 0.0, 0.0, 0.0, 0
                for sub in range(scale * scale):
                    row, column = (y - top) * scale + sub // scale, x * scale + sub % scale
                    face = owner[row, column]
                    if face < 0:
                        continue
                    u, v = weights[row, column, 0], weights[row, column, 1]
                    light = _light(faces[face], u, v, vertices, normals, lamps[camera])
                    r, g, b = _texel(faces[face], u, v, uvs, texture)
                    shade = ambient + diffuse * light
                    red, green, blue, hits = red + shade * r, green + shade * g, blue + shade * b, hits + 1
                if hits:
                    image[camera, y, x, 0] = red / hits
                    image[camera, y, x, 1] = green / hits
                    image[camera, y, x, 2] = blue / hits
                    image[camera, y, x, 3] = hits / (scale * scale)


@njit(cache=True)
def _visible(screen: Any, faces: Any, top: Any, bottom: Any, width: Any) -> Any:
    """The nearest face of each sample of a band (−1: none), and its perspective-correct weights of corners 0 and 1."""
    owner = np.full((bottom - top, width), -1, np.int32)
    weights = np.zeros((bottom - top, width, 2), np.float32)
    nearest = np.zeros((bottom - top, width))
    for f in range(len(faces)):
        a, b, c = screen[faces[f, 0]], screen[faces[f, 1]], screen[faces[f, 2]]
        if a[2] == 0.0 or b[2] == 0.0 or c[2] == 0.0:
            continue
        first_y = max(int(np.ceil(min(a[1], b[1], c[1]))), top)
        last_y = min(int(np.floor(max(a[1], b[1], c[1]))), bottom - 1)
        if first_y > last_y:
            continue
        first_x = max(int(np.ceil(min(a[0], b[0], c[0]))), 0)
        last_x = min(int(np.floor(max(a[0], b[0], c[0]))), width - 1)
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0.0:
            continue
        for y in range(first_y, last_y + 1):
            for x in range(first_x, last_x + 1):
                u = ((b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)) / area
                v = ((c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)) / area
                if u < 0.0 or v < 0.0 or u + v > 1.0:
                    continue
                inverse = u * a[2] + v * b[2] + (1.0 - u - v) * c[2]
                if inverse > nearest[y - top, x]:
                    nearest[y - top, x] = inverse
                    owner[y - top, x] = f
                    weights[y - top, x, 0] = u * a[2] / inverse
                    weights[y - top, x, 1] = v * b[2] / inverse
    return owner, weights


@njit(cache=True)
def _light(face: Any, u: Any, v: Any, vertices: Any, normals: Any, lamp: Any) -> Any:
    """Cosine between the interpolated normal and the way to the lamp, not below zero."""
    w = 1.0 - u - v
    dot, normal_length, way_length = 0.0, 0.0, 0.0
    for axis in range(3):
        normal = u * normals[face[0], axis] + v * normals[face[1], axis] + w * normals[face[2], axis]
        point = u * vertices[face[0], axis] + v * vertices[face[1], axis] + w * vertices[face[2], axis]
        way = lamp[axis] - point
        dot += normal * way
        normal_length += normal * normal
        way_length += way * way
    return max(dot / np.sqrt(max(normal_length * way_length, 1e-20)), 0.0)


@njit(cache=True)
def _texel(face: Any, u: Any, v: Any, uvs: Any, texture: Any) -> Any:
    """Bilinear lookup, clamped at the borders."""
    w = 1.0 - u - v
    rows, columns, _ = texture.shape
    s = u * uvs[face[0], 0] + v * uvs[face[1], 0] + w * uvs[face[2], 0]
    t = u * uvs[face[0], 1] + v * uvs[face[1], 1] + w * uvs[face[2], 1]
    x = min(max(s * columns - 0.5, 0.0), columns - 1.0)
    y = min(max((1.0 - t) * rows - 0.5, 0.0), rows - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, columns - 1), min(y0 + 1, rows - 1)
    fx, fy = x - x0, y - y0
    q00, q01, q10, q11 = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    a, b, c, d = texture[y0, x0], texture[y0, x1], texture[y1, x0], texture[y1, x1]
    return (
        q00 * a[0] + q01 * b[0] + q10 * c[0] + q11 * d[0],
        q00 * a[1] + q01 * b[1] + q10 * c[1] + q11 * d[1],
        q00 * a[2] + q01 * b[2] + q10 * c[2] + q11 * d[2],
    )
