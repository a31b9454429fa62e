"""Noise found by inversion: exact where the model is, and the published gradients of SDI and ISM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import diffusers
import pytest
import torch
from torch import Tensor

from backend.guidance.conditioning import Condition, inversion_noise
from backend.guidance.distillation import NoiseSchedule, score_gradient
from backend.guidance.inversion import invert, ism_noise, sdi_noise
from backend.guidance.perp_neg import Negatives
from backend.request import GuidanceSettings

SHAPE = (2, 4, 5, 5)


def schedule() -> NoiseSchedule:
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return NoiseSchedule(scheduler.alphas_cumprod, "epsilon")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_model(noise_schedule: NoiseSchedule, spread: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact noise network of data drawn from N(0, spread²)."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = noise_schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return (1 - alpha).sqrt() * noisy / (alpha * spread**2 + 1 - alpha)

    return predict


def test_a_step_is_that_of_diffusers() -> None:
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(100)
    noisy, noise = torch.randn(2, *SHAPE, generator=seeded())
    wanted = scheduler.step(noise, 500, noisy).prev_sample  # pyright: ignore[reportAttributeAccessIssue]
    moved = schedule().moved(noisy, noise, torch.tensor([500, 500]), torch.tensor([490, 490]))
    torch.testing.assert_close(moved, wanted, rtol=1e-5, atol=1e-5)


def test_inversion_follows_the_probability_flow() -> None:
    """For Gaussian data the flow only scales: x_t = x_0 · √((ᾱ s² + 1 − ᾱ) / (ᾱ₀ s² + 1 − ᾱ₀))."""
    noise_schedule, spread = schedule(), 0.6
    latents = spread * torch.randn(SHAPE, generator=seeded())
    timesteps = torch.tensor([300, 800])
    found = invert(latents, timesteps, gaussian_model(noise_schedule, spread), noise_schedule, 400)
    alpha = noise_schedule.alphas_cumprod[torch.cat((timesteps, torch.zeros(2, dtype=torch.int64)))]
    variance = alpha * spread**2 + 1 - alpha
    factor = (variance[:2] / variance[2:]).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(found, factor * latents, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("kind", "varies"), [("sds", True), ("sdi", False), ("ism", False)])
def test_found_noise_leaves_nothing_to_chance(kind: str, varies: bool) -> None:
    fixed = dataclasses.replace(GuidanceSettings(), timestep_range=(0.5, 0.5), timestep_end=(0.5, 0.5))
    settings = dataclasses.replace(fixed, distillation=kind)
    latents, model = torch.randn(SHAPE, generator=seeded()), gaussian_model(schedule(), 0.6)
    first, second = (
        score_gradient(latents, model, schedule(), settings, 0.0, seeded(seed), model).gradient for seed in (1, 2)
    )
    assert bool((first - second).abs().max() > 0.1) == varies


def test_ism_compares_two_neighbouring_timesteps() -> None:
    noise_schedule = schedule()
    latents = torch.randn(SHAPE, generator=seeded())
    model = gaussian_model(noise_schedule, 0.6)
    timesteps = torch.tensor([400, 30])
    noisy, noise = ism_noise(latents, timesteps, model, noise_schedule, 8)
    before = torch.tensor([350, 0])
    inverted = invert(latents, before, model, noise_schedule, 8)
    torch.testing.assert_close(noise, model(inverted, before))
    torch.testing.assert_close(noisy, noise_schedule.moved(inverted, noise, before, timesteps))


@pytest.mark.parametrize("kind", ["sdi", "ism"])
def test_the_gradient_uses_the_noise_that_was_found(kind: str) -> None:
    noise_schedule = schedule()
    settings = dataclasses.replace(GuidanceSettings(), weighting="uniform", inversion_steps=5, distillation=kind)
    latents = torch.randn(SHAPE, generator=seeded())
    model = gaussian_model(noise_schedule, 0.6)
    seen: list[tuple[Tensor, Tensor]] = []

    def guided(noisy: Tensor, timesteps: Tensor) -> Tensor:
        seen.append((noisy, timesteps))
        return torch.tanh(noisy)

    result = score_gradient(latents, guided, noise_schedule, settings, 0.3, seeded(4), model)
    ((noisy, timesteps),) = seen
    find = sdi_noise if kind == "sdi" else ism_noise
    wanted_noisy, wanted_noise = find(latents, timesteps, model, noise_schedule, 5)
    torch.testing.assert_close(noisy, wanted_noisy)
    torch.testing.assert_close(result.gradient, torch.tanh(wanted_noisy) - wanted_noise)
    with pytest.raises(ValueError, match="invert"):
        score_gradient(latents, guided, noise_schedule, settings, 0.3, seeded(4))


@pytest.mark.parametrize(("kind", "rows"), [("ism", 2), ("sdi", 4)])
def test_what_inversion_asks(kind: str, rows: int) -> None:
    """ISM asks without a prompt, SDI with guidance turned round."""
    settings = dataclasses.replace(GuidanceSettings(), distillation=kind, guidance_scale=4.0)
    none = Negatives(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    tokens = torch.arange(6.0).view(6, 1, 1)
    condition = Condition(tokens, torch.ones(6, 1), none, told=True)
    noisy = torch.randn(SHAPE, generator=seeded())

    def network(latents: Tensor, timesteps: Tensor, words: Tensor, mask: Tensor | None) -> Tensor:
        assert len(latents) == len(timesteps) == len(words) == rows
        assert mask is not None
        assert len(mask) == rows
        return latents * (1 + words[:, :, :, None])

    found = inversion_noise(network, noisy, torch.tensor([10, 20]), condition, settings)
    unconditional = noisy * (1 + tokens[:2, :, :, None])
    positive = noisy * (1 + tokens[2:4, :, :, None])
    wanted = unconditional if kind == "ism" else unconditional - 4.0 * (positive - unconditional)
    torch.testing.assert_close(found, wanted)
