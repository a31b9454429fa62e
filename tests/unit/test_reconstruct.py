"""The reconstruction benchmark: its subjects, its baselines, and measures that know right from wrong."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.toybox.held_out import HELD_OUT_KINDS
from backend.toybox.instances import make_instance
from backend.toybox.kinds import KINDS
from benchmarks.reconstruct.__main__ import result
from benchmarks.reconstruct.baselines import EXAMPLE_SEED, Made, MeanShapes, mean_shape, visual_hull
from benchmarks.reconstruct.measures import Truth, made_of, psnr, ssim, unseen_views
from benchmarks.reconstruct.objects import measured
from benchmarks.reconstruct.report import contact_sheet, summary, table
from benchmarks.reconstruct.subjects import AZIMUTH, ELEVATION, Subject, subjects

CAR = Subject(2, "car")


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(CAR)


@pytest.fixture(scope="module")
def hull() -> Made:
    return visual_hull(CAR)


def test_the_subjects_are_as_many_as_promised() -> None:
    asked = subjects(20, 10)
    assert [s.group for s in asked] == ["known"] * 20 + ["unseen"] * 10
    assert {s.kind for s in asked[:20]} == set(KINDS)
    assert {s.kind for s in asked[20:]} == set(HELD_OUT_KINDS)
    assert len({s.name for s in asked}) == 30
    poses = np.array([s.pose for s in asked])
    assert ((poses >= (AZIMUTH[0], ELEVATION[0])) & (poses <= (AZIMUTH[1], ELEVATION[1]))).all()
    assert np.ptp(poses[:, 0]) > 60
    assert subjects(20, 10) == asked
    assert subjects(3, 1)[:3] == asked[:3]


def test_the_request_names_the_picture_and_its_camera(tmp_path: Path) -> None:
    request = CAR.request(tmp_path / "p.png", "draft", "toybox-views", 3, ["optimize.iterations=7"])
    (seen,) = request.references
    assert (seen.azimuth, seen.elevation) == CAR.pose
    assert seen.is_as_is
    assert (request.prompt, request.seed, request.optimize.iterations) == ("", 3, 7)


def test_the_true_mesh_scores_best(truth: Truth, hull: Made) -> None:
    control = truth.control()
    assert control["iou"] > 0.95
    assert control["chamfer"] < 0.005
    best, views = truth.score(made_of(truth.mesh))
    assert best["iou_back_half"] > 0.95
    assert best["psnr"] == 60.0
    assert 20.0 < best["reference_psnr"] < 40.0  # the picture has its light in it
    assert best["ssim"] == pytest.approx(1.0)
    assert views.shape == (16, 128, 128, 3)
    other, _ = truth.score(hull)
    for figure in ("iou", "iou_back_half", "psnr", "ssim"):
        assert other[figure] < best[figure]
    assert other["chamfer"] > 5 * best["chamfer"]
    assert other["reference_psnr"] > other["psnr"] + 6  # the hull wears the picture


def test_the_hull_holds_the_object_and_nothing_beside_its_silhouette(truth: Truth, hull: Made) -> None:
    assert (hull.cells & truth.cells).sum() > 0.97 * truth.cells.sum()  # but for cells that the outline cuts
    assert hull.cells.sum() > truth.cells.sum()
    white = truth.score(hull)[1]
    assert np.isfinite(white).all()
    from backend.meshing import render_mesh

    camera = CAR.camera
    outlines = [render_mesh(mesh, camera, 64, 64)[0, ..., 3] > 0.5 for mesh in (hull.mesh, truth.mesh)]
    assert (outlines[0] & outlines[1]).sum() > 0.95 * (outlines[0] | outlines[1]).sum()


def test_the_back_half_is_away_from_the_camera(truth: Truth) -> None:
    front_alone = dataclasses.replace(made_of(truth.mesh), cells=truth.cells & ~truth.behind)
    figures, _ = truth.score(front_alone)
    assert figures["iou_back_half"] == 0.0
    assert 0.2 < figures["iou"] < 0.8
    where = np.argwhere(truth.behind).mean(0) / len(truth.behind) * 2 - 1
    assert where @ CAR.camera.position[0] < -0.5


def test_no_unseen_view_is_the_reference() -> None:
    position, seen = unseen_views(CAR.pose[0]).position, CAR.camera.position[0]
    cosine = position @ seen / np.linalg.norm(position, axis=1) / np.linalg.norm(seen)
    assert len(position) == 16
    assert np.degrees(np.arccos(cosine.max())) > 10


def test_a_mean_shape_of_one_object_is_that_object() -> None:
    alone = make_instance(np.random.default_rng((EXAMPLE_SEED, 1, 0)), "frog").solids.volume(128)
    np.testing.assert_array_equal(mean_shape(["frog"], 1), alone)
    several = mean_shape(["frog"], 4)
    assert 0.3 < (several & alone).sum() / (several | alone).sum() < 1


def test_unseen_kinds_get_the_mean_of_all_kinds() -> None:
    means = MeanShapes(examples=3)
    shapes = [means.of(Subject(50 + i, kind)) for i, kind in enumerate(HELD_OUT_KINDS)]
    np.testing.assert_array_equal(shapes[0].cells, shapes[1].cells)
    assert (shapes[0].mesh.texture != shapes[1].mesh.texture).any()  # each in its own picture's colour
    assert list(means.known) == [""]


def test_pictures_are_compared_as_the_field_does() -> None:
    a = np.full((32, 32, 3), 0.5, np.float32)
    assert psnr(a, a + np.float32(0.1)) == pytest.approx(20.0, abs=1e-3)
    assert psnr(a, a) == 60.0
    noise = np.random.default_rng(0).random((32, 32, 3), np.float32)
    assert ssim(noise, noise) == pytest.approx(1.0)
    assert ssim(noise, 1 - noise) < 0


def row(group: str, ours: float, hull: float, mean: float) -> dict[str, Any]:
    def figures(iou: float) -> dict[str, float]:
        figures = {"iou": iou, "iou_back_half": iou, "chamfer": 0.1, "chamfer_by_side": 0.05}
        return {**figures, "psnr": 20.0, "ssim": 0.9, "reference_psnr": 25.0}

    shapes = {"ours": figures(ours), "hull": figures(hull), "mean_shape": figures(mean)}
    return {"group": group, "seconds": 100.0 * ours, "true_mesh": {"iou": 1 - mean, "chamfer": mean}, **shapes}


def test_the_summary_counts_wins() -> None:
    rows = [row("known", 0.8, 0.5, 0.7), row("known", 0.6, 0.5, 0.7), row("known", 0.4, 0.5, 0.7)]
    means = summary(rows)
    assert means["ours"]["iou_mean"] == pytest.approx(0.6)
    assert means["hull"]["iou_mean"] == 0.5
    assert (means["ours"]["wins_over_hull"], means["ours"]["wins_over_mean_shape"]) == (2, 1)
    assert means["ours"]["seconds_mean"] == 60.0
    assert "2 of 3" in table({"known": means}) and "1 of 3" in table({"known": means})
    asked = Namespace(known=3, unseen=1, only=[], preset="draft", set=[])
    whole = result([*rows, row("unseen", 0.5, 0.3, 0.4)], asked)
    assert whole["failed"] == {"known": 0, "unseen": 0}
    assert whole["unseen"]["ours"]["wins_over_hull"] == 1
    assert whole["true_mesh"] == {"iou_min": pytest.approx(0.3), "chamfer_max": 0.7}
    assert result(rows, asked)["failed"] == {"known": 0, "unseen": 1}


def test_an_object_is_measured_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / CAR.name
    folder.mkdir()
    found = measured(CAR, folder, 12.5, "hull", MeanShapes(examples=2))
    assert json.loads((folder / "measured.json").read_text()) == found
    assert found["ours"] == found["hull"]
    assert found["seconds"] == 12.5
    assert 1 < found["ours"]["chamfer"] / found["ours"]["chamfer_by_side"] < 2  # a box's longest side, in its radii
    sheet = contact_sheet([CAR, Subject(3, "cat")], tmp_path)
    assert sheet.height < 100  # the unfinished one has no row
