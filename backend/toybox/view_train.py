"""Trains Toybox's novel-view model: ``python -m backend.toybox.view_train --out FOLDER --start FOLDER`` (resumable).

Stages, each skipped when its result lies in FOLDER: views of random objects; image encoder and projection alone; then
the UNet with them, from the text model's; and the model folder in fp16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.model_folder import BUILT_IN_FOLDER
from .diffusion import noised, posterior_sample, shaping_timesteps
from .encoder import PatchEncoder
from .kept import tell
from .model import LATENT_CHANNELS, TEXT_WIDTH, make_scheduler
from .team import BaseRecipe, Course, Team, fit, launch, precision, read_command
from .view_dataset import ViewBatches, Views, kept_views
from .view_model import ViewDenoiser, make_view_denoiser, save_view_folder, start_from

GLIMPSE = 8
"""Side of the coarse picture that is read out of the token."""


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """How the model is trained; the shipped weights' values are in their model card."""

    objects: int = 10_000
    seed: int = 11
    batch: int = 32
    minutes: float = 120.0
    learning_rate: float = 8e-4
    no_picture: float = 0.1
    """Share of pictures that are not shown, for classifier-free guidance."""
    glimpse_minutes: float = 10.0
    """How long, before all else, image encoder and projection learn to foretell the coarse target; they are a fifth of
    a whole step's cost."""
    glimpse: float = 0.2
    """Weight of that in the rest of the training; see :class:`Glimpse`."""


class Glimpse(nn.Module):
    """Reads the coarse target [B, 16, 8, 8] out of the token, in training alone.

    The token must hold what the object is and how it stands; through the denoiser alone, whose loss is mostly noise,
    the image encoder learns that slowly.
    """

    def __init__(self) -> None:
        super().__init__()
        numbers = LATENT_CHANNELS * GLIMPSE**2
        self.layers = nn.Sequential(nn.Linear(TEXT_WIDTH, 512), nn.SiLU(), nn.Linear(512, numbers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Of tokens [B, 1, 128]."""
        return self.layers(tokens[:, 0]).view(-1, LATENT_CHANNELS, GLIMPSE, GLIMPSE)


def train_tokens(
    nets: ViewDenoiser,
    glimpse: Glimpse,
    batches: ViewBatches,
    patches: PatchEncoder,
    recipe: Recipe,
    out: Path,
    team: Team,
) -> None:
    """What the object is and how it stands, from picture and pose alone."""

    def loss_at(_: float) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = batches.draw(2 * recipe.batch // team.size)
        with precision(batches.device):
            coarse = glimpse(nets.tokens(pairs.references, pairs.poses))
        return F.mse_loss(coarse.float(), _coarse(patches.latents(pairs.targets))), {}

    parts: dict[str, nn.Module] = {
        "image_encoder": nets.image_encoder,
        "clip_camera_projection": nets.projection,
        "glimpse": glimpse,
    }
    parameters = [p for part in parts.values() for p in part.parameters()]
    course = Course(recipe.glimpse_minutes, recipe.learning_rate, recipe.ema, (0.9, 0.99), weight_decay=0.01)
    fit(loss_at, parameters, parts, course, out / "tokens.pt", team)


def _coarse(latents: Tensor) -> Tensor:
    return F.avg_pool2d(latents, latents.shape[-1] // GLIMPSE)


def train_views(batches: ViewBatches, recipe: Recipe, start: Path, out: Path, team: Team) -> ViewDenoiser:
    """The token first, then v-prediction of a view, shown another of the same object. Returns the averaged networks."""
    torch.manual_seed(recipe.seed + 1)
    device = batches.device
    nets, glimpse = make_view_denoiser(), Glimpse()
    patches = start_from(start, nets).to(device)
    parts = {**nets.parts, "glimpse": glimpse}
    for part in parts.values():
        part.to(device)
    if device.type == "cuda":
        nets.unet.to(memory_format=torch.channels_last)
    alphas = make_scheduler().alphas_cumprod.to(device)

    train_tokens(nets, glimpse, batches, patches, recipe, out, team)

    def loss_at(_: float) -> tuple[Tensor, dict[str, Tensor]]:
        return _loss(nets, glimpse, batches, patches, alphas, recipe, recipe.batch // team.size)

    parameters = [p for part in parts.values() for p in part.parameters()]
    fit(loss_at, parameters, parts, recipe.course, out / "views.pt", team)
    return nets


def _loss(
    nets: ViewDenoiser,
    glimpse: Glimpse,
    batches: ViewBatches,
    patches: PatchEncoder,
    alphas: Tensor,
    recipe: Recipe,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    pairs = batches.draw(count)
    clean = posterior_sample(patches, pairs.targets, batches.rng)
    t = shaping_timesteps(count, len(alphas), batches.rng)
    noisy, target = noised(clean, t, alphas, batches.rng)
    shown = (~batches.chance(count, recipe.no_picture)).float()[:, None, None]
    with precision(batches.device):
        tokens = nets.tokens(pairs.references, pairs.poses)
        latents = patches.latents(pairs.references) * shown[..., None]
        predicted = nets.predict(noisy, t, tokens * shown, latents)
        coarse = glimpse(tokens)
    denoising = F.mse_loss(predicted.float(), target)
    reading = F.mse_loss(coarse.float(), _coarse(clean))
    return denoising + recipe.glimpse * reading, {"denoising": denoising.detach(), "glimpse": reading.detach()}


def load_views(out: Path, recipe: BaseRecipe) -> Views:
    """The training set, rendered once and kept in ``out``."""
    return kept_views(out / "views", recipe.objects, recipe.seed, recipe.workers, tell)


def main() -> None:
    """The command line."""
    told = (
        "the text model whose UNet is taken over: a folder of its training, or a model folder (the built-in one); "
        "or the folder of a novel-view model to train further, with --glimpse 0 --glimpse-minutes 0"
    )
    out, start, device, recipe = read_command(__doc__, Recipe, BUILT_IN_FOLDER, told)
    load_views(out, recipe)
    launch(_train, recipe.processes, out, start, device, recipe)


def _train(team: Team, out: Path, start: Path, device: torch.device, recipe: Recipe) -> None:
    torch.backends.cudnn.benchmark = True
    batches = ViewBatches(load_views(out, recipe), device, recipe.seed + 1000 * team.rank)
    nets = train_views(batches, recipe, start, out, team)
    if team.leads:
        for part in nets.parts.values():
            part.cpu()
        save_view_folder(out / "weights", nets)


if __name__ == "__main__":
    main()
