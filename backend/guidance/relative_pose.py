"""Relative poses, as the Zero-1-to-3 family (arXiv 2303.11328, section 3.2) was trained on them.

T = [Δpolar, sin Δazimuth, cos Δazimuth, fourth], each Δ the new view's less the picture's, angles in radians. Polar is
90° − elevation, so a higher view has a negative Δpolar. Azimuth grows counter-clockwise as seen from above in the
models' training world (Blender's, +Z up) as in ours, so differences carry over although the zeros are not the same; a
positive one is a view from further right. The fourth number is Δdistance in Zero-1-to-3, and the picture's own polar
angle in Stable Zero123.

Distances are the models' own. All training pictures were taken with one lens, of objects whose largest side is 1. A
camera here has any lens and its object any size, so its distance is first turned into the one from which the training
lens shows the training object just as large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..cameras import CameraBatch

PoseKind = Literal["zero-1-to-3", "stable-zero123"]
Doubles = NDArray[np.float64]

TRAINING_FOCAL = 2 * 35 / 32
"""Normalised focal length of the training pictures: a lens of 35 mm before a sensor of 32 mm, 49.1°."""
TRAINING_HALF_EXTENT = 0.5
"""Half of the largest side of the training objects."""
_CLOSEST = 0.01
"""Degrees below which a view counts as the picture's own."""
_NEGLIGIBLE = 0.1
"""Share of the largest weight below which a picture is left out."""


def relative_poses(
    views: CameraBatch, references: CameraBatch, kind: PoseKind, object_extent: float
) -> NDArray[np.float32]:
    """T of each view from each reference: [B, K, 4].

    ``object_extent`` is half of the object's largest side, in radii of the ball.
    """
    rise = np.radians(np.subtract.outer(-_doubles(views.elevation), -_doubles(references.elevation)))
    turn = np.radians(np.subtract.outer(_doubles(views.azimuth), _doubles(references.azimuth)))
    if kind == "zero-1-to-3":
        fourth = np.subtract.outer(model_distance(views, object_extent), model_distance(references, object_extent))
    else:
        fourth = np.broadcast_to(np.radians(90.0 - _doubles(references.elevation)), rise.shape)
    return np.stack([rise, np.sin(turn), np.cos(turn), fourth], axis=-1).astype(np.float32)


def model_distance(cameras: CameraBatch, object_extent: float) -> Doubles:
    """Distances [B] from which the training lens shows the training object as large as ``cameras`` show theirs."""
    focal = np.sqrt(_doubles(cameras.focal).prod(axis=1))
    return _doubles(cameras.distance) * (TRAINING_FOCAL / focal) * (TRAINING_HALF_EXTENT / object_extent)


def angles_between(views: CameraBatch, references: CameraBatch) -> Doubles:
    """Angles [B, K] in degrees at the origin, in [0, 180]."""
    ahead, behind = _doubles(views.position)[:, None], _doubles(references.position)[None]
    sine = np.linalg.norm(np.cross(ahead, behind), axis=-1)
    return np.degrees(np.arctan2(sine, (ahead * behind).sum(axis=-1)))


def reference_shares(angles: Doubles, weights: Doubles, choice: Literal["nearby", "nearest"]) -> Doubles:
    """How much each of K references counts in each of B views: [B, K], rows sum to 1.

    ``angles`` [B, K] in degrees; ``weights`` [K], the references' own. Nearby ones count by the inverse of their angle
    times their weight, and not at all below a tenth of the largest (as in stable-dreamfusion and Magic123).
    """
    if choice == "nearest":
        shares = np.zeros_like(angles)
        shares[np.arange(len(angles)), angles.argmin(axis=1)] = 1.0
        return shares
    shares = _without_negligible(weights * _without_negligible(1.0 / np.maximum(angles, _CLOSEST)))
    return shares / shares.sum(axis=1, keepdims=True)


def view_scales(angles: Doubles, choice: Literal["full", "angle"]) -> Doubles:
    """How much each view counts, [B]: 1, or its angle from the nearest of K references by 180°/K."""
    if choice == "full":
        return np.ones(len(angles))
    return angles.min(axis=1) / (180.0 / angles.shape[1])


def is_stable_zero123(name: str) -> bool:
    """Whether a model called ``name`` is a Stable Zero123, whose files look like any other Zero-1-to-3's."""
    letters = "".join(filter(str.isalnum, name.lower()))
    return "stablezero" in letters


def _without_negligible(weights: Doubles) -> Doubles:
    """[B, K], by the largest of each row, and 0 where that leaves little."""
    relative = weights / weights.max(axis=1, keepdims=True)
    return np.where(relative < _NEGLIGIBLE, 0.0, relative)


def _doubles(values: NDArray[np.float32]) -> Doubles:
    return values.astype(np.float64)
