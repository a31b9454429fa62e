"""How alike two shapes are: volumes and surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from .mesh import Booleans, Floats, Integers, face_normals


def volume_iou(a: Booleans, b: Booleans) -> float:
    """Intersection over union of two bool grids of one shape, in [0, 1]; two empty grids are alike (1).

    Raises ValueError for grids of different shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"The grids are {a.shape} and {b.shape}; they must have one shape.")
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def sample_surface(vertices: NDArray[np.floating], faces: Integers, count: int, rng: np.random.Generator) -> Floats:
    """``count`` points [N, 3] on a mesh, uniform in area (Osada et al. 2002, "Shape distributions")."""
    area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    if area.sum() <= 0.0:
        raise ValueError("The mesh has no area to sample.")
    chosen = rng.choice(len(faces), size=count, p=area / area.sum())
    root, share = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1.0 - root, root * (1.0 - share), root * share], axis=1)
    return np.einsum("nc,nci->ni", weights, vertices.astype(np.float64)[faces[chosen]]).astype(np.float32)


def chamfer_distance(points_a: NDArray[np.floating], points_b: NDArray[np.floating]) -> float:
    """Mean distance from a to the nearest of b plus mean distance from b to the nearest of a, halved; not squared.

    In the points' unit; 0 for equal sets. Raises ValueError for an empty set.
    """
    if not len(points_a) or not len(points_b):
        raise ValueError("A point set is empty.")
    there, _ = KDTree(points_b).query(points_a)
    back, _ = KDTree(points_a).query(points_b)
    return float(0.5 * (np.mean(there) + np.mean(back)))
