"""Networks and noise schedules out of a checked model folder; what of them every family needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import torch
from diffusers import DDPMScheduler  # pyright: ignore[reportPrivateImportUsage]
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from ..errors import ModelError
from .distillation import NoiseSchedule
from .model_folder import ModelFolder, check_part, weights_variant

_PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def loaded(folder: ModelFolder, part: str, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; whatever it raises becomes a ModelError that names the part."""
    # The libraries' errors share no base class (the tokenizers' Rust core raises bare Exception), hence the wide net.
    try:
        return read()
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(f"The {part} of {folder.path} cannot be loaded ({reason}).", "Copy the model anew.") from error


def load_network(folder: ModelFolder, part: str, kind: Any, options: dict[str, Any]) -> Any:
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
    return network.eval().requires_grad_(False)


def load_schedule(folder: ModelFolder, device: torch.device) -> NoiseSchedule:
    """The noise schedule the model was trained on; ModelError for one that is not known here."""
    # Whatever sampler the folder names, its noise schedule is fixed by the same entries (betas) of its config.
    scheduler: Any = loaded(folder, "scheduler", lambda: DDPMScheduler.from_pretrained(folder.place("scheduler")))
    kind = scheduler.config.prediction_type
    if kind not in _PREDICTION_TYPES:
        raise ModelError(f"The model in {folder.path} predicts {kind!r}.", f"Known are {', '.join(_PREDICTION_TYPES)}.")
    return NoiseSchedule(scheduler.alphas_cumprod.to(device, torch.float32), kind)


def check_scheduler(folder: ModelFolder, hint: str) -> None:
    """Check that there is a scheduler, and that the model is no flow-matching one; ModelError with ``hint`` else."""
    scheduler = folder.classes.get("scheduler", "")
    if "FlowMatch" in scheduler:
        raise ModelError(f"{folder.path} is a flow-matching model.", hint)
    check_part(folder, "scheduler", (scheduler,))


def check_unet(folder: ModelFolder, unet: Any, hint: str) -> None:
    """Check that a UNet wants nothing beside latents, timesteps and tokens; ModelError with ``hint`` if it does."""
    config = unet.config
    asks = [name for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config.get(name)]
    if asks:
        raise ModelError(f"The unet of {folder.path} wants {asks[0]} ({config[asks[0]]}).", hint)


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
