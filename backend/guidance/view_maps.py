"""Models of hidden sides: of pictures and a pose, the mask, the depth and the normals of what is seen from there.

As Wonder3D (arXiv 2310.15008) makes normals beside colours, but in one step: what is seen is the mean of all that the
pictures allow. The pictures are shown as the Zero-1-to-3 family's are, see :mod:`.shown_pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .interface import Maps, Side
from .latents import image_size
from .loading import load_network
from .model_folder import check_part, open_model, read_json
from .references import ReferencePicture
from .relative_pose import PoseKind, angles_between, reference_shares, relative_poses
from .shown_pictures import EncodedReferences, encode_references, load_projection, pose_kind, projection_part

if TYPE_CHECKING:
    from ..cameras import CameraBatch

FOLDER = "maps"
"""Where such a model lies in the folder of the Zero-1-to-3 model that it belongs to."""
INDEX_CLASS = "ToyboxViewMapsPipeline"
SCALES = "_maps"
"""Entry of model_index.json: the cameras' distance, in radii, their field of view, in degrees, and the timestep that
the UNet is told."""
_NEEDED = {"distance", "field_of_view", "timestep"}
CHANNELS = 5
"""Numbers of a pixel: the mask's logit, the depth, and the normal."""
_EXTENT = 1.0
"""Half of the object's largest side, in radii; it counts in Zero-1-to-3's own kind of pose alone."""


def unpacked(numbers: Tensor, distance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mask's logits [B, S, S], depth [B, S, S] in radii and normals [B, 3, S, S], not of unit length.

    ``numbers`` [B, 5·P², S/P, S/P] are a network's, whose places tell P × P pixels each; its cameras are ``distance``
    radii from the ball's middle.
    """
    pixels = F.pixel_shuffle(numbers, math.isqrt(numbers.shape[1] // CHANNELS))
    return pixels[:, 0], distance + pixels[:, 1], pixels[:, 2:]


class LatentViewMaps:
    """The built-in :class:`.interface.ViewMapsModel`."""

    def __init__(
        self,
        unet: Any,
        projection: nn.Linear,
        references: EncodedReferences,
        pose: PoseKind,
        scales: dict[str, float],
    ) -> None:
        self.unet, self.projection, self.references, self.scales = unet, projection, references, scales
        self.pose: PoseKind = pose
        self.distance, self.field_of_view = scales["distance"], scales["field_of_view"]

    @torch.no_grad()
    def seen_from(self, cameras: CameraBatch) -> list[Side]:
        """See :class:`.interface.ViewMapsModel`; of several pictures, the mean by their nearness."""
        known, device = self.references, self.projection.weight.device
        shares = reference_shares(angles_between(cameras, known.cameras), known.weights, "nearby")
        poses = torch.from_numpy(relative_poses(cameras, known.cameras, self.pose, _EXTENT)).to(device)
        count, pictures = poses.shape[:2]
        told = torch.cat((known.embeddings.expand(count, -1, -1), poses), -1).flatten(0, 1)
        latents = known.latents.repeat(count, 1, 1, 1)
        timesteps = torch.full((len(told),), self.scales["timestep"], device=device)
        numbers = self.unet(latents, timesteps, self.projection(told)[:, None]).sample
        by_picture = numbers.view(count, pictures, *numbers.shape[1:])
        mean = torch.einsum("bk,bk...->b...", torch.as_tensor(shares, dtype=torch.float32, device=device), by_picture)
        logits, depth, normals = unpacked(mean.float().cpu(), self.distance)
        seen = zip(logits.sigmoid(), depth, F.normalize(normals, dim=1), strict=True)
        return [Side(mask, Maps(far, "metric", facing)) for mask, far, facing in seen]


def load(place: Path, vae: Any, references: Sequence[ReferencePicture], device: torch.device) -> LatentViewMaps:
    """Read the model in the folder ``place`` and show it the pictures.

    ``vae`` is that of the Zero-1-to-3 model which it belongs to. Raises ModelError for a folder that is broken or of
    another kind.
    """
    folder = open_model(str(place))
    if folder.family != INDEX_CLASS:
        raise ModelError(f"{place} is a {folder.family}, which knows no hidden sides.", f"Remove {place}.")
    part = projection_part(folder)
    check_part(folder, "unet", ("UNet2DConditionModel",))
    unet = load_network(folder, "unet", UNet2DConditionModel, {"torch_dtype": torch.float32}).to(device)
    projection = load_projection(folder, part).to(device)
    scales: dict[str, float] = read_json(place / "model_index.json").get(SCALES, {})
    side, fits = math.isqrt(unet.config.out_channels // CHANNELS), unet.config.in_channels == vae.config.latent_channels
    if not fits or unet.config.out_channels != CHANNELS * side**2 or not scales.keys() >= _NEEDED:
        raise ModelError(
            f"The model of hidden sides in {place} is of another build.", f"Copy it anew, or remove {place}."
        )
    encoded = encode_references(folder, vae, image_size(unet, vae), projection, references)
    return LatentViewMaps(unet, projection, encoded, pose_kind(folder), scales)
