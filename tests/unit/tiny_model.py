"""A Stable Diffusion folder small enough for tests: random weights, a dozen words, images of 16×16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers as untyped_diffusers
import torch
import transformers as untyped_transformers

from backend.guidance import load_guidance
from backend.guidance.camera_projection import CameraProjection
from backend.guidance.stable_diffusion import StableDiffusionGuidance
from backend.request import GuidanceSettings

CPU = torch.device("cpu")
diffusers: Any = untyped_diffusers
transformers: Any = untyped_transformers
WORDS = [
    "three",
    "quarter",
    "a",
    "red",
    "blue",
    "duck",
    "car",
    "front",
    "side",
    "back",
    "overhead",
    "view",
    ",",
    "ugly",
]
WIDTH, TOKENS = 32, 12


def tokenizer_of(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary that has each word as one token, and the merges that lead there."""
    tokens, merges = ["<|startoftext|>", "<|endoftext|>"], []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        tokens += parts
        for i in range(1, len(parts)):
            merges.append(("".join(parts[:i]), parts[i]))
            tokens.append("".join(parts[: i + 1]))
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, list(dict.fromkeys(merges))


def make_pipeline() -> Any:
    """A StableDiffusionPipeline with random weights, always the same."""
    vocabulary, merges = tokenizer_of(WORDS)
    text = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=8,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            norm_num_groups=8,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            sample_size=16,
            scaling_factor=0.5,
        )
        encoder = transformers.CLIPTextModel(text)
    return diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, unet=unet,
        tokenizer=transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS),
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def add_camera(folder: Path, width: int = WIDTH) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        CameraProjection(width, n_tokens=2, hidden=8).save_pretrained(folder / "camera_projection")


def load(
    folder: Path,
    settings: GuidanceSettings | None = None,
    prompt: str = "a red duck",
    negative: str = "",
    device: torch.device = CPU,
    **more: Any,
) -> Any:
    guidance = load_guidance(str(folder), prompt, negative, settings or GuidanceSettings(), device, **more)
    assert isinstance(guidance, StableDiffusionGuidance)
    return guidance


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
