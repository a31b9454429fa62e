"""Networks and noise schedules out of a checked model folder; what of them every family needs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from ..devices import computes_bfloat16, dtype_of
from ..errors import ModelError
from ..request import LoadingSettings
from .distillation import NoiseSchedule
from .lora import Lora, add_loras
from .memory import Tell, silent
from .model_folder import ModelFolder, check_part, open_folder, weights_variant

_PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, and who is told."""

    device: torch.device
    settings: LoadingSettings = field(default_factory=LoadingSettings)
    allow_download: bool = False
    tell: Tell = silent
    loras: tuple[Lora, ...] = ()
    light: bool = False
    """Whether the denoiser may be in bfloat16 on a CPU that computes in it (see :meth:`denoiser_dtype`)."""

    def denoiser_dtype(self, half: torch.dtype) -> torch.dtype:
        """As :meth:`dtype`, for a denoiser alone, which needs no gradient."""
        if self.light and self.settings.precision == "auto" and computes_bfloat16(self.device):
            return torch.bfloat16
        return self.dtype(half)

    def dtype(self, half: torch.dtype) -> torch.dtype:
        """The networks' dtype; ``half`` is the family's own half precision."""
        return dtype_of(self.settings.precision, self.device, half)


def loaded(folder: ModelFolder, part: str, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; whatever it raises becomes a ModelError that names the part."""
    # The libraries' errors share no base class (the tokenizers' Rust core raises bare Exception), hence the wide net.
    try:
        return read()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(f"The {part} of {folder.path} cannot be loaded ({reason}).", "Copy the model anew.") from error


def load_network(
    folder: ModelFolder, part: str, kind: Any, options: dict[str, Any], loras: tuple[Lora, ...] = ()
) -> Any:
    """A frozen network from its safetensors weights; ModelError if one is missing (libraries invent random ones)."""
    variant = weights_variant(folder, part)

    def read() -> Any:
        return kind.from_pretrained(
            folder.place(part),
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            output_loading_info=True,
            **options,
        )

    network, info = loaded(folder, part, read)
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        raise ModelError(
            f"The {part} of {folder.path} lacks {len(missing)} of its weights ({missing[0]}, …).",
            "Copy the model anew.",
        )
    add_loras(loras, part, network)
    if network.dtype != torch.bfloat16:  # in which the CPU's convolutions are slower for it
        network.to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def load_vae(folder: ModelFolder, kind: Any, dtype: torch.dtype, how: Loading, channels: int) -> Any:
    """The model's VAE, or the tiny one that is asked for; ModelError if its latents have not ``channels`` channels.

    A tiny VAE is an AutoencoderTiny in a folder of its own, or in the subfolder ``vae``.
    """
    if not how.settings.tiny_vae:
        return load_network(folder, "vae", kind, {"dtype": dtype}).to(how.device)
    tiny = open_folder(how.settings.tiny_vae, "tiny_vae", ("AutoencoderTiny",), how.allow_download, how.tell)
    vae = load_network(tiny, "", AutoencoderTiny, {"dtype": dtype}).to(how.device)
    if vae.config.latent_channels != channels:
        raise ModelError(
            f"The tiny VAE in {tiny.path} makes {vae.config.latent_channels} channels, the model takes {channels}.",
            "Choose the tiny VAE of this model's family.",
        )
    how.tell("The tiny VAE stands in for the model's own: faster, with a gradient that is only like it.")
    return vae


def load_schedule(folder: ModelFolder, device: torch.device) -> NoiseSchedule:
    """The noise schedule a diffusion model was trained on; ModelError for one that is not known here."""
    # Whatever sampler the folder names, its noise schedule is fixed by the same entries (betas) of its config.
    scheduler: Any = loaded(folder, "scheduler", lambda: DDPMScheduler.from_pretrained(folder.place("scheduler")))
    kind = scheduler.config.prediction_type
    if kind not in _PREDICTION_TYPES:
        raise ModelError(f"The model in {folder.path} predicts {kind!r}.", f"Known are {', '.join(_PREDICTION_TYPES)}.")
    alphas = scheduler.alphas_cumprod
    if kind == "epsilon" and float(alphas[-1]) == 0.0:
        raise ModelError(
            f"The model in {folder.path} predicts ε on a schedule that ends without any signal.",
            "Set rescale_betas_zero_snr to false in its scheduler_config.json, or choose another model.",
        )
    return NoiseSchedule(alphas.to(device, torch.float32), kind)


def load_flow(folder: ModelFolder, device: torch.device, tokens: int) -> NoiseSchedule:
    """The σ of a flow-matching model, shifted for pictures of ``tokens`` tokens (arXiv 2403.03206, section 5.3.2)."""
    place = folder.place("scheduler")
    scheduler: Any = loaded(folder, "scheduler", lambda: FlowMatchEulerDiscreteScheduler.from_pretrained(place))
    config = scheduler.config
    if config.use_dynamic_shifting:
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        shift = config.base_shift + slope * (tokens - config.base_image_seq_len)
        steps = config.num_train_timesteps
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=shift)
    falling = scheduler.sigmas[: config.num_train_timesteps]
    return NoiseSchedule.flow(falling.flip(0).to(device, torch.float32))


def check_parts(folder: ModelFolder, parts: Mapping[str, tuple[str, ...]]) -> None:
    """Check that every one of ``parts`` is there and of one of its classes; ModelError says which is not."""
    for part, classes in parts.items():
        check_part(folder, part, classes)


def check_scheduler(folder: ModelFolder, hint: str, *, flow: bool = False) -> None:
    """Check that there is a scheduler, known, of a diffusion or of a ``flow``; ModelError with ``hint`` else."""
    scheduler = folder.classes.get("scheduler", "")
    check_part(folder, "scheduler", (scheduler,))
    kind: Any = getattr(diffusers, scheduler, None)
    if "FlowMatch" in scheduler and not flow:
        raise ModelError(f"{folder.path} is a flow-matching model.", hint)
    if flow and kind is not FlowMatchEulerDiscreteScheduler:
        raise ModelError(f"The scheduler of {folder.path} is a {scheduler}, no flow-matching one.", hint)
    if kind is None or not (flow or "beta_schedule" in inspect.signature(kind.__init__).parameters):
        raise ModelError(
            f"The scheduler of {folder.path}, {scheduler}, is not known here.",
            "Write a scheduler with a beta_schedule, such as DDIMScheduler, into its model_index.json and its folder.",
        )


def check_unet(folder: ModelFolder, unet: Any, hint: str, known: Mapping[str, str] | None = None) -> None:
    """Check that a UNet wants nothing beside latents, timesteps and tokens but ``known``; ModelError with ``hint``."""
    config, known = unet.config, known or {}
    names = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type")
    asks = [name for name in names if config.get(name) and config.get(name) != known.get(name)]
    if asks:
        raise ModelError(f"The unet of {folder.path} wants {asks[0]} ({config[asks[0]]}).", hint)


def check_width(folder: ModelFolder, name: str, width: int, wanted: int) -> None:
    """ModelError unless the texts' ``width`` is what the denoiser called ``name`` wants."""
    if width != wanted:
        raise ModelError(
            f"The {name} of {folder.path} does not fit its text encoder (width {width}).", "Copy the model anew."
        )


@contextlib.contextmanager
def quiet() -> Generator[None]:
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
