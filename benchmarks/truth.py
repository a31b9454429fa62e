"""What a made object is measured against: the true one, as registered, with no search for a better pose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.meshing import chamfer_distance, sample_surface, volume_iou, voxelize
from backend.meshing.mesh import Mesh, vertex_normals
from backend.rendering import linear_to_srgb
from backend.toybox.shapes import BOX, SPHERE, Solids

Surface = tuple[NDArray[np.float64], NDArray[np.int32]]
"""Vertices [V, 3] and faces [F, 3]."""

RESOLUTION = 128
_FINE = 2
"""Cells of the volume per cell of the true mesh's grid, along an edge: rounds off the stairs."""


def true_surface(solids: Solids) -> Surface:
    """The object's surface: vertices [V, 3] and faces [F, 3], by marching cubes."""
    from skimage.measure import marching_cubes

    fine = solids.volume(RESOLUTION * _FINE).astype(np.float32)
    blocks = fine.reshape(RESOLUTION, _FINE, RESOLUTION, _FINE, RESOLUTION, _FINE).mean((1, 3, 5))
    corners, faces, _, _ = marching_cubes(np.pad(blocks, 1), 0.5)
    return (corners - 0.5) / RESOLUTION * 2 - 1, faces[:, ::-1].astype(np.int32)


def shape_score(mesh: Mesh, solids: Solids, surface: Surface | None = None, seed: int = 0) -> dict[str, float]:
    """Volume IoU, and Chamfer distance in radii of the ball; ``surface`` is :func:`true_surface`'s, if it is known."""
    rng = np.random.default_rng(seed)
    ours = sample_surface(mesh.vertices, mesh.faces, 20_000, rng)
    true = sample_surface(*(surface or true_surface(solids)), 20_000, rng)
    return {
        "iou": volume_iou(voxelize(mesh.vertices, mesh.faces, RESOLUTION), solids.volume(RESOLUTION)),
        "chamfer": chamfer_distance(ours, true),
    }


def true_mesh(solids: Solids, surface: Surface | None = None) -> Mesh:
    """The object as a mesh whose texture is a strip of its solids' colours; ``surface`` as in :func:`shape_score`."""
    import torch

    points, faces = surface or true_surface(solids)
    owner = _owners(solids, points[faces].mean(1))
    side = max(4, len(solids.colour))
    texture = np.zeros((side, side, 3), np.uint8)
    shown = linear_to_srgb(torch.from_numpy(solids.colour).float()).numpy()
    texture[:, : len(shown)] = np.rint(shown * 255)
    middle = np.stack(((owner + 0.5) / side, np.full(len(owner), 0.5)), 1)
    normals = vertex_normals(points, faces)
    return Mesh(
        vertices=points[faces].reshape(-1, 3).astype(np.float32),
        faces=np.arange(3 * len(faces), dtype=np.int32).reshape(-1, 3),
        normals=normals[faces].reshape(-1, 3),
        uvs=np.repeat(middle, 3, axis=0).astype(np.float32),
        texture=texture,
    )


def two_faced(mesh: Mesh) -> Mesh:
    """The front half of a mesh and its mirror image behind: what the Janus problem makes."""
    front = mesh.faces[mesh.vertices[mesh.faces][:, :, 1].mean(1) < 0]
    vertices = mesh.vertices.copy()
    vertices[:, 1] = np.minimum(vertices[:, 1], 0)
    count, flip = len(vertices), np.array((1, -1, 1), np.float32)
    return Mesh(
        vertices=np.concatenate((vertices, vertices * flip)),
        faces=np.concatenate((front, front[:, ::-1] + count)),
        normals=np.concatenate((mesh.normals, mesh.normals * flip)),
        uvs=np.concatenate((mesh.uvs, mesh.uvs)),
        texture=mesh.texture,
    )


def _owners(solids: Solids, points: NDArray[np.float64]) -> NDArray[np.int64]:
    """[N], the solid on whose surface each of ``points`` [N, 3] lies."""
    distance = np.empty((len(solids.shape), len(points)))
    for k, (shape, taper, matrix) in enumerate(zip(solids.shape, solids.taper, solids.from_world, strict=True)):
        local = points @ matrix[:, :3].T + matrix[:, 3]
        size = np.linalg.norm(solids.to_world[k, :, :3], axis=0).min()
        if shape == SPHERE:
            level = np.linalg.norm(local, axis=1)
        elif shape == BOX:
            level = np.abs(local).max(1)
        else:
            radius = np.maximum((1 + taper) / 2 + local[:, 2] * (taper - 1) / 2, 1e-3)
            level = np.maximum(np.abs(local[:, 2]), np.hypot(local[:, 0], local[:, 1]) / radius)
        distance[k] = np.abs(level - 1) * size
    return distance.argmin(0)
