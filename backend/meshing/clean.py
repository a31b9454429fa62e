"""From the isosurface to a mesh worth unwrapping: smoothed a little, decimated, free of degenerate triangles."""

from __future__ import annotations

from typing import Any

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from .isosurface import NEAR_SHARE, Surface
from .mesh import Booleans, Floats, Integers, components, signed_volume

SMOOTHING_STEPS = 10
"""Lowers a noisy field's error in normals by a sixth and leaves a clean field's alone; edges move by 0.02 voxels."""
PASS_BAND = (0.5, -0.53)
"""Taubin's λ and μ: shrink, then grow back, so that noise goes and volume stays."""
STAGE = 0.7
"""Share of the triangles that a stage of decimation keeps."""
GENTLENESS = 3
"""fast-simplification's aggressiveness; at its default of 7, flat sides end up with normals 9° off, at 3 with 1°."""


def taubin(vertices: Floats, faces: Integers, steps: int = SMOOTHING_STEPS) -> Floats:
    """Smooth without shrinking (Taubin 1995, "A signal processing approach to fair surface design").

    One step is a pass with λ and one with μ; neighbours count equally.
    """
    laplacian = _umbrella(faces, len(vertices))
    points = vertices.astype(np.float64)
    for _ in range(steps):
        for factor in PASS_BAND:
            points = points + factor * (laplacian @ points)
    return points.astype(np.float32)


def decimate(vertices: Floats, faces: Integers, target: int) -> tuple[Floats, Integers]:
    """At most ``target`` faces by quadric edge collapse (Garland and Heckbert 1997); fewer are left alone.

    In gentle stages: in one sweep the library collapses whatever is below a growing error, in no order, which crumples
    flat regions. Where an edge cannot be collapsed without folding the surface, more than ``target`` may remain.
    """
    points, triangles = vertices.astype(np.float64), faces
    while len(triangles) > target:
        before = len(triangles)
        goal = max(target, int(before * STAGE))
        result: Any = fast_simplification.simplify(points, triangles, target_count=goal, agg=GENTLENESS)
        points, triangles = result[0], np.ascontiguousarray(result[1], np.int32)
        if len(triangles) > 0.99 * before:
            break
    return points.astype(np.float32), triangles


def tidy(vertices: Floats, faces: Integers) -> tuple[Floats, Integers]:
    """Weld equal vertices; drop collapsed faces, loose scraps, inside-out parts and unused vertices.

    Nothing that is dropped opens a closed surface: faces with a corner twice, and pairs of faces on the same corners
    (a flap folded flat), have no other side.
    """
    points, index = np.unique(vertices, axis=0, return_inverse=True)
    triangles = index.reshape(-1)[faces]
    corners = np.sort(triangles, axis=1)
    triangles = triangles[(corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2])]
    triangles = triangles[_unpaired(triangles)].astype(np.int32)
    triangles = triangles[_solid(points, triangles)]
    used, compact = np.unique(triangles, return_inverse=True)
    return points[used], compact.reshape(-1, 3).astype(np.int32)


def clean_surface(surface: Surface, target: int) -> tuple[Floats, Integers]:
    """Smooth, decimate and tidy a surface: vertices [V, 3] and faces [F, 3]."""
    vertices = taubin(surface.vertices, surface.faces)
    vertices, faces = decimate(vertices, surface.faces, target)
    return tidy(vertices, faces)


def _umbrella(faces: Integers, count: int) -> csr_array:
    """The matrix that gives each vertex the way to the mean of its neighbours."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    degree = np.maximum(np.bincount(rows, minlength=count), 1)
    diagonal = np.arange(count)
    data = np.concatenate([1.0 / degree[rows], -np.ones(count)])
    places = (np.concatenate([rows, diagonal]), np.concatenate([columns, diagonal]))
    return csr_array(coo_array((data, places), shape=(count, count)))


def _unpaired(faces: NDArray[np.integer]) -> Booleans:
    """[F]: the first of each odd number of faces that share their three corners."""
    _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    result = np.zeros(len(faces), bool)
    result[first[count % 2 == 1]] = True
    return result


def _solid(vertices: Floats, faces: Integers) -> Booleans:
    """[F]: the face belongs to a part of positive volume, and of more than a small share of the largest."""
    count, labels = components(faces)
    volumes = np.bincount(labels, weights=signed_volume(vertices, faces), minlength=count)
    return (volumes > 0.5 * NEAR_SHARE * volumes.max())[labels]
