"""The Zero-1-to-3 family, end to end from a folder on disk: a tiny model with random weights, on the CPU."""

from __future__ import annotations

import gc
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.cameras import CameraBatch, orbit_cameras
from backend.errors import RequestError
from backend.guidance import ReferencePicture, Sketcher, load_view_guidance
from backend.guidance.zero123 import Zero123Guidance
from backend.request import RefineSettings, ViewGuidanceSettings
from backend.settings import check
from backend.sketch import SketchSettings
from tests.unit.conformance import judge, noise_pictures
from tests.unit.tiny_zero123 import (
    CLIP_SIDE,
    CPU,
    LATENT_SIDE,
    WIDTH,
    CCProjection,
    CLIPCameraProjection,
    cameras,
    diffusers,
    load,
    picture,
    transformers,
    write_folder,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FULL = ViewGuidanceSettings(guidance_scale=4.0, timestep_range=(0.02, 0.98), timestep_anneal="none")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; not to be changed."""
    return write_folder(tmp_path_factory.mktemp("models") / "tiny-zero123")


@pytest.fixture(scope="module")
def tiny(written: Path) -> Any:
    """The model with default settings, shown one picture from the front."""
    return load(written)


class Plain:
    """The folder's own parts, read and called as any user of diffusers and transformers would."""

    def __init__(self, folder: Path, part: str = "clip_camera_projection", kind: Any = CLIPCameraProjection) -> None:
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
        self.vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
        self.encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
        self.scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
        if kind is CCProjection:  # its config has no sizes; the published ones are its defaults
            self.projection = kind(WIDTH + 4, WIDTH)
            self.projection.load_state_dict(load_file(folder / part / "diffusion_pytorch_model.safetensors"))
        else:
            self.projection = kind.from_pretrained(folder / part)

    def shown(self, reference: ReferencePicture, where: CameraBatch) -> tuple[Tensor, Tensor]:
        """Token [1, 1, D] and latent [1, 4, h, w] of a picture for one view, at the same distance from it."""
        image = reference.image[None]
        seen = torch.nn.functional.interpolate(image, (CLIP_SIDE, CLIP_SIDE), mode="bicubic", align_corners=True)
        mean, std = (
            torch.tensor([0.48145466, 0.4578275, 0.40821073]),
            torch.tensor([0.26862954, 0.26130258, 0.27577711]),
        )
        embedding = self.encoder((seen - mean.view(3, 1, 1)) / std.view(3, 1, 1)).image_embeds
        turn = math.radians(float(where.azimuth[0]) - float(reference.camera.azimuth[0]))
        rise = math.radians(float(reference.camera.elevation[0]) - float(where.elevation[0]))
        told = torch.cat([embedding, torch.tensor([[rise, math.sin(turn), math.cos(turn), 0.0]])], dim=-1)
        return self.projection(told)[:, None], self.vae.encode(2 * image - 1).latent_dist.mode()

    def noise(self, noisy: Tensor, timestep: int, token: Tensor, latent: Tensor, scale: float) -> Tensor:
        """Guided noise, the two branches one after the other."""
        told = self.unet(torch.cat([noisy, latent], 1), timestep, token).sample
        blind = self.unet(torch.cat([noisy, torch.zeros_like(latent)], 1), timestep, torch.zeros_like(token)).sample
        return blind + scale * (told - blind)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["clip_camera_projection", "cc_projection"])
def test_a_denoising_step_is_that_of_the_folders_own_parts(tmp_path: Path, written: Path, layout: Any):
    folder = written if layout == "clip_camera_projection" else write_folder(tmp_path / "other", layout)
    kind = {"clip_camera_projection": CLIPCameraProjection, "cc_projection": CCProjection}[layout]
    guidance, plain, where = load(folder), Plain(folder, layout, kind), cameras(130.0, elevation=-15.0)
    noisy = torch.randn(1, 4, LATENT_SIDE, LATENT_SIDE, generator=torch.Generator().manual_seed(3))
    plain.scheduler.set_timesteps(20)
    for timestep in (901, 401):
        found = guidance.guided_noise(noisy, torch.tensor([timestep]), guidance.condition(where), 3.0)
        expected = plain.noise(noisy, timestep, *plain.shown(picture(), where), 3.0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        steps = [plain.scheduler.step(noise, timestep, noisy).prev_sample for noise in (found, expected)]
        torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_that_of_the_latents_through_the_encoder(written: Path):
    """Against the folder's own parts in straight autograd: encode, add noise, guide, weigh, go back."""
    where = cameras(0.0, 150.0)
    result = judge(load(written, FULL), where)
    plain = Plain(written)
    images = noise_pictures(2).requires_grad_(True)
    draws = torch.Generator().manual_seed(0)
    latents = plain.vae.encode(2 * images - 1).latent_dist.sample(draws) * 0.5
    timesteps = torch.randint(20, 981, (2,), generator=draws)
    noise = torch.randn(latents.shape, generator=draws)
    with torch.no_grad():
        noisy = plain.scheduler.add_noise(latents, noise, timesteps)
        guided = torch.cat([
            plain.noise(noisy[i : i + 1], int(timesteps[i]), *plain.shown(picture(), where[i : i + 1]), 4.0)
            for i in range(2)
        ])  # fmt: skip
        weight = 1 - plain.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    (expected,) = torch.autograd.grad((weight * (guided - noise) * latents).sum() / 2, images)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", [16, 8, 40])
def test_gradient_of_a_batch(tiny: Any, side: int):
    result = judge(tiny, cameras(30.0, -170.0), side=side)
    assert result.gradient.shape == (2, 3, side, side)
    assert result.gradient.dtype == torch.float32
    assert torch.isfinite(result.gradient).all()
    assert all(float(g.abs().max()) > 0 for g in result.gradient)
    assert result.loss > 0
    assert result.diagnostics["evaluations"] == 4
    assert 200 <= result.diagnostics["timestep"] <= 850
    assert result.diagnostics["nonfinite"] == 0


def test_the_two_branches_of_classifier_free_guidance(written: Path):
    """One call: first every view without the picture (zeros for both of its forms), then every view with it."""
    guidance = load(written)
    plain, where = Plain(written), cameras(40.0, 90.0)
    calls: list[tuple[Tensor, ...]] = []
    handle = guidance.networks.unet.register_forward_pre_hook(lambda _, arguments: calls.append(arguments))
    noisy, timesteps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([100, 900])
    with torch.no_grad():
        blind = guidance.guided_noise(noisy, timesteps, guidance.condition(where), 0.0)
        told = guidance.guided_noise(noisy, timesteps, guidance.condition(where), 1.0)
        double = guidance.guided_noise(noisy, timesteps, guidance.condition(where), 2.0)
    handle.remove()
    inputs, times, tokens = calls[1]
    assert inputs.shape == (4, 8, 8, 8)
    torch.testing.assert_close(inputs[:, :4], noisy.repeat(2, 1, 1, 1))
    assert times.tolist() == [100, 900, 100, 900]
    assert not inputs[:2, 4:].any()
    assert not tokens[:2].any()
    for i in range(2):
        token, latent = plain.shown(picture(), where[i : i + 1])
        torch.testing.assert_close(tokens[2 + i], token[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(inputs[2 + i, 4:], latent[0], rtol=1e-4, atol=1e-5)
    assert len(calls[0][0]) == 2  # a scale of 0 does not ask about the picture
    torch.testing.assert_close(double, 2 * told - blind, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(told, blind, atol=1e-3)


def test_picture_pose_and_seed_all_matter(written: Path, tiny: Any):
    where = cameras(30.0)
    base = judge(tiny, where)
    assert torch.equal(base.gradient, judge(load(written), where).gradient)
    for other in (
        judge(tiny, where, seed=1),
        judge(tiny, cameras(-30.0)),
        judge(tiny, cameras(30.0, elevation=40.0)),
        judge(tiny, cameras(30.0, distance=4.0)),
        judge(load(written, references=[picture(seed=2)]), where),
        judge(load(written, references=[picture(10.0)]), where),
    ):
        assert not torch.allclose(base.gradient, other.gradient, rtol=1e-3)


def test_global_chance_is_untouched(tiny: Any):
    state = torch.random.get_rng_state()
    judge(tiny, cameras(30.0))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_image_encoder_is_freed_and_the_networks_are_frozen(written: Path):
    guidance = load(written)
    gc.collect()
    kind = transformers.CLIPVisionModelWithProjection
    assert not any(type(each) is kind for each in gc.get_objects())
    networks = guidance.networks
    parts = (networks.unet, networks.vae, networks.projection)
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())
    assert not guidance.references.embeddings.requires_grad


def test_stable_zero123_is_told_by_its_folders_name(written: Path, tmp_path: Path):
    where = cameras(30.0, elevation=10.0)
    stable = Path(shutil.copytree(written, tmp_path / "stable-zero123-diffusers"))
    cached = tmp_path / "models--someone--stable-zero123" / "snapshots" / "0f3a"
    shutil.copytree(written, cached)
    assert load(written).networks.pose == "zero-1-to-3"
    assert load(stable).networks.pose == load(cached).networks.pose == "stable-zero123"
    asked = load(written, ViewGuidanceSettings(pose="stable-zero123"))
    assert torch.equal(judge(load(stable), where).gradient, judge(asked, where).gradient)
    assert not torch.allclose(judge(load(stable), where).gradient, judge(load(written), where).gradient)
    assert load(stable, ViewGuidanceSettings(pose="zero-1-to-3")).networks.pose == "zero-1-to-3"


@torch.no_grad()
def test_several_references(written: Path):
    """A view goes by the pictures near it, each with its own pose; one of a tenth of the weight is not asked."""
    front, back = picture(0.0, seed=1), picture(180.0, seed=2)
    both, noisy = load(written, references=[front, back]), torch.ones(1, 4, 8, 8)
    alone = [load(written, references=[each]) for each in (front, back)]
    time = torch.tensor([500])

    def noise(guidance: Any, where: CameraBatch) -> Tensor:
        return guidance.guided_noise(noisy, time, guidance.condition(where), 3.0)

    for azimuth, own in ((0.0, 0), (180.0, 1)):
        where = cameras(azimuth, elevation=20.0)
        assert len(both.condition(where).tokens) == 1
        torch.testing.assert_close(noise(both, where), noise(alone[own], where), rtol=1e-4, atol=1e-4)
    side = cameras(90.0, elevation=20.0)
    mean = (noise(alone[0], side) + noise(alone[1], side)) / 2
    torch.testing.assert_close(noise(both, side), mean, rtol=1e-4, atol=1e-4)
    nearest = load(written, ViewGuidanceSettings(references="nearest"), [front, back])
    near = cameras(80.0, elevation=20.0)
    torch.testing.assert_close(noise(nearest, near), noise(alone[0], near), rtol=1e-4, atol=1e-4)
    heavy = load(written, references=[replace(front, weight=3.0), back])
    torch.testing.assert_close(heavy.condition(side).shares, torch.tensor([[0.75, 0.25]]))


@torch.no_grad()
def test_a_batch_equals_its_views(written: Path):
    guidance = load(written, references=[picture(0.0, seed=1), picture(120.0, seed=2), picture(-100.0, seed=3)])
    where, time = cameras(10.0, 60.0, -170.0), torch.tensor([100, 500, 900])
    noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    together = guidance.guided_noise(noisy, time, guidance.condition(where), 3.0)
    for i in range(3):
        one = slice(i, i + 1)
        alone = guidance.guided_noise(noisy[one], time[one], guidance.condition(where[one]), 3.0)
        torch.testing.assert_close(together[one], alone, rtol=1e-3, atol=1e-4)


def test_views_near_a_picture_may_count_less(written: Path):
    settings = replace(FULL, near_views="angle")
    where = cameras(0.0, 90.0, elevation=20.0)
    full, less = judge(load(written, FULL), where).gradient, judge(load(written, settings), where).gradient
    assert float(less[0].abs().max()) < 1e-4 * float(full[0].abs().max())
    angle = math.degrees(math.acos(math.sin(math.radians(20)) ** 2))
    torch.testing.assert_close(less[1], full[1] * angle / 180.0, rtol=1e-4, atol=1e-7)


def test_a_picture_with_alpha_stands_before_white(written: Path):
    cut_out = picture(channels=4)
    colour, alpha = cut_out.image[:3], cut_out.image[3:]
    whole = ReferencePicture(colour * alpha + 1 - alpha, cut_out.camera)
    ours, plain = load(written, references=[cut_out]), load(written, references=[whole])
    torch.testing.assert_close(ours.references.latents, plain.references.latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.references.embeddings, plain.references.embeddings, rtol=1e-4, atol=1e-5)
    large = picture(side=40)
    assert load(written, references=[large]).references.latents.shape == (1, 4, LATENT_SIDE, LATENT_SIDE)


def test_settings_reach_the_gradient(tiny: Any):
    where, base = cameras(40.0), ViewGuidanceSettings()
    results = [judge(Zero123Guidance(tiny.networks, tiny.references, s), where).gradient for s in (
        base,
        replace(base, guidance_scale=5.0),
        replace(base, weighting="uniform"),
        replace(base, timestep_range=(0.7, 0.71), timestep_anneal="none"),
        replace(base, timestep_anneal="linear"),
        replace(base, distillation="ism"),
        replace(base, distillation="sdi", inversion_steps=2),
    )]  # fmt: skip
    for i, one in enumerate(results):
        assert torch.isfinite(one).all()
        assert not any(torch.allclose(one, other, rtol=1e-3) for other in results[i + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": -1.0}, {"guidance_scale": math.nan}, {"timestep_range": (0.9, 0.1)}, {"pose": "other"},
        {"object_extent": 0.0}, {"references": "all"}, {"prompt_weight": -0.1}, {"timestep_end": (0.0, 1.5)},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_bounds(written: Path, change: dict[str, Any]):
    check(ViewGuidanceSettings())
    with pytest.raises(RequestError, match=f"view_guidance.{next(iter(change))}"):
        load(written, replace(ViewGuidanceSettings(), **change))


def with_image(image: Tensor) -> list[ReferencePicture]:
    return [replace(picture(), image=image)]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([], "no reference picture"),
        (with_image(torch.rand(3, 16, 12)), "picture 1 is 12×16"),
        (with_image(torch.rand(1, 16, 16)), "is no picture"),
        (with_image(torch.full((3, 16, 16), 3, dtype=torch.uint8)), "is no picture"),
        (with_image(torch.full((3, 16, 16), 1.5)), r"outside \[0, 1\]"),
        (with_image(torch.full((3, 16, 16), math.nan)), r"outside \[0, 1\]"),
        ([picture(), replace(picture(), camera=cameras(0.0, 1.0))], "picture 2 has 2 cameras"),
        ([replace(picture(), weight=0.0)], "weight 0.0"),
        ([replace(picture(), weight=math.inf)], "weight inf"),
    ],
)
def test_pictures_that_cannot_be_shown(written: Path, references: list[ReferencePicture], message: str):
    with pytest.raises(RequestError, match=message) as caught:
        load_view_guidance(str(written), references, ViewGuidanceSettings(), CPU)
    assert caught.value.hint


@pytest.mark.gpu
def test_half_precision_on_cuda_agrees_with_single_on_the_cpu(written: Path, tiny: Any):
    guidance = load(written, device=torch.device("cuda"))
    assert guidance.dtype == torch.float16
    on_gpu, on_cpu = judge(guidance, cameras(30.0, 100.0)), judge(tiny, cameras(30.0, 100.0))
    assert on_gpu.gradient.dtype == torch.float32
    flat = [result.gradient.flatten().cpu() for result in (on_gpu, on_cpu)]
    assert torch.nn.functional.cosine_similarity(flat[0], flat[1], 0) > 0.99


def test_cameras_of_any_kind(tiny: Any):
    """Straight above, from below, and a lens of its own: finite, and the pose is that of the position."""
    where = orbit_cameras([0.0, 180.0, 45.0], [90.0, -90.0, 0.0], [2.0, 3.0, 5.0], [20.0, 50.0, 80.0])
    assert torch.isfinite(judge(tiny, where).gradient).all()
    assert isinstance(where.azimuth, np.ndarray)


def test_a_picture_that_descends_becomes_what_the_model_knows(written: Path, monkeypatch: pytest.MonkeyPatch):
    guidance, where = load(written, replace(FULL, guidance_scale=1.0)), cameras(90.0)
    schedule = guidance.networks.schedule
    known = guidance.encode(noise_pictures(2)[1:], torch.Generator().manual_seed(0)).detach()

    def knows_one(noisy: Tensor, times: Tensor, *_: Any) -> Tensor:
        signal, spread = schedule.signal_and_noise(times, 4)
        return (noisy - signal * known) / spread

    monkeypatch.setattr(guidance, "predict_noise", knows_one)
    images, losses = noise_pictures(1).requires_grad_(True), list[float]()
    adam = torch.optim.Adam([images], lr=0.03)
    for _ in range(25):
        result = guidance.gradient(images, where, 0.0, torch.Generator().manual_seed(0))
        losses.append(result.loss)
        images.grad = result.gradient
        adam.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_painting_is_what_the_model_knows(written: Path, monkeypatch: pytest.MonkeyPatch):
    guidance, where = load(written), cameras(30.0, 120.0)
    known = guidance.encode(noise_pictures(4)[2:], torch.Generator().manual_seed(0)).detach()
    shown = list[Tensor]()

    def knows_two(noisy: Tensor, times: Tensor, _: Tensor, latents: Tensor) -> Tensor:
        signal, spread = guidance.networks.schedule.signal_and_noise(times, 4)
        shown.append(latents)
        return (noisy - signal * known[torch.arange(len(noisy)) % 2]) / spread

    monkeypatch.setattr(guidance, "predict_noise", knows_two)
    settings = RefineSettings(sampling_steps=3)
    painted = guidance.repaint(torch.rand(2, 3, 24, 24), where, 0.8, settings, torch.Generator().manual_seed(1))
    expected = torch.nn.functional.interpolate(guidance.decode(known), (24, 24), mode="bilinear")
    torch.testing.assert_close(painted, expected, atol=1e-4, rtol=0)
    assert len(shown) == 3  # one call a step, first the rows without the picture
    assert not shown[0][:2].any() and shown[0][2:].any()


def test_a_drawing_is_a_white_page_wholly_painted_over(written: Path):
    guidance, where = load(written), cameras(30.0, 120.0)
    assert isinstance(guidance, Sketcher)
    assert guidance.told
    drawn = guidance.draw(where, SketchSettings(sampling_steps=3), torch.Generator().manual_seed(1))
    white = torch.ones(2, 3, *load(written).image_size)
    painted = guidance.repaint(white, where, 1.0, RefineSettings(sampling_steps=3), torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, painted)
    assert not torch.allclose(drawn[0], drawn[1])
