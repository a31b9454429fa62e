"""The FLUX.1 family: a rectified flow on packed latents; T5's tokens, CLIP's pooled text, and an embedded guidance.

FLUX.1 dev is distilled from guidance and told a scale (``guidance.embedded_scale``); classifier-free guidance between
the prompt and the negative prompt comes on top, as diffusers' ``true_cfg_scale`` does.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor

from ..errors import ModelError
from ..request import GuidanceSettings
from .fitting import chosen_size
from .latents import factor
from .loading import Loading, check_parts, check_scheduler, check_width, load_flow, load_network, load_vae
from .memory import Tell
from .model_folder import ModelFolder
from .text_encoders import CLIP_TOKENIZERS, T5_TOKENIZERS, Texts, embeddings, encode_once, open_clip, open_t5
from .text_guidance import Networks, TextGuidance
from .view_prompts import TextEmbeddings

T5_TOKENS = 512
OWN_CELLS = 128
"""Latent cells along a side of the pictures it was trained on; its config does not say."""
_PACK = 2
_HINT = "Choose a FLUX.1 text-to-image model (dev or schnell)."
_PARTS = {
    "tokenizer": CLIP_TOKENIZERS,
    "tokenizer_2": T5_TOKENIZERS,
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("T5EncoderModel",),
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
}


class FluxGuidance(TextGuidance):
    """Score distillation through FLUX.1; see :class:`.text_guidance.TextGuidance`."""

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """The flow that the transformer predicts, of latents packed two by two into tokens."""
        del mask
        transformer, (height, width) = self.networks.denoiser, noisy.shape[-2:]
        told = None
        if transformer.config.guidance_embeds:
            told = torch.full((len(noisy),), self.settings.embedded_scale, device=noisy.device)
        output = transformer(
            hidden_states=pack(noisy),
            timestep=self.networks.schedule.times(timesteps) / 1000.0,
            guidance=told,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=noisy.new_zeros(tokens.shape[1], 3),
            img_ids=places(height // _PACK, width // _PACK, noisy.device, noisy.dtype),
            return_dict=False,
        )[0]
        return unpack(output, height, width)


def pack(latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] as tokens [B, h/2 · w/2, 4C]."""
    batch, channels, height, width = latents.shape
    cells = latents.view(batch, channels, height // _PACK, _PACK, width // _PACK, _PACK)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * _PACK**2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The other way of :func:`pack`: [B, C, height, width]."""
    batch, _, depth = tokens.shape
    cells = tokens.view(batch, height // _PACK, width // _PACK, depth // _PACK**2, _PACK, _PACK)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def places(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where each token of a picture is: [rows · columns, 3], of which the first number is 0."""
    down, along = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(down), down, along], dim=-1).view(-1, 3).to(device, dtype)


def load(folder: ModelFolder, texts: Texts, settings: GuidanceSettings, how: Loading) -> FluxGuidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build.
    """
    check_parts(folder, _PARTS)
    check_scheduler(folder, _HINT, flow=True)
    text = encode_once(folder, how, texts, lambda tell: encode_texts(folder, texts, how, tell))
    dtype = how.dtype(torch.bfloat16)
    transformer = load_network(folder, "transformer", FluxTransformer2DModel, {"dtype": dtype}, how.loras)
    config = transformer.config
    channels = config.in_channels // _PACK**2
    vae = load_vae(folder, AutoencoderKL, dtype, how, channels)
    if channels != vae.config.latent_channels:
        raise ModelError(f"The transformer of {folder.path} does not take its vae's latents alone.", _HINT)
    check_width(folder, "transformer", text.views.shape[-1], config.joint_attention_dim)
    cell = factor(vae) * _PACK
    own = OWN_CELLS * factor(vae)
    size = chosen_size((own, own), cell, how)
    schedule = load_flow(folder, how.device, (size[0] // cell) * (size[1] // cell))
    networks = Networks(vae, transformer, schedule, image_size=size)
    return FluxGuidance(networks, text.to(how.device, dtype), settings, how.tell)


def encode_texts(folder: ModelFolder, texts: Texts, how: Loading, tell: Tell) -> TextEmbeddings:
    """T5's tokens and CLIP's pooled text; float32."""
    pooled = open_clip(folder, how).ask(texts, tell).pooled
    tokens = open_t5(folder, how, T5_TOKENS, "_2").ask(texts, tell).last
    return embeddings(tokens, pooled.to(tokens.device))
