"""Toybox's novel-view model: its pairs, its start from the text model, a whole run of a few seconds, and its folder."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from backend.cameras import orbit_cameras
from backend.errors import ModelError
from backend.guidance import ReferencePicture, load_view_guidance
from backend.guidance.model_folder import BORROWED, BUILT_IN_FOLDER, POSE, open_model
from backend.guidance.relative_pose import relative_poses
from backend.request import ViewGuidanceSettings
from backend.toybox import kept as kept_module
from backend.toybox import team, view_train
from backend.toybox.encoder import PatchEncoder, set_linear_encoder
from backend.toybox.model import make_vae
from backend.toybox.team import Course, Team, fit
from backend.toybox.view_dataset import REFERENCES, VIEWS, ViewBatches, Views, kept_views, make_views, stable_poses
from backend.toybox.view_evaluate import compared, sampled
from backend.toybox.view_model import make_view_denoiser, start_from
from tests.unit.tiny_model import edit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def views() -> Views:
    return make_views(0, 3, 5)


def test_poses_are_those_that_the_guidance_tells() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform((-180, -10), (180, 60), (2, 20, 2)).astype(np.float32)
    cameras = [orbit_cameras(half[:, 0], half[:, 1], 3.0, 40.0) for half in angles]
    wanted = relative_poses(cameras[0], cameras[1], "stable-zero123", 0.75)[np.arange(20), np.arange(20)]
    found = stable_poses(*torch.from_numpy(angles))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_pairs_are_two_views_of_one_object_with_their_pose(views: Views) -> None:
    batches = ViewBatches(views, CPU, 0)
    drawn = batches.draw(60)
    pictures = torch.from_numpy(views.pictures).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    seen: list[tuple[int, bool]] = []
    for target, reference, pose in zip(drawn.targets, drawn.references, drawn.poses, strict=True):
        fitting = [
            (r, mirror)
            for n, r, t, mirror in itertools.product(range(3), range(VIEWS), range(VIEWS), (False, True))
            if torch.equal(pictures[n, r].flip(2) if mirror else pictures[n, r], reference)
            and torch.equal(pictures[n, t].flip(2) if mirror else pictures[n, t], target)
            and r != t
            and torch.allclose(pose, mirrored_pose(views.angles[n, t], views.angles[n, r], mirror), atol=1e-5)
        ]
        assert len(fitting) == 1
        seen += fitting
    assert 10 < sum(mirror for _, mirror in seen) < 50
    assert 0.7 < np.mean([r < REFERENCES for r, _ in seen]) < 1.0


def mirrored_pose(target: Any, reference: Any, mirror: bool) -> torch.Tensor:
    sign = np.array((-1.0 if mirror else 1.0, 1.0), np.float32)
    both = (torch.from_numpy(np.asarray(angles) * sign)[None] for angles in (target, reference))
    return stable_poses(*both)[0]


def test_views_stand_before_white(views: Views) -> None:
    corners = views.pictures[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all()
    assert (views.pictures.min((2, 3, 4)) < 240).all()
    assert (np.abs(views.angles[:, :REFERENCES, 0]) <= 70).all()


def test_an_interrupted_rendering_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: Views) -> None:
    monkeypatch.setattr(kept_module, "CHUNK", 2)
    kept_module._keep(tmp_path, 0, 2, lambda start, end: dict(vars(make_views(start, end, 5))))
    reports: list[int] = []
    kept = kept_views(tmp_path, 3, 5, 1, reports.append)
    assert reports == [3]  # the second chunk alone
    np.testing.assert_array_equal(kept.pictures, views.pictures)
    np.testing.assert_array_equal(kept.angles, views.angles)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("angles.npy", "depth.npy", "names.txt", "normals.npy", "pictures.npy"),
    ]
    assert kept_views(tmp_path, 3, 5, 1, reports.append).pictures.shape == kept.pictures.shape
    assert reports == [3]


def test_an_encoder_is_read_back_out_of_its_vae() -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, 64, 64).mul(2).sub(1).cumsum(3).tanh()
    vae, patches = make_vae(), PatchEncoder.of(images, 16)
    set_linear_encoder(vae, patches)
    again = PatchEncoder.read(vae)
    assert float((again.latents(images) - patches.latents(images)).square().mean().sqrt()) < 0.02
    torch.testing.assert_close(again.scale, patches.scale, rtol=0.02, atol=0)


@torch.no_grad()
def test_it_starts_as_the_text_model_that_ignores_the_picture() -> None:
    from diffusers import UNet2DConditionModel

    nets = make_view_denoiser()
    patches = start_from(BUILT_IN_FOLDER, nets)
    text: Any = UNet2DConditionModel.from_pretrained(BUILT_IN_FOLDER / "unet", torch_dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    noisy, tokens = torch.randn(2, 16, 16, 16, generator=rng), torch.randn(2, 1, 128, generator=rng)
    latents, times = patches.latents(torch.rand(2, 3, 64, 64, generator=rng)), torch.tensor([100, 800])
    wanted = text(noisy, times, tokens).sample
    torch.testing.assert_close(nets.predict(noisy, times, tokens, latents), wanted, rtol=1e-4, atol=1e-4)
    nets.unet.conv_in.weight[:, 16:] += 0.1
    assert not torch.allclose(nets.predict(noisy, times, tokens, latents), wanted, atol=1e-2)


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_is_for_processors_that_compute_in_it(monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    """And attention's gradients are those of float32, as near as bfloat16 comes."""
    monkeypatch.setattr(team, "computes_bfloat16", lambda _: half)
    draws = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 9, 8, generator=draws, requires_grad=True) for _ in range(3))
    wanted = torch.autograd.grad(functional.scaled_dot_product_attention(query, key, value).square().sum(), query)[0]
    with team.precision(torch.device("cpu")):
        product = torch.mm(torch.ones(2, 2), torch.ones(2, 2))
        seen = functional.scaled_dot_product_attention(query, key, value)
    assert product.dtype == (torch.bfloat16 if half else torch.float32)
    found = torch.autograd.grad(seen.float().square().sum(), query)[0]
    assert float(functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)) > 0.999
    assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


def test_fit_learns_resumes_and_adopts_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(team.time, "monotonic", lambda: next(ticks) / 1000)  # a clock that no busy machine slows down
    rng, layer = torch.Generator().manual_seed(0), nn.Linear(3, 1)
    steps: list[float] = []

    def loss_at(progress: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        steps.append(progress)
        x = torch.randn(32, 3, generator=rng)
        loss = ((layer(x)[:, 0] - x @ torch.tensor([1.0, -2.0, 0.5]) - 0.3) ** 2).mean()
        return loss, {"figure": loss.detach()}

    def train(minutes: float) -> int:
        course = Course(minutes, 0.05, ema=0.9, log_every=10)
        fit(loss_at, list(layer.parameters()), {"layer": layer}, course, tmp_path / "line.pt", Team())
        return torch.load(tmp_path / "line.pt", weights_only=True)["step"]

    first = train(0.01)
    assert first == len(steps) > 50
    second = train(0.02)
    assert second == len(steps) > first
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[1.0, -2.0, 0.5]]), atol=0.02, rtol=0)
    stored = torch.load(tmp_path / "line.pt", weights_only=True)
    torch.testing.assert_close(layer.weight.detach(), stored["average"][0])
    lines = [json.loads(line) for line in (tmp_path / "line.log").read_text().splitlines()]
    assert lines[0]["figure"] == lines[0]["loss"]
    assert train(0.02) == second  # the budget is used


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of seconds, stopped and gone on with."""
    out = tmp_path_factory.mktemp("views") / "run"
    before = sys.argv
    try:
        for run in (1, 2):
            used = torch.load(out / "views.pt", weights_only=True)["used"] / 60 if run == 2 else 0.0
            sys.argv = ["view_train", "--out", str(out), "--objects", "4", "--batch", "4", "--device", "cpu"]
            sys.argv += ["--workers", "1", "--minutes", str(used + 0.04), "--glimpse-minutes", "0.01"]
            view_train.main()
            (out / f"steps-{run}").write_text(str(torch.load(out / "views.pt", weights_only=True)["step"]))
    finally:
        sys.argv = before
    return out


def picture() -> ReferencePicture:
    image = torch.rand(4, 80, 80, generator=torch.Generator().manual_seed(0))
    return ReferencePicture(image, orbit_cameras(20.0, 10.0, 3.0, 40.0))


def test_a_short_run_makes_a_folder_that_guides_and_resumes(trained: Path) -> None:
    assert torch.load(trained / "tokens.pt", weights_only=True)["step"] > 0
    steps = [int((trained / f"steps-{run}").read_text()) for run in (1, 2)]
    assert 0 < steps[0] < steps[1]
    folder = trained / "weights"
    assert not (folder / "vae").exists()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 15e6
    guidance: Any = load_view_guidance(str(folder), [picture()], ViewGuidanceSettings(), CPU)
    assert guidance.networks.pose == "stable-zero123"
    where = orbit_cameras(np.array([20.0, 170.0]), 10.0, 3.0, 40.0)
    result = guidance.gradient(torch.rand(2, 3, 64, 64), where, 0.5, torch.Generator().manual_seed(0))
    assert result.gradient.shape == (2, 3, 64, 64)
    assert torch.isfinite(result.gradient).all()
    assert float(result.gradient.abs().max()) > 0


@torch.no_grad()
def test_the_guidance_asks_what_training_answered(trained: Path) -> None:
    """The loader's token and latents are those of the training's own networks, from the same picture and cameras."""
    guidance: Any = load_view_guidance(str(trained / "weights"), [picture()], ViewGuidanceSettings(), CPU)
    where = orbit_cameras(np.array([100.0]), 30.0, 3.0, 40.0)
    asked = guidance.condition(where)
    nets, colour = make_view_denoiser(), picture().image
    patches = start_from(BUILT_IN_FOLDER, nets)
    parts: dict[str, Any] = {**nets.parts}
    for name, part in parts.items():
        part.load_state_dict(type(part).from_pretrained(trained / "weights" / name).float().state_dict())
    white = colour[:3] * colour[3:] + 1 - colour[3:]
    seen = nn.functional.interpolate(white[None], (64, 64), mode="bilinear", antialias=True) * 2 - 1
    pose = stable_poses(torch.tensor([[100.0, 30.0]]), torch.tensor([[20.0, 10.0]]))
    torch.testing.assert_close(asked.tokens, nets.tokens(seen, pose), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(asked.latents, patches.latents(seen), rtol=0, atol=0.05)


def test_only_the_built_in_model_lends_parts(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "weights", tmp_path / "model"))
    assert open_model(str(folder)).place("vae") == BUILT_IN_FOLDER / "vae"
    assert open_model(str(folder)).place("unet") == folder / "unet"
    for lenders in ({"vae": "../elsewhere"}, ["vae"], {"vae": 3}):
        edit(folder / "model_index.json", **{BORROWED: lenders})
        with pytest.raises(ModelError, match="does not lend"):
            open_model(str(folder))


def test_a_pose_that_is_not_known_is_one_clear_error(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "weights", tmp_path / "model"))
    edit(folder / "model_index.json", **{POSE: "quaternion"})
    with pytest.raises(ModelError, match="'quaternion' poses"):
        load_view_guidance(str(folder), [picture()], ViewGuidanceSettings(), CPU)
    asked = ViewGuidanceSettings(pose="zero-1-to-3")
    assert load_view_guidance(str(folder), [picture()], asked, CPU) is not None


def test_sampling_ends_at_what_the_denoiser_believes_in() -> None:
    alphas = torch.linspace(0.999, 0.005, 1000)
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def noise_of(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = alphas[t][:, None, None, None]
        return (noisy - a.sqrt() * clean) / (1 - a).sqrt()

    torch.testing.assert_close(sampled(noise_of, alphas, (2, 4, 8, 8), 7, 0), clean, rtol=1e-3, atol=1e-3)


def test_figures_of_samples(views: Views) -> None:
    truth = np.zeros((1, 8, 8, 4), np.float32)
    truth[:, 2:6, 2:6] = (0.5, 0.2, 0.1, 1.0)
    same = np.where(truth[..., 3:] > 0, truth[..., :3], np.float32(1))
    perfect = compared(np.clip(same + 1e-3, 0, 1).astype(np.float32), truth)
    assert perfect["psnr"] > 55
    assert perfect["silhouette_iou"] == 1.0
    half = same.copy()
    half[:, 2:4] = 1.0
    assert compared(half, truth)["silhouette_iou"] == 0.5
    assert compared(np.ones_like(same), truth)["colour_error"] == 1.0
