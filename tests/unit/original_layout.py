"""Models as one file in the names of their first code: OpenCLIP, Stable Diffusion 3, FLUX, and whole pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.ldm_layout import clip_weights, unet_weights, vae_weights

Weights = dict[str, Tensor]
_MLP = ("time_text_embed.timestep_embedder", "time_text_embed.text_embedder", "time_text_embed.guidance_embedder")


def _join(state: Weights, into: Weights, name: str, parts: tuple[str, ...]) -> None:
    """Take layers out of ``state`` and put them, one below the other, under one name."""
    for kind in ("weight", "bias"):
        values = [state.pop(f"{part}.{kind}") for part in parts if f"{part}.{kind}" in state]
        if values:
            into[f"{name}.{kind}"] = torch.cat(values)


def _swap(value: Tensor) -> Tensor:
    """Diffusers' scale and shift the other way round."""
    scale, shift = value.chunk(2)
    return torch.cat([shift, scale])


def _rename(state: Weights, into: Weights, names: dict[str, str], *, swap: bool = False) -> None:
    for old, new in names.items():
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in state:
                value = state.pop(f"{old}.{kind}")
                into[f"{new}.{kind}"] = _swap(value) if swap else value


def openclip_weights(model: Any, prefix: str) -> Weights:
    """A CLIP text encoder of transformers as OpenCLIP's."""
    state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    found: Weights = {}
    for layer in range(model.config.num_hidden_layers):
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        attention: Weights = {}
        _join(state, attention, "in_proj", tuple(f"{old}.self_attn.{each}_proj" for each in "qkv"))
        found |= {f"{new}.attn.{name.replace('.', '_')}": value for name, value in attention.items()}
        parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
        parts["self_attn.out_proj"] = "attn.out_proj"
        _rename(state, found, {f"{old}.{a}": f"{new}.{b}" for a, b in parts.items()})
    _rename(state, found, {"final_layer_norm": "ln_final", "embeddings.token_embedding": "token_embedding"})
    found["positional_embedding"] = state.pop("embeddings.position_embedding.weight")
    if "text_projection.weight" in state:
        found["text_projection"] = state.pop("text_projection.weight").T
    assert not state, state.keys()
    return {prefix + name: value for name, value in found.items()}


def sd3_weights(model: Any) -> Weights:
    """Stable Diffusion 3's transformer as in its first code."""
    state, found = dict(model.state_dict()), {}
    for index in range(model.config.num_layers):
        old, new = f"transformer_blocks.{index}", f"joint_blocks.{index}"
        _join(state, found, f"{new}.x_block.attn.qkv", tuple(f"{old}.attn.to_{each}" for each in "qkv"))
        added = tuple(f"{old}.attn.add_{each}_proj" for each in "qkv")
        _join(state, found, f"{new}.context_block.attn.qkv", added)
        names = {"attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj"}
        names |= {"ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2"}
        names |= {"ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2"}
        names["norm1.linear"] = "x_block.adaLN_modulation.1"
        _rename(state, found, {f"{old}.{a}": f"{new}.{b}" for a, b in names.items()})
        last = index == model.config.num_layers - 1
        context = {f"{old}.norm1_context.linear": f"{new}.context_block.adaLN_modulation.1"}
        _rename(state, found, context, swap=last)
    heads: dict[str, str] = {}
    for part, name in zip(_MLP, ("t_embedder", "y_embedder"), strict=False):
        heads |= {f"{part}.linear_1": f"{name}.mlp.0", f"{part}.linear_2": f"{name}.mlp.2"}
    heads |= {"pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder"}
    _rename(state, found, {**heads, "proj_out": "final_layer.linear"})
    _rename(state, found, {"norm_out.linear": "final_layer.adaLN_modulation.1"}, swap=True)
    found["pos_embed"] = state.pop("pos_embed.pos_embed")
    assert not state, state.keys()
    return found


def flux_weights(model: Any) -> Weights:
    """FLUX's transformer as in its first code."""
    state, found = dict(model.state_dict()), {}
    for index in range(model.config.num_layers):
        old, new = f"transformer_blocks.{index}", f"double_blocks.{index}"
        for side, names in (("img", "to_{}"), ("txt", "add_{}_proj")):
            layers = tuple(f"{old}.attn.{names.format(each)}" for each in "qkv")
            _join(state, found, f"{new}.{side}_attn.qkv", layers)
        parts = {"norm1.linear": "img_mod.lin", "norm1_context.linear": "txt_mod.lin"}
        parts |= {"ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2"}
        parts |= {"ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2"}
        parts |= {"attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj"}
        _rename(state, found, {f"{old}.{a}": f"{new}.{b}" for a, b in parts.items()})
        norms = {"norm_q": "img_attn.norm.query_norm", "norm_k": "img_attn.norm.key_norm"}
        norms |= {"norm_added_q": "txt_attn.norm.query_norm", "norm_added_k": "txt_attn.norm.key_norm"}
        for norm, name in norms.items():
            found[f"{new}.{name}.scale"] = state.pop(f"{old}.attn.{norm}.weight")
    for index in range(model.config.num_single_layers):
        old, new = f"single_transformer_blocks.{index}", f"single_blocks.{index}"
        layers = (*(f"{old}.attn.to_{each}" for each in "qkv"), f"{old}.proj_mlp")
        _join(state, found, f"{new}.linear1", layers)
        _rename(state, found, {f"{old}.norm.linear": f"{new}.modulation.lin", f"{old}.proj_out": f"{new}.linear2"})
        for each, name in (("q", "query"), ("k", "key")):
            found[f"{new}.norm.{name}_norm.scale"] = state.pop(f"{old}.attn.norm_{each}.weight")
    for part, name in zip(_MLP, ("time_in", "vector_in", "guidance_in"), strict=True):
        _rename(state, found, {f"{part}.linear_1": f"{name}.in_layer", f"{part}.linear_2": f"{name}.out_layer"})
    _rename(state, found, {"context_embedder": "txt_in", "x_embedder": "img_in", "proj_out": "final_layer.linear"})
    _rename(state, found, {"norm_out.linear": "final_layer.adaLN_modulation.1"}, swap=True)
    assert not state, state.keys()
    return found


def _prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def _t5(model: Any) -> Weights:
    """Without the copy of its first layer that transformers makes."""
    own = {name: value for name, value in model.state_dict().items() if name != "encoder.embed_tokens.weight"}
    return _prefixed("text_encoders.t5xxl.transformer.", own)


def whole_file(pipe: Any) -> Weights:
    """Every weight of a pipeline as its family's single files name them."""
    kind = type(pipe).__name__
    if kind == "StableDiffusionPipeline":
        text = openclip_weights(pipe.text_encoder, "cond_stage_model.model.")
        return {**unet_weights(pipe), **vae_weights(pipe), **text}
    if kind == "StableDiffusionXLPipeline":
        first = clip_weights(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        second = openclip_weights(pipe.text_encoder_2, "conditioner.embedders.1.model.")
        return {**unet_weights(pipe), **vae_weights(pipe), **first, **second}
    first = clip_weights(pipe.text_encoder, "text_encoders.clip_l.transformer.")
    if kind == "StableDiffusion3Pipeline":
        main, t5 = sd3_weights(pipe.transformer), pipe.text_encoder_3
        first |= clip_weights(pipe.text_encoder_2, "text_encoders.clip_g.transformer.")
    else:
        main, t5 = flux_weights(pipe.transformer), pipe.text_encoder_2
    others = {} if t5 is None else _t5(t5)
    return {**_prefixed("model.diffusion_model.", main), **vae_weights(pipe), **first, **others}


def write_whole(pipe: Any, path: Path, dtype: torch.dtype | None = None) -> Path:
    """Write a pipeline as one .safetensors file; with ``dtype`` its denoiser and text encoders in that."""
    weights = whole_file(pipe)
    cast = {key: value if dtype is None or "first_stage" in key else value.to(dtype) for key, value in weights.items()}
    save_file({key: value.contiguous() for key, value in cast.items()}, path)
    return path
