"""The first stage of DeepFloyd IF: pixels of 64×64 without a VAE, words by T5, and a variance beside the noise.

The stages that follow make its pictures larger; a gradient needs none of them.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..errors import ModelError
from ..request import GuidanceSettings
from .fitting import chosen_size
from .latents import image_size
from .loading import Loading, check_parts, check_scheduler, check_unet, load_network, load_schedule
from .memory import Tell
from .model_folder import ModelFolder
from .text_encoders import T5_TOKENIZERS, Texts, embeddings, encode_once, open_t5
from .text_guidance import Networks, TextGuidance
from .view_prompts import TextEmbeddings

TOKENS = 77
"""It was trained with so many, though T5 reads more."""
_HINT = "Choose the first stage of DeepFloyd IF (IF-I-…)."
_PARTS = {"tokenizer": T5_TOKENIZERS, "text_encoder": ("T5EncoderModel",), "unet": ("UNet2DConditionModel",)}
_COLOURS = 3


class DeepFloydGuidance(TextGuidance):
    """Score distillation through DeepFloyd IF; see :class:`.text_guidance.TextGuidance`."""

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """What the UNet predicts of the noise; of its channels, the second half is the variance, which is left out."""
        del mask, pooled
        return self.networks.denoiser(noisy, timesteps, tokens, return_dict=False)[0][:, :_COLOURS]


def load(folder: ModelFolder, texts: Texts, settings: GuidanceSettings, how: Loading) -> DeepFloydGuidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build (a later stage).
    """
    check_parts(folder, _PARTS)
    check_scheduler(folder, _HINT)
    text = encode_once(folder, how, texts, lambda tell: encode_texts(folder, texts, how, tell))
    dtype = how.dtype(torch.float16)
    unet = load_network(folder, "unet", UNet2DConditionModel, {"dtype": dtype}, how.loras)
    check_unet(folder, unet, _HINT, {"addition_embed_type": "text", "encoder_hid_dim_type": "text_proj"})
    config = unet.config
    if config.in_channels != _COLOURS or config.out_channels not in (_COLOURS, 2 * _COLOURS):
        raise ModelError(
            f"The unet of {folder.path} takes {config.in_channels} channels, not the three colours.", _HINT
        )
    if text.views.shape[-1] != (config.encoder_hid_dim or config.cross_attention_dim):
        raise ModelError(f"The unet of {folder.path} does not fit its text encoder.", "Copy the model anew.")
    size = chosen_size(image_size(unet, None), 2 ** (len(config.block_out_channels) - 1), how)
    networks = Networks(None, unet, load_schedule(folder, how.device), image_size=size)
    return DeepFloydGuidance(networks, text.to(how.device, dtype), settings, how.tell)


def encode_texts(folder: ModelFolder, texts: Texts, how: Loading, tell: Tell) -> TextEmbeddings:
    """What T5 says of the texts, in lower case as in training; float32."""
    return embeddings(open_t5(folder, how, TOKENS).ask(texts.lower(), tell, mask=True).last)
