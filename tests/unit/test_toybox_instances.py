"""Objects of random proportions and colours: symmetric, inside the ball, and of kinds that training may show."""

from __future__ import annotations

import numpy as np
import pytest

from backend.picture.framing import BALL_FILL
from backend.toybox.captions import WORDS
from backend.toybox.held_out import HELD_OUT_KINDS
from backend.toybox.instances import COMPOSITE, COMPOSITE_SHARE, FILL, held_out, make_instance, random_colour
from backend.toybox.kinds import KINDS

EVERY = (*KINDS, *HELD_OUT_KINDS, COMPOSITE)


@pytest.mark.parametrize("kind", EVERY)
def test_an_instance_fits_the_ball_and_is_mirror_symmetric(kind: str) -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    for seed in range(4):
        solids = make_instance(np.random.default_rng(seed), kind).solids
        reach = float(np.linalg.norm(solids.hull_points(), axis=1).max())
        assert FILL[0] * BALL_FILL - 1e-9 <= reach <= FILL[1] * BALL_FILL + 1e-9
        inside = solids.contains(points)
        assert inside.any()
        assert (inside == solids.contains(points * (-1, 1, 1))).all()
        assert np.linalg.det(solids.to_world[:, :, :3]).min() > 0
        assert ((solids.colour >= 0) & (solids.colour <= 1.2)).all()


def test_training_is_shown_every_known_kind_and_no_other() -> None:
    kinds = [make_instance(np.random.default_rng(seed)).kind for seed in range(600)]
    assert set(kinds) == {*KINDS, COMPOSITE}
    assert kinds.count(COMPOSITE) / len(kinds) == pytest.approx(COMPOSITE_SHARE, abs=0.06)


def test_held_out_kinds_are_unknown_to_every_model() -> None:
    assert len(HELD_OUT_KINDS) >= 2
    assert not set(HELD_OUT_KINDS) & (set(KINDS) | set(WORDS))


def test_the_same_number_is_the_same_object() -> None:
    first, again, other = held_out(3, "car"), held_out(3, "car"), held_out(4, "car")
    np.testing.assert_array_equal(first.solids.to_world, again.solids.to_world)
    np.testing.assert_array_equal(first.solids.colour, again.solids.colour)
    assert not np.allclose(first.solids.to_world, other.solids.to_world)


def test_one_kind_varies_far_more_than_words_can_say() -> None:
    """Height over width of cars: the plain world's stays within a tenth, these range over a factor of two."""
    extents = [np.ptp(make_instance(np.random.default_rng(s), "car").solids.hull_points(), axis=0) for s in range(40)]
    ratios = np.array([z / x for x, _, z in extents])
    assert ratios.max() / ratios.min() > 2


def test_colours_are_any() -> None:
    colours = np.array([random_colour(np.random.default_rng(seed)) for seed in range(500)])
    assert colours.min() >= 0 and colours.max() <= 1
    assert (colours.max(0) > 0.6).all() and (colours.min(0) < 0.02).all()
    assert len(np.unique(colours.round(2), axis=0)) > 300
