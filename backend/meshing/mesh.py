"""The mesh every part of this room speaks of, and what a mesh knows of itself: normals, components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Booleans = NDArray[np.bool_]


@dataclass
class Mesh:
    """A textured triangle mesh in rig space (+Z up, front −Y, ball of radius 1).

    Vertices along texture seams appear once a chart, with equal positions and normals.
    """

    vertices: Floats
    """[V, 3]."""
    faces: Integers
    """[F, 3], counter-clockwise seen from outside."""
    normals: Floats
    """[V, 3], unit."""
    uvs: Floats
    """[V, 2] in [0, 1], origin at the bottom left (Blender's convention)."""
    texture: Bytes
    """[T, T, 3], sRGB; row 0 is the top of the picture (v = 1)."""


def weld(mesh: Mesh) -> tuple[Floats, Integers]:
    """The surface without seams: distinct positions [P, 3], and faces [F, 3] of them in the mesh's order."""
    points, index = np.unique(mesh.vertices, axis=0, return_inverse=True)
    return points, index.reshape(-1).astype(np.int32)[mesh.faces]


def to_bytes(image: NDArray[np.floating]) -> Bytes:
    """[0, 1] to 0 … 255, rounded."""
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def face_normals(vertices: NDArray[np.floating], faces: Integers) -> NDArray[np.float64]:
    """[F, 3], each twice its triangle's area long."""
    corners = vertices.astype(np.float64)[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def vertex_normals(vertices: NDArray[np.floating], faces: Integers) -> Floats:
    """[V, 3] unit: face normals weighted by the angle at the vertex (Thürmer and Wüthrich 1998).

    Vertices without a face, and those whose normals cancel, point along their position (or up).
    """
    corners = vertices.astype(np.float64)[faces]
    normals = _unit(face_normals(vertices, faces))
    total = np.zeros((len(vertices), 3))
    for corner in range(3):
        ahead = _unit(corners[:, (corner + 1) % 3] - corners[:, corner])
        behind = _unit(corners[:, (corner + 2) % 3] - corners[:, corner])
        angle = np.arccos(np.clip((ahead * behind).sum(axis=1), -1.0, 1.0))
        for axis in range(3):
            weight = angle * normals[:, axis]
            total[:, axis] += np.bincount(faces[:, corner], weights=weight, minlength=len(vertices))
    lost = np.linalg.norm(total, axis=1) < 1e-12
    total[lost] = vertices[lost]
    total[np.linalg.norm(total, axis=1) < 1e-12] = (0.0, 0.0, 1.0)
    return _unit(total).astype(np.float32)


def signed_volume(vertices: NDArray[np.floating], faces: Integers) -> NDArray[np.float64]:
    """[F], the signed volume of each face's tetrahedron with the origin; the sum is that of a closed mesh."""
    corners = vertices.astype(np.float64)[faces]
    return np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0


def components(faces: Integers) -> tuple[int, Integers]:
    """The number of parts joined by shared vertices, and [F] the part of each face; unused vertices count for none."""
    used, compact = np.unique(faces, return_inverse=True)
    compact = compact.reshape(faces.shape)
    rows = np.concatenate([compact[:, 0], compact[:, 1]])
    columns = np.concatenate([compact[:, 1], compact[:, 2]])
    shape = (len(used), len(used))
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=shape)
    count, labels = connected_components(graph, directed=False)
    return int(count), labels[compact[:, 0]].astype(np.int32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0.0, length, 1.0)
