"""What a picture shows, beside views that see past it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.cameras import CameraBatch, orbit_cameras, rays
from backend.optimize.vetoes import without_vetoes
from backend.picture import Reference
from backend.reference_files import ReferenceView

Ball = tuple[tuple[float, float, float], float]
"""Its middle and its radius."""

SIZE = 64
BODY: Ball = (0.0, 0.0, 0.0), 0.4
SNOUT: Ball = (0.0, -0.5, 0.1), 0.15
AROUND = orbit_cameras(np.arange(-180.0, 180.0, 30.0), np.full(12, 10.0), 3.0, 40.0)


def view(camera: CameraBatch, *balls: Ball) -> ReferenceView:
    """The balls' silhouette."""
    origins, directions = rays(camera, SIZE, SIZE)
    alpha = np.zeros((SIZE, SIZE), np.float32)
    for middle, radius in balls:
        beside = np.linalg.norm(np.cross(np.array(middle) - origins[0], directions[0]), axis=-1)
        alpha[beside < radius] = 1.0
    picture = Reference(np.stack((0 * alpha, 0 * alpha, 0 * alpha, alpha), -1), "plain")
    return ReferenceView(camera, 1.0, (picture,), picture)


def around(*balls: Ball) -> list[ReferenceView]:
    return [view(AROUND[i : i + 1], *balls) for i in range(len(AROUND))]


def opacity(views: tuple[ReferenceView, ...]) -> NDArray[np.float32]:
    return np.stack([each.sizes[0].rgba[..., 3] for each in views])


def test_a_snout_that_a_picture_shows_is_not_called_empty() -> None:
    """It is unknown where the picture sees it beside the body; what the views do show stays as it is."""
    picture = view(orbit_cameras(-75.0, 0.0, 3.0, 40.0), BODY, SNOUT)
    views = around(BODY)
    found, before = opacity(without_vetoes(views, [picture])), opacity(tuple(views))
    assert np.array_equal(found[before > 0.5], before[before > 0.5])
    snout = (opacity(tuple(around(SNOUT))) > 0.5) & (before < 0.5)
    hidden = np.isnan(found)
    assert hidden[snout].mean() > 0.9
    assert hidden.sum() < 3 * snout.sum()  # how far away it is no one knows


def test_the_body_behind_it_is_enough() -> None:
    """In the middle of the picture the views agree with it: there may be a snout or not."""
    picture = view(orbit_cameras(0.0, 10.0, 3.0, 40.0), BODY, SNOUT)
    assert np.isnan(opacity(without_vetoes(around(BODY), [picture]))).mean() < 0.003


def test_views_that_agree_with_the_picture_stay() -> None:
    picture = view(orbit_cameras(40.0, 15.0, 3.0, 40.0), BODY, SNOUT)
    views = around(BODY, SNOUT)
    found = opacity(without_vetoes(views, [picture]))
    assert np.isnan(found).mean() < 0.003  # half a pixel at the outlines
    again = without_vetoes(views, [])
    assert np.array_equal(opacity(again), opacity(tuple(views)))


def test_they_are_not_changed_in_place() -> None:
    views = around(BODY)
    without_vetoes(views, [view(orbit_cameras(40.0, 15.0, 3.0, 40.0), BODY, SNOUT)])
    assert not np.isnan(opacity(tuple(views))).any()
