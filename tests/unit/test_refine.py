"""The second part of a run: whose turn it is, painting over, and the field that follows the paintings."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import orbit_cameras
from backend.errors import Cancelled
from backend.events import Event, Progress
from backend.guidance import CombinedGuidance, Guidance, Painter, WeightedGuidance, painter
from backend.guidance.distillation import NoiseSchedule
from backend.guidance.repaint import repaint
from backend.optimize import optimize
from backend.optimize.refine import RATE_END, Paintings, painting_error, rates, strength, turn
from backend.rendering import Renderer, Shading, linear_to_srgb
from backend.request import RefineSettings, Request
from tests.unit.silhouette import BluePainter, SilhouetteGuidance, silhouettes, small_request
from tests.unit.tiny_model import load, make_pipeline

CPU = torch.device("cpu")
SETTINGS = RefineSettings(iterations=120, views=6, visits=4, learning_rate=0.02)
REQUEST = small_request(24, checkpoint_every=10).replace(refine=SETTINGS)


pytestmark = pytest.mark.usefixtures("one_thread")


def run(request: Request, folder: Path, guidance: Guidance, stop_at: int = -1) -> tuple[Any, Any, Any, list[Event]]:
    events: list[Event] = []
    calls = iter(range(10_000))
    folder.mkdir(exist_ok=True)
    return *optimize(request, folder, guidance, CPU, events.append, lambda: next(calls) == stop_at), events


@pytest.mark.parametrize("together", [1, 4, 8])
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("views", [1, 6, 32])
def test_every_view_is_visited_as_often_and_painted_once_a_round(batch: int, views: int, together: int) -> None:
    settings = RefineSettings(views=views, visits=3)
    steps = 2 * 3 * views // batch
    turns = [turn(step, batch, settings, together) for step in range(steps)]
    assert set(Counter(slot for each in turns for slot in each.slots).values()) == {steps * batch // views}
    if views % batch == 0:
        assert sum(each.begins for each in turns) == 2
        painted = Counter(slot for each in turns for slot in each.painted)
        assert set(painted.values()) == {2}
        assert max(len(each.painted) for each in turns) == min(max(together, batch), views)
    assert turns[0].begins
    assert turns[0].painted


@pytest.mark.parametrize(("batch", "together"), [(1, 1), (1, 8), (2, 8), (3, 4)])
def test_no_view_is_fitted_before_it_is_painted_in_its_round(batch: int, together: int) -> None:
    settings, fresh = RefineSettings(views=32, visits=2), set[int]()
    for step in range(32 * 4 // batch):
        now = turn(step, batch, settings, together)
        if now.begins:
            fresh.clear()
        fresh.update(now.painted)
        if step * batch % 64 <= 32 - batch:
            assert set(now.slots) <= fresh, step


def test_neighbouring_turns_show_views_from_far_apart() -> None:
    slots = [turn(step, 1, RefineSettings(views=32)).slots[0] for step in range(32)]
    apart = np.abs(np.diff(slots))
    assert min(np.minimum(apart, 32 - apart)) > 8


def test_strength_and_rates_fall() -> None:
    assert [strength(done, RefineSettings(strength=0.8, strength_end=0.4)) for done in (0.0, 0.5, 1.0)] == [
        0.8,
        pytest.approx(0.6),
        0.4,
    ]
    grid, heads = rates(0.0, RefineSettings(learning_rate=0.005), 0.01)
    assert grid == 0.5
    assert heads > grid
    assert rates(1.0, RefineSettings(learning_rate=0.005), 0.01)[0] == pytest.approx(0.5 * RATE_END)


def test_paintings_keep_cameras_and_pictures() -> None:
    paintings = Paintings(RefineSettings(views=3), 8, CPU)
    cameras = orbit_cameras([0.0, 120.0, -120.0], [0.0, 10.0, 20.0], 3.0, 40.0)
    paintings.aim(cameras, np.random.default_rng(0))
    image = torch.rand((2, 3, 8, 8))
    paintings.keep([2, 0], image)
    assert torch.allclose(paintings.shown([2, 0]), image, atol=0.5 / 255 + 1e-6)
    assert not paintings.shown([1]).any()
    kept = paintings.cameras([2, 0])
    assert np.allclose(kept.azimuth, [-120.0, 0.0], atol=1e-4)
    assert np.allclose(kept.focal, cameras.focal[[2, 0]])
    assert len(Paintings(RefineSettings(iterations=0), 64, CPU).images) == 0


def test_the_paintings_gradient_is_that_of_their_error() -> None:
    images, paintings = torch.rand((2, 3, 4, 4), requires_grad=True), torch.rand((2, 3, 4, 4))
    gradient, loss = painting_error(images, paintings)
    scale = loss / float((images.detach() - paintings).square().mean())
    (expected,) = torch.autograd.grad(scale * (images - paintings).square().mean(), images)
    assert torch.allclose(gradient, expected, rtol=1e-4)


def schedule() -> NoiseSchedule:
    return NoiseSchedule(torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000), 0), "epsilon")


@pytest.mark.parametrize("strength", [0.02, 0.5, 1.0])
def test_a_model_that_knows_the_picture_paints_it(strength: float) -> None:
    known, noise = torch.randn((2, 4, 8, 8)), schedule()
    painted = repaint(
        torch.randn((2, 4, 8, 8)),
        lambda noisy, t: noise.noise_in(noisy, known, t),
        noise,
        strength,
        10,
        torch.Generator().manual_seed(0),
    )
    assert torch.allclose(painted, known, atol=1e-3)


def test_few_steps_of_the_second_order_come_nearer_to_many_than_ddims() -> None:
    noise = schedule()
    spread = torch.rand((1, 4, 1, 1), generator=torch.Generator().manual_seed(1)) + 0.2

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        """The best guess of the noise where clean latents are normal with that ``spread``."""
        signal, sigma = noise.signal_and_noise(t, 4)
        clean = signal * spread**2 / ((signal * spread) ** 2 + sigma**2) * noisy
        return noise.noise_in(noisy, clean, t)

    def painted(steps: int) -> Tensor:
        return repaint(latents, predict, noise, 0.75, steps, torch.Generator().manual_seed(0))

    def by_ddim(steps: int) -> Tensor:
        times = [torch.full((2,), round(0.75 * 999) * i // steps) for i in range(steps, -1, -1)]
        drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        noisy = noise.add_noise(latents, drawn, times[0])
        for before, after in itertools.pairwise(times[:-1]):
            noisy = noise.moved(noisy, predict(noisy, before), before, after)
        return noise.clean(noisy, predict(noisy, times[-2]), times[-2])

    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(2)) * spread
    truth = by_ddim(700)
    away = {steps: float((painted(steps) - truth).square().mean()) for steps in (8, 16)}
    ddim = {steps: float((by_ddim(steps) - truth).square().mean()) for steps in (8, 12)}
    assert away[16] < away[8] < ddim[12] < ddim[8]


def test_strength_zero_paints_nothing() -> None:
    latents = torch.randn((1, 4, 8, 8))
    assert repaint(latents, lambda *_: pytest.fail("asked"), schedule(), 0.0, 10, torch.Generator()) is latents


def test_a_diffusion_model_paints(tmp_path: Path) -> None:
    make_pipeline().save_pretrained(tmp_path / "model")
    guidance = load(tmp_path / "model")
    assert isinstance(guidance, Painter)
    images, cameras = torch.rand((2, 3, 24, 24)), orbit_cameras([0.0, 180.0], 10.0, 3.0, 40.0)
    settings = RefineSettings(sampling_steps=4)

    def paint(strength: float, seed: int = 0) -> Tensor:
        return guidance.repaint(images, cameras, strength, settings, torch.Generator().manual_seed(seed))

    light, heavy = paint(0.1), paint(0.9)
    for painted in (light, heavy):
        assert painted.shape == images.shape
        assert 0.0 <= float(painted.min()) < float(painted.max()) <= 1.0
    assert torch.equal(heavy, paint(0.9))
    assert not torch.equal(heavy, paint(0.9, seed=1))
    untouched = paint(0.0)
    assert (heavy - untouched).abs().mean() > (light - untouched).abs().mean()


def test_the_field_follows_the_paintings(tmp_path: Path) -> None:
    blue = BluePainter()
    request = REQUEST.replace(refine=dataclasses.replace(SETTINGS, iterations=240))
    field, occupancy, metrics, events = run(request, tmp_path, blue)
    assert metrics["steps"] == 264
    assert [e for e in events if isinstance(e, Progress)][-1].total == 264
    assert len(blue.painted) == 240 // 4
    strengths = [strength for strength, _ in blue.painted]
    assert strengths == sorted(strengths, reverse=True)
    assert len({float(cameras.azimuth[0]) for _, cameras in blue.painted}) == len(blue.painted)
    cameras = orbit_cameras([10.0, -150.0], 20.0, 3.0, 40.0)
    with torch.no_grad():
        renderer = Renderer(field, occupancy, 48)
        out = renderer.render(cameras, 32, 32, shading=Shading(), background=torch.full((3,), 0.5), rng=None)
    seen = (out.opacity > 0.5) & silhouettes(cameras, 32)
    red, _, blue = linear_to_srgb(out.rgb)[seen].mean(0)
    assert blue > 2 * red


def test_a_guidance_that_cannot_paint_has_no_second_part(tmp_path: Path) -> None:
    assert run(REQUEST, tmp_path, SilhouetteGuidance())[2]["steps"] == 24


def test_no_second_part_where_none_is_wanted(tmp_path: Path) -> None:
    blue = BluePainter()
    request = REQUEST.replace(refine=RefineSettings(iterations=0))
    assert run(request, tmp_path, blue)[2]["steps"] == 24
    assert not blue.painted


@pytest.mark.parametrize("step", [24, 33, 60])
def test_a_second_part_that_was_ended_goes_on_to_the_same_result(tmp_path: Path, step: int) -> None:
    request = REQUEST.replace(refine=dataclasses.replace(SETTINGS, iterations=48))
    whole = run(request, tmp_path / "whole", BluePainter())
    with pytest.raises(Cancelled):
        run(request, tmp_path / "ended", BluePainter(), stop_at=step)
    resumed = run(request, tmp_path / "ended", BluePainter())
    assert all(
        torch.equal(a, b) for a, b in zip(whole[0].state_dict().values(), resumed[0].state_dict().values(), strict=True)
    )


def test_paintings_keep_the_prompt_of_their_camera() -> None:
    paintings = Paintings(RefineSettings(views=4), 16, torch.device("cpu"))
    drawn = dataclasses.replace(orbit_cameras([0.0, 50.0, 90.0, 180.0], 10.0, 3.0, 40.0), own_prompt=np.arange(4))
    paintings.aim(drawn, np.random.default_rng(0))
    assert list(paintings.cameras([3, 1]).prompt) == [3, 1]


def test_backgrounds_of_paintings_are_white_where_the_model_wants_it() -> None:
    def whites(share: float) -> int:
        paintings = Paintings(RefineSettings(views=200), 16, torch.device("cpu"))
        paintings.aim(orbit_cameras(list(range(200)), 10.0, 3.0, 40.0), np.random.default_rng(0), share)
        return int((paintings.backgrounds == 1.0).all(1).sum())

    assert whites(1.0) == 200
    assert 70 < whites(0.5) < 130
    assert whites(0.0) == 0


def test_of_several_guidances_the_weightiest_that_can_paint_paints() -> None:
    light, heavy, blind = BluePainter(), BluePainter(), SilhouetteGuidance()
    weighted = {"a": WeightedGuidance(light, 0.5), "b": WeightedGuidance(heavy, 2.0), "c": WeightedGuidance(blind, 9.0)}
    assert painter(CombinedGuidance(weighted)) is heavy
    assert painter(CombinedGuidance({"c": weighted["c"]})) is None
    assert painter(light) is light
    assert painter(blind) is None
    assert painter(None) is None
