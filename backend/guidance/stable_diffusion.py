"""The latent Stable Diffusion family (arXiv 2112.10752): 1.x (predicts ε), 2.x (v), and models of the same build.

Everything is read from a folder in the layout of diffusers; nothing here depends on which model it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ..errors import ModelError, RequestError
from ..request import GuidanceSettings, RefineSettings
from .camera_projection import SUBFOLDER as CAMERA_SUBFOLDER
from .camera_projection import CameraProjection, camera_features
from .conditioning import Condition, build_condition, guided_noise, inversion_noise
from .distillation import NoiseSchedule, score_gradient
from .interface import GuidanceResult
from .latents import decode, encode, image_size, judged, resized
from .loading import check_scheduler, check_unet, load_network, load_schedule, loaded, quiet
from .model_folder import ModelFolder, check_part
from .repaint import repaint
from .view_prompts import TextEmbeddings, view_prompts
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..cameras import CameraBatch

_TEXTS = 32
"""Texts that are encoded at once: every camera may have a prompt of its own."""
_HINT = "Choose a Stable Diffusion 1.x or 2.x model."


@dataclass(frozen=True)
class Networks:
    """The frozen parts of a model that every step uses."""

    vae: Any
    """diffusers' AutoencoderKL."""
    unet: Any
    """diffusers' UNet2DConditionModel."""
    schedule: NoiseSchedule
    camera: CameraProjection | None
    """None if the model was not trained to know the camera, or is not to be told."""


class StableDiffusionGuidance:
    """Score distillation through a latent diffusion model; see :class:`.interface.Guidance`.

    Networks run in float16 on CUDA and in float32 elsewhere; losses and guidance arithmetic are always float32.
    """

    def __init__(self, networks: Networks, text: TextEmbeddings, settings: GuidanceSettings) -> None:
        if settings.perp_neg == "auto" and networks.camera is not None:
            settings = dataclasses.replace(settings, perp_neg="off")
        self.networks, self.text, self.settings = networks, text, settings
        self.dtype, self.device = networks.unet.dtype, networks.unet.device
        self.image_size = image_size(networks.unet, networks.vae)
        """Height and width of the images the model was trained on."""

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Latents [B, C, h, w] float32 of ``images`` [B, 3, H, W] (sRGB in [0, 1]), differentiable.

        One sample of the encoder's distribution, drawn with ``generator``, as the model saw them in training.
        """
        return encode(self.networks.vae, resized(images, self.image_size), generator)

    def condition(self, cameras: CameraBatch) -> Condition:
        """What the network is asked about views from ``cameras``."""
        camera_tokens = None
        if self.networks.camera is not None:
            features = torch.as_tensor(camera_features(cameras), device=self.device, dtype=self.dtype)
            camera_tokens = self.networks.camera(features)
        return build_condition(
            self.text, cameras.azimuth, cameras.elevation, self.settings, camera_tokens, cameras.prompt
        )

    def predict_noise(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """The noise [R, C, h, w] float32 that the UNet sees in ``noisy``; see :data:`.conditioning.NoiseNetwork`."""
        output = self.networks.unet(
            noisy.to(self.dtype), timesteps, tokens, encoder_attention_mask=mask, return_dict=False
        )[0]
        return self.networks.schedule.noise_of(output.float(), noisy, timesteps)

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        """The score distillation gradient by ``images``; see :meth:`.interface.Guidance.gradient`.

        Images of any size are resized to the model's own. The gradient has the images' device.
        """
        images = images.detach().float().requires_grad_(True)
        latents = self.encode(images.to(self.device), generator)
        with torch.inference_mode():
            condition = self.condition(cameras)

            def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return guided_noise(self.predict_noise, noisy, timesteps, condition, self.settings)

            def invert(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return inversion_noise(self.predict_noise, noisy, timesteps, condition, self.settings)

            schedule = self.networks.schedule
            score = score_gradient(latents, predict, schedule, self.settings, progress, generator, invert)
        return judged(images, latents, score, len(condition.tokens))

    @torch.inference_mode()
    def repaint(
        self,
        images: Tensor,
        cameras: CameraBatch,
        strength: float,
        settings: RefineSettings,
        generator: torch.Generator,
    ) -> Tensor:
        """See :meth:`.interface.Painter.repaint`; guided as the distillation is, at scales of its own."""
        scales = {"guidance_scale": settings.guidance_scale, "camera_scale": settings.camera_scale}
        guidance = dataclasses.replace(self.settings, **scales)
        condition = self.condition(cameras)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return guided_noise(self.predict_noise, noisy, timesteps, condition, guidance)

        latents = self.encode(images.float().to(self.device), generator)
        steps = settings.sampling_steps
        painted = repaint(latents, predict, self.networks.schedule, strength, steps, generator)
        size = (images.shape[-2], images.shape[-1])
        return resized(decode(self.networks.vae, painted), size).clamp(0.0, 1.0).to(images.device)


def load(
    folder: ModelFolder,
    prompt: str,
    negative_prompt: str,
    settings: GuidanceSettings,
    device: torch.device,
    camera_prompts: Sequence[str] = (),
) -> StableDiffusionGuidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build, VocabularyError for a prompt with a
    word the model does not know, and RequestError for a prompt longer than the model can read.
    """
    vocabulary = Vocabulary.read(folder.path)
    if vocabulary is not None:
        for text in (prompt, negative_prompt, *camera_prompts):
            vocabulary.check(text)
    _check_parts(folder)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with quiet():
        text = encode_texts(folder, prompt, negative_prompt, device, camera_prompts)
        networks = _load_networks(folder, settings.camera_conditioning, device, dtype)
    _check_fit(folder, networks, text)
    text = TextEmbeddings(text.views.to(dtype), text.unconditional.to(dtype))
    return StableDiffusionGuidance(networks, text, settings)


def encode_texts(
    folder: ModelFolder, prompt: str, negative_prompt: str, device: torch.device, camera_prompts: Sequence[str] = ()
) -> TextEmbeddings:
    """Encode each prompt's views and the negative prompt, float32; the text encoder is freed afterwards.

    Raises RequestError if a prompt does not fit: its view words stand at the end and would be lost.
    """
    path = folder.path / "tokenizer"
    tokenizer: Any = loaded(folder, "tokenizer", lambda: CLIPTokenizer.from_pretrained(path, local_files_only=True))
    encoder = load_network(folder, "text_encoder", CLIPTextModel, {"dtype": torch.float32}).to(device)
    if len(tokenizer) > encoder.config.vocab_size:
        raise ModelError(f"The tokenizer of {folder.path} does not fit its text encoder.", "Copy the model anew.")
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    texts = [*(text for each in (prompt, *camera_prompts) for text in view_prompts(each)), negative_prompt.strip()]
    longest = max(len(ids) for ids in tokenizer(texts).input_ids)
    if longest > length:
        raise RequestError(
            f"The prompt is too long: with the view words it has {longest} tokens, and the model reads {length}.",
            "Shorten the prompt or the negative prompt.",
        )
    batch = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt").to(device)
    mask = batch.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    masks = [None] * len(texts) if mask is None else mask.split(_TEXTS)
    with torch.no_grad():
        parts = [
            encoder(ids, attention_mask=own)[0] for ids, own in zip(batch.input_ids.split(_TEXTS), masks, strict=False)
        ]
    embeddings = torch.cat(parts)
    return TextEmbeddings(views=embeddings[:-1].clone(), unconditional=embeddings[-1].clone())


def _check_parts(folder: ModelFolder) -> None:
    check_part(folder, "tokenizer", ("CLIPTokenizer", "CLIPTokenizerFast"))
    if not any((folder.path / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty tokenizer without a word.
        raise ModelError(f"The tokenizer of {folder.path} has no vocabulary.", "Copy the whole folder.")
    check_part(folder, "text_encoder", ("CLIPTextModel",))
    check_part(folder, "unet", ("UNet2DConditionModel",))
    check_part(folder, "vae", ("AutoencoderKL",))
    check_scheduler(folder, _HINT)


def _load_networks(folder: ModelFolder, with_camera: bool, device: torch.device, dtype: torch.dtype) -> Networks:
    options = {"torch_dtype": dtype}
    unet = load_network(folder, "unet", UNet2DConditionModel, options).to(device)
    vae = load_network(folder, "vae", AutoencoderKL, options).to(device)
    camera = None
    if with_camera and (folder.path / CAMERA_SUBFOLDER).is_dir():
        camera = CameraProjection.from_pretrained(folder.path / CAMERA_SUBFOLDER)
        camera = camera.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return Networks(vae, unet, load_schedule(folder, device), camera)


def _check_fit(folder: ModelFolder, networks: Networks, text: TextEmbeddings) -> None:
    """Check that the parts belong together, and that the UNet wants nothing that this family does not give."""
    unet, vae = networks.unet.config, networks.vae.config
    check_unet(folder, networks.unet, _HINT)
    if unet.in_channels != vae.latent_channels or unet.out_channels != vae.latent_channels:
        raise ModelError(
            f"The unet of {folder.path} takes {unet.in_channels} channels, its vae makes {vae.latent_channels}.",
            "Choose a text-to-image model (inpainting and depth models take more).",
        )
    width = text.views.shape[-1]
    if unet.cross_attention_dim != width:
        raise ModelError(
            f"The unet of {folder.path} does not fit its text encoder (width {width}).", "Copy the model anew."
        )
    if networks.camera is not None and networks.camera.width != width:
        raise ModelError(
            f"The camera projection of {folder.path} does not fit its text encoder.", "Copy the model anew."
        )
