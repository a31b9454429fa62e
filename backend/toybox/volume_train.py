"""Trains Toybox's model of whole shapes: ``python -m backend.toybox.volume_train --out FOLDER`` (resumable).

Stages, each skipped when its result lies in FOLDER: views of random objects; the space before their cameras; the
networks; and the model folder in fp16. The views are those of ``view_train``: a link to its folder of them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..guidance.model_folder import BUILT_IN_VIEW_FOLDER
from .kept import tell
from .team import BaseRecipe, Team, fit, launch, precision, read_command
from .view_train import load_views
from .volume_dataset import ColumnBatches, kept_columns
from .volume_model import VolumeNetwork, save_volume_folder


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """How the model is trained; the shipped weights' values are in their model card."""

    objects: int = 14_000
    seed: int = 31
    batch: int = 32
    minutes: float = 75.0
    learning_rate: float = 8e-4


def train_volume(batches: ColumnBatches, recipe: Recipe, start: Path, out: Path, team: Team) -> VolumeNetwork:
    """From a novel-view model; returns the averaged networks."""
    torch.manual_seed(recipe.seed + 1)
    network = VolumeNetwork(start).to(batches.device)
    network.patches = network.patches.to(batches.device)

    def loss_at(_: float) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = batches.draw_columns(recipe.batch // team.size)
        with precision(batches.device):  # beside the silhouette all is empty, and the picture says so itself
            columns = network.columns(pairs.pictures, pairs.poses, pairs.seen).float()
        loss = F.binary_cross_entropy_with_logits(columns, pairs.filled)
        found, true = columns.detach() > 0, pairs.filled > 0
        overlap = (found & true).sum() / (found | true).sum()
        return loss, {"overlap": overlap}

    fit(loss_at, list(network.parameters()), {"network": network}, recipe.course, out / "volume.pt", team)
    return network


def load_batches(out: Path, recipe: Recipe, device: torch.device, seed: int = 0) -> ColumnBatches:
    """The training set, made once and kept in ``out``."""
    views = load_views(out, recipe)
    angles = out / "views" / "angles.npy"
    columns = kept_columns(out / "columns", recipe.objects, recipe.seed, angles, recipe.workers, tell)
    return ColumnBatches(views, columns, device, seed)


def main() -> None:
    """The command line."""
    told = "the novel-view model that it begins as, or a folder of its own to train further"
    out, start, device, recipe = read_command(__doc__, Recipe, BUILT_IN_VIEW_FOLDER, told)
    load_batches(out, recipe, torch.device("cpu"))
    launch(_train, recipe.processes, out, start, device, recipe)


def _train(team: Team, out: Path, start: Path, device: torch.device, recipe: Recipe) -> None:
    torch.backends.cudnn.benchmark = True
    batches = load_batches(out, recipe, device, recipe.seed + 1000 * team.rank)
    network = train_volume(batches, recipe, start, out, team)
    if team.leads:
        save_volume_folder(out / "weights", network.cpu())


if __name__ == "__main__":
    main()
