"""The scene's settings say the same as the request."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from backend import request as plain
from tests.bpy.blender import bpy


def requests_of(module: Any) -> st.SearchStrategy[Any]:
    """Valid requests whose numbers are what a person types: at most six significant digits."""

    def number(low: float, high: float) -> st.SearchStrategy[float]:
        def rounded(value: float) -> float:
            return float(f"{value:.6g}")

        inside = st.floats(low, high).map(rounded)
        return inside.filter(
            lambda value: (
                low <= value <= high
                and low <= float(np.float32(value)) <= high
                and (value == 0.0 or abs(value) > 1e-30)
            )  # single precision has a smallest number
        )

    def value(item: Any, kind: Any) -> st.SearchStrategy[Any]:
        if typing.get_origin(kind) is Literal:
            return st.sampled_from(typing.get_args(kind))
        if kind in (bool, str):
            return st.booleans() if kind is bool else text
        low, high = item.metadata["low"], item.metadata["high"]
        if kind is int:
            return st.integers(int(low), int(high))
        if kind is float:
            return number(low, high)
        return st.tuples(*[number(low, high)] * 2).map(lambda pair: tuple(sorted(pair)))

    text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40)

    def section(kind: Any) -> st.SearchStrategy[Any]:
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{item.name: value(item, hints[item.name]) for item in dataclasses.fields(kind)})

    return st.builds(
        module.Request,
        prompt=text.filter(str.strip),
        negative_prompt=text,
        seed=st.integers(0, 2**31 - 1),
        preset=st.sampled_from(("draft", "standard", "high")),
        model=text.filter(str.strip),
        orbit=section(module.OrbitRig),
        guidance=section(module.GuidanceSettings),
        optimize=section(module.OptimizeSettings),
        refine=section(module.RefineSettings),
        mesh=section(module.MeshSettings),
        view_model=text.filter(str.strip),
        view_guidance=section(module.ViewGuidanceSettings),
        loading=section(module.LoadingSettings),
        reference=section(module.ReferenceSettings),
    )


def test_a_new_scene_holds_the_defaults(extension: Any, settings: Any) -> None:
    request = extension("properties").to_request(settings)
    assert dataclasses.asdict(request) == dataclasses.asdict(plain.Request(prompt=""))


@given(data=st.data())
@limits(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(extension: Any, data: st.DataObject) -> None:
    properties, module = extension("properties"), extension("backend.request")
    settings: Any = bpy.context.scene.dreamlathe
    request = data.draw(requests_of(module))
    properties.from_request(settings, request)
    assert properties.to_request(settings) == request


def test_choosing_a_preset_sets_optimization_refinement_and_mesh_alone(extension: Any, settings: Any) -> None:
    module = extension("backend.request")
    settings.prompt, settings.guidance.guidance_scale = "a cat", 7.0
    for name in ("draft", "high", "standard"):
        settings.preset = name
        request = extension("properties").to_request(settings)
        start = module.preset(name)
        assert (request.preset, request.optimize, request.mesh) == (name, start.optimize, start.mesh)
        assert request.refine == start.refine
        assert (request.prompt, request.guidance.guidance_scale) == ("a cat", 7.0)


@pytest.mark.parametrize(
    "name", ["orbit", "guidance", "optimize", "refine", "mesh", "view_guidance", "loading", "reference"]
)
def test_every_setting_is_there_with_its_bounds_and_a_sentence(settings: Any, name: str) -> None:
    kind: Any = type(getattr(plain.Request(prompt="a"), name))
    properties = getattr(settings, name).bl_rna.properties
    for item in dataclasses.fields(kind):
        prop = properties[item.name]
        assert len(prop.description) > 3, item.name
        assert not prop.description.endswith(".")
        if "low" in item.metadata:
            assert math.isclose(prop.hard_min, item.metadata["low"], rel_tol=1e-6), item.name
            assert math.isclose(prop.hard_max, item.metadata["high"], rel_tol=1e-6), item.name


def test_settings_survive_the_file(extension: Any, settings: Any, tmp_path: Any) -> None:
    settings.prompt, settings.seed, settings.guidance.timestep_range = "a red duck", 2**31 - 1, (0.02, 0.5)
    before = extension("properties").to_request(settings)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert extension("properties").to_request(bpy.context.scene.dreamlathe) == before
