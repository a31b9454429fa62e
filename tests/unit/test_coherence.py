"""Silhouette coherence: true silhouettes fill their hull, mirrored ones do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from backend.cameras import orbit_cameras, rays
from backend.optimize.coherence import Hulls

AZIMUTHS = {"front": 0.0, "between": 45.0, "right": 90.0, "back": 180.0, "left": -90.0}
SPHERES = (((0.0, 0.1, -0.1), 0.45), ((0.0, -0.5, 0.4), 0.25))
"""A body, and a head before and above it."""


def silhouettes(side: int) -> dict[str, np.ndarray]:
    masks: dict[str, np.ndarray] = {}
    for name, azimuth in AZIMUTHS.items():
        origins, directions = rays(orbit_cameras(azimuth, 20.0, 3.0, 40.0), side, side)
        seen = np.zeros((side, side), bool)
        for middle, radius in SPHERES:
            offset = origins[0] - np.array(middle)
            along = directions[0] @ offset
            seen |= along**2 - offset @ offset + radius**2 > 0
        masks[name] = seen.astype(np.float32)
    return masks


@pytest.mark.parametrize("side", [48, 64, 200])
def test_true_silhouettes_fit_best(side: int) -> None:
    masks = silhouettes(side)
    hulls = Hulls(list(AZIMUTHS), orbit_cameras(list(AZIMUTHS.values()), 20.0, 3.0, 40.0))
    found: dict[tuple[bool, ...], float] = {}
    for flips in itertools.product((False, True), repeat=2):
        way = dict(masks)
        if flips[0]:
            way["between"] = masks["between"][:, ::-1]
        if flips[1]:
            way |= {"right": masks["left"], "left": masks["right"]}
        found[flips] = hulls.coherence(way)
    assert max(found, key=lambda flips: found[flips]) == (False, False)
    assert found[False, False] > 0.9
    assert sorted(found.values())[-2] < found[False, False] - 0.03


def test_one_bad_silhouette_of_several_is_borne() -> None:
    masks = silhouettes(64)
    hulls = Hulls(list(AZIMUTHS), orbit_cameras(list(AZIMUTHS.values()), 20.0, 3.0, 40.0))
    without = hulls.coherence({**masks, "back": np.zeros((64, 64), np.float32)})
    assert 0.6 < without < hulls.coherence(masks)


def test_nothing_fits_nothing() -> None:
    hulls = Hulls(["front"], orbit_cameras(0.0, 20.0, 3.0, 40.0))
    assert hulls.coherence({"front": np.zeros((8, 8), np.float32)}) == 0.0
