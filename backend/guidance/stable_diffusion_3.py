"""The Stable Diffusion 3 family (arXiv 2403.03206): a rectified flow, two CLIPs and a T5 that may be missing."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError
from ..request import GuidanceSettings
from .fitting import chosen_size
from .latents import factor, image_size
from .loading import Loading, check_parts, check_scheduler, check_width, load_flow, load_network, load_vae
from .memory import Tell
from .model_folder import ModelFolder, read_json
from .text_encoders import CLIP_TOKENIZERS, T5_TOKENIZERS, Texts, embeddings, encode_once, open_clip, open_t5
from .text_guidance import Networks, TextGuidance
from .view_prompts import TextEmbeddings

T5_TOKENS = 256
_HINT = "Choose a Stable Diffusion 3 or 3.5 model."
_PARTS = {
    "tokenizer": CLIP_TOKENIZERS,
    "tokenizer_2": CLIP_TOKENIZERS,
    "text_encoder": ("CLIPTextModelWithProjection",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL",),
}
_T5_PARTS = {"tokenizer_3": T5_TOKENIZERS, "text_encoder_3": ("T5EncoderModel",)}


class StableDiffusion3Guidance(TextGuidance):
    """Score distillation through Stable Diffusion 3; see :class:`.text_guidance.TextGuidance`."""

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """The flow that the transformer predicts."""
        del mask
        return self.networks.denoiser(
            hidden_states=noisy,
            timestep=self.networks.schedule.times(timesteps),
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            return_dict=False,
        )[0]


def load(folder: ModelFolder, texts: Texts, settings: GuidanceSettings, how: Loading) -> StableDiffusion3Guidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build.
    """
    check_parts(folder, _PARTS if "text_encoder_3" not in folder.classes else {**_PARTS, **_T5_PARTS})
    check_scheduler(folder, _HINT, flow=True)
    text = encode_once(folder, how, texts, lambda tell: encode_texts(folder, texts, how, tell))
    dtype = how.dtype(torch.bfloat16)
    transformer = load_network(folder, "transformer", SD3Transformer2DModel, {"dtype": dtype}, how.loras)
    config = transformer.config
    vae = load_vae(folder, AutoencoderKL, dtype, how, config.in_channels)
    if config.in_channels != vae.config.latent_channels:
        raise ModelError(f"The transformer of {folder.path} does not take its vae's latents.", "Copy the model anew.")
    check_width(folder, "transformer", text.views.shape[-1], config.joint_attention_dim)
    cell = factor(vae) * config.patch_size
    size = chosen_size(image_size(transformer, vae), cell, how)
    schedule = load_flow(folder, how.device, (size[0] // cell) * (size[1] // cell))
    networks = Networks(vae, transformer, schedule, image_size=size)
    return StableDiffusion3Guidance(networks, text.to(how.device, dtype), settings, how.tell)


def encode_texts(folder: ModelFolder, texts: Texts, how: Loading, tell: Tell) -> TextEmbeddings:
    """The CLIPs' last states but one side by side, filled up with zeros to T5's width, and T5's behind; float32."""
    clips = [open_clip(folder, how, suffix, projection=True).ask(texts, tell) for suffix in ("", "_2")]
    pooled = torch.cat([clip.pooled for clip in clips], dim=-1)
    words = torch.cat([clip.before for clip in clips], dim=-1)
    if "text_encoder_3" in folder.classes:
        sentences = open_t5(folder, how, T5_TOKENS, "_3").ask(texts, tell).last.float().to(words.device)
    else:
        width = read_json(folder.place("transformer") / "config.json").get("joint_attention_dim", words.shape[-1])
        sentences = words.new_zeros(len(words), T5_TOKENS, width)
        tell("The model has no T5: it reads the prompt by its two CLIPs alone.")
    words = functional.pad(words, (0, sentences.shape[-1] - words.shape[-1]))
    return embeddings(torch.cat([words, sentences], dim=1), pooled)
