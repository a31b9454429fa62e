"""Toybox's networks: an ordinary, small Stable Diffusion pipeline, and how its folder is written.

The libraries' own types do not survive a strict checker, so their objects are ``Any`` here.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..guidance.camera_projection import SUBFOLDER, CameraProjection
from .captions import WORDS, vocabulary

IMAGE_SIZE = 64
LATENT_CHANNELS = 16
TEXT_WIDTH = 128
TEXT_LENGTH = 20


def make_vae() -> Any:
    """Images [B, 3, 64, 64] in [−1, 1] to latents [B, 16, 16, 16]; the encoder is set by :mod:`.encoder`."""
    build: Any = AutoencoderKL
    vae = build(
        block_out_channels=(16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )
    for module in vae.modules():  # residual branches start at nothing: learning is faster at first
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
    return vae


def make_unet(in_channels: int = LATENT_CHANNELS, out_channels: int = LATENT_CHANNELS) -> Any:
    """Denoiser of latents [B, 16, 16, 16], conditioned on tokens [B, any, 128]."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        in_channels=in_channels,
        out_channels=out_channels,
        layers_per_block=1,
        block_out_channels=(48, 96, 160),
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def make_text_encoder(tokenizer: Any) -> Any:
    """Token ids [B, 20] to embeddings [B, 20, 128]."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def read_text_encoder(folder: Path, tokenizer: Any) -> Any:
    """The text encoder of a model's folder for ``tokenizer``: a word that the folder does not know begins at random."""
    encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    old: dict[str, int] = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    new: dict[str, int] = tokenizer.get_vocab()
    if old == new:
        return encoder
    known = encoder.get_input_embeddings().weight.detach().clone()
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = torch.randn(len(tokenizer), TEXT_WIDTH) * known.std()
    for token, row in new.items():
        if token in old:
            rows[row] = known[old[token]]
    encoder.get_input_embeddings().weight.data.copy_(rows)
    return encoder


def make_tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer whose every known word is one token; its two files are written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(set("".join(WORDS)) - {","})
    tokens = ["<|startoftext|>", "<|endoftext|>", ",", ",</w>", *letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in (w for w in WORDS if len(w) > 1):
        pieces = _merged([*word[:-1], f"{word[-1]}</w>"], merges)
        while len(pieces) > 1:  # a later merge ranks lower, so it cannot touch the words before
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
            if pieces[0] not in tokens:
                tokens.append(pieces[0])
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    ends = {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "bos_token": "<|startoftext|>"}
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=TEXT_LENGTH,
        eos_token="<|endoftext|>",
        **ends,
    )


def token_ids(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Ids [N, 20] of texts whose every word is known, as the tokenizer gives them but in a fraction of its time."""
    vocabulary = tokenizer.get_vocab()
    known = {word: vocabulary[f"{word}</w>"] for word in WORDS}
    ids = torch.full((len(texts), TEXT_LENGTH), tokenizer.pad_token_id)
    for row, text in zip(ids.numpy(), texts, strict=True):
        words = text.replace(",", " ,").split()
        row[: len(words) + 1] = [tokenizer.bos_token_id, *(known[word] for word in words)]
    return ids


def _merged(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """What byte-pair encoding makes of a word with these merges, best rank first."""
    rank = {pair: i for i, pair in enumerate(merges)}
    while len(pieces) > 1:
        best = min(itertools.pairwise(pieces), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            break
        at = list(itertools.pairwise(pieces)).index(best)
        pieces = [*pieces[:at], "".join(best), *pieces[at + 2 :]]
    return pieces


def make_scheduler() -> Any:
    """Stable Diffusion's schedule, with v-prediction as in its version 2.1."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def save_folder(
    folder: Path, vae: Any, unet: Any, text_encoder: Any, tokenizer: Any, projection: CameraProjection
) -> None:
    """Write an ordinary StableDiffusionPipeline folder in fp16 safetensors, with the camera projection beside it."""
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415  (warns of what is not used here)

    for part in (vae, unet):
        part.register_to_config(_name_or_path="")  # where it was trained from is nobody's business
    build: Any = StableDiffusionPipeline
    pipeline = build(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    projection.half().save_pretrained(folder / SUBFOLDER)
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=2) + "\n")
