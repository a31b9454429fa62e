"""Hollows: what nothing looks into is solid, what is open stays open."""

from __future__ import annotations

import numpy as np
import pytest

from backend.meshing.mesh import Booleans
from backend.meshing.solidify import hollow
from backend.rendering import openness as openness_module
from backend.rendering.openness import DIRECTIONS, openness

SIZE = 48
AXIS = np.linspace(-1, 1, SIZE)
X, Y, Z = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
RADIUS = np.sqrt(X**2 + Y**2 + Z**2)
SHELL = (RADIUS < 0.8) & (RADIUS > 0.65)


def filled(solid: Booleans) -> Booleans:
    return solid | hollow(solid)


def test_a_closed_shell_becomes_a_ball() -> None:
    assert (filled(SHELL) == (RADIUS < 0.8)).all()


def test_a_shell_with_a_small_hole_becomes_nearly_a_ball() -> None:
    pierced = SHELL & ~((np.hypot(X, Y) < 0.12) & (Z < 0))
    ball = (RADIUS < 0.8).sum()
    assert pierced.sum() < 0.5 * ball
    assert filled(pierced).sum() > 0.93 * ball


def test_a_bowl_and_the_space_between_legs_stay_open() -> None:
    bowl = SHELL & (Z < 0)
    assert filled(bowl).sum() < 1.02 * bowl.sum()
    legs = (np.abs(np.abs(X) - 0.4) < 0.08) & (np.abs(np.abs(Y) - 0.4) < 0.08) & (np.abs(Z) < 0.5)
    table = legs | ((np.abs(X) < 0.5) & (np.abs(Y) < 0.5) & (np.abs(Z - 0.5) < 0.08))
    assert not hollow(table).any()


def test_every_direction_counts_once() -> None:
    assert len(set(DIRECTIONS)) == 26
    assert not hollow(np.zeros((8, 8, 8), bool)).any()


def test_openness_tells_dents_from_flat_ground() -> None:
    ball = RADIUS < 0.8
    dent = ball & (np.sqrt(X**2 + (Y + 0.9) ** 2 + Z**2) < 0.5)
    (seen,) = openness(ball & ~dent, DIRECTIONS)
    deep = dent & (RADIUS < 0.65)
    assert seen[deep].max() <= 13
    assert (seen[~ball] >= 13).mean() > 0.95
    assert not seen[ball & ~dent].any()


def test_numpy_says_the_same_as_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    solid = np.random.default_rng(0).random((9, 10, 11)) < 0.1
    groups = (DIRECTIONS[:5], DIRECTIONS, [(0, 0, 1)], [(0, 0, -1)], [])
    compiled = openness(solid, *groups)
    monkeypatch.setattr(openness_module, "view_kernels", None)
    plain = openness(solid, *groups)
    assert all(np.array_equal(one, other) for one, other in zip(compiled, plain, strict=True))
    assert len({int(each.sum()) for each in plain}) == len(groups)
