"""Toybox's depth model: its training set, its training, and what the shipped one sees in objects it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.guidance import load_depth_model
from backend.guidance.depth_model import BUILT_IN_DEPTH_FOLDER
from backend.toybox import depth_train
from backend.toybox.depth_dataset import CAMERAS, DepthBatches, DepthViews, kept_depth_views, make_depth_views
from backend.toybox.depth_evaluate import errors, evaluate
from backend.toybox.depth_train import Recipe, load_depth_views
from backend.toybox.raycast import render_maps
from backend.toybox.report import means
from backend.toybox.shapes import Builder
from backend.toybox.team import Team
from backend.toybox.true_maps import map_errors
from backend.toybox.view_evaluate import subject

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def views() -> DepthViews:
    return make_depth_views(0, 3, 5)


def test_maps_of_a_ball_are_those_of_a_ball() -> None:
    builder = Builder()
    builder.ball((0.0, 0.0, 0.0), 0.5, (1.0, 0.0, 0.0))
    pose = np.eye(4)
    pose[2, 3] = 3.0  # looks down −Z
    depth, normals = render_maps(builder.solids(), pose, (2.5, 2.5), (0.0, 0.0), 33)
    assert depth[16, 16] == pytest.approx(2.5, abs=1e-4)
    assert normals[16, 16] == pytest.approx((0.0, 0.0, 1.0), abs=1e-3)
    y, x = (np.mgrid[:33, :33] + 0.5) / 33 * 2 - 1
    known = np.isfinite(depth)
    points = np.stack((x * depth / 2.5, -y * depth / 2.5, 3.0 - depth), -1)[known]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.5, atol=1e-4)
    np.testing.assert_allclose(normals[known], points / 0.5, atol=1e-3)
    assert not known[0, 0] and (normals[~known] == 0).all()


def test_the_set_is_made_once_and_is_the_same_each_time(tmp_path: Path, views: DepthViews) -> None:
    reports: list[int] = []
    kept = kept_depth_views(tmp_path, 3, 5, 1, reports.append)
    assert reports == [3] and len(kept.depth) == 3 * len(CAMERAS)
    np.testing.assert_array_equal(kept.pictures, views.pictures)
    np.testing.assert_array_equal(kept.depth, views.depth)
    np.testing.assert_array_equal(kept_depth_views(tmp_path, 3, 5, 1, reports.append).normals, views.normals)
    assert reports == [3]
    covered = np.isfinite(views.depth)
    assert (views.pictures[~covered].mean() > 250) and (np.abs(views.normals[~covered]) == 0).all()
    assert 1.9 < np.nanmin(views.depth) < np.nanmax(views.depth) < 4.1


def test_pairs_in_the_mirror_are_pairs(views: DepthViews) -> None:
    """Normals of a view and of its mirror image are those of one surface: both fit their own depth."""
    pairs = DepthBatches(views, CPU, 0).draw(40)
    far, shape, turned = map_errors(pairs.maps.depth, pairs.maps.normals, pairs.maps)
    assert float(far) == float(shape) == 0 and float(turned) < 1e-3
    x = torch.gradient(pairs.maps.depth, dim=2)[0]
    known = torch.nn.functional.max_pool2d(1 - pairs.maps.known[:, None], 3, 1, 1)[:, 0] == 0
    slope, facing = x[known], pairs.maps.normals[:, 0][known]  # where depth grows to the right, surfaces face right
    assert float((torch.sign(slope) == torch.sign(facing)).float()[slope.abs() > 5e-3].mean()) > 0.9
    assert pairs.pictures.min() >= -1 and pairs.pictures.max() <= 1


def test_a_training_goes_on_and_ends_in_a_folder_that_loads(tmp_path: Path) -> None:
    recipe = Recipe(objects=2, batch=4, minutes=0.05, workers=1)
    load_depth_views(tmp_path, recipe)
    depth_train._train(Team(), tmp_path, depth_train.BUILT_IN_FOLDER, CPU, recipe)
    model = load_depth_model(str(tmp_path / "weights"), CPU)
    figures, strip = errors(subject(0, "known", "car"), model)
    assert figures.keys() == {"correlation", "depth", "degrees"}
    assert strip.shape == (64, 5 * 64, 3)
    step = torch.load(tmp_path / "depth.pt", weights_only=True)["step"]
    depth_train._train(Team(), tmp_path, depth_train.BUILT_IN_FOLDER, CPU, recipe)  # its time is used
    assert torch.load(tmp_path / "depth.pt", weights_only=True)["step"] == step


def test_the_shipped_one_sees_what_is_there() -> None:
    """Held-out objects; what a flat picture would score is far off."""
    found = means(evaluate(load_depth_model("toybox-depth", CPU), 1))
    known, unseen = found["known"], found["unseen"]
    assert known["correlation"] > 0.85 and known["degrees"] < 22 and known["depth"] < 0.06
    assert unseen["correlation"] > 0.5 and unseen["degrees"] < 32


def test_it_is_small() -> None:
    files = [path for path in BUILT_IN_DEPTH_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    assert not (BUILT_IN_DEPTH_FOLDER / "vae").exists()
