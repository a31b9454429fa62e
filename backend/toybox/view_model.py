"""Toybox's novel-view model: a small Zero-1-to-3 in the layout of its folders, with Toybox's own VAE.

The UNet is the text model's with a second latent in its input; what the text model knows of toys, it starts from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..guidance.model_folder import BORROWED, BUILT_IN_FOLDER, POSE
from ..request import BUILT_IN_MODEL
from .encoder import PatchEncoder
from .model import IMAGE_SIZE, LATENT_CHANNELS, TEXT_WIDTH, make_scheduler, make_unet

POSE_KIND = "stable-zero123"
_PATCH = 8
_WEIGHTS = {"image_encoder": "model.safetensors"}
"""What transformers calls its file, beside diffusers' name."""
_MEAN = _STD = (0.5, 0.5, 0.5)


class CLIPCameraProjection(ModelMixin, ConfigMixin):
    """Embedding and relative pose [B, 128 + 4] to a token [B, 128], as Zero123Pipeline's folders hold it."""

    @register_to_config
    def __init__(self, embedding_dim: int = TEXT_WIDTH, additional_embeddings: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding_dim + additional_embeddings, embedding_dim)
        nn.init.normal_(self.proj.weight[:, embedding_dim:], std=0.3)  # four numbers beside 128, of equal say

    def forward(self, told: Tensor) -> Tensor:
        """See the class."""
        return self.proj(told)


def make_image_encoder() -> Any:
    """Pictures [B, 3, 64, 64] in [−1, 1] to embeddings [B, 128]."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=_PATCH,
            projection_dim=TEXT_WIDTH,
        )
    )


@dataclass
class ViewDenoiser:
    """The networks trained together."""

    unet: Any
    image_encoder: Any
    projection: CLIPCameraProjection

    @property
    def parts(self) -> dict[str, nn.Module]:
        """By the names of their folders."""
        return {"unet": self.unet, "image_encoder": self.image_encoder, "clip_camera_projection": self.projection}

    def tokens(self, references: Tensor, poses: Tensor) -> Tensor:
        """What the UNet is told [B, 1, 128] of pictures [B, 3, 64, 64] in [−1, 1] and poses [B, 4]."""
        embeddings = self.image_encoder(references).image_embeds
        return self.projection(torch.cat((embeddings, poses.to(embeddings.dtype)), 1))[:, None]

    def predict(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, latents: Tensor) -> Tensor:
        """The v [B, 16, 16, 16] of ``noisy``, shown ``tokens`` and the picture's ``latents``; zeros for neither."""
        return self.unet(torch.cat((noisy, latents), 1), timesteps, tokens).sample


def make_view_denoiser() -> ViewDenoiser:
    """With random weights."""
    return ViewDenoiser(make_unet(2 * LATENT_CHANNELS), make_image_encoder(), CLIPCameraProjection())


def start_from(start: Path, nets: ViewDenoiser) -> PatchEncoder:
    """Take over the text model's UNet, or all of a novel-view model; returns the encoder of their latents.

    ``start`` is a folder of the text model's training (its averaged weights are taken) or a model folder of either
    kind. What the text model's UNet makes of the noisy latent stays; what it is shown beside it counts for nothing at
    first.
    """
    if (start / "denoiser.pt").exists():
        source: Any = make_unet()
        average = torch.load(start / "denoiser.pt", map_location="cpu", weights_only=True)["average"]
        with torch.no_grad():
            for parameter, value in zip(source.parameters(), average, strict=False):  # the UNet's come first
                parameter.copy_(value)
        _widen(source, nets.unet)
        return PatchEncoder(**torch.load(start / "encoder.pt", weights_only=True))
    if is_view_folder(start):
        read_parts(start, nets)
        return _patches(BUILT_IN_FOLDER)
    _widen(UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32), nets.unet)
    return _patches(start)


def is_view_folder(folder: Path) -> bool:
    """Whether a folder holds a novel-view model."""
    return (folder / "clip_camera_projection").is_dir()


def _widen(source: Any, unet: Any) -> None:
    weights: dict[str, Tensor] = source.state_dict()
    weights["conv_in.weight"] = torch.cat((weights["conv_in.weight"], torch.zeros_like(weights["conv_in.weight"])), 1)
    unet.load_state_dict(weights)


def _patches(folder: Path) -> PatchEncoder:
    return PatchEncoder.read(AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32))


def save_view_folder(folder: Path, nets: ViewDenoiser) -> None:
    """Write a Zero123Pipeline folder in fp16 safetensors; its VAE is the built-in text model's and is not copied."""
    save_parts(folder, nets)
    make_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "Zero123Pipeline",
        BORROWED: {"vae": BUILT_IN_MODEL},
        POSE: POSE_KIND,
        "clip_camera_projection": ["zero123", "CLIPCameraProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / "model_index.json", index)


def read_parts(folder: Path, nets: ViewDenoiser) -> None:
    """The networks' weights out of a folder that :func:`save_parts` wrote."""
    for name, part in nets.parts.items():
        part.load_state_dict(load_file(folder / name / _WEIGHTS.get(name, "diffusion_pytorch_model.safetensors")))


def save_parts(folder: Path, nets: ViewDenoiser) -> None:
    """Write the networks in fp16 safetensors, and how pictures are shown to them."""
    for name, part in nets.parts.items():
        saved: Any = part
        saved.half().save_pretrained(folder / name, safe_serialization=True)
    colours = {"image_processor_type": "CLIPImageProcessor", "image_mean": _MEAN, "image_std": _STD, "resample": 3}
    write_json(folder / "feature_extractor" / "preprocessor_config.json", colours)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """A part's config, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
