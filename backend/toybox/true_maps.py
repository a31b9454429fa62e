"""True depth and normals of training views, and what a network's are worth beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cameras import CameraBatch
from .model import IMAGE_SIZE
from .raycast import render_maps
from .shapes import Solids

Maps = tuple[NDArray[np.float16], NDArray[np.int8]]
"""As they are kept: depth [..., S, S] along the camera's axis, in radii, NaN where the object is not; and normals
[..., S, S, 3] in the camera's axes, 127 times unit, 0 where it is not."""


def true_maps(solids: Solids, camera: CameraBatch, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth [S, S] and unit normals [S, S, 3] as one camera sees them."""
    (fx, fy), (cx, cy) = camera.focal[0].tolist(), camera.center[0].tolist()
    return render_maps(solids, camera.camera_to_world[0], (fx, fy), (cx, cy), size)


def kept_maps(solids: Solids, camera: CameraBatch) -> Maps:
    """The same as they are kept."""
    depth, normals = true_maps(solids, camera, IMAGE_SIZE)
    return depth.astype(np.float16), np.rint(normals * 127).astype(np.int8)


def degrees(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Between unit normals [N, 3] and [N, 3], mean."""
    return float(np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1))).mean())


@dataclass(frozen=True)
class TrueMaps:
    """Of B views."""

    depth: Tensor
    """[B, S, S] in radii; 0 where the object is not."""
    normals: Tensor
    """[B, 3, S, S]; 0 where the object is not."""

    @property
    def known(self) -> Tensor:
        """[B, S, S], 1 where the object is."""
        return (self.depth > 0).float()

    @staticmethod
    def of(depth: NDArray[Any], normals: NDArray[Any], device: torch.device) -> TrueMaps:
        """Of kept maps."""
        far, facing = (torch.from_numpy(np.asarray(each, np.float32)).to(device) for each in (depth, normals))
        return TrueMaps(far.nan_to_num(0.0), facing.permute(0, 3, 1, 2) / 127)

    def mirrored(self, which: Tensor) -> TrueMaps:
        """Those of the mirror images, where ``which`` [B] is true."""
        facing = self.normals * torch.tensor((-1.0, 1.0, 1.0), device=which.device).view(3, 1, 1)
        return TrueMaps(
            torch.where(which.view(-1, 1, 1), self.depth.flip(-1), self.depth),
            torch.where(which.view(-1, 1, 1, 1), facing.flip(-1), self.normals),
        )


def map_errors(depth: Tensor, normals: Tensor, true: TrueMaps) -> tuple[Tensor, Tensor, Tensor]:
    """Of depths [B, S, S] in radii and normals [B, 3, S, S], means over what the objects cover.

    The absolute error of depth; the same about each picture's mean; and 1 − the cosine of the normals.
    """
    known = true.known
    off = (depth - true.depth) * known
    mean = off.sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True).clamp_min(1)
    cosine = (normals * true.normals).sum(1)
    errors = (off.abs(), (off - mean).abs() * known, (1 - cosine) * known)
    far, shape, turned = (each.sum() / known.sum() for each in errors)
    return far, shape, turned
