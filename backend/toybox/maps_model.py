"""Toybox's model of hidden sides: of one picture and a pose, what is there to be seen from it, in one step.

Not a picture but the mask, the depth and the normals (as Wonder3D, arXiv 2310.15008, makes normals beside colours).
It begins as the novel-view model: what that makes of nothing but noise is the mean of all that the picture allows, and
so is this, by regression.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..guidance.model_folder import BUILT_IN_VIEW_FOLDER, POSE
from ..guidance.view_maps import CHANNELS, INDEX_CLASS, SCALES, unpacked
from .encoder import PATCH
from .model import LATENT_CHANNELS, make_unet
from .view_dataset import DISTANCE, FIELD_OF_VIEW
from .view_model import POSE_KIND, ViewDenoiser, make_view_denoiser, read_parts, save_parts, start_from, write_json

TIMESTEP = 999
"""What the UNet is told: there is nothing but noise."""


class MapsNetwork(nn.Module):
    """The networks trained together, with the linear map that stands for the VAE's encoder."""

    def __init__(self, start: Path) -> None:
        """``start`` is a folder of such networks, or of a novel-view model that is taken over, or the text model's."""
        super().__init__()
        views, trained = make_view_denoiser(), _is_maps_folder(start)
        self.patches = start_from(BUILT_IN_VIEW_FOLDER if trained else start, views)
        self.image_encoder, self.projection = views.image_encoder, views.projection
        self.unet: Any = make_unet(out_channels=CHANNELS * PATCH**2)
        taken = {name: value for name, value in views.unet.state_dict().items() if not name.startswith("conv_out")}
        taken["conv_in.weight"] = taken["conv_in.weight"][:, LATENT_CHANNELS:]  # what it is shown beside the noise
        self.unet.load_state_dict(taken, strict=False)
        nn.init.normal_(self.unet.conv_out.weight, std=0.01)
        nn.init.zeros_(self.unet.conv_out.bias)
        if trained:
            read_parts(start, self.parts)

    @property
    def parts(self) -> ViewDenoiser:
        """The networks by the names that a novel-view model gives them."""
        return ViewDenoiser(self.unet, self.image_encoder, self.projection)

    def forward(self, pictures: Tensor, poses: Tensor) -> Tensor:
        """Numbers [B, 80, 16, 16], of pictures [B, 3, 64, 64] in [−1, 1] and poses [B, 4]."""
        tokens = self.parts.tokens(pictures, poses)
        timesteps = torch.full((len(pictures),), TIMESTEP, device=pictures.device)
        return self.unet(self.patches.latents(pictures), timesteps, tokens).sample

    def maps(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the mask [B, 64, 64], depth [B, 64, 64] in radii and normals [B, 3, 64, 64]."""
        return unpacked(numbers.float(), DISTANCE)


def save_maps_folder(folder: Path, network: MapsNetwork) -> None:
    """Write a folder in diffusers' layout, in fp16 safetensors, to lie as ``maps`` in a novel-view model's folder."""
    save_parts(folder, network.parts)
    index = {
        "_class_name": INDEX_CLASS,
        POSE: POSE_KIND,
        SCALES: {"distance": DISTANCE, "field_of_view": FIELD_OF_VIEW, "timestep": TIMESTEP},
        "clip_camera_projection": ["zero123", "CLIPCameraProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    write_json(folder / "model_index.json", index)


def _is_maps_folder(folder: Path) -> bool:
    index = folder / "model_index.json"
    return index.is_file() and json.loads(index.read_text(encoding="utf-8"))["_class_name"] == INDEX_CLASS
