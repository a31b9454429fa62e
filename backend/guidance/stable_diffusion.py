"""The latent Stable Diffusion family (arXiv 2112.10752): 1.x (predicts ε), 2.x (v), and models of the same build.

Everything is read from a folder in the layout of diffusers; nothing here depends on which model it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from ..errors import ModelError, RequestError
from ..request import GuidanceSettings
from .camera_projection import SUBFOLDER as CAMERA_SUBFOLDER
from .camera_projection import CameraProjection, camera_features
from .conditioning import Condition, build_condition, guided_noise, inversion_noise
from .distillation import DIAGNOSTICS, NoiseSchedule, score_gradient, sds_loss
from .interface import GuidanceResult
from .model_folder import ModelFolder, check_part, weights_variant
from .view_prompts import TextEmbeddings, view_prompts
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..cameras import CameraBatch

_PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


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
        unet, vae = networks.unet, networks.vae
        self.dtype, self.device = unet.dtype, unet.device
        side = unet.config.sample_size
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        height, width = side if isinstance(side, (tuple, list)) else (side, side)
        self.image_size = (int(height) * factor, int(width) * factor)
        """Height and width of the images the model was trained on."""

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Latents [B, C, h, w] float32 of ``images`` [B, 3, H, W] (sRGB in [0, 1]), differentiable.

        One sample of the encoder's distribution, drawn with ``generator``, as the model saw them in training.
        """
        images = resized(images, self.image_size)
        vae = self.networks.vae
        posterior = vae.encode((2.0 * images - 1.0).to(self.dtype)).latent_dist
        mean, spread = posterior.mean.float(), posterior.std.float()
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return (mean + spread * noise - shift) * vae.config.scaling_factor

    def condition(self, cameras: CameraBatch) -> Condition:
        """What the network is asked about views from ``cameras``."""
        camera_tokens = None
        if self.networks.camera is not None:
            features = torch.as_tensor(camera_features(cameras), device=self.device, dtype=self.dtype)
            camera_tokens = self.networks.camera(features)
        return build_condition(self.text, cameras.azimuth, cameras.elevation, self.settings, camera_tokens)

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
        loss = sds_loss(latents, score.gradient)
        (gradient,) = torch.autograd.grad(loss, images)
        numbers = torch.cat([loss.detach().view(1), score.diagnostics]).tolist()
        diagnostics = dict(zip(DIAGNOSTICS, numbers[1:], strict=True))
        return GuidanceResult(gradient, numbers[0], {**diagnostics, "evaluations": float(len(condition.tokens))})


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``images`` [B, C, H, W] at ``size``, bilinear; antialiased where that makes them smaller."""
    if images.shape[-2:] == size:
        return images
    smaller = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    return functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)


def load(
    folder: ModelFolder, prompt: str, negative_prompt: str, settings: GuidanceSettings, device: torch.device
) -> StableDiffusionGuidance:
    """Read a model of this family and encode the texts.

    Raises ModelError for a folder that is incomplete, damaged or of another build, VocabularyError for a prompt with a
    word the model does not know, and RequestError for a prompt longer than the model can read.
    """
    vocabulary = Vocabulary.read(folder.path)
    if vocabulary is not None:
        vocabulary.check(prompt)
        vocabulary.check(negative_prompt)
    _check_parts(folder)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with _quiet():
        text = encode_texts(folder, prompt, negative_prompt, device)
        networks = _load_networks(folder, settings.camera_conditioning, device, dtype)
    _check_fit(folder, networks, text)
    text = TextEmbeddings(text.views.to(dtype), text.unconditional.to(dtype))
    return StableDiffusionGuidance(networks, text, settings)


def encode_texts(folder: ModelFolder, prompt: str, negative_prompt: str, device: torch.device) -> TextEmbeddings:
    """Encode the view prompts and the negative prompt, float32; the text encoder is freed afterwards.

    Raises RequestError if a prompt does not fit: its view words stand at the end and would be lost.
    """
    path = folder.path / "tokenizer"
    tokenizer: Any = _loaded(folder, "tokenizer", lambda: CLIPTokenizer.from_pretrained(path, local_files_only=True))
    encoder = _load_network(folder, "text_encoder", CLIPTextModel, {"dtype": torch.float32}).to(device)
    if len(tokenizer) > encoder.config.vocab_size:
        raise ModelError(f"The tokenizer of {folder.path} does not fit its text encoder.", "Copy the model anew.")
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    texts = [*view_prompts(prompt), negative_prompt.strip()]
    longest = max(len(ids) for ids in tokenizer(texts).input_ids)
    if longest > length:
        raise RequestError(
            f"The prompt is too long: with the view words it has {longest} tokens, and the model reads {length}.",
            "Shorten the prompt or the negative prompt.",
        )
    batch = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt").to(device)
    mask = batch.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    with torch.no_grad():
        embeddings = encoder(batch.input_ids, attention_mask=mask)[0]
    return TextEmbeddings(views=embeddings[:-1].clone(), unconditional=embeddings[-1].clone())


def _check_parts(folder: ModelFolder) -> None:
    check_part(folder, "tokenizer", ("CLIPTokenizer", "CLIPTokenizerFast"))
    if not any((folder.path / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty tokenizer without a word.
        raise ModelError(f"The tokenizer of {folder.path} has no vocabulary.", "Copy the whole folder.")
    check_part(folder, "text_encoder", ("CLIPTextModel",))
    check_part(folder, "unet", ("UNet2DConditionModel",))
    check_part(folder, "vae", ("AutoencoderKL",))
    scheduler = folder.classes.get("scheduler", "")
    if "FlowMatch" in scheduler:
        raise ModelError(f"{folder.path} is a flow-matching model.", "Choose a Stable Diffusion 1.x or 2.x model.")
    check_part(folder, "scheduler", (scheduler,))


def _load_networks(folder: ModelFolder, with_camera: bool, device: torch.device, dtype: torch.dtype) -> Networks:
    options = {"torch_dtype": dtype}
    unet = _load_network(folder, "unet", UNet2DConditionModel, options).to(device)
    vae = _load_network(folder, "vae", AutoencoderKL, options).to(device)
    camera = None
    if with_camera and (folder.path / CAMERA_SUBFOLDER).is_dir():
        camera = CameraProjection.from_pretrained(folder.path / CAMERA_SUBFOLDER)
        camera = camera.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return Networks(vae, unet, _load_schedule(folder, device), camera)


def _load_network(folder: ModelFolder, part: str, kind: Any, options: dict[str, Any]) -> Any:
    """A frozen network from its safetensors weights; ModelError if one is missing (libraries invent random ones)."""
    variant = weights_variant(folder, part)

    def read() -> Any:
        return kind.from_pretrained(
            folder.path / part,
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            output_loading_info=True,
            **options,
        )

    network, info = _loaded(folder, part, read)
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        raise ModelError(
            f"The {part} of {folder.path} lacks {len(missing)} of its weights ({missing[0]}, …).",
            "Copy the model anew.",
        )
    return network.eval().requires_grad_(False)


def _load_schedule(folder: ModelFolder, device: torch.device) -> NoiseSchedule:
    # Whatever sampler the folder names, its noise schedule is fixed by the same entries (betas) of its config.
    scheduler: Any = _loaded(folder, "scheduler", lambda: DDPMScheduler.from_pretrained(folder.path / "scheduler"))
    kind = scheduler.config.prediction_type
    if kind not in _PREDICTION_TYPES:
        raise ModelError(f"The model in {folder.path} predicts {kind!r}.", f"Known are {', '.join(_PREDICTION_TYPES)}.")
    return NoiseSchedule(scheduler.alphas_cumprod.to(device, torch.float32), kind)


def _loaded(folder: ModelFolder, part: str, read: Callable[[], Any]) -> Any:
    # The libraries' errors share no base class (the tokenizers' Rust core raises bare Exception), hence the wide net.
    try:
        return read()
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(f"The {part} of {folder.path} cannot be loaded ({reason}).", "Copy the model anew.") from error


def _check_fit(folder: ModelFolder, networks: Networks, text: TextEmbeddings) -> None:
    """Check that the parts belong together, and that the UNet wants nothing that this family does not give."""
    unet, vae = networks.unet.config, networks.vae.config
    asks = [name for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if unet.get(name)]
    if asks:
        raise ModelError(
            f"The unet of {folder.path} wants {asks[0]} ({unet[asks[0]]}).",
            "Choose a Stable Diffusion 1.x or 2.x model.",
        )
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


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the libraries' progress bars and warnings: what matters of them becomes an error here."""
    states: list[tuple[Any, int, bool]] = []
    for library in (diffusers_logging, transformers_logging):
        module: Any = library
        states.append((module, module.get_verbosity(), module.is_progress_bar_enabled()))
        module.set_verbosity(50)
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, verbosity, bar in states:
            module.set_verbosity(verbosity)
            if bar:
                module.enable_progress_bar()
