"""Health: dead fields are noticed and named, healthy ones are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backend import health
from backend.cameras import CameraBatch, orbit_cameras, rays
from backend.health import PATIENCE, Health, Unhealthy, check_number, check_parameters, look, shell_is_full
from backend.rendering.compiled import view_kernels_for

CAMERAS = orbit_cameras([0.0, 120.0], 20.0, 3.0, 40.0)
CLOSE = orbit_cameras([0.0, 120.0], 20.0, 1.2, 20.0)


def ball_opacity(radius: float, cameras: object = CAMERAS) -> Tensor:
    """[2, 32, 32]: a solid ball."""
    origins, directions = rays(cameras, 32, 32)  # pyright: ignore[reportArgumentType]
    toward = np.einsum("bhwc,bc->bhw", directions, origins)
    seen = toward**2 - (origins**2).sum(-1)[:, None, None] + radius**2 > 0
    return torch.from_numpy(seen.astype(np.float32))


def dense_everywhere(x: Tensor) -> Tensor:
    return torch.full((len(x),), 50.0)


def dense_inside(x: Tensor) -> Tensor:
    return 50.0 * (x.norm(dim=-1) < 0.85)


@pytest.mark.parametrize("radius", [0.05, 0.3, 0.7, 0.95])
def test_an_object_is_neither_empty_nor_full(radius: float) -> None:
    assert look(ball_opacity(radius), CAMERAS) == (False, False)


def test_fog_and_nothing_are_told_apart() -> None:
    assert look(torch.full((2, 32, 32), 0.01), CAMERAS) == (True, False)
    assert look(ball_opacity(1.0), CAMERAS) == (False, True)
    assert look(torch.full((2, 32, 32), 0.4), CAMERAS) == (False, False)


def test_a_vanished_field_is_named_after_patience_and_not_before() -> None:
    health = Health()
    empty = torch.zeros(2, 32, 32)
    for _ in range(PATIENCE - 1):
        health.observe(empty, CAMERAS, dense_inside)
    health.observe(ball_opacity(0.3), CAMERAS, dense_inside)
    for _ in range(PATIENCE - 1):
        health.observe(empty, CAMERAS, dense_inside)
    with pytest.raises(Unhealthy, match="vanished") as caught:
        health.observe(empty, CAMERAS, dense_inside)
    assert caught.value.reason == "vanished"


def test_an_exploded_field_is_named() -> None:
    health = Health()
    for _ in range(PATIENCE - 1):
        health.observe(ball_opacity(1.0), CAMERAS, dense_everywhere)
    with pytest.raises(Unhealthy, match="fills all space") as caught:
        health.observe(ball_opacity(1.0), CAMERAS, dense_everywhere)
    assert caught.value.reason == "exploded"


def test_a_camera_close_to_a_healthy_object_is_no_explosion() -> None:
    health = Health()
    opacity = ball_opacity(0.85, CLOSE)
    assert look(opacity, CLOSE) == (False, True)
    for _ in range(3 * PATIENCE):
        health.observe(opacity, CLOSE, dense_inside)


def test_the_shell_of_a_thin_fog_is_not_full() -> None:
    cpu = torch.device("cpu")
    assert shell_is_full(dense_everywhere, cpu)
    assert not shell_is_full(dense_inside, cpu)
    assert not shell_is_full(lambda x: torch.full((len(x),), 0.5), cpu)
    assert not shell_is_full(lambda x: 50.0 * (x[:, 2] < 0.5), cpu)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_and_parameters_must_be_finite(value: float) -> None:
    check_number(0.0, "loss")
    check_parameters([torch.zeros(3)])
    with pytest.raises(Unhealthy, match="The loss became") as caught:
        check_number(value, "loss")
    assert caught.value.reason == "nan"
    with pytest.raises(Unhealthy, match="parameters"):
        check_parameters([torch.zeros(2), torch.tensor([0.0, value])])


@pytest.mark.parametrize("cameras", [CAMERAS, CLOSE], ids=["far", "close"])
def test_the_compiled_look_says_the_same(cameras: CameraBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    opacity = torch.rand(2, 31, 48, generator=torch.Generator().manual_seed(0))
    opacity[:, :, 20:] *= 0.3
    kernels = view_kernels_for(torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "fullness", lambda *a, of=kernels.fullness: seen.append(of(*a)) or seen[-1])
        look(opacity, cameras)
    twin = health._fullness(opacity, cameras)
    assert seen[0] == pytest.approx(twin, rel=1e-5)
    assert 0.2 < twin[1] < 0.45
