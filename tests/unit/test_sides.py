"""What a model foretells of the sides that no picture shows, and what becomes of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backend.cameras import CameraBatch, orbit_cameras
from backend.errors import ModelError
from backend.guidance import Maps, Side, load_view_guidance
from backend.guidance.model_folder import BUILT_IN_VIEW_FOLDER
from backend.guidance.references import ReferencePicture
from backend.guidance.view_volume import FOLDER, LatentViewVolume, agreeing, fused, load
from backend.optimize import optimize
from backend.optimize.dents import Dents
from backend.optimize.reference_loss import ReferenceViews
from backend.optimize.sides import AZIMUTHS, ELEVATIONS, side_views
from backend.optimize.sketches import sketched
from backend.reference_files import prepare
from backend.request import RefineSettings, ViewGuidanceSettings
from backend.toybox.instances import held_out
from backend.toybox.shapes import Solids
from backend.toybox.true_maps import true_maps
from backend.toybox.volume_dataset import column_cells
from tests.unit.test_sketches import CPU, Draughtsman, picture_of_the_spheres, request
from tests.unit.tiny_zero123 import picture, write_folder

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
SIDES = len(AZIMUTHS) * len(ELEVATIONS)


class Knows:
    """A model of hidden sides that knows the truth."""

    distance, field_of_view = 3.0, 40.0

    def __init__(self, solids: Solids) -> None:
        self.solids = solids

    def seen_from(self, cameras: CameraBatch) -> list[Side]:
        sides: list[Side] = []
        for i in range(len(cameras)):
            depth, normals = (torch.from_numpy(each) for each in true_maps(self.solids, cameras[i : i + 1], SIZE))
            mask = (~depth.isnan()).float()
            sides.append(Side(mask, Maps(depth.nan_to_num(3.0), "metric", normals.permute(2, 0, 1))))
        return sides


@pytest.fixture(scope="module")
def solids() -> Solids:
    return held_out(3, "chair").solids


def test_they_are_pictures_of_the_shape_alone(solids: Solids) -> None:
    views = side_views(Knows(solids))
    angles = {(round(float(v.camera.azimuth[0])), round(float(v.camera.elevation[0]))) for v in views}
    assert len(views) == len(angles) == SIDES
    for view in views:
        depth, normals = true_maps(solids, view.camera, SIZE)
        seen, known = view.sizes[0], np.isfinite(depth)
        assert seen.depth is not None and seen.normals is not None and seen.depth_kind == "metric"
        assert np.array_equal(seen.rgba[..., 3] > 0.5, known)
        inside = np.isfinite(seen.depth)
        assert (known[inside]).all() and inside.sum() > 0.4 * known.sum()
        np.testing.assert_allclose(seen.depth[inside], depth[inside], atol=1e-5)
        np.testing.assert_allclose(seen.normals[inside], normals[inside], atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_they_count_beside_the_sketches(tmp_path: Path, solids: Solids, weight: float) -> None:
    guidance: Any = Draughtsman(told=True)
    guidance.sides = Knows(solids)
    asked = request(side_weight=weight, depth_weight=weight, normal_weight=weight)
    found = sketched(asked, tmp_path, guidance, CPU, lambda _: None, lambda: False)
    assert len(found) == 1 + (weight > 0)
    assert found[0].targets[0].depth is None
    if weight:
        targets, settings = found[1].targets[0], found[1].settings
        assert targets.depth is not None and targets.normal is not None and targets.metric
        assert (settings.colour_weight, settings.mask_weight, settings.depth_weight) == (0.0, weight, weight)


@pytest.mark.parametrize("told", [True, False])
def test_a_model_knows_the_shape_by_its_own_sketches(tmp_path: Path, solids: Solids, told: bool) -> None:
    """Those that are not from behind; how much it counts, and whether, is as for pictures."""
    shown: list[ReferencePicture] = []

    def foretell(drawn: Sequence[ReferencePicture]) -> Knows:
        shown.extend(drawn)
        return Knows(solids)

    guidance: Any = Draughtsman(told=told)
    guidance.foretell = foretell
    found = sketched(request(side_weight=7.0), tmp_path, guidance, CPU, lambda _: None, lambda: False)
    assert len(found) == 2 and found[1].settings.mask_weight == 7.0
    azimuths = sorted(round(float(each.camera.azimuth[0])) for each in shown)
    assert azimuths == sorted([-90, -45, 0, 45, 90] + [0] * told)  # told the camera, it also draws from above
    assert all(len(each.image) == 4 for each in shown)
    count = len(shown)
    unasked = request(side_weight=0.0, depth_weight=0.0, normal_weight=0.0)
    assert len(sketched(unasked, tmp_path, guidance, CPU, lambda _: None, lambda: False)) == 1
    assert len(shown) == count


@pytest.mark.parametrize(("pictured", "foretold"), [(True, True), (True, False), (False, True)])
def test_a_shape_that_is_foretold_of_a_picture_lasts(
    tmp_path: Path, solids: Solids, monkeypatch: pytest.MonkeyPatch, pictured: bool, foretold: bool
) -> None:
    """Also while the model paints, when sketches do not count; dents are filled where nothing lasts."""
    watched, looks, aim = list[int](), Counter[int](), ReferenceViews.aim

    def counted(self: ReferenceViews, *others: Any, **named: Any) -> Any:
        looks[len(self.weights)] += 1
        return aim(self, *others, **named)

    monkeypatch.setattr(ReferenceViews, "aim", counted)
    monkeypatch.setattr(Dents, "see", lambda _dents, _cameras, _opacity, step, _rng: watched.append(step))
    guidance: Any = Draughtsman(told=True)
    guidance.sides = Knows(solids) if foretold else None
    asked = request().replace(refine=RefineSettings(4, views=2))
    if pictured:
        shown = picture_of_the_spheres(tmp_path / "spheres.png")
        asked = asked.replace(references=(shown,), view_model="a-folder")
    optimize(asked, tmp_path, guidance, CPU, lambda _: None, lambda: False, prepare(asked, lambda _: None))
    assert watched == ([] if pictured and foretold else list(range(4, 13)))
    # They and the sketches have turns, until with the ninth step the sketches' share ends.
    sides = {SIDES: 4 + 5 if pictured else 4} if foretold else {}
    assert looks == {9: 4 if foretold else 8, **({1: 13} if pictured else {}), **sides}


def columns_of(solids: Solids, cameras: CameraBatch) -> torch.Tensor:
    """What a perfect model says of pictures from ``cameras``."""
    cells = [column_cells(solids, cameras[i : i + 1]) for i in range(len(cameras))]
    return torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2) * 12.0 - 6.0


def test_columns_become_one_grid_in_the_world(solids: Solids) -> None:
    """Wherever they are seen from, also by cameras of another lens and distance."""
    true = solids.volume(96)
    for azimuth, elevation, distance, lens in ((0, 10, 3, 40), (130, -20, 3, 40), (-70, 40, 3.4, 35)):
        camera = orbit_cameras(azimuth, elevation, distance, lens)
        found = fused(columns_of(solids, camera), camera, np.ones(1)).numpy() > 0
        assert (found & true).sum() / (found | true).sum() > 0.85  # thin legs, cells of 0.03 and 0.04 radii


def test_pictures_count_by_their_weights(solids: Solids) -> None:
    cameras = orbit_cameras([0.0, 90.0], [10.0, 10.0], 3.0, 40.0)
    columns = torch.stack((torch.full((48, 64, 64), -2.0), torch.full((48, 64, 64), 4.0)))
    grid = fused(columns, cameras, np.array((1.0, 3.0)))
    assert float(grid[48, 48, 48]) == pytest.approx(2.5)
    assert float(grid[0, 0, 0]) == -8.0  # beyond the ball


def test_sides_are_those_of_the_grid(solids: Solids) -> None:
    """Of the true shape: masks, depth and normals as they are rendered of the true object."""
    line = torch.from_numpy(solids.volume(96)).float() * 12 - 6
    model = LatentViewVolume(line, {"distance": 3.0, "field_of_view": 40.0}, 64)
    cameras = orbit_cameras([0.0, 100.0, -150.0], [15.0, 40.0, -35.0], 3.0, 40.0)
    for i, side in enumerate(model.seen_from(cameras)):
        depth, normals = true_maps(solids, cameras[i : i + 1], SIZE)
        known, found = np.isfinite(depth), side.mask.numpy() > 0.5
        assert (known & found).sum() / (known | found).sum() > 0.93
        both = known & found
        assert np.median(np.abs(side.maps.depth.numpy() - depth)[both]) < 0.015
        assert side.maps.kind == "metric" and side.maps.normals is not None
        facing = side.maps.normals.permute(1, 2, 0).numpy()
        assert np.median((facing * normals).sum(-1)[both]) > 0.95
        assert float(side.mask.min()) >= 0 and float(side.mask.max()) <= 1


def test_the_columns_are_as_the_pictures_have_it() -> None:
    """Empty where they show nothing, filled at the likeliest place where they show something."""
    white, clear = torch.ones(3, 64, 64), torch.zeros(4, 64, 64)
    white[:, 16:32], clear[3, 16:32] = 0.5, 1.0
    shown = [ReferencePicture(each, orbit_cameras(0.0, 0.0, 3.0, 40.0)) for each in (white, clear)]
    columns = torch.full((2, 48, 32, 32), -3.0)
    columns[0], columns[1, 20] = 1.0, -1.0
    left = agreeing(columns, shown)
    assert (left[0, :, 8:16] == 1).all() and (left[:, :, :7] == -8).all() and (left[:, :, 17:] == -8).all()
    filled = left[1, :, 8:16] > 0
    assert filled[20].all() and filled.sum() == filled[20].sum()


def test_the_built_in_model_is_found_and_shown_the_pictures() -> None:
    """A model of whole shapes lies beside it, and two pictures say more than one."""
    references = [picture(azimuth, seed, side=64) for azimuth, seed in ((20.0, 1), (-40.0, 2))]
    guidance: Any = load_view_guidance("toybox-views", references, ViewGuidanceSettings(), CPU)
    alone: Any = load_view_guidance("toybox-views", references[:1], ViewGuidanceSettings(), CPU)
    assert guidance.sides.logits.shape == (96, 96, 96)
    assert not torch.equal(guidance.sides.logits, alone.sides.logits)
    side = guidance.sides.seen_from(orbit_cameras([100.0], [15.0], 3.0, 40.0))[0]
    assert side.mask.shape == (64, 64)


def test_another_model_foretells_nothing_and_a_wrong_one_is_said(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    guidance: Any = load_view_guidance(str(folder), [picture()], ViewGuidanceSettings(), CPU)
    assert guidance.sides is None
    write_folder(folder / FOLDER)
    with pytest.raises(ModelError, match="knows no whole shapes") as error:
        load_view_guidance(str(folder), [picture()], ViewGuidanceSettings(), CPU)
    assert str(folder / FOLDER) in error.value.hint
    with pytest.raises(ModelError):
        load(tmp_path / "nothing", None, [picture()], CPU)


@pytest.mark.parametrize("lost", ["_volume", "unet"])
def test_one_of_another_build_is_said(tmp_path: Path, lost: str) -> None:
    place = tmp_path / "volume"
    shutil.copytree(BUILT_IN_VIEW_FOLDER / FOLDER, place)
    if lost == "unet":  # that of the novel-view model, whose output are latents
        shutil.rmtree(place / "unet")
        shutil.copytree(BUILT_IN_VIEW_FOLDER / "unet", place / "unet")
    else:
        index = json.loads((place / "model_index.json").read_text())
        (place / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != lost}))
    vae: Any = SimpleNamespace(config=SimpleNamespace(latent_channels=16))
    with pytest.raises(ModelError, match="of another build"):
        load(place, vae, [picture()], CPU)
