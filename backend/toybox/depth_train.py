"""Trains Toybox's depth model: ``python -m backend.toybox.depth_train --out FOLDER`` (resumable).

Stages, each skipped when its result lies in FOLDER: views of random objects with their depth and normals; the network;
and the model folder in fp16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..guidance.model_folder import BUILT_IN_FOLDER
from .depth_dataset import DepthBatches, DepthViews, kept_depth_views
from .depth_model import DepthNetwork, save_depth_folder
from .kept import tell
from .team import BaseRecipe, Team, fit, launch, precision, read_command
from .true_maps import map_errors


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """How the model is trained; the shipped weights' values are in their model card."""

    objects: int = 12_000
    seed: int = 21
    batch: int = 64
    minutes: float = 30.0
    learning_rate: float = 1e-3
    normal: float = 0.5
    """Weight of 1 − the cosine to the true normals, beside the depth's error about each picture's mean, in radii."""
    place: float = 0.2
    """Weight of the depth's error itself: how far away the whole is, no picture tells well."""


def train_depth(batches: DepthBatches, recipe: Recipe, start: Path, out: Path, team: Team) -> Any:
    """From the text model's UNet; returns the averaged one."""
    torch.manual_seed(recipe.seed + 1)
    network = DepthNetwork(start).to(batches.device)
    network.patches = network.patches.to(batches.device)

    def loss_at(_: float) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = batches.draw(recipe.batch // team.size)
        with precision(batches.device):
            latents = network(pairs.pictures)
        far, shape, turned = map_errors(*network.maps(latents), pairs.maps)
        loss = recipe.place * far + shape + recipe.normal * turned
        return loss, {"depth": far.detach(), "shape": shape.detach(), "normal": turned.detach()}

    fit(loss_at, list(network.parameters()), {"unet": network.unet}, recipe.course, out / "depth.pt", team)
    return network.unet


def load_depth_views(out: Path, recipe: Recipe) -> DepthViews:
    """The training set, rendered once and kept in ``out``."""
    return kept_depth_views(out / "views", recipe.objects, recipe.seed, recipe.workers, tell)


def main() -> None:
    """The command line."""
    told = "the text model whose UNet it begins as"
    out, start, device, recipe = read_command(__doc__, Recipe, BUILT_IN_FOLDER, told)
    load_depth_views(out, recipe)
    launch(_train, recipe.processes, out, start, device, recipe)


def _train(team: Team, out: Path, start: Path, device: torch.device, recipe: Recipe) -> None:
    torch.backends.cudnn.benchmark = True
    batches = DepthBatches(load_depth_views(out, recipe), device, recipe.seed + 1000 * team.rank)
    unet = train_depth(batches, recipe, start, out, team)
    if team.leads:
        save_depth_folder(out / "weights", unet.cpu())


if __name__ == "__main__":
    main()
