"""Models of whole shapes: of pictures, how likely each place in the ball is filled, and so what is seen from anywhere.

As of voxels by regression (Pix2Vox, arXiv 1901.11153), but in the axes of each picture's camera: a column of cells
behind every pixel, from one radius before the ball's middle to one behind it. All pictures' columns together make one
grid in the world, so that all its sides agree. The pictures are shown as the Zero-1-to-3 family's are, see
:mod:`.shown_pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import orbit_cameras, rays, world_to_ndc
from ..errors import ModelError
from .interface import Maps, Side
from .latents import image_size, resized
from .loading import load_network, loaded
from .model_folder import ModelFolder, check_part, open_model, read_json
from .references import ReferencePicture
from .relative_pose import relative_poses
from .shown_pictures import encode_references, load_projection, pose_kind, projection_part

if TYPE_CHECKING:
    from ..cameras import CameraBatch

FOLDER = "volume"
"""Where such a model lies in the folder of the Zero-1-to-3 model that it belongs to."""
INDEX_CLASS = "ToyboxViewVolumePipeline"
SCALES = "_volume"
"""Entry of model_index.json: the cameras' distance, in radii, their field of view, in degrees, and the timestep that
the UNet is told."""
_NEEDED = {"distance", "field_of_view", "timestep"}
HEAD, HEAD_FILE = "head", "diffusion_pytorch_model.safetensors"
PATCH = 4
"""Pixels, along and across, that one place of the UNet answers for."""
_EXTENT = 1.0
"""Half of the object's largest side, in radii; it counts in Zero-1-to-3's own kind of pose alone."""
_EMPTY = -8.0
"""Logit of a cell that is surely empty."""
_LEAST = 0.5
"""Least logit of the likeliest cell behind what a picture shows."""
_SHOWN, _TRACE, _WHITE = 0.5, 0.02, 0.98
"""A pixel that is more opaque than the first shows the object, one less than the second the background; a picture
without alpha shows it wherever it is darker than the third."""
_CELLS = 96
"""Of the grid in the world, along each side of the ball's box; and places on a ray through the ball."""


class ColumnHead(nn.Sequential):
    """A UNet's features [B, F, h, w] to logits [B, slabs, PATCH · h, PATCH · w], the nearest slab first."""

    def __init__(self, features: int, slabs: int) -> None:
        super().__init__(nn.SiLU(), nn.Conv2d(features, slabs * PATCH**2, 1), nn.PixelShuffle(PATCH))

    def at(self, features: Tensor, seen: Tensor) -> Tensor:
        """The same at the pixels ``seen`` [B, PATCH · h, PATCH · w] alone: [N, slabs], in their order."""
        image, row, column = seen.nonzero(as_tuple=True)
        height, width = features.shape[2:]
        places = (image * height + row // PATCH) * width + column // PATCH
        needed, which = places.unique(return_inverse=True)
        found = self[1](self[0](features.permute(0, 2, 3, 1).flatten(0, 2)[needed])[..., None, None])
        return found.view(len(found), -1, PATCH**2)[which, :, row % PATCH * PATCH + column % PATCH]


class LatentViewVolume:
    """The built-in :class:`.interface.ViewMapsModel`."""

    def __init__(self, logits: Tensor, scales: dict[str, float], size: int) -> None:
        """``logits`` [R, R, R] of the cells of the cube [−1, 1]³, by x, y and z; ``size``: pixels of a side's rows."""
        self.logits, self.size = logits, size
        self.distance, self.field_of_view = scales["distance"], scales["field_of_view"]

    def seen_from(self, cameras: CameraBatch) -> list[Side]:
        """See :class:`.interface.ViewMapsModel`: the surface where filled and empty are equally likely."""
        facing = _outward(self.logits)
        return [_side(self.logits, facing, cameras[i : i + 1], self.size) for i in range(len(cameras))]


def _side(logits: Tensor, facing: Tensor, camera: CameraBatch, size: int) -> Side:
    origin, unit = (torch.from_numpy(each[0]) for each in rays(camera, size, size))
    turn = torch.from_numpy(camera.camera_to_world[0, :3, :3])
    directions = unit.reshape(-1, 3)
    directions = directions / (directions @ -turn[:, 2:])  # one unit along the camera's axis
    step = 2 / _CELLS
    depths = float(camera.distance[0]) - 1 + (torch.arange(_CELLS) + 0.5) * step
    along = _read(logits[None], origin + depths[:, None] * directions[:, None])[0]
    filled = along > 0
    first = torch.where(filled.any(1), filled.float().argmax(1), along.argmax(1))[:, None]
    here, before = along.gather(1, first), along.gather(1, (first - 1).clamp_min(0))
    back = torch.where((here > 0) & (before < 0), step * here / (here - before), 0.0)
    depth = depths[first] - back
    normals = _read(facing, origin + depth * directions).T @ turn
    mask = along.amax(1).sigmoid().view(size, size)
    return Side(mask, Maps(depth.view(size, size), "metric", F.normalize(normals, dim=1).T.reshape(3, size, size)))


def _read(grid: Tensor, points: Tensor) -> Tensor:
    """A grid [C, R, R, R] over the cube [−1, 1]³ at ``points`` [..., 3], linearly between its cells: [C, ...]."""
    places = points.reshape(1, 1, 1, -1, 3).flip(-1)
    found = F.grid_sample(grid[None], places, padding_mode="border", align_corners=False)
    return found.view(len(grid), *points.shape[:-1])


def _outward(logits: Tensor) -> Tensor:
    """Where surfaces face [3, R, R, R]: down the slope of the odds, smoothed; not of unit length."""
    smooth = F.avg_pool3d(logits.clamp(-4, 4)[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    return -torch.stack(torch.gradient(smooth))


def fused(columns: Tensor, cameras: CameraBatch, weights: NDArray[np.float64], cells: int = _CELLS) -> Tensor:
    """The columns [K, D, S, S] before K cameras as one grid [R, R, R] of the world; means of all that reach a cell."""
    line = (np.arange(cells, dtype=np.float32) + 0.5) * (2 / cells) - 1
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    total, weight = torch.zeros(len(points)), torch.zeros(len(points))
    for k, ndc in enumerate(world_to_ndc(cameras, points)):
        behind = (points - cameras.position[k]) @ -cameras.camera_to_world[k, :3, 2] - cameras.distance[k]
        places = torch.from_numpy(np.stack((behind, -ndc[:, 1], ndc[:, 0]), -1))
        counts = (places[:, 1:].abs() < 1).all(1).float() * float(weights[k])
        total += counts * _read(columns[k][None], places.nan_to_num(0.0))[0]
        weight += counts
    unknown = torch.from_numpy((points**2).sum(-1) > 1) | (weight == 0)
    return torch.where(unknown, _EMPTY, total / weight.clamp_min(1e-6)).view(cells, cells, cells)


def agreeing(columns: Tensor, references: Sequence[ReferencePicture]) -> Tensor:
    """The columns [K, D, S, S] as the pictures have it.

    Surely empty where they show nothing, and filled somewhere, where it is likeliest, behind what they show.
    """
    shown = [_covered(reference.image.detach().float().cpu()) for reference in references]
    alpha = torch.cat([resized(each, (columns.shape[-2], columns.shape[-1])) for each in shown])
    lacking = (_LEAST - columns.amax(1, keepdim=True)).clamp_min(0)
    return torch.where(alpha > _TRACE, columns + lacking * (alpha > _SHOWN), _EMPTY)


def _covered(image: Tensor) -> Tensor:
    """Where a picture [3 or 4, S, S] shows the object: [1, 1, S, S] in [0, 1]; without alpha, all that is not white."""
    return (image[3:] if len(image) == 4 else (image.amin(0, keepdim=True) < _WHITE).float())[None]


@torch.no_grad()
def load(place: Path, vae: Any, references: Sequence[ReferencePicture], device: torch.device) -> LatentViewVolume:
    """Read the model in the folder ``place`` and show it the pictures; only its answer is kept.

    ``vae`` is that of the Zero-1-to-3 model which it belongs to. Raises ModelError for a folder that is broken or of
    another kind.
    """
    folder = open_model(str(place))
    if folder.family != INDEX_CLASS:
        raise ModelError(f"{place} is a {folder.family}, which knows no whole shapes.", f"Remove {place}.")
    part = projection_part(folder)
    check_part(folder, "unet", ("UNet2DConditionModel",))
    unet = load_network(folder, "unet", UNet2DConditionModel, {"dtype": torch.float32}).to(device)
    projection = load_projection(folder, part).to(device)
    head = _load_head(folder).to(device)
    scales: dict[str, float] = read_json(place / "model_index.json").get(SCALES, {})
    fits = unet.config.in_channels == vae.config.latent_channels and unet.config.out_channels == head[1].in_channels
    if not fits or not scales.keys() >= _NEEDED:
        raise ModelError(
            f"The model of whole shapes in {place} is of another build.", f"Copy it anew, or remove {place}."
        )
    known = encode_references(folder, vae, image_size(unet, vae), projection, references)
    front = orbit_cameras([0.0], [0.0], scales["distance"], scales["field_of_view"])
    poses = torch.from_numpy(relative_poses(front, known.cameras, pose_kind(folder), _EXTENT)[0]).to(device)
    tokens = projection(torch.cat((known.embeddings, poses), 1))[:, None]
    timesteps = torch.full((len(poses),), scales["timestep"], device=device)
    columns = agreeing(head(unet(known.latents, timesteps, tokens).sample).float().cpu(), references)
    return LatentViewVolume(fused(columns, known.cameras, known.weights), scales, columns.shape[-1])


def _load_head(folder: ModelFolder) -> ColumnHead:
    weights: dict[str, Tensor] = loaded(folder, HEAD, lambda: load_file(folder.path / HEAD / HEAD_FILE))
    if weights.keys() != {"1.weight", "1.bias"} or weights["1.weight"].ndim != 4 or len(weights["1.bias"]) % PATCH**2:
        raise ModelError(f"The {HEAD} of {folder.path} is not one layer of columns.", "Copy the model anew.")
    slabs, features = len(weights["1.bias"]) // PATCH**2, weights["1.weight"].shape[1]
    head = ColumnHead(features, slabs)
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False)
