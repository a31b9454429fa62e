"""Toybox's model of whole shapes: its training, and what the shipped one knows of objects it never saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backend.guidance.model_folder import BUILT_IN_VIEW_FOLDER
from backend.guidance.view_volume import FOLDER
from backend.toybox import volume_train
from backend.toybox.report import means
from backend.toybox.team import Team
from backend.toybox.view_evaluate import subject
from backend.toybox.view_model import make_view_denoiser, start_from
from backend.toybox.volume_dataset import SLABS
from backend.toybox.volume_evaluate import errors, evaluate, foretold
from backend.toybox.volume_model import VolumeNetwork
from backend.toybox.volume_train import Recipe, load_batches

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def test_it_begins_with_what_the_novel_view_model_knows() -> None:
    network, views = VolumeNetwork(BUILT_IN_VIEW_FOLDER), make_view_denoiser()
    start_from(BUILT_IN_VIEW_FOLDER, views)
    pictures, poses = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 4)
    with torch.no_grad():
        shown = network.patches.latents(pictures)
        both = torch.cat((torch.zeros_like(shown), shown), 1)  # nothing of the noise, and the picture
        torch.testing.assert_close(network.unet.conv_in(shown), views.unet.conv_in(both))
        assert network(pictures, poses).shape == (2, SLABS, 64, 64)


def test_the_head_works_where_something_is_seen() -> None:
    network = VolumeNetwork(BUILT_IN_VIEW_FOLDER)
    pictures, poses = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 4)
    seen = torch.rand(2, 64, 64) < 0.02
    seen[1, :40] = False
    with torch.no_grad():
        everywhere = network(pictures, poses).permute(0, 2, 3, 1)
        torch.testing.assert_close(network.columns(pictures, poses, seen), everywhere[seen], rtol=1e-4, atol=1e-5)


def test_a_training_goes_on_and_ends_in_a_folder_that_loads(tmp_path: Path) -> None:
    recipe = Recipe(objects=2, batch=4, minutes=0.05, workers=1)
    load_batches(tmp_path, recipe, CPU)
    volume_train._train(Team(), tmp_path, BUILT_IN_VIEW_FOLDER, CPU, recipe)
    one = subject(0, "known", "car")
    figures, strip = errors(one, foretold(tmp_path / "weights", one))
    assert figures.keys() == {"volume_iou", "silhouette_iou", "depth", "degrees"}
    assert strip.shape == (64, (1 + 4 * 4) * 64, 3)
    step = torch.load(tmp_path / "volume.pt", weights_only=True)["step"]
    volume_train._train(Team(), tmp_path, BUILT_IN_VIEW_FOLDER, CPU, recipe)  # its time is used
    assert torch.load(tmp_path / "volume.pt", weights_only=True)["step"] == step
    further = VolumeNetwork(tmp_path / "weights").state_dict()  # what a training from its own folder begins as
    for name, value in torch.load(tmp_path / "volume.pt", weights_only=True)["network"].items():
        assert further[name].shape == value.shape
    for part, file in (("unet", "unet/diffusion_pytorch_model"), ("head", "head/diffusion_pytorch_model")):
        written = load_file(tmp_path / "weights" / f"{file}.safetensors")
        assert all(torch.equal(further[f"{part}.{name}"], value.float()) for name, value in written.items())


def test_the_shipped_one_knows_what_is_there() -> None:
    """Held-out objects; single samples of the novel-view model overlap by 0.69 and 0.60 from the same places."""
    found = means(evaluate(BUILT_IN_VIEW_FOLDER / FOLDER, 1))
    known, unseen = found["known"], found["unseen"]
    assert known["volume_iou"] > 0.75 and known["silhouette_iou"] > 0.82 and known["depth"] < 0.08
    assert unseen["volume_iou"] > 0.5 and unseen["silhouette_iou"] > 0.66 and unseen["depth"] < 0.16


def test_it_is_small() -> None:
    files = [path for path in (BUILT_IN_VIEW_FOLDER / FOLDER).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 14e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
