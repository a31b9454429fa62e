"""The Stable Diffusion XL family (arXiv 2307.01952): two text encoders, a pooled text and sizes beside the tokens."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from ..errors import ModelError
from ..request import GuidanceSettings
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
from .model_folder import ModelFolder, read_json
from .text_encoders import CLIP_TOKENIZERS, Texts, embeddings, encode_once, open_clip
from .text_guidance import Networks, TextGuidance
from .view_prompts import TextEmbeddings

_HINT = "Choose a Stable Diffusion XL base model or a fine-tune of it."
_PARTS = {
    "tokenizer": CLIP_TOKENIZERS,
    "tokenizer_2": CLIP_TOKENIZERS,
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}
_SIZE_IDS = 6


class StableDiffusionXLGuidance(TextGuidance):
    """Score distillation through Stable Diffusion XL; see :class:`.text_guidance.TextGuidance`."""

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """What the UNet predicts, told that the picture was of its size, uncropped, and shall be (section 2.2)."""
        height, width = self.image_size
        ids = noisy.new_tensor([height, width, 0, 0, height, width], dtype=tokens.dtype).expand(len(noisy), -1)
        told = {"text_embeds": pooled, "time_ids": ids}
        return self.networks.denoiser(
            noisy, timesteps, tokens, encoder_attention_mask=mask, added_cond_kwargs=told, return_dict=False
        )[0]


def load(folder: ModelFolder, texts: Texts, settings: GuidanceSettings, how: Loading) -> StableDiffusionXLGuidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build.
    """
    check_parts(folder, _PARTS)
    check_scheduler(folder, _HINT)
    text = encode_once(folder, how, texts, lambda tell: encode_texts(folder, texts, how, tell))
    dtype = how.dtype(torch.float16)
    unet = load_network(folder, "unet", UNet2DConditionModel, {"dtype": dtype}, how.loras)
    check_unet(folder, unet, _HINT, {"addition_embed_type": "text_time"})
    vae = load_vae(folder, AutoencoderKL, dtype, how, unet.config.in_channels)
    check_channels(folder, unet, vae)
    if vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
        vae.to(torch.float32)  # its config says that half precision is not enough; where it is silent, one look is
    check_width(folder, "unet", text.views.shape[-1], unet.config.cross_attention_dim)
    _check_pooled(folder, unet, text)
    networks = Networks(
        vae, unet, load_schedule(folder, how.device), image_size=chosen_size(image_size(unet, vae), factor(vae), how)
    )
    return StableDiffusionXLGuidance(networks, text.to(how.device, dtype), settings, how.tell)


def encode_texts(folder: ModelFolder, texts: Texts, how: Loading, tell: Tell) -> TextEmbeddings:
    """Both encoders' last states but one side by side, and the second's pooled text; float32.

    An empty negative prompt is all zeros where the folder says so, as in the base model's training.
    """
    first = open_clip(folder, how).ask(texts, tell)
    second = open_clip(folder, how, "_2", projection=True).ask(texts, tell)
    tokens = torch.cat([first.before, second.before], dim=-1)
    pooled = second.pooled
    index = read_json(folder.path / "model_index.json")
    if index.get("force_zeros_for_empty_prompt", True) and not texts.negative.strip():
        tokens[-1], pooled[-1] = 0.0, 0.0
    return embeddings(tokens, pooled)


def _check_pooled(folder: ModelFolder, unet: Any, text: TextEmbeddings) -> None:
    config = unet.config
    width = 0 if text.pooled_views is None else text.pooled_views.shape[-1]
    if config.projection_class_embeddings_input_dim != width + _SIZE_IDS * config.addition_time_embed_dim:
        raise ModelError(f"The unet of {folder.path} wants other sizes or another pooled text.", _HINT)
