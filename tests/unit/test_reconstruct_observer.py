"""The ideal observer: objects redrawn from their own numbers, and what a picture leaves of these open."""

from __future__ import annotations

import numpy as np
import pytest

from backend.toybox.instances import HELD_OUT_SEED
from benchmarks.reconstruct.observer import Dials, left_open, look, redrawn, slopes, summary
from benchmarks.reconstruct.subjects import Subject, subjects

CAT = Subject(3, "cat")


@pytest.mark.parametrize("subject", subjects(16, 2), ids=lambda subject: subject.name)
def test_unmoved_numbers_draw_the_object_itself(subject: Subject) -> None:
    again, count = redrawn(subject)
    still, _ = redrawn(subject, np.zeros(count))
    for solids in (again, still):
        assert np.array_equal(solids.to_world, subject.solids.to_world)
        assert np.array_equal(solids.colour, subject.solids.colour)


def test_a_number_moves_by_its_own_deviations_and_not_out_of_its_range() -> None:
    plain = np.random.default_rng((HELD_OUT_SEED, 1))
    dials = Dials((HELD_OUT_SEED, 1), np.array([0.5, 0.0, 9.0, -2.0]))
    assert dials.random() == plain.random()
    assert dials.uniform(2, 5) == pytest.approx(min(5.0, plain.uniform(2, 5) + 0.5 * 3 / 12**0.5))
    expected = plain.uniform(-1, 1, 2)
    assert dials.uniform(-1, 1, 2).tolist() == pytest.approx([expected[0], 1.0])
    assert dials.integers(9) == plain.integers(9)
    assert dials.normal(1, 0.2) == pytest.approx(plain.normal(1, 0.2) - 0.4)
    assert dials.count == 4


def test_slopes_of_a_linear_picture_are_its_matrix() -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 3))
    assert slopes(lambda moves: matrix @ moves, 3) == pytest.approx(matrix)


def test_what_no_pixel_tells_stays_open_and_noise_opens_the_rest() -> None:
    change = np.array([[1.0, 0.0], [0.0, 0.0]])
    root = left_open(change, 0.5)
    assert root @ root.T == pytest.approx(np.diag([1 / (1 + 4), 1.0]))
    spreads = [np.trace(left_open(change, noise) @ left_open(change, noise).T) for noise in (0.1, 1.0, 10.0)]
    assert spreads == sorted(spreads)


def test_a_picture_tells_more_than_none() -> None:
    row = look(CAT, size=24, draws=1)
    seen, guessed = row["picture"]["0.03"], row["no picture"]
    assert seen["iou"] > 0.9 > guessed["iou"]
    assert 2 * seen["chamfer"] < guessed["chamfer"]
    assert summary([row])["known"]["no picture"] == guessed
