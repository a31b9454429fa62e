"""What a model foretells of the sides that no picture shows, and what becomes of it."""

from __future__ import annotations

import json
import shutil
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
from backend.guidance.relative_pose import relative_poses
from backend.guidance.view_maps import CHANNELS, FOLDER, load, unpacked
from backend.optimize.sides import AZIMUTHS, ELEVATIONS, side_views
from backend.optimize.sketches import sketched
from backend.request import ViewGuidanceSettings
from backend.toybox.instances import held_out
from backend.toybox.shapes import Solids
from backend.toybox.true_maps import true_maps
from tests.unit.test_sketches import CPU, Draughtsman, request
from tests.unit.tiny_zero123 import picture, write_folder

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


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
    assert len(views) == len(angles) == len(AZIMUTHS) * len(ELEVATIONS)
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


def test_numbers_are_unpacked() -> None:
    pixels = torch.randn(2, CHANNELS, 12, 12)
    numbers = torch.nn.functional.pixel_unshuffle(pixels, 4)
    mask, depth, normals = unpacked(numbers, 3.0)
    assert torch.equal(mask, pixels[:, 0]) and torch.equal(depth, 3 + pixels[:, 1])
    assert torch.equal(normals, pixels[:, 2:])


def test_the_built_in_model_foretells_what_its_network_says() -> None:
    """Two pictures count by their nearness; the network is shown each with its own pose."""
    references = [picture(azimuth, seed, side=64) for azimuth, seed in ((20.0, 1), (-40.0, 2))]
    guidance: Any = load_view_guidance("toybox-views", references, ViewGuidanceSettings(), CPU)
    model, camera = guidance.sides, orbit_cameras([100.0], [15.0], 3.0, 40.0)
    side = model.seen_from(camera)[0]
    poses = torch.from_numpy(relative_poses(camera, model.references.cameras, "stable-zero123", 1.0))[0]
    numbers = []
    with torch.no_grad():
        for embedding, latents, pose in zip(model.references.embeddings, model.references.latents, poses, strict=True):
            token = model.projection(torch.cat((embedding, pose)))[None, None]
            numbers.append(model.unet(latents[None], torch.tensor([999]), token).sample)
    near = 1 / torch.tensor((80.0, 140.0))  # about: the shares are by angles on the sphere
    own = [unpacked(each, 3.0)[1][0] for each in numbers]
    between = (side.maps.depth - own[1]) / (own[0] - own[1])
    assert float(between.median()) == pytest.approx(float(near[0] / near.sum()), abs=0.03)
    assert side.maps.kind == "metric" and side.maps.normals is not None
    torch.testing.assert_close(side.maps.normals.norm(dim=0), torch.ones(64, 64))
    assert float(side.mask.min()) >= 0 and float(side.mask.max()) <= 1


def test_another_model_foretells_nothing_and_a_wrong_one_is_said(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    guidance: Any = load_view_guidance(str(folder), [picture()], ViewGuidanceSettings(), CPU)
    assert guidance.sides is None
    write_folder(folder / FOLDER)
    with pytest.raises(ModelError, match="knows no hidden sides") as error:
        load_view_guidance(str(folder), [picture()], ViewGuidanceSettings(), CPU)
    assert str(folder / FOLDER) in error.value.hint
    with pytest.raises(ModelError):
        load(tmp_path / "nothing", None, [picture()], CPU)


@pytest.mark.parametrize("lost", ["_maps", "unet"])
def test_one_of_another_build_is_said(tmp_path: Path, lost: str) -> None:
    place = tmp_path / "maps"
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
