"""Where lamps stand, what the learned background is, and colours to and fro."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from backend.cameras import orbit_cameras, rays
from backend.rendering import (
    LearnedBackground,
    linear_to_srgb,
    sample_light,
    srgb_to_linear,
)


def test_lights() -> None:
    count = 4000
    cameras = orbit_cameras(np.full(count, 40.0), 25.0, 3.0, 40.0)
    lights = sample_light(cameras, np.random.default_rng(0))
    assert lights.shape == (count, 3) and lights.dtype == torch.float32
    distance = lights.norm(dim=-1).double()
    assert distance.min() >= 0.8 * 2.4 - 1e-5 and distance.max() <= 1.5 * 2.4 + 1e-5
    assert distance.mean().item() == pytest.approx(1.15 * 2.4, rel=0.01)
    # The law itself, in the paper's units, from another generator.
    towards = torch.from_numpy(cameras.position / 3.0 * 1.25)
    drawn = nn.functional.normalize(towards + torch.randn(count, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    ours = (lights / lights.norm(dim=-1, keepdim=True) * towards / 1.25).sum(-1).sort().values
    theirs = (drawn * towards / 1.25).sum(-1).sort().values
    assert (ours - theirs).abs().max() < 0.08 and (ours - theirs).abs().mean() < 0.02
    close = sample_light(orbit_cameras(np.zeros(500), 0.0, 1.05, 40.0), np.random.default_rng(0))
    assert close.norm(dim=-1).min() > 1.15
    assert torch.equal(lights, sample_light(cameras, np.random.default_rng(0)))


def test_learned_background() -> None:
    state = torch.random.get_rng_state()
    sky, same, other = LearnedBackground("cpu", 3), LearnedBackground("cpu", 3), LearnedBackground("cpu", 4)
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator was used"
    _, directions = rays(orbit_cameras([0.0, 180.0], 0.0, 3.0, 90.0), 8, 8)
    looked = torch.from_numpy(directions)
    colour = sky(looked)
    assert colour.shape == (2, 8, 8, 3)
    assert colour.min() > 0.3 and colour.max() < 0.7 and colour.std() > 1e-3
    assert torch.equal(colour, same(looked)) and not torch.equal(colour, other(looked))
    optimizer = torch.optim.Adam(sky.parameters(), lr=0.02)
    target = torch.where(looked[..., 2:] > 0, torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0.3, 0.2, 0.1]))
    loss = torch.ones(())
    for _ in range(200):
        optimizer.zero_grad()
        loss = (sky(looked) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.01
    assert set(sky.state_dict()) == {name for name, _ in sky.named_parameters()}


def test_colour_spaces_at_known_values() -> None:
    linear = torch.tensor([0.0, 0.0031308, 0.214041, 0.5, 1.0], dtype=torch.float64)
    srgb = torch.tensor([0.0, 0.04045, 0.5, 0.735357, 1.0], dtype=torch.float64)
    torch.testing.assert_close(linear_to_srgb(linear), srgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(srgb_to_linear(srgb), linear, atol=1e-5, rtol=0)


@given(st.lists(st.floats(-0.25, 1.25, width=32), min_size=1, max_size=20))
def test_colour_spaces_are_inverse_and_smooth(values: list[float]) -> None:
    colour = torch.tensor([0.0, 1.0, 0.0031308, 0.04045, *values], requires_grad=True)
    for there, back in ((linear_to_srgb, srgb_to_linear), (srgb_to_linear, linear_to_srgb)):
        torch.testing.assert_close(back(there(colour)), colour, atol=2e-6, rtol=1e-5)
        (slope,) = torch.autograd.grad(there(colour).sum(), colour)
        assert torch.all(slope > 0.0) and torch.all(slope < 13.0)
