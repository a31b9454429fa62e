"""Toybox's model of whole shapes: of one picture, what of the space before its camera is filled, in one step.

Not in the object's axes but in the camera's: what a pixel shows and what a number of the answer means lie in the same
place, so that much is seen and only the hidden is remembered. As of voxels by regression (Pix2Vox, arXiv 1901.11153),
the answer is how likely each cell is filled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..guidance.model_folder import BUILT_IN_VIEW_FOLDER, POSE
from ..guidance.view_volume import HEAD, HEAD_FILE, INDEX_CLASS, SCALES, ColumnHead
from .model import LATENT_CHANNELS, make_unet
from .view_dataset import DISTANCE, FIELD_OF_VIEW
from .view_model import POSE_KIND, ViewDenoiser, make_view_denoiser, read_parts, save_parts, start_from, write_json
from .volume_dataset import SLABS

TIMESTEP = 999
"""What the UNet is told: there is nothing but noise."""
_FEATURES = 256


class VolumeNetwork(nn.Module):
    """The networks trained together, with the linear map that stands for the VAE's encoder."""

    def __init__(self, start: Path) -> None:
        """``start`` is a folder of such networks, or of a novel-view model whose networks are taken over."""
        super().__init__()
        views, trained = make_view_denoiser(), _is_volume_folder(start)
        self.patches = start_from(BUILT_IN_VIEW_FOLDER if trained else start, views)
        self.image_encoder, self.projection = views.image_encoder, views.projection
        self.unet: Any = make_unet(out_channels=_FEATURES)
        self.head = ColumnHead(_FEATURES, SLABS)
        taken = {name: value for name, value in views.unet.state_dict().items() if not name.startswith("conv_out")}
        taken["conv_in.weight"] = taken["conv_in.weight"][:, LATENT_CHANNELS:]  # what it is shown beside the noise
        self.unet.load_state_dict(taken, strict=False)
        if trained:
            read_parts(start, self.parts)
            self.head.load_state_dict(load_file(start / HEAD / HEAD_FILE))

    @property
    def parts(self) -> ViewDenoiser:
        """The networks that a novel-view model has, too, by their names there."""
        return ViewDenoiser(self.unet, self.image_encoder, self.projection)

    def forward(self, pictures: Tensor, poses: Tensor) -> Tensor:
        """Logits [B, SLABS, 64, 64] of the cells behind pictures [B, 3, 64, 64] in [−1, 1].

        ``poses`` [B, 4] are of the world's front beside the pictures, see :func:`.view_dataset.stable_poses`.
        """
        return self.head(self._features(pictures, poses))

    def columns(self, pictures: Tensor, poses: Tensor, seen: Tensor) -> Tensor:
        """The same of the N pixels ``seen`` [B, 64, 64] alone, [N, SLABS], for a fraction of the head's work."""
        return self.head.at(self._features(pictures, poses), seen)

    def _features(self, pictures: Tensor, poses: Tensor) -> Tensor:
        tokens = self.parts.tokens(pictures, poses)
        timesteps = torch.full((len(pictures),), TIMESTEP, device=pictures.device)
        return self.unet(self.patches.latents(pictures), timesteps, tokens).sample


def save_volume_folder(folder: Path, network: VolumeNetwork) -> None:
    """Write a folder in diffusers' layout, in fp16 safetensors, to lie as ``volume`` in a novel-view model's folder."""
    save_parts(folder, network.parts)
    (folder / HEAD).mkdir(exist_ok=True)
    save_file({name: value.half() for name, value in network.head.state_dict().items()}, folder / HEAD / HEAD_FILE)
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


def _is_volume_folder(folder: Path) -> bool:
    index = folder / "model_index.json"
    return index.is_file() and json.loads(index.read_text(encoding="utf-8"))["_class_name"] == INDEX_CLASS
