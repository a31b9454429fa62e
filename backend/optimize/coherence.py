"""How well silhouettes fit each other: silhouette coherence.

All that projects into every silhouette is their visual hull. The hull of an object's true silhouettes fills each of
them; where one is mirrored, what it cuts away is missing in the others (as in Hernández, Schmitt and Cipolla,
Silhouette Coherence for Camera Calibration under Circular Motion, TPAMI 2007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..cameras import CameraBatch, world_to_ndc

Floats = NDArray[np.float32]
Cells = NDArray[np.bool_]

SIDE = 64
"""Of the silhouettes that are compared, in pixels."""
CELLS = 48
"""Along an edge of the cube around the ball."""
MISSES = 1
"""Silhouettes that a cell may miss and still be of the hull: drawings are never quite right."""


class Hulls:
    """The visual hulls of silhouettes from some cameras."""

    def __init__(self, names: Sequence[str], cameras: CameraBatch) -> None:
        """One name and one camera each."""
        self.places = {name: _places(cameras[index : index + 1]) for index, name in enumerate(names)}

    def coherence(self, masks: Mapping[str, Floats]) -> float:
        """The mean IoU, in [0, 1], of ``masks`` [S, S] with their hull as seen from there; larger is better.

        Of the hull of all, and of that which may miss some of them, the better counts.
        """
        small = {name: _small(mask) for name, mask in masks.items()}
        votes = np.sum([small[name].ravel()[self.places[name]] for name in small], axis=0)
        return max(self._filled(small, votes >= len(small) - misses) for misses in range(MISSES + 1))

    def _filled(self, masks: Mapping[str, Cells], inside: Cells) -> float:
        shares: list[float] = []
        for name, mask in masks.items():
            hull = np.zeros(SIDE * SIDE, bool)
            hull[self.places[name][inside]] = True
            closed: Any = ndimage.binary_closing(hull.reshape(SIDE, SIDE))  # cells are wider than pixels
            shares.append(float((closed & mask).sum()) / max(float((closed | mask).sum()), 1.0))
        return float(np.mean(shares))


def _places(camera: CameraBatch) -> NDArray[np.int64]:
    """The pixel [N] in which a camera sees each cell of the ball; flat."""
    axis = (np.arange(CELLS) + 0.5) / CELLS * 2.0 - 1.0
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    ndc = world_to_ndc(camera, points[np.linalg.norm(points, axis=1) <= 1.0])[0]
    pixel = np.clip((ndc * (1.0, -1.0) + 1.0) / 2.0 * SIDE, 0, SIDE - 1).astype(np.int64)
    return pixel[:, 1] * SIDE + pixel[:, 0]


def _small(mask: Floats) -> Cells:
    """[SIDE, SIDE], by the nearest pixel."""
    rows, columns = (((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64) for length in mask.shape)
    return mask[rows[:, None], columns] > 0.5
