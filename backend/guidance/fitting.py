"""Whether a denoiser and a VAE belong together, and how large the pictures are that they are shown."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from .latents import fitting_side
from .loading import Loading
from .model_folder import ModelFolder


def check_channels(folder: ModelFolder, unet: Any, vae: Any) -> None:
    """ModelError for a UNet that is not shown exactly the VAE's latents."""
    config, channels = unet.config, vae.config.latent_channels
    if config.in_channels != channels or config.out_channels != channels:
        raise ModelError(
            f"The unet of {folder.path} takes {config.in_channels} channels, its vae makes {channels}.",
            "Choose a text-to-image model (inpainting and depth models take more).",
        )


def chosen_size(own: tuple[int, int], cell: int, how: Loading) -> tuple[int, int]:
    """Height and width of the pictures shown: the model's ``own``, or those asked for in cells of ``cell`` pixels."""
    side = how.settings.image_size
    if not side:
        return own
    fitting = fitting_side(side, cell)
    if fitting != side:
        how.tell(f"Pictures of {fitting}×{fitting} are shown to the model, which takes multiples of {cell} pixels.")
    return fitting, fitting
