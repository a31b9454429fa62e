"""Depth and normals of pictures, as a model sees them that is shown one picture.

A silhouette knows nothing of the space under a bed or over a seat, and distillation fills it; how far away a picture
shows each place to be does (stable-dreamfusion takes Omnidata's depth and normals, Magic123 MiDaS's depth).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from .reference_files import ReferenceView

if TYPE_CHECKING:
    from .guidance import DepthModel, Maps
    from .picture import Reference


def measured(views: Sequence[ReferenceView], model: DepthModel | None) -> tuple[ReferenceView, ...]:
    """The views, those that have neither depth nor normals with what ``model`` sees in them.

    Where the model sees depth alone, and not disparity, normals are central differences of it. All is known where a
    picture shows nothing but the object.
    """
    if model is None:
        return tuple(views)
    return tuple(view if _has_maps(view.shown) else _measured(view, model) for view in views)


def with_maps(view: ReferenceView, seen: Maps) -> ReferenceView:
    """The view with what is ``seen`` in it, where it shows nothing but the object."""
    return dataclasses.replace(view, sizes=tuple(_with_maps(each, seen) for each in view.sizes))


def normals(depth: Tensor, tangents: tuple[float, float]) -> Tensor:
    """Of surfaces at ``depth`` [H, W] along the camera's axis, in its axes [3, H, W]; any scale.

    ``tangents`` are those of half the angle that the picture spans across and down. By central differences.
    """
    height, width = depth.shape
    across = (torch.arange(width) + 0.5) / width * 2 - 1
    down = 1 - (torch.arange(height) + 0.5) / height * 2
    points = torch.stack((across * tangents[0] * depth, down[:, None] * tangents[1] * depth, -depth))
    right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    below = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    facing = F.normalize(torch.linalg.cross(below, right, dim=0), dim=0)
    return F.pad(facing, (1, 1, 1, 1), mode="replicate")


def _measured(view: ReferenceView, model: DepthModel) -> ReferenceView:
    rgba = view.shown.rgba
    white = rgba[..., :3] * rgba[..., 3:] + 1.0 - rgba[..., 3:]
    seen = model.seen(torch.from_numpy(np.ascontiguousarray(white, np.float32)).permute(2, 0, 1))
    facing = seen.normals
    if facing is None and seen.kind != "disparity":
        across, down = (1.0 / view.camera.focal[0]).tolist()
        facing = normals(seen.depth, (across, down))
    return with_maps(view, dataclasses.replace(seen, normals=facing))


def _has_maps(picture: Reference) -> bool:
    return picture.depth is not None or picture.normals is not None


def _with_maps(picture: Reference, seen: Maps) -> Reference:
    inside = _inside(picture.rgba[..., 3])
    depth = np.where(inside, resized(seen.depth[None], len(inside))[0], np.nan).astype(np.float32)
    maps: dict[str, Any] = {"depth": -depth if seen.kind == "disparity" else depth, "depth_kind": seen.kind}
    if seen.normals is not None:
        facing = F.normalize(torch.from_numpy(resized(seen.normals, len(inside))), dim=0).permute(1, 2, 0).numpy()
        maps["normals"] = np.where(inside[..., None], facing, 0.0).astype(np.float32)
    return dataclasses.replace(picture, **maps)


def resized(maps: Tensor, size: int) -> NDArray[np.float32]:
    """Maps [C, H, W] as [C, S, S]."""
    return F.interpolate(maps[None], size=(size, size), mode="bilinear", antialias=True)[0].numpy()


def _inside(opacity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[S, S]: opaque, and so is all that is beside it."""
    return np.asarray(ndimage.binary_erosion(opacity > 0.5, np.ones((3, 3))), bool)
