"""Presets of Blender's own kind, the seed, and the size of the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bpy.blender import bpy

MENU = "DREAMLATHE_PT_quality_presets"
SUBFOLDER = "dreamlathe/quality"
PRESETS_OF_RECIPES = {"Camera_Told": "camera-told", "Words_Alone": "words-alone", "DreamFusion": "dreamfusion"}


def find(name: str) -> str:
    return bpy.utils.preset_find(name, SUBFOLDER) or ""


@pytest.mark.skipif(
    not hasattr(bpy.utils, "register_preset_path"), reason="this Blender finds no presets of extensions"
)
@pytest.mark.parametrize("name", ["Draft", "Standard", "High"])
def test_the_presets_that_come_along(settings: Any, extension: Any, name: str) -> None:
    settings.optimize.iterations = 7
    assert bpy.ops.script.execute_preset(filepath=find(name), menu_idname=MENU) == {"FINISHED"}
    start = extension("backend.request").preset(name.lower())
    assert (settings.preset, settings.optimize.iterations) == (name.lower(), start.optimize.iterations)
    assert (settings.mesh.faces, settings.refine.iterations) == (start.mesh.faces, start.refine.iterations)


@pytest.mark.skipif(
    not hasattr(bpy.utils, "register_preset_path"), reason="this Blender finds no presets of extensions"
)
@pytest.mark.parametrize(("name", "recipe"), PRESETS_OF_RECIPES.items())
def test_a_preset_for_each_recipe(settings: Any, extension: Any, name: str, recipe: str) -> None:
    settings.guidance.guidance_scale, settings.optimize.view_growth, settings.refine.iterations = 77.0, 0.9, 5
    settings.prompt = "a red duck"
    assert bpy.ops.script.execute_preset(filepath=find(name), menu_idname=MENU) == {"FINISHED"}
    found = extension("properties").to_request(settings)
    assert found == found.with_assignments(extension("backend.recipes").RECIPES[recipe])


def test_every_recipe_has_a_preset(extension: Any) -> None:
    assert set(PRESETS_OF_RECIPES.values()) == set(extension("backend.recipes").RECIPES)


def test_a_preset_of_ones_own(settings: Any) -> None:
    settings.optimize.iterations, settings.mesh.faces, settings.refine.iterations = 123, 4567, 89
    settings.guidance.timestep_range, settings.guidance.perp_neg = (0.25, 0.5), "threestudio"
    assert bpy.ops.dreamlathe.quality_preset_add(name="My Own") == {"FINISHED"}
    settings.preset = "draft"
    settings.guidance.timestep_range, settings.guidance.perp_neg = (0.1, 0.2), "off"
    assert bpy.ops.script.execute_preset(filepath=find("My_Own"), menu_idname=MENU) == {"FINISHED"}
    assert (settings.optimize.iterations, settings.mesh.faces, settings.refine.iterations) == (123, 4567, 89)
    assert (tuple(settings.guidance.timestep_range), settings.guidance.perp_neg) == ((0.25, 0.5), "threestudio")
    assert bpy.ops.dreamlathe.quality_preset_add(remove_name=True, name="My Own") == {"FINISHED"}
    assert not find("My_Own")


def test_another_seed(settings: Any) -> None:
    seeds = set()
    for _ in range(5):
        assert bpy.ops.dreamlathe.seed_roll() == {"FINISHED"}
        seeds.add(settings.seed)
    assert len(seeds) == 5


def test_the_cache_is_measured_and_cleared(extension: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "deeper" / "file").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(extension("operators.storage"), "cache_folder", lambda: tmp_path / "cache")
    assert bpy.ops.dreamlathe.cache_measure() == {"FINISHED"}
    assert extension("preferences")._told["cache"] == "The cache takes 3 MB"
    assert bpy.ops.dreamlathe.cache_clear() == {"FINISHED"}
    assert not (tmp_path / "cache").exists()
    assert bpy.ops.dreamlathe.cache_measure() == {"FINISHED"}
    assert extension("preferences")._told["cache"] == "The cache is empty"


def test_the_log_level(extension: Any) -> None:
    import logging

    preferences: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    preferences.log_level = "DEBUG"
    assert logging.getLogger("dreamlathe").level == logging.DEBUG
    preferences.log_level = "WARNING"
    assert logging.getLogger("dreamlathe").level == logging.WARNING
