"""Depth models, which see how far away is what one picture shows.

Folders of transformers' depth estimation, and the built-in one: a UNet in diffusers' layout that makes, of a picture's
latents, those of its normals and of its depth, in one step (as Marigold's successors, arXiv 2409.11355).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from ..errors import ModelError
from ..reference import DepthKind
from ..request import BUILT_IN_DEPTH_MODEL
from .interface import DepthModel, Maps
from .loading import load_network, loaded
from .memory import Tell
from .model_folder import BUILT_IN_FOLDER, ModelFolder, open_folder, open_model, read_json

BUILT_IN_DEPTH_FOLDER = BUILT_IN_FOLDER.with_name("depth_weights")
INDEX_CLASS = "ToyboxDepthPipeline"
MAPS = "_maps"
"""Entry of the built-in model's model_index.json: the depth, in radii, in the middle of its range, and half of that."""
KINDS = {
    "GLPNForDepthEstimation": False,
    "ZoeDepthForDepthEstimation": False,
    "DPTForDepthEstimation": True,
    "DepthAnythingForDepthEstimation": True,
    "DepthProForDepthEstimation": True,
}
"""Networks that are known here, and whether their numbers are disparity: larger is nearer, scale and shift unknown."""
_HINT = f"Choose {BUILT_IN_DEPTH_MODEL}, or a folder or Hub id that holds one of {', '.join(KINDS)}."
_METRIC = "metric"
"""What a Depth Anything's config says where its numbers are depth after all."""


class DepthEstimator:
    """A :class:`.DepthModel` of transformers."""

    def __init__(self, network: Any, processor: Any, device: torch.device, kind: DepthKind) -> None:
        self.network, self.processor, self.device = network, processor, device
        self.kind: DepthKind = kind

    @torch.no_grad()
    def seen(self, picture: Tensor) -> Maps:
        """See :class:`.DepthModel`."""
        pixels = (picture.permute(1, 2, 0).clamp(0.0, 1.0) * 255.0).round().cpu().numpy().astype(np.uint8)
        shown = self.processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
        numbers = self.network(pixel_values=shown.to(self.device, self.network.dtype)).predicted_depth[0]
        return Maps(numbers.float().cpu(), self.kind)


class LatentMaps:
    """The built-in :class:`.DepthModel`."""

    def __init__(self, unet: Any, vae: Any, middle: float, span: float) -> None:
        self.unet, self.vae, self.middle, self.span = unet, vae, middle, span

    @torch.no_grad()
    def seen(self, picture: Tensor) -> Maps:
        """See :class:`.DepthModel`."""
        size, config = self.vae.config.sample_size, self.unet.config
        shown = F.interpolate(picture[None].to(self.vae.device), size=(size, size), mode="bilinear", antialias=True)
        latents = self.vae.encode(shown.float() * 2.0 - 1.0).latent_dist.mode()
        told = torch.zeros(1, 1, config.cross_attention_dim, device=latents.device)
        facing, far = self.unet(latents, torch.zeros(1, device=latents.device), told).sample.chunk(2, 1)
        pictures = self.vae.decode(torch.cat((facing, far))).sample.float().cpu()
        return Maps(self.middle + self.span * pictures[1].mean(0), "relative", F.normalize(pictures[0], dim=0))


def load(model: str, device: torch.device, allow_download: bool, tell: Tell) -> DepthModel:
    """Load ``model``; see :func:`..load_depth_model`."""
    place = str(BUILT_IN_DEPTH_FOLDER) if model == BUILT_IN_DEPTH_MODEL else model
    if (Path(place) / "model_index.json").is_file():
        return _built_in(open_model(place), device)
    folder = open_folder(model, "depth model", tuple(KINDS), allow_download, tell)
    network = load_network(folder, "", AutoModelForDepthEstimation, {"dtype": torch.float32}).to(device)
    read: Any = AutoImageProcessor.from_pretrained
    processor = loaded(folder, "image processor", lambda: read(folder.path, local_files_only=True))
    disparity = KINDS[folder.family] and getattr(network.config, "depth_estimation_type", "") != _METRIC
    return DepthEstimator(network, processor, device, "disparity" if disparity else "relative")


def _built_in(folder: ModelFolder, device: torch.device) -> LatentMaps:
    if folder.family != INDEX_CLASS:
        raise ModelError(f"{folder.path} is a {folder.family}, which sees no depth.", _HINT)
    options = {"torch_dtype": torch.float32}
    unet = load_network(folder, "unet", UNet2DConditionModel, options).to(device)
    vae = load_network(folder, "vae", AutoencoderKL, options).to(device)
    return LatentMaps(unet, vae, **read_json(folder.path / "model_index.json")[MAPS])
