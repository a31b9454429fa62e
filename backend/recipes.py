"""Recipes: settings that belong together, by the way a model is asked. Standard library only."""

from __future__ import annotations

import typing

RecipeName = typing.Literal["camera-told", "words-alone", "dreamfusion"]

RECIPES: dict[RecipeName, tuple[str, ...]] = {
    "camera-told": (
        "guidance.camera_conditioning=true",
        "guidance.guidance_scale=3",
        "guidance.perp_neg_strength=2",
        "guidance.timestep_range=0.4,0.98",
        "guidance.timestep_end=0.25,0.6",
        "optimize.view_growth=0",
        "refine.iterations=640",
    ),
    "words-alone": (
        "guidance.camera_conditioning=false",
        "guidance.guidance_scale=10",
        "guidance.perp_neg_strength=4",
        "guidance.timestep_range=0.3,0.7",
        "guidance.timestep_end=0.1,0.3",
        "optimize.view_growth=0.5",
        "refine.iterations=0",
    ),
    "dreamfusion": (
        "guidance.guidance_scale=100",
        "guidance.timestep_range=0.02,0.98",
        "guidance.timestep_end=0.02,0.98",
        "optimize.iterations=10000",
        "refine.iterations=0",
    ),
}
"""Assignments for :meth:`.request.Request.with_assignments`.

camera-told: the defaults, for the built-in model. words-alone: the same without its camera, measured by
``benchmarks.janus``. dreamfusion: what DreamFusion (arXiv 2209.14988) and the projects after it give Stable Diffusion 1
and 2; not run with real weights.
"""
