"""docs/settings.md and bridge/descriptions.json are what docs/settings_page.py writes, and name every setting."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from backend import request

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(maker: ModuleType) -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == maker.page(), "run: make docs"


def test_what_blender_shows_is_current(maker: ModuleType) -> None:
    assert (ROOT / "bridge" / "descriptions.json").read_text(encoding="utf-8") == maker.descriptions(), "run: make docs"


def test_every_setting_has_a_sentence_and_a_row(maker: ModuleType) -> None:
    page = maker.page()
    groups = {"orbit": request.OrbitRig, "guidance": request.GuidanceSettings, "optimize": request.OptimizeSettings}
    groups |= {"mesh": request.MeshSettings, "view_guidance": request.ViewGuidanceSettings}
    for group, kind in {**groups, "reference": request.ReferenceSettings}.items():
        texts = maker.sentences(kind)
        for item in dataclasses.fields(kind):
            assert texts[item.name].endswith(".")
            assert page.count(f"`{group}.{item.name}` | ") >= 1


def test_presets_show_what_they_change(maker: ModuleType) -> None:
    draft, high = request.preset("draft", "x"), request.preset("high", "x")
    row = next(line for line in maker.page().splitlines() if line.startswith("| `optimize.iterations` | `"))
    assert f"`{draft.optimize.iterations}`" in row
    assert f"`{high.optimize.iterations}`" in row
    assert "`seed`" not in maker.page().split("## Presets")[1].split("## orbit")[0]
