"""Depth and normals of pictures: out of which models, where they are known, and what they are worth to a job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    GLPNConfig,
    GLPNForDepthEstimation,
)

from backend.cameras import orbit_cameras
from backend.depth import measured, normals
from backend.errors import ModelError, RequestError
from backend.guidance import Maps, load_depth_model
from backend.job import run_job
from backend.optimize.reference_loss import ReferenceViews
from backend.picture import Reference
from backend.reference import ReferenceImage
from backend.reference_files import ReferenceView
from backend.request import LoadingSettings, preset
from backend.toybox.raycast import render_maps
from backend.toybox.world import Look, make_object
from tests.unit.picture_jobs import SMALL, never, nothing
from tests.unit.reference_world import seen

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIZE = 32
PROCESSOR = {
    "image_processor_type": "DPTImageProcessor",
    "size": {"height": SIZE, "width": SIZE},
    "do_pad": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def write_folder(folder: Path, network: Any) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def glpn() -> Any:
    build: Any = GLPNConfig
    return GLPNForDepthEstimation(
        build(hidden_sizes=[8, 8, 8, 8], decoder_hidden_size=8, depths=[1] * 4, num_attention_heads=[1] * 4)
    )


def depth_anything(kind: str) -> Any:
    build: Any = Dinov2Config
    backbone = build(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config: Any = DepthAnythingConfig
    return DepthAnythingForDepthEstimation(
        config(
            backbone_config=backbone, patch_size=4, reassemble_hidden_size=16, neck_hidden_sizes=[4, 4, 8, 8],
            fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind, max_depth=3,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_folder(tmp_path_factory.mktemp("depth") / "glpn", glpn())


def test_a_model_sees_what_its_network_says(folder: Path) -> None:
    picture = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(1))
    found = load_depth_model(str(folder), CPU).seen(picture)
    pixels = (picture * 255).round() / 255
    shown = torch.nn.functional.interpolate(pixels[None], size=(SIZE, SIZE), mode="bicubic", antialias=True)
    with torch.no_grad():
        network: Any = GLPNForDepthEstimation.from_pretrained(folder).eval()
        wanted = network(pixel_values=shown * 2 - 1).predicted_depth[0]
    assert found.kind == "relative" and found.normals is None
    assert found.depth.shape == (SIZE, SIZE)
    torch.testing.assert_close(found.depth, wanted, atol=0.02, rtol=0)  # the image processor resizes bytes


@pytest.mark.parametrize(("kind", "numbers"), [("relative", "disparity"), ("metric", "relative")])
def test_what_the_numbers_are_is_read(tmp_path: Path, kind: str, numbers: str) -> None:
    model = load_depth_model(str(write_folder(tmp_path / "model", depth_anything(kind))), CPU)
    assert model.seen(torch.rand(3, 20, 20)).kind == numbers


def test_what_is_no_depth_model_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config.json"):
        load_depth_model(str(tmp_path), CPU)
    with pytest.raises(ModelError, match="neither a folder nor"):
        load_depth_model("nobody/nothing", CPU)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="is a BertModel") as error:
        load_depth_model(str(tmp_path), CPU)
    assert "DepthAnythingForDepthEstimation" in error.value.hint
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelError, match="image processor"):
        load_depth_model(str(tmp_path), CPU)


class Sees:
    """A depth model whose answer is known."""

    def __init__(self, maps: Maps) -> None:
        self.maps, self.shown = maps, list[torch.Tensor]()

    def seen(self, picture: torch.Tensor) -> Maps:
        self.shown.append(picture)
        return self.maps


def maps_of(view: ReferenceView) -> tuple[np.ndarray, np.ndarray]:
    depth, facing = view.sizes[0].depth, view.sizes[0].normals
    assert depth is not None and facing is not None
    return depth, facing


def view_of(rgba: np.ndarray, azimuth: float = 30.0) -> ReferenceView:
    picture = Reference(rgba, "transparency")
    return ReferenceView(orbit_cameras(azimuth, 20.0, 3.0, 40.0), 1.0, (picture,), picture)


@pytest.fixture(scope="module")
def true_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A duck [S, S, 4], its depth and its normals."""
    solids = make_object(Look("duck", "red"), np.random.default_rng(0))
    camera = orbit_cameras(30.0, 20.0, 3.0, 40.0)
    focal = float(camera.focal[0, 0])
    depth, facing = render_maps(solids, camera.camera_to_world[0], (focal, focal), (0.0, 0.0), 96)
    return seen(solids, 30.0, 20.0, 96), depth, facing


def test_normals_are_those_of_the_depth(true_maps: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rgba, depth, facing = true_maps
    tangent = 1 / float(orbit_cameras(0.0, 0.0, 3.0, 40.0).focal[0, 0])
    filled = torch.from_numpy(np.where(np.isfinite(depth), depth, 3.0))
    for scale in (1.0, 7.0):  # metres or radii
        found = normals(scale * filled, (tangent, tangent)).permute(1, 2, 0).numpy()
        cosine = (found * facing).sum(-1)[np.isfinite(depth)]
        assert np.median(cosine) > 0.998
    view = measured([view_of(rgba)], Sees(Maps(filled, "relative")))[0]
    far, own = maps_of(view)
    known = np.isfinite(far)
    assert view.sizes[0].depth_kind == "relative"
    assert np.median((own * facing).sum(-1)[known]) > 0.998
    assert (own[~known] == 0).all()


def test_maps_are_known_where_nothing_but_the_object_is(
    true_maps: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    rgba, depth, _ = true_maps
    maps = Maps(torch.full((8, 8), 2.5), "relative", torch.tensor([0.0, 0.6, 0.8])[:, None, None].expand(3, 8, 8))
    sees = Sees(maps)
    far, facing = maps_of(measured([view_of(rgba)], sees)[0])
    known = np.isfinite(far)
    assert known.sum() > 0.8 * np.isfinite(depth).sum()
    assert (rgba[..., 3][known] > 0.5).all()
    assert not known[0].any() and np.allclose(far[known], 2.5)
    np.testing.assert_allclose(facing[known], np.broadcast_to((0.0, 0.6, 0.8), (known.sum(), 3)), atol=1e-6)
    corner = sees.shown[0][:, 0, 0]
    assert corner.tolist() == [1.0, 1.0, 1.0]  # it is shown before white


def test_disparity_has_no_normals(true_maps: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rgba, depth, _ = true_maps
    told = torch.from_numpy(1 / np.where(np.isfinite(depth), depth, 3.0))
    found = measured([view_of(rgba)], Sees(Maps(told, "disparity")))[0].sizes[0]
    assert found.depth_kind == "disparity" and found.normals is None
    assert found.depth is not None
    known = np.isfinite(found.depth)
    np.testing.assert_allclose(found.depth[known], -1 / depth[known], atol=0.02)


def test_what_a_picture_came_with_stays(true_maps: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    rgba, depth, _ = true_maps
    view = view_of(rgba)
    given = dataclasses.replace(view.shown, depth=depth)
    own = dataclasses.replace(view, sizes=(given,), shown=given)
    sees = Sees(Maps(torch.ones(4, 4), "relative"))
    assert measured([own], sees)[0] is own and not sees.shown
    assert measured([view], None) == (view,)


def test_who_sees_depth_by_itself() -> None:
    duck = preset("standard", "", references=(ReferenceImage("duck.png", 20.0),))
    assert duck.depth_model == "toybox-depth"
    assert duck.replace(view_model="none").depth_model == "none"
    assert preset("standard", "a duck").depth_model == "none"  # there is no picture
    chosen = duck.replace(loading=LoadingSettings(depth_model="some/depth"), view_model="a-folder")
    assert chosen.depth_model == "some/depth"
    assert chosen.with_setting("loading.depth_model", "none").depth_model == "none"
    weightless = ["reference.depth_weight=0", "reference.normal_weight=0"]
    assert chosen.with_assignments(weightless).depth_model == "none"
    with pytest.raises(RequestError, match="No depth model"):
        chosen.with_setting("loading.depth_model", " ").validated()


def test_a_job_looks_at_its_picture_with_the_model(
    tmp_path: Path, picture: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, threads_kept: None
) -> None:
    kept: list[ReferenceViews] = []
    begin = ReferenceViews.__init__

    def watched(self: ReferenceViews, *arguments: Any) -> None:
        begin(self, *arguments)
        kept.append(self)

    monkeypatch.setattr(ReferenceViews, "__init__", watched)
    asked = SMALL.replace(
        references=(ReferenceImage(str(picture), 15.0),), loading=LoadingSettings(depth_model=str(folder))
    )
    run_job(asked, tmp_path / "job", nothing, never)
    assert all(each.depth is not None and each.normal is not None for each in kept[0].targets)
    seen_picture = (tmp_path / "job" / "references" / "1-seen.png").stat().st_size
    run_job(asked.with_setting("loading.depth_model", "none"), tmp_path / "without", nothing, never)
    assert all(each.depth is None and each.normal is None for each in kept[1].targets)
    assert seen_picture > (tmp_path / "without" / "references" / "1-seen.png").stat().st_size  # it shows the maps
