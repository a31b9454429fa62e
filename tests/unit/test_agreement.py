"""What drawings agree on: most of what differs between them averages out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.optimize.agreement import agreement, typical

Floats = NDArray[np.float32]

SIDE = 64
RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)


def bird(scale: float = 1.0, right: float = 0.0, down: float = 0.0, mirrored: bool = False) -> Floats:
    """[64, 64, 4]: a blue disc with a red head at its left; its middle at ``right``, ``down`` of the picture's."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2).astype(np.float32)
    x, y = (-(x - right) if mirrored else x - right) / scale, (y - down) / scale
    body, head = np.hypot(x - 2, y - 2) < 14, np.hypot(x + 12, y + 10) < 7
    image = np.zeros((SIDE, SIDE, 4), np.float32)
    image[body] = (*BLUE, 1.0)
    image[head] = (*RED, 1.0)
    return image


def overlap(a: Floats, b: Floats) -> float:
    one, two = a[..., 3] > 0.5, b[..., 3] > 0.5
    return float((one & two).sum() / (one | two).sum())


def crowd(count: int, seed: int) -> list[Floats]:
    """Birds a little larger or smaller and beside the middle, half of them mirrored, each with a patch of its own."""
    rng = np.random.default_rng(seed)
    birds: list[Floats] = []
    for index in range(count):
        image = bird(float(np.exp(rng.normal(0, 0.06))), *rng.normal(0, 2, 2), mirrored=index % 2 == 1)
        row, column = rng.integers(8, SIDE - 16, 2)
        image[row : row + 8, column : column + 8] = rng.integers(0, 2) * np.array((*RED, 1.0), np.float32)
        birds.append(image)
    return birds


@pytest.mark.parametrize("seed", range(3))
def test_the_agreement_is_nearer_the_truth_than_any_drawing(seed: int) -> None:
    drawings = crowd(24, seed)
    true = (bird(), bird(mirrored=True))
    found = agreement(drawings, 0.0)
    assert found.shape == (SIDE, SIDE, 4)
    assert found.dtype == np.float32
    best = max(max(overlap(each, way) for way in true) for each in drawings)
    assert max(overlap(found, way) for way in true) > max(0.93, best)


def test_colours_are_the_mean_where_something_is() -> None:
    found = agreement([bird() for _ in range(4)], 0.0)
    np.testing.assert_allclose(found, bird(), atol=0.02)  # at edges, resampling
    assert not found[..., :3][found[..., 3] == 0].any()


def test_size_and_place_are_the_mean_of_all() -> None:
    """Whichever of them is the typical one."""
    drawings = [bird(scale, right) for scale, right in ((0.9, 0.0), (1.0, 2.0), (1.1, 4.0))]
    found = agreement(drawings, 0.0)[..., 3]
    middle = bird(0.99, 2.0)[..., 3]  # the geometric mean of the sizes
    assert found.sum() == pytest.approx(middle.sum(), rel=0.02)
    columns = np.arange(SIDE)
    assert found.sum(0) @ columns / found.sum() == pytest.approx(middle.sum(0) @ columns / middle.sum(), abs=0.4)


def test_what_shows_something_else_does_not_count() -> None:
    bar = np.zeros((SIDE, SIDE, 4), np.float32)
    bar[30:34] = 1.0
    assert overlap(agreement([*(bird() for _ in range(4)), bar, bar], 0.0), bird()) > 0.98


def test_an_empty_drawing_does_not_count() -> None:
    assert overlap(agreement([bird(), bird(), np.zeros_like(bird())], 0.0), bird()) > 0.98


def test_the_typical_one_agrees_with_the_others() -> None:
    masks = [np.zeros((8, 8), np.float32) for _ in range(4)]
    masks[0][2:6, 1:4] = 1
    masks[1][2:6, 4:7] = 1  # its mirror image
    masks[2][2:6, 1:5] = 1
    masks[3][:2, :] = 1  # another thing
    assert typical(masks, 0.0) in (0, 1)
    masks[3][:] = 0
    masks[3][2:6, 2:6] = 1  # less like them, but as seen from before
    assert typical(masks, 0.0) != 3
    assert typical(masks, 2.0) == 3
