"""What the loop does at each step: plain functions of the step and of the share of the run that is done."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .request import OptimizeSettings, OrbitRig, Request

ShadingMode = Literal["albedo", "lambertian", "textureless"]

FIRST_LEVELS = 1 / 3
"""Share of the grid's levels that the run starts with."""
ALL_LEVELS_AT = 0.4
"""Share of the run at which all levels are active."""
FIRST_VIEWS = 0.15
"""Share of the azimuths that a run with a growing orbit starts with."""
ORIENTATION_START = 0.01
"""The orientation loss starts at this share of its weight and has all of it a third into the run (DreamFusion, A.2)."""
DENTS_START = 0.6
"""Share of the run from which on dents are filled; before, the space between a chair's legs is not yet open."""
AMBIENT, DIFFUSE = 0.1, 0.9
"""Light of a shaded step (DreamFusion, App. A.2)."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the regularisers at one step."""

    orientation: float
    opacity: float
    entropy: float
    dents: float


def progress(step: int, iterations: int) -> float:
    """Share of the run that is done before ``step``: 0 at the first step, 1 at the last and after it."""
    return min(step / max(iterations - 1, 1), 1.0)


def active_levels(step: int, iterations: int, levels: int) -> int:
    """Levels of the hash grid in use, coarse to fine, in [1, levels]."""
    first = math.ceil(FIRST_LEVELS * levels)
    grown = min(progress(step, iterations) / ALL_LEVELS_AT, 1.0)
    return first + math.floor(grown * (levels - first) + 1e-9)


def resolution(step: int, settings: OptimizeSettings) -> int:
    """Side of the rendered image, in pixels: half in the run's ``coarse_share``."""
    coarse = step < round(settings.coarse_share * settings.iterations)
    return max(16, settings.resolution // 2) if coarse else settings.resolution


def dents_are_watched(step: int, settings: OptimizeSettings, window: float) -> bool:
    """Whether what a view sees through is remembered: from the share ``window`` of the run before dents are filled."""
    return progress(step, settings.iterations) >= DENTS_START - window


def samples_per_ray(step: int, settings: OptimizeSettings) -> int:
    """Steps across the ball: half of them (at least 8) until all levels are active; coarse cells need no more."""
    coarse = progress(step, settings.iterations) < ALL_LEVELS_AT
    return max(8, settings.samples_per_ray // 2) if coarse else settings.samples_per_ray


def loss_weights(step: int, settings: OptimizeSettings) -> LossWeights:
    """Orientation is ramped up over the first third of the run, entropy from 0 over the first half; dents come late."""
    done = progress(step, settings.iterations)
    return LossWeights(
        orientation=settings.orientation_weight * min(ORIENTATION_START + (1 - ORIENTATION_START) * done * 3, 1.0),
        opacity=settings.opacity_weight,
        entropy=settings.entropy_weight * min(done * 2, 1.0),
        dents=settings.dent_weight if done >= DENTS_START else 0.0,
    )


def orbit(step: int, request: Request) -> OrbitRig:
    """The request's orbit, its azimuths at first near the front and widened over the run's ``view_growth``."""
    rig, growth = request.orbit, request.optimize.view_growth
    done = progress(step, request.optimize.iterations)
    if done >= growth:
        return rig
    share = FIRST_VIEWS + (1 - FIRST_VIEWS) * done / growth
    low, high = rig.azimuth
    front = min(max(0.0, low), high)
    return dataclasses.replace(rig, azimuth=(front + share * (low - front), front + share * (high - front)))


def learning_rate_factor(step: int, settings: OptimizeSettings) -> float:
    """1 in the first half of the run, then along half a cosine down to ``learning_rate_end``: calms the surface."""
    late = max(0.0, 2 * progress(step, settings.iterations) - 1)
    return settings.learning_rate_end + (1 - settings.learning_rate_end) * 0.5 * (1 + math.cos(math.pi * late))


def shading_mode(step: int, settings: OptimizeSettings, rng: np.random.Generator) -> ShadingMode:
    """Albedo in the run's ``albedo_share``; later Lambertian with ``shaded_share``, some of it textureless.

    Draws two numbers at every step, so that the settings do not shift the rest of the stream.
    """
    shaded, textureless = rng.random(2)
    if step < round(settings.albedo_share * settings.iterations) or shaded >= settings.shaded_share:
        return "albedo"
    return "textureless" if textureless < settings.textureless_share else "lambertian"
