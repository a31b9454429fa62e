"""Composing: the compiled loops and the PyTorch twin agree in value and gradient, for every kind of light."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from backend.rendering.compose import View, _compiled, _plain, compose
from backend.rendering.march import Samples
from backend.rendering.shading import Shading, ShadingMode

RAYS = 300


def samples() -> Samples:
    """Rays of no to 11 samples."""
    draws = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 12, (RAYS,), generator=draws)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = int(offsets[-1])
    return Samples(
        torch.rand(total, 3, generator=draws) - 0.5,
        2.0 + torch.rand(total, generator=draws),
        torch.full((total,), 0.04),
        torch.repeat_interleave(torch.arange(RAYS), counts),
        offsets,
    )


def found(function: Callable[..., tuple[Tensor, Tensor]], mode: ShadingMode, *, normals: bool) -> list[Tensor]:
    """Sums, orientation, and gradients by density, albedo and a matrix that the normals are made of."""
    which, draws = samples(), torch.Generator().manual_seed(1)
    density = (torch.rand(len(which), generator=draws) * 20.0).requires_grad_()
    albedo = torch.rand(3, len(which), generator=draws).t().requires_grad_()
    turn = torch.randn(3, 3, generator=draws).requires_grad_()
    directions = normalize(torch.randn(RAYS, 3, generator=draws), dim=1)
    view = View(directions, 3.0 * torch.randn(RAYS, 3, generator=draws), Shading(mode), 0.05)
    asked = list[int]()

    def normal_of(x: Tensor) -> Tensor:
        asked.append(len(x))
        return normalize(x @ turn, dim=1)

    sums, orientation = function(which, density, albedo, view, normal_of if normals else None)
    assert sums.shape == (RAYS, 8 if normals else 5)
    assert not normals or 0 < asked[0] < len(which)
    loss = (sums * torch.randn(sums.shape, generator=draws)).sum() + 3.0 * orientation
    gradients = torch.autograd.grad(loss, (density, albedo, turn), materialize_grads=True, allow_unused=True)
    return [sums, orientation, *gradients]


@pytest.mark.parametrize(
    ("mode", "normals"),
    [("albedo", False), ("albedo", True), ("lambertian", True), ("textureless", True), ("normal", True)],
)
def test_compiled_loops_equal_their_twin(mode: ShadingMode, normals: bool) -> None:
    pairs = list(zip(found(_compiled, mode, normals=normals), found(_plain, mode, normals=normals), strict=True))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()))
    assert float(pairs[2][1].abs().max()) > 0.0
    if normals:
        assert float(pairs[4][1].abs().max()) > 0.0


def test_the_compiled_loops_are_what_runs_on_the_cpu() -> None:
    ours, theirs = found(compose, "lambertian", normals=True), found(_compiled, "lambertian", normals=True)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
