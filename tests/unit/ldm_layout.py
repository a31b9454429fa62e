"""Stable Diffusion's parts under the names of its first code (CompVis), as fine-tunes in one file still have them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

_RESNET = (
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
)  # fmt: skip
_OUTSIDE = (
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
)  # fmt: skip
_ATTENTION = (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))


def _renamed(name: str, pairs: Any) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def unet_name(name: str, unet: Any) -> str:
    layers, ups = unet.config.layers_per_block, unet.config.up_block_types
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name):
        side, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            inner = 2 if "CrossAttn" in ups[block] else 1
            return f"output_blocks.{(layers + 1) * block + layers}.{inner}.{rest}"
        place = f"input_blocks.{(layers + 1) * block + index + 1}" if side == "down" else None
        place = place or f"output_blocks.{(layers + 1) * block + index}"
        return f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{_renamed(rest, _RESNET)}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        if match[1] == "attentions":
            return f"middle_block.1.{match[3]}"
        return f"middle_block.{2 * int(match[2])}.{_renamed(match[3], _RESNET)}"
    return next(name.replace(old, new) for old, new in _OUTSIDE if name.startswith(old + "."))


def vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.compile(r"up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)")
    name = up.sub(
        lambda m: f"up.{blocks - 1 - int(m[1])}." + (f"block.{m[3]}" if m[3] is not None else "upsample"), name
    )
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        head, rest = name.split("mid_block.attentions.0.")
        name = f"{head}mid.attn_1.{_renamed(rest, _ATTENTION)}"
    return name


def unet_weights(pipe: Any) -> dict[str, Tensor]:
    """A pipeline's UNet."""
    return {
        f"model.diffusion_model.{unet_name(name, pipe.unet)}": value for name, value in pipe.unet.state_dict().items()
    }


def vae_weights(pipe: Any) -> dict[str, Tensor]:
    """A pipeline's VAE."""
    weights: dict[str, Tensor] = {}
    for name, value in pipe.vae.state_dict().items():
        new = vae_name(name, len(pipe.vae.config.block_out_channels))
        conv = ".attn_1." in new and value.ndim == 2
        weights[f"first_stage_model.{new}"] = value[..., None, None] if conv else value
    return weights


def clip_weights(model: Any, prefix: str) -> dict[str, Tensor]:
    """A CLIP text encoder in the names of transformers' first releases."""
    outside = ("text_model.", "text_projection.")
    return {
        prefix + (name if name.startswith(outside) else f"text_model.{name}"): value
        for name, value in model.state_dict().items()
    }


def write_checkpoint(pipe: Any, path: Path, *, half: bool = False) -> Path:
    """A Stable Diffusion 1.x pipeline as one .safetensors file in its first layout."""
    weights = {**unet_weights(pipe), **vae_weights(pipe)}
    weights |= clip_weights(pipe.text_encoder, "cond_stage_model.transformer.")
    save_file({key: (v.half() if half else v).contiguous() for key, v in weights.items()}, path)
    return path
