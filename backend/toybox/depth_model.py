"""Toybox's depth model: a UNet that makes, of a picture's latents, those of its normals and of its depth, in one step.

As Marigold (arXiv 2312.02145) it begins as a text-to-image model's UNet and paints maps into that model's latents; as
its successors (arXiv 2409.11355) it is trained to do so at once, by what the decoded maps are worth.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.depth_model import INDEX_CLASS, MAPS
from ..guidance.model_folder import BORROWED
from ..request import BUILT_IN_MODEL
from .encoder import PatchEncoder
from .model import LATENT_CHANNELS, TEXT_WIDTH, make_unet
from .view_dataset import DISTANCE

MIDDLE, SPAN = DISTANCE, 1.1
"""Radii; a depth of MIDDLE ± SPAN is white or black in the depth's picture."""


class DepthNetwork(nn.Module):
    """The UNet, with the linear map that stands for the VAE in training."""

    def __init__(self, start: Path) -> None:
        """``start`` is the text model's folder, whose UNet and VAE are taken."""
        super().__init__()
        source: Any = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
        self.unet: Any = make_unet(out_channels=2 * LATENT_CHANNELS)
        taken = {name: value for name, value in source.state_dict().items() if not name.startswith("conv_out")}
        self.unet.load_state_dict(taken, strict=False)
        nn.init.normal_(self.unet.conv_out.weight, std=0.02)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.patches = PatchEncoder.read(AutoencoderKL.from_pretrained(start / "vae", torch_dtype=torch.float32))

    def forward(self, pictures: Tensor) -> Tensor:
        """Latents [B, 32, 16, 16] of the normals' picture and of the depth's, of pictures [B, 3, 64, 64] in [−1, 1]."""
        told = torch.zeros(len(pictures), 1, TEXT_WIDTH, device=pictures.device)
        return self.unet(
            self.patches.latents(pictures), torch.zeros(len(pictures), device=pictures.device), told
        ).sample

    def maps(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Depth [B, 64, 64] in radii and normals [B, 3, 64, 64] out of latents."""
        facing, far = (self.patches.images(each) for each in latents.float().chunk(2, 1))
        return MIDDLE + SPAN * far.mean(1), F.normalize(facing, dim=1)


def save_depth_folder(folder: Path, unet: Any) -> None:
    """Write a folder in diffusers' layout, in fp16 safetensors; its VAE is the text model's and is not copied."""
    unet.half().save_pretrained(folder / "unet", safe_serialization=True)
    index = {
        "_class_name": INDEX_CLASS,
        BORROWED: {"vae": BUILT_IN_MODEL},
        MAPS: {"middle": MIDDLE, "span": SPAN},
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
