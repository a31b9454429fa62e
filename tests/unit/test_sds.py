"""Score distillation: the noise schedule, timesteps, weighting, and the gradient against plain autograd."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backend.guidance.distillation import (
    DIAGNOSTICS,
    NoiseSchedule,
    sample_timesteps,
    score_gradient,
    sds_loss,
    timestep_shares,
)
from backend.request import GuidanceSettings

DDPMScheduler: Any = diffusers.DDPMScheduler


def make_schedule(kind: str = "epsilon") -> NoiseSchedule:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return NoiseSchedule(scheduler.alphas_cumprod, kind)  # pyright: ignore[reportArgumentType]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
    return torch.tanh(noisy) + 0.001 * timesteps.view(-1, 1, 1, 1)


def test_noise_is_added_as_diffusers_does():
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, noise = torch.randn(2, 3, 4, 5, 5, generator=seeded())
    timesteps = torch.tensor([0, 500, 999])
    noisy = make_schedule().add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, timesteps))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_gives_the_noise_back(kind: str):
    schedule = make_schedule(kind)
    latents, noise = torch.randn(2, 3, 4, 5, 5, generator=seeded(1))
    timesteps = torch.tensor([20, 500, 980])
    noisy = schedule.add_noise(latents, noise, timesteps)
    velocity = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").get_velocity(
        latents, noise, timesteps
    )
    perfect = {"epsilon": noise, "v_prediction": velocity, "sample": latents}[kind]
    torch.testing.assert_close(schedule.noise_of(perfect, noisy, timesteps), noise, rtol=1e-3, atol=1e-4)


def test_weightings():
    schedule, timesteps = make_schedule(), torch.tensor([100, 800])
    alpha = schedule.alphas_cumprod[timesteps]
    torch.testing.assert_close(schedule.weight(timesteps, "sds"), 1 - alpha)
    torch.testing.assert_close(schedule.weight(timesteps, "uniform"), torch.ones(2))
    torch.testing.assert_close(schedule.weight(timesteps, "fantasia3d"), alpha.sqrt() * (1 - alpha))


@pytest.mark.parametrize(
    ("anneal", "progress", "shares"),
    [
        ("none", 0.9, (0.2, 0.9)),
        ("linear", 0.0, (0.2, 0.9)),
        ("linear", 0.25, (0.175, 0.8)),
        ("linear", 1.0, (0.1, 0.5)),
        ("sqrt", 0.25, (0.15, 0.7)),
        ("sqrt", 1.0, (0.1, 0.5)),
        ("linear", 1.5, (0.1, 0.5)),
    ],
)
def test_timestep_range_moves_with_progress(anneal: str, progress: float, shares: tuple[float, float]):
    chosen = GuidanceSettings(
        timestep_range=(0.2, 0.9),
        timestep_end=(0.1, 0.5),
        timestep_anneal=anneal,  # pyright: ignore[reportArgumentType]
    )
    assert timestep_shares(chosen, progress) == pytest.approx(shares)


def test_timesteps_reach_both_ends_and_no_further():
    drawn = sample_timesteps(1000, (0.02, 0.04), 4000, seeded())
    assert (int(drawn.min()), int(drawn.max())) == (20, 40)
    assert len(drawn.unique()) == 21


@given(st.integers(1, 1000), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_timesteps_are_always_within_the_schedule(steps: int, ends: tuple[float, float]):
    shares = (min(ends), max(ends))
    drawn = sample_timesteps(steps, shares, 8, seeded())
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < steps


def test_each_sample_has_its_own_timestep_and_noise():
    seen: list[tuple[Tensor, Tensor]] = []

    def record(noisy: Tensor, timesteps: Tensor) -> Tensor:
        seen.append((noisy, timesteps))
        return torch.zeros_like(noisy)

    score_gradient(torch.zeros(6, 4, 8, 8), record, make_schedule(), GuidanceSettings(), 0.0, seeded())
    ((noisy, timesteps),) = seen
    assert len(timesteps.unique()) > 3
    assert not torch.allclose(noisy[0], noisy[1])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
def test_gradient_equals_straight_autograd(batch: int, weighting: str):
    """The image's gradient is Jᵀ·w(t)(ε̂ − ε)/B, J the encoder's Jacobian, written out with the same draws."""
    schedule = make_schedule()
    chosen = GuidanceSettings(weighting=weighting)  # pyright: ignore[reportArgumentType]
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Tanh(), torch.nn.Conv2d(8, 4, 1))
    for i, parameter in enumerate(encoder.parameters()):
        torch.nn.init.normal_(parameter, std=0.5, generator=seeded(i))
    images = torch.rand(batch, 3, 8, 8, generator=seeded(7), requires_grad=True)
    latents = encoder(images)
    score = score_gradient(latents, predict, schedule, chosen, 0.3, seeded(11))
    loss = sds_loss(latents, score.gradient)
    (gradient,) = torch.autograd.grad(loss, images)

    draws = seeded(11)
    low, high = timestep_shares(chosen, 0.3)
    timesteps = torch.randint(int(low * 1000), int(high * 1000) + 1, (batch,), generator=draws)
    noise = torch.randn(latents.shape, generator=draws)
    alpha = schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    factor = {"sds": 1 - alpha, "uniform": torch.ones_like(alpha), "fantasia3d": alpha.sqrt() * (1 - alpha)}[weighting]
    again = encoder(images)
    error = (predict(alpha.sqrt() * again + (1 - alpha).sqrt() * noise, timesteps) - noise).detach()
    (expected,) = torch.autograd.grad((factor * error * again).sum() / batch, images)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert float(loss.detach()) == pytest.approx(0.5 * float((factor * error).square().sum()) / batch, rel=1e-4)
    numbers = dict(zip(DIAGNOSTICS, score.diagnostics.tolist(), strict=True))
    assert numbers["timestep"] == pytest.approx(float(timesteps.float().mean()))
    assert numbers["nonfinite"] == 0.0


def test_the_network_is_not_differentiated():
    scale = torch.ones((), requires_grad=True)
    latents = torch.randn(1, 4, 4, 4, generator=seeded(), requires_grad=True)
    score = score_gradient(latents, lambda x, t: scale * x, make_schedule(), GuidanceSettings(), 0.0, seeded())
    assert not score.gradient.requires_grad


def test_what_is_not_finite_becomes_zero_and_is_counted():
    def broken(noisy: Tensor, timesteps: Tensor) -> Tensor:
        noise = torch.zeros_like(noisy)
        noise[0, 0, 0, 0], noise[0, 0, 0, 1], noise[0, 0, 0, 2] = float("nan"), float("inf"), float("-inf")
        return noise

    latents = torch.randn(1, 4, 4, 4, generator=seeded(), requires_grad=True)
    score = score_gradient(latents, broken, make_schedule(), GuidanceSettings(), 0.0, seeded())
    assert score.gradient[0, 0, 0, :3].tolist() == [0.0, 0.0, 0.0]
    assert (score.gradient[0, 0, 1:] != 0).all()
    (through,) = torch.autograd.grad(sds_loss(latents, score.gradient), latents)
    assert torch.isfinite(through).all()
    assert dict(zip(DIAGNOSTICS, score.diagnostics.tolist(), strict=True))["nonfinite"] == pytest.approx(3 / 64)


def test_same_generator_state_gives_the_same_gradient_and_global_state_is_not_touched():
    latents = torch.randn(2, 4, 4, 4, generator=seeded())
    before = torch.random.get_rng_state()
    draws = [score_gradient(latents, predict, make_schedule(), GuidanceSettings(), 0.5, seeded(s)) for s in (3, 3, 4)]
    assert torch.equal(draws[0].gradient, draws[1].gradient)
    assert not torch.equal(draws[0].gradient, draws[2].gradient)
    assert torch.equal(before, torch.random.get_rng_state())


def test_loss_is_float32_for_half_latents():
    latents = torch.full((1, 4, 2, 2), 0.5, dtype=torch.float16, requires_grad=True)
    loss = sds_loss(latents, torch.full((1, 4, 2, 2), 300.0))
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(0.5 * 16 * 300.0**2)
