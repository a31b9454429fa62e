"""Recipes are settings that exist; the first is the defaults; the command line takes them before other options."""

from __future__ import annotations

import pytest

from backend import cli
from backend.recipes import RECIPES
from backend.request import preset


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_request(name) -> None:
    request = preset("standard", "a red duck").with_assignments(RECIPES[name]).validated()
    assert request.prompt == "a red duck"


def test_camera_told_is_the_default_and_takes_words_alone_back() -> None:
    start = preset("standard", "a red duck")
    changed = start.with_assignments(RECIPES["words-alone"])
    assert changed != start and changed.sketches and changed.mirrored
    assert changed.with_assignments(RECIPES["camera-told"]) == start


def test_options_change_what_a_recipe_says() -> None:
    asked = ["generate", "--out", "x", "--prompt", "a duck", "--recipe", "words-alone", "--guidance-scale", "5"]
    request = cli._request(cli._parser().parse_args([*asked, "--set", "optimize.view_growth=0.25"]))
    assert not request.guidance.camera_conditioning and request.refine.iterations == 0
    assert (request.guidance.guidance_scale, request.optimize.view_growth) == (5.0, 0.25)
