"""View prompts: the words, the shares by azimuth, and the interpolation of embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.guidance.view_prompts import VIEWS, TextEmbeddings, view_prompts, view_weights
from backend.toybox.captions import NAMED_VIEWS

azimuths = st.floats(-180.0, 180.0, allow_nan=False)
elevations = st.floats(-90.0, 90.0, allow_nan=False)


def test_prompts_say_from_where():
    assert view_prompts("a red duck") == [
        "a red duck, front view",
        "a red duck, side view",
        "a red duck, back view",
        "a red duck, overhead view",
        "a red duck, front three quarter view",
        "a red duck, back three quarter view",
    ]


def test_the_built_in_model_is_taught_these_views():
    assert NAMED_VIEWS == VIEWS


def test_prompts_have_no_doubled_punctuation():
    assert view_prompts("  a red duck. ")[0] == "a red duck, front view"


@pytest.mark.parametrize(
    ("azimuth", "elevation", "shares"),
    [
        (0, 0, (1, 0, 0, 0)),
        (45, 10, (0.5, 0.5, 0, 0)),
        (-45, 10, (0.5, 0.5, 0, 0)),
        (90, 0, (0, 1, 0, 0)),
        (-90, -80, (0, 1, 0, 0)),
        (112.5, 0, (0, 0.75, 0.25, 0)),
        (180, 59.9, (0, 0, 1, 0)),
        (-180, 0, (0, 0, 1, 0)),
        (30, 60, (0, 0, 0, 1)),
        (30, 90, (0, 0, 0, 1)),
    ],
)
def test_shares_of_the_views(azimuth: float, elevation: float, shares: tuple[float, ...]):
    found = view_weights(azimuth, elevation, overhead_angle=60.0)
    np.testing.assert_allclose(found, [(*shares, 0, 0)], atol=1e-12)


@pytest.mark.parametrize(
    ("azimuth", "shares"),
    [
        (0, (1, 0, 0, 0, 0, 0)),
        (-45, (0, 0, 0, 0, 1, 0)),
        (67.5, (0, 0.5, 0, 0, 0.5, 0)),
        (90, (0, 1, 0, 0, 0, 0)),
        (-135, (0, 0, 0, 0, 0, 1)),
        (168.75, (0, 0, 0.75, 0, 0, 0.25)),
        (180, (0, 0, 1, 0, 0, 0)),
    ],
)
def test_shares_with_the_three_quarter_views(azimuth: float, shares: tuple[float, ...]):
    found = view_weights([azimuth, azimuth], [10, 70], 60.0, three_quarter=True)
    np.testing.assert_allclose(found, [shares, (0, 0, 0, 1, 0, 0)], atol=1e-12)


@given(azimuths, elevations, st.floats(0.0, 90.0), st.booleans())
def test_shares_sum_to_one_and_left_equals_right(azimuth: float, elevation: float, limit: float, between: bool):
    shares = view_weights([azimuth, -azimuth], [elevation, elevation], limit, three_quarter=between)
    assert shares.min() >= 0.0
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(shares[0], shares[1])


@given(azimuths)
def test_shares_change_without_jumps(azimuth: float):
    near = view_weights([azimuth, np.clip(azimuth + 0.01, -180, 180)], [0.0, 0.0], 60.0)
    assert np.abs(near[0] - near[1]).max() <= 0.01 / 90 + 1e-9


def test_embeddings_are_interpolated_token_by_token():
    views = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(0))
    text = TextEmbeddings(views, torch.zeros(5, 7))
    mixed = text.interpolated(view_weights([0.0, 30.0, -135.0, 20.0], [0.0, 0.0, 0.0, 75.0], 60.0))
    expected = torch.stack([views[0], views[0] * 2 / 3 + views[1] / 3, views[1] / 2 + views[2] / 2, views[3]])
    torch.testing.assert_close(mixed, expected)


def test_each_sample_has_the_views_of_its_own_prompt():
    views = torch.randn(18, 5, 7, generator=torch.Generator().manual_seed(0))
    shares = view_weights([0.0, 30.0, 30.0], [0.0, 0.0, 0.0], 60.0)
    mixed = TextEmbeddings(views, torch.zeros(5, 7)).interpolated(shares, np.array([2, 0, 1]))
    expected = torch.stack([views[12], views[0] * 2 / 3 + views[1] / 3, views[6] * 2 / 3 + views[7] / 3])
    torch.testing.assert_close(mixed, expected)
