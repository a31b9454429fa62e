"""A Zero-1-to-3 folder small enough for tests: random weights, pictures of 16×16, an image encoder of 14×14."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import diffusers as untyped_diffusers
import torch
import transformers as untyped_transformers
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from backend.cameras import CameraBatch, orbit_cameras
from backend.guidance import ReferencePicture, load_view_guidance
from backend.guidance.zero123 import Zero123Guidance
from backend.request import ViewGuidanceSettings

CPU = torch.device("cpu")
diffusers: Any = untyped_diffusers
transformers: Any = untyped_transformers
WIDTH, SIDE, LATENT_SIDE, CLIP_SIDE = 24, 16, 8, 14
Layout = Literal["clip_camera_projection", "cc_projection"]


class CLIPCameraProjection(ModelMixin, ConfigMixin):
    """As the folders of Zero123Pipeline hold it: config with sizes, weights ``proj.*``."""

    @register_to_config
    def __init__(self, embedding_dim: int = 768, additional_embeddings: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding_dim + additional_embeddings, embedding_dim)

    def forward(self, told: Tensor) -> Tensor:
        return self.proj(told)


class CCProjection(ModelMixin, ConfigMixin):
    """As the folders of Zero1to3StableDiffusionPipeline hold it: no sizes in the config, weights ``projection.*``."""

    config_name = "config.json"

    def __init__(self, in_channel: int = 772, out_channel: int = 768) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channel, out_channel)

    def forward(self, told: Tensor) -> Tensor:
        return self.projection(told)


def _networks() -> dict[str, Any]:
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=CLIP_SIDE,
        patch_size=7,
        projection_dim=WIDTH,
    )
    return {
        "unet": diffusers.UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=8,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=8,
        ),
        "vae": diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            norm_num_groups=8,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            sample_size=SIDE,
            scaling_factor=0.5,
        ),
        "image_encoder": transformers.CLIPVisionModelWithProjection(vision),
    }


def write_folder(folder: Path, layout: Layout = "clip_camera_projection") -> Path:
    """Write a model, always the same, as its pipeline's save_pretrained would."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = _networks()
        if layout == "clip_camera_projection":
            parts[layout] = CLIPCameraProjection(WIDTH)
        else:
            parts[layout] = CCProjection(WIDTH + 4, WIDTH)
        # Poses of order 1 should matter as much as embeddings do.
        for parameter in parts[layout].parameters():
            nn.init.normal_(parameter, std=0.5)
    parts["scheduler"] = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    extractor = folder / "feature_extractor" / "preprocessor_config.json"
    extractor.parent.mkdir()
    colours = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    extractor.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", "resample": 3, **colours}))
    own = {"clip_camera_projection": "zero123", "cc_projection": "pipeline_zero1to3"}[layout]
    index: dict[str, Any] = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    index |= {
        "_class_name": "Zero123Pipeline" if layout == "clip_camera_projection" else "Zero1to3StableDiffusionPipeline",
        "_diffusers_version": "0.19.3",
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        layout: [own, type(parts[layout]).__name__],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True))
    return folder


def cameras(*azimuth: float, elevation: float = 10.0, distance: float = 3.0) -> CameraBatch:
    return orbit_cameras(list(azimuth), elevation, distance, 40.0)


def picture(azimuth: float = 0.0, seed: int = 1, channels: int = 3, side: int = SIDE, weight: float = 1.0) -> Any:
    """A reference picture of noise."""
    image = torch.rand(channels, side, side, generator=torch.Generator().manual_seed(seed))
    return ReferencePicture(image, cameras(azimuth, elevation=20.0), weight)


def load(
    folder: Path,
    settings: ViewGuidanceSettings | None = None,
    references: list[ReferencePicture] | None = None,
    device: torch.device = CPU,
) -> Any:
    settings = settings or ViewGuidanceSettings()
    guidance = load_view_guidance(str(folder), references or [picture()], settings, device)
    assert isinstance(guidance, Zero123Guidance)
    return guidance
