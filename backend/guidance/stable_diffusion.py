"""The latent Stable Diffusion family (arXiv 2112.10752): 1.x (predicts ε), 2.x (v), and models of the same build.

Everything is read from a folder in the layout of diffusers; nothing here depends on which model it is.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from ..errors import ModelError
from ..request import GuidanceSettings
from . import view_volume
from .camera_projection import SUBFOLDER as CAMERA_SUBFOLDER
from .camera_projection import CameraProjection
from .fitting import check_channels, chosen_size
from .latents import factor, image_size
from .loading import (
    Loading,
    check_parts,
    check_scheduler,
    check_unet,
    check_width,
    load_network,
    load_schedule,
    load_vae,
)
from .memory import Tell
from .model_folder import BUILT_IN_FOLDER, BUILT_IN_VIEW_FOLDER, ModelFolder
from .text_encoders import CLIP_TOKENIZERS, Texts, embeddings, encode_once, open_clip
from .text_guidance import Networks, TextGuidance
from .view_prompts import TextEmbeddings

_HINT = "Choose a Stable Diffusion 1.x or 2.x model."
_PARTS = {
    "tokenizer": CLIP_TOKENIZERS,
    "text_encoder": ("CLIPTextModel",),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}


class StableDiffusionGuidance(TextGuidance):
    """Score distillation through a latent diffusion model; see :class:`.text_guidance.TextGuidance`."""

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """What the UNet predicts; ``mask`` hides the camera's tokens from rows that are not told it."""
        del pooled
        return self.networks.denoiser(noisy, timesteps, tokens, encoder_attention_mask=mask, return_dict=False)[0]


def load(folder: ModelFolder, texts: Texts, settings: GuidanceSettings, how: Loading) -> StableDiffusionGuidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build.
    """
    check_parts(folder, _PARTS)
    check_scheduler(folder, _HINT)
    text = encode_once(folder, how, texts, lambda tell: encode_texts(folder, texts, how, tell))
    dtype = how.denoiser_dtype(torch.float16)
    unet = load_network(folder, "unet", UNet2DConditionModel, {"dtype": dtype}, how.loras)
    check_unet(folder, unet, _HINT)
    vae = load_vae(folder, AutoencoderKL, how.dtype(torch.float16), how, unet.config.in_channels)
    check_channels(folder, unet, vae)
    width = text.views.shape[-1]
    check_width(folder, "unet", width, unet.config.cross_attention_dim)
    camera = _camera(folder, width, how.device, dtype) if settings.camera_conditioning else None
    size = chosen_size(image_size(unet, vae), factor(vae), how)
    networks = Networks(vae, unet, load_schedule(folder, how.device), camera, size)
    guidance = StableDiffusionGuidance(networks, text.to(how.device, dtype), settings, how.tell)
    shapes = BUILT_IN_VIEW_FOLDER / view_volume.FOLDER
    if folder.path == BUILT_IN_FOLDER and shapes.is_dir():  # both were trained on the same world
        guidance.foretell = lambda drawn: view_volume.load(shapes, vae, drawn, how.device)
    return guidance


def encode_texts(folder: ModelFolder, texts: Texts, how: Loading, tell: Tell) -> TextEmbeddings:
    """Each prompt's views and the negative prompt, float32."""
    return embeddings(open_clip(folder, how).ask(texts, tell).last)


def _camera(folder: ModelFolder, width: int, device: torch.device, dtype: torch.dtype) -> CameraProjection | None:
    if not (folder.path / CAMERA_SUBFOLDER).is_dir():
        return None
    camera = CameraProjection.from_pretrained(folder.path / CAMERA_SUBFOLDER)
    if camera.width != width:
        raise ModelError(
            f"The camera projection of {folder.path} does not fit its text encoder.", "Copy the model anew."
        )
    return camera.to(device=device, dtype=dtype).eval().requires_grad_(False)
