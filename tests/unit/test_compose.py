"""Composing: the compiled loops and the PyTorch twin agree in value and gradient, for every kind of light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from backend.rendering import compose as compose_room
from backend.rendering.compose import Style, View, _compiled, _plain, compose
from backend.rendering.composite import opacities
from backend.rendering.march import Samples
from backend.rendering.shading import Shading

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


def found(function: Callable[..., Tensor], styles: Sequence[Style]) -> list[Tensor]:
    """Sums, and gradients by density, albedo and a matrix that the normals are made of; rays have styles in turn."""
    which, draws = samples(), torch.Generator().manual_seed(1)
    density = (torch.rand(len(which), generator=draws) * 20.0).requires_grad_()
    albedo = torch.rand(3, len(which), generator=draws).t().requires_grad_()
    turn = torch.randn(3, 3, generator=draws).requires_grad_()
    directions = normalize(torch.randn(RAYS, 3, generator=draws), dim=1)
    turns = (torch.arange(RAYS) % len(styles)).to(torch.int32)
    view = View(directions, 3.0 * torch.randn(RAYS, 3, generator=draws), turns, tuple(styles), 0.05)
    asked = list[int]()

    def normal_of(x: Tensor) -> Tensor:
        asked.append(len(x))
        return normalize(x @ turn, dim=1)

    sums = function(which, density, albedo, view, normal_of)
    normals = view.normals
    assert sums.shape == (RAYS, 9 if normals else 5)
    assert len(asked) == normals and (not normals or 0 < asked[0] < len(which))
    loss = (sums * torch.randn(sums.shape, generator=draws)).sum()
    gradients = torch.autograd.grad(loss, (density, albedo, turn), materialize_grads=True, allow_unused=True)
    return [sums, *gradients]


LIT = [Style(Shading(mode), normals=True) for mode in ("lambertian", "textureless", "normal")]
STYLES = [
    [Style(Shading("albedo"), normals=False)],
    [Style(Shading("albedo"), normals=True)],
    *([each] for each in LIT),
]


@pytest.mark.parametrize("styles", STYLES, ids=lambda styles: f"{styles[0].shading.mode}-{styles[0].normals}")
def test_compiled_loops_equal_their_twin(styles: list[Style]) -> None:
    pairs = list(zip(found(_compiled, styles), found(_plain, styles), strict=True))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()))
    assert float(pairs[1][1].abs().max()) > 0.0
    if styles[0].normals:
        assert float(pairs[3][1].abs().max()) > 0.0


@pytest.mark.parametrize("function", [_compiled, _plain])
def test_rays_of_several_styles_are_composed_as_alone(function: Callable[..., Tensor]) -> None:
    """Each has its own light, and normals or none, whatever the other rays have."""
    styles = [each for (each,) in STYLES]
    together, turns = found(function, styles)[0], torch.arange(RAYS) % len(styles)
    for index, style in enumerate(styles):
        alone = found(function, [style])[0]
        ours = together[turns == index]
        torch.testing.assert_close(ours[:, : alone.shape[1]], alone[turns == index], rtol=1e-5, atol=1e-6)
        assert style.normals or not ours[:, 5:].any()
    pairs = zip(found(function, styles), found(_plain, styles), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()))


def test_the_compiled_loops_are_what_runs_on_the_cpu() -> None:
    ours, theirs = found(compose, LIT), found(_compiled, LIT)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_opacities_are_the_same_with_any_number_of_threads() -> None:
    density, widths = torch.rand(2, 140001, generator=torch.Generator().manual_seed(2)).unbind()
    before = torch.get_num_threads()
    try:
        found: list[Tensor] = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(opacities(40 * density, widths))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], 1 - torch.exp(-40 * density * widths))


def test_threads_change_nothing() -> None:
    before, each = torch.get_num_threads(), list[list[Tensor]]()
    try:
        with mock.patch.object(compose_room, "_SHARED_SAMPLES", 64):
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                each.append(found(_compiled, LIT))
    finally:
        torch.set_num_threads(before)
    for other in each[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(each[0], other, strict=True))
