"""The surface's outline moved to that of the pictures' masks.

A surface that lies where a ray straight on it is half absorbed lies a little inside of where a grazing ray is: seen
from a picture's camera, it is narrower than the mask that its field matches. A lower isovalue would make all sides
fatter, those that no picture shows as well. So only the rim moves: each vertex on the outline is drawn sideways, as the
camera sees it, to the mask's edge, and the surface around it follows, less the farther away it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import splu

from .mesh import Booleans, Floats, Integers, face_normals, vertex_normals
from .projection import PictureView, pixels, places
from .rasterize import depth_map

REACH = 0.06
"""An edge of the mask farther away than this, in radii of the ball, is that of a part that the surface lacks."""
FADE = 0.05
"""Distance, in radii, over which the surface follows the rim: by a factor of e."""
PULL = 10.0
"""Weight of a rim vertex that is to move, beside that of any vertex to stay."""
ROUNDS = 3
"""Of search and move: what was behind the rim may come to be it."""
STEPS = 48
"""Places at which the mask is looked at, from REACH inside of a vertex to REACH outside."""
SIZE = 512
"""Side of the picture of the surface that tells its outline from the outlines of parts before others."""
NEAR = 2.0
"""Pixels of it between a vertex of the outline and what is not covered."""

Doubles = NDArray[np.float64]


def fit_outline(vertices: Floats, faces: Integers, views: Sequence[PictureView], strength: float = 1.0) -> Floats:
    """Vertices [V, 3] of a closed surface, moved so that each picture's camera sees its outline where the mask's is.

    ``strength`` in [0, 1] is the share of the way that they go. Nothing moves by more than REACH a round; where a mask
    ends elsewhere, or there is no picture, nothing moves at all.
    """
    if not views or strength <= 0.0:
        return vertices
    moved = vertices.astype(np.float64)
    stiffness = _stiffness(moved, faces)
    for _ in range(ROUNDS):
        wish, count = np.zeros_like(moved), np.zeros(len(moved))
        for view in views:
            rim, way = _wishes(view, moved, faces)
            wish[rim] += view.weight * way
            count[rim] += view.weight
        if not count.any():
            break
        pull = PULL * count / count.max()
        solver: Any = splu(csc_array(stiffness + diags_array(pull)))
        moved += solver.solve(pull[:, None] * wish / np.maximum(count, 1e-12)[:, None])
    return (vertices + strength * (moved - vertices)).astype(np.float32)


def _wishes(view: PictureView, vertices: Doubles, faces: Integers) -> tuple[NDArray[np.int64], Doubles]:
    """Of one picture: vertices [K] on the surface's outline that are to move, and [K, 3] how."""
    position = view.camera.position[0].astype(np.float64)
    rim = _rim(vertices, faces, position)
    rim = rim[_beside_nothing(view, vertices, faces, rim)]
    toward = position - vertices[rim]
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    normals = vertex_normals(vertices, faces)[rim].astype(np.float64)
    sideways = normals - (normals * toward).sum(axis=1, keepdims=True) * toward
    length = np.linalg.norm(sideways, axis=1, keepdims=True)
    usable = length[:, 0] > 0.1
    rim, sideways = rim[usable], (sideways / np.maximum(length, 1e-12))[usable]
    distance, found = _to_edge(view, vertices[rim], sideways)
    return rim[found], (distance[:, None] * sideways)[found]


def _rim(vertices: Doubles, faces: Integers, position: Doubles) -> NDArray[np.int64]:
    """Vertices at which a face that looks toward ``position`` [3] meets one that looks away."""
    middle = vertices[faces].mean(axis=1)
    facing = (face_normals(vertices, faces) * (position - middle)).sum(axis=1) > 0.0
    seen, hidden = np.zeros(len(vertices), bool), np.zeros(len(vertices), bool)
    seen[faces[facing]] = True
    hidden[faces[~facing]] = True
    return np.flatnonzero(seen & hidden)


def _beside_nothing(view: PictureView, vertices: Doubles, faces: Integers, rim: NDArray[np.int64]) -> Booleans:
    """[K]: whether a vertex of ``rim`` [K] lies, in the picture, on the outline of the whole surface."""
    empty = ~np.isfinite(depth_map(vertices.astype(np.float32), faces, view.camera, SIZE))
    padded: Any = ndimage.distance_transform_edt(~np.pad(empty, 1, constant_values=True))
    place = pixels(places(view.camera, vertices[rim]), SIZE)
    pixel = np.clip(np.rint(place).astype(np.int64), 0, SIZE - 1)
    return padded[1:-1, 1:-1][pixel[:, 0], pixel[:, 1]] <= NEAR


def _to_edge(view: PictureView, points: Doubles, sideways: Doubles) -> tuple[Doubles, Booleans]:
    """How far points [K, 3] are from the mask's edge along ``sideways`` [K, 3], outwards; and whether there is one.

    Of several edges, the nearest at which the mask ends.
    """
    offsets = np.linspace(-REACH, REACH, STEPS)
    along = points[:, None] + offsets[None, :, None] * sideways[:, None]
    place = pixels(places(view.camera, along.reshape(-1, 3)), len(view.rgba))
    opacity = view.rgba[..., 3].astype(np.float64) / 255.0
    value = ndimage.map_coordinates(opacity, place.T, order=1, mode="nearest").reshape(len(points), STEPS) - 0.5
    ends: Booleans = (value[:, :-1] > 0.0) & (value[:, 1:] <= 0.0)
    share = value[:, :-1] / np.where(ends, value[:, :-1] - value[:, 1:], 1.0)
    crossing = offsets[:-1] + share * (offsets[1] - offsets[0])
    crossing = np.where(ends, crossing, np.inf)
    nearest = np.abs(crossing).argmin(axis=1)
    return crossing[np.arange(len(points)), nearest], np.asarray(ends.any(axis=1), bool)


def _stiffness(vertices: Doubles, faces: Integers) -> csc_array:
    """1 − FADE²·∇², as a matrix [V, V]: what holds vertices in their places, and each beside its neighbours."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    weight = 2.0 / 3.0 * (FADE / np.maximum(length, 0.02 * FADE)) ** 2
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    both = np.concatenate([weight, weight])
    count = len(vertices)
    beside: Any = coo_array((both, (rows, columns)), shape=(count, count))
    degree = np.bincount(rows, weights=both, minlength=count)
    return csc_array(diags_array(1.0 + degree) - beside)
