"""Trains Toybox's model of hidden sides: ``python -m backend.toybox.maps_train --out FOLDER`` (resumable).

Stages, each skipped when its result lies in FOLDER: views of random objects; maps of them from below; the networks; and
the model folder in fp16. The views are those of ``view_train``: a link to its folder of them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..guidance.model_folder import BUILT_IN_VIEW_FOLDER
from .kept import tell
from .maps_dataset import MapBatches, kept_below
from .maps_model import MapsNetwork, save_maps_folder
from .team import BaseRecipe, Team, fit, launch, precision, read_command
from .true_maps import map_errors
from .view_train import load_views


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """How the model is trained; the shipped weights' values are in their model card."""

    objects: int = 14_000
    seed: int = 31
    batch: int = 32
    minutes: float = 48.0
    learning_rate: float = 8e-4
    mask: float = 2.0
    """Weight of the mask's cross-entropy, a mean over all pixels, beside that of the depth's error in radii."""
    normal: float = 0.5
    """Weight of 1 − the cosine to the true normals."""


def train_maps(batches: MapBatches, recipe: Recipe, start: Path, out: Path, team: Team) -> MapsNetwork:
    """From a novel-view model; returns the averaged networks."""
    torch.manual_seed(recipe.seed + 1)
    network = MapsNetwork(start).to(batches.device)
    network.patches = network.patches.to(batches.device)

    def loss_at(_: float) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = batches.draw_maps(recipe.batch // team.size)
        with precision(batches.device):
            numbers = network(pairs.references, pairs.poses)
        logits, depth, normals = network.maps(numbers)
        far, shape, turned = map_errors(depth, F.normalize(normals, dim=1), pairs.maps)
        mask = F.binary_cross_entropy_with_logits(logits, pairs.maps.known)
        loss = recipe.mask * mask + far + recipe.normal * turned
        figures = {"mask": mask, "depth": far, "shape": shape, "normal": turned}
        return loss, {name: figure.detach() for name, figure in figures.items()}

    fit(loss_at, list(network.parameters()), {"network": network}, recipe.course, out / "maps.pt", team)
    return network


def load_batches(out: Path, recipe: Recipe, device: torch.device, seed: int = 0) -> MapBatches:
    """The training set, made once and kept in ``out``."""
    below = kept_below(out / "below", recipe.objects, recipe.seed, recipe.workers, tell)
    return MapBatches(load_views(out, recipe), below, device, seed)


def main() -> None:
    """The command line."""
    told = "the novel-view model that it begins as, or a folder of its own to train further"
    out, start, device, recipe = read_command(__doc__, Recipe, BUILT_IN_VIEW_FOLDER, told)
    load_batches(out, recipe, torch.device("cpu"))
    launch(_train, recipe.processes, out, start, device, recipe)


def _train(team: Team, out: Path, start: Path, device: torch.device, recipe: Recipe) -> None:
    torch.backends.cudnn.benchmark = True
    batches = load_batches(out, recipe, device, recipe.seed + 1000 * team.rank)
    network = train_maps(batches, recipe, start, out, team)
    if team.leads:
        save_maps_folder(out / "weights", network.cpu())


if __name__ == "__main__":
    main()
