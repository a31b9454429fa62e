"""A folder of every family of models, small enough for tests: true configuration and layout, random weights.

Each is what its pipeline of diffusers writes: the real classes, schedulers and predictions, and widths of 8 to 32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as untyped_diffusers
import torch
import transformers as untyped_transformers

from tests.unit.tiny_model import WORDS, tokenizer_of

diffusers: Any = untyped_diffusers
transformers: Any = untyped_transformers
CLIP_TOKENS = 77
WIDTH = 16
SECOND = 24
"""Width of a second CLIP; the true ones differ too, and their single files tell them apart by it."""
DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer() -> Any:
    vocabulary, merges = tokenizer_of(WORDS)
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def clip(kind: str = "CLIPTextModel", width: int = WIDTH, projection: int = WIDTH) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer_of(WORDS)[0]), hidden_size=width, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=CLIP_TOKENS, projection_dim=projection,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def t5_tokenizer(length: int) -> Any:
    letters = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = [("▁" + word, -1.0) for word in WORDS if word != ","]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words, ("▁", -3.0), (",", -1.0), *letters]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=length)


def t5(width: int) -> Any:
    config = transformers.T5Config(
        vocab_size=48, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return transformers.T5EncoderModel(config)


def vae(channels: int = 4, **more: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, sample_size=16, **more,
    )  # fmt: skip


def unet(**more: Any) -> Any:
    shape = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": WIDTH,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 4, "norm_num_groups": 4,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**shape, **more})


def stable_diffusion(scheduler: Any, **more: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=vae(scaling_factor=0.18215), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet(**more),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sd15() -> Any:
    """1.5: ε, one head of attention width for all blocks, PNDM."""
    return stable_diffusion(
        diffusers.PNDMScheduler(**DIFFUSION, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    )


def sd21() -> Any:
    """2.1: v, linear projections, heads by block, DDIM."""
    scheduler = diffusers.DDIMScheduler(
        **DIFFUSION, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    return stable_diffusion(scheduler, attention_head_dim=(2, 4), use_linear_projection=True)


def sd21_zero_snr() -> Any:
    """A fine-tune whose schedule ends without any signal (arXiv 2305.08891)."""
    scheduler = diffusers.DDIMScheduler(
        **DIFFUSION, prediction_type="v_prediction", clip_sample=False, rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )  # fmt: skip
    return stable_diffusion(scheduler, attention_head_dim=(2, 4), use_linear_projection=True)


def sd_sample() -> Any:
    """A model that predicts the clean latents."""
    return stable_diffusion(diffusers.DDIMScheduler(**DIFFUSION, prediction_type="sample", clip_sample=False))


def sdxl() -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025), text_encoder=clip(), tokenizer=clip_tokenizer(),
        text_encoder_2=clip("CLIPTextModelWithProjection", SECOND, SECOND), tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=WIDTH + SECOND, attention_head_dim=(2, 4), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=6 * 8 + SECOND,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(**DIFFUSION, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip


def deepfloyd() -> Any:
    return diffusers.IFPipeline(
        tokenizer=t5_tokenizer(77), text_encoder=t5(24),
        unet=diffusers.UNet2DConditionModel(
            sample_size=16, in_channels=3, out_channels=6, block_out_channels=(8, 16), layers_per_block=1,
            cross_attention_dim=32, encoder_hid_dim=24, encoder_hid_dim_type="text_proj",
            addition_embed_type="text", addition_embed_type_num_heads=2, norm_num_groups=4, act_fn="gelu",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), attention_head_dim=4,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_norm="group_norm",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), resnet_time_scale_shift="scale_shift",
        ),
        scheduler=diffusers.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, sample_max_value=1.5,
            dynamic_thresholding_ratio=0.95,
        ),
        safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False,
    )  # fmt: skip


def sd3(*, with_t5: bool = True) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=40, caption_projection_dim=16, pos_embed_max_size=16,
            pooled_projection_dim=WIDTH + SECOND,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip("CLIPTextModelWithProjection"), tokenizer=clip_tokenizer(),
        text_encoder_2=clip("CLIPTextModelWithProjection", SECOND, SECOND), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(40) if with_t5 else None, tokenizer_3=t5_tokenizer(256) if with_t5 else None,
    )  # fmt: skip


def sd3_without_t5() -> Any:
    return sd3(with_t5=False)


def flux(*, guidance_embeds: bool = True) -> Any:
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds, base_shift=0.5, max_shift=1.15,
            base_image_seq_len=256, max_image_seq_len=4096,
        ),
        vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=t5(24), tokenizer_2=t5_tokenizer(512),
    )  # fmt: skip


def flux_schnell() -> Any:
    return flux(guidance_embeds=False)


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd15": sd15, "sd21": sd21, "sd21 zero-snr": sd21_zero_snr, "sd sample": sd_sample, "sdxl": sdxl, "if": deepfloyd,
    "sd3": sd3, "sd3 without t5": sd3_without_t5, "flux dev": flux, "flux schnell": flux_schnell,
}  # fmt: skip


def make(name: str) -> Any:
    """The pipeline of a family with random weights, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = FAMILIES[name]()
        # Flow models' last layers start at zero: a model that says nothing would prove nothing.
        for part in ("unet", "transformer"):
            network = getattr(pipe, part, None)
            for parameter in [] if network is None else network.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
    return pipe


def write(name: str, folder: Path) -> Path:
    """Write a family's folder as its pipeline does."""
    make(name).save_pretrained(folder)
    return folder
