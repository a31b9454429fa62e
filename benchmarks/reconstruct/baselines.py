"""What can be made of one picture without a model of what is not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from backend.cameras import CameraBatch, world_to_ndc
from backend.meshing.mesh import Mesh, vertex_normals
from backend.toybox.instances import make_instance
from backend.toybox.kinds import KINDS
from backend.toybox.shapes import Solids

from ..truth import RESOLUTION, Surface
from .subjects import Subject

EXAMPLES = 40
"""Objects that a mean shape is made of."""
EXAMPLE_SEED = 11
"""Of the objects that training showed."""
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)

Cells = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """A shape to measure."""

    cells: Cells
    """[R, R, R] of the cube [−1, 1]³."""
    mesh: Mesh


def visual_hull(subject: Subject) -> Made:
    """All that projects into the silhouette, cut at the depths between which the true object lies.

    Its colours are the picture's, as if projected through it.
    """
    picture, camera = subject.picture, subject.camera
    near, far = depth_range(subject.solids, camera)
    points = cell_centers(RESOLUTION)
    ahead = depths(camera, points)
    inside = silhouette_at(picture[..., 3], world_to_ndc(camera, points)[0]) & (ahead >= near) & (ahead <= far)
    cells = inside.reshape((RESOLUTION,) * 3)
    vertices, faces = surface_of(cells)
    uvs = (world_to_ndc(camera, vertices)[0] + 1) / 2
    return Made(cells, _mesh(vertices, faces, uvs.clip(0, 1), filled(picture)))


class MeanShapes:
    """The mean shape of a kind's training objects, and (for a kind that training never showed) of all kinds'.

    The mean's threshold is the one at which it is most like the objects that it is made of.
    """

    def __init__(self, examples: int = EXAMPLES) -> None:
        self.examples = examples
        self.known: dict[str, tuple[Cells, Surface]] = {}

    def of(self, subject: Subject) -> Made:
        """In the mean colour of the subject's picture."""
        kind = subject.kind if subject.kind in KINDS else ""
        if kind not in self.known:
            cells = mean_shape([kind] if kind else list(KINDS), self.examples)
            self.known[kind] = cells, surface_of(cells)
        cells, (vertices, faces) = self.known[kind]
        solid = subject.picture[subject.picture[..., 3] > 0.99][:, :3]
        texture = np.broadcast_to(np.rint(solid.mean(0) * 255).astype(np.uint8), (4, 4, 3)).copy()
        return Made(cells, _mesh(vertices, faces, np.full((len(vertices), 2), 0.5, np.float32), texture))


def mean_shape(kinds: list[str], examples: int) -> Cells:
    """Of ``examples`` objects, the kinds in turn."""
    volumes = np.stack(
        [
            make_instance(np.random.default_rng((EXAMPLE_SEED, 1, i)), kinds[i % len(kinds)]).solids.volume(RESOLUTION)
            for i in range(examples)
        ]
    )
    share = volumes.mean(0, dtype=np.float32)

    def likeness(threshold: float) -> float:
        cells = share >= threshold
        both, either = (np.count_nonzero(op(volumes, cells), axis=(1, 2, 3)) for op in (np.logical_and, np.logical_or))
        return float((both / either).mean())

    return share >= max(THRESHOLDS, key=likeness)


def cell_centers(resolution: int) -> NDArray[np.float64]:
    """[R³, 3] of the cube [−1, 1]³, z fastest."""
    axis = (np.arange(resolution) + 0.5) / resolution * 2 - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def depths(camera: CameraBatch, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N], how far ahead of the one camera points [N, 3] are, along its axis."""
    pose = camera.camera_to_world[0].astype(np.float64)
    return -(points - pose[:3, 3]) @ pose[:3, 2]


def depth_range(solids: Solids, camera: CameraBatch) -> tuple[float, float]:
    """Between which depths the object lies."""
    found = depths(camera, solids.hull_points())
    return float(found.min()), float(found.max())


def silhouette_at(alpha: Floats, ndc: Floats) -> Cells:
    """Whether points [N, 2] lie in the picture's object, where ``alpha`` [S, S] is a half, bilinearly."""
    size = len(alpha)
    rows, columns = (1 - ndc[:, 1]) / 2 * size - 0.5, (ndc[:, 0] + 1) / 2 * size - 0.5
    return map_coordinates(alpha, np.stack((rows, columns)), order=1, cval=0.0) > 0.5


def filled(picture: Floats) -> NDArray[np.uint8]:
    """The picture's colours, those of the nearest solid pixel where nothing is: [S, S, 3]."""
    outside = picture[..., 3] < 0.99
    rows, columns = np.asarray(distance_transform_edt(outside, return_distances=False, return_indices=True), np.int64)
    return np.rint(picture[rows, columns, :3] * 255).astype(np.uint8)


def surface_of(cells: Cells) -> Surface:
    """Where cells end, smoothed by half a cell: vertices and faces."""
    from skimage.measure import marching_cubes

    corners, faces, _, _ = marching_cubes(np.pad(cells, 1).astype(np.float32), 0.5)
    return (corners - 0.5) / RESOLUTION * 2 - 1, faces[:, ::-1].astype(np.int32)


def _mesh(vertices: NDArray[np.float64], faces: NDArray[np.int32], uvs: Floats, texture: NDArray[np.uint8]) -> Mesh:
    return Mesh(vertices.astype(np.float32), faces, vertex_normals(vertices, faces), uvs.astype(np.float32), texture)
