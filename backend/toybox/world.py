"""Toybox's world: objects by what is said of them, fitted into the ball."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..picture.framing import BALL_FILL
from .kinds import KINDS, Plan
from .shapes import Builder, Solids, Vector

COLOURS: dict[str, Vector] = {  # linear albedo
    "red": (0.62, 0.02, 0.02),
    "orange": (0.80, 0.20, 0.01),
    "yellow": (0.80, 0.58, 0.02),
    "green": (0.03, 0.34, 0.05),
    "blue": (0.02, 0.09, 0.58),
    "purple": (0.24, 0.03, 0.42),
    "pink": (0.80, 0.24, 0.40),
    "brown": (0.19, 0.075, 0.025),
    "white": (0.80, 0.80, 0.80),
    "black": (0.025, 0.025, 0.03),
}
BUILDS: dict[str, Vector] = {"tall": (0.88, 0.88, 1.12), "wide": (1.14, 0.96, 0.92)}
"""Factors along x, y and z."""
SIZES: dict[str, float] = {"small": 0.7, "large": 1.3}


@dataclass(frozen=True)
class Look:
    """What is said of an object: ``a tall red duck with a large beak and a blue hat``. Only the kind must be said."""

    kind: str
    colour: str | None = None
    build: str | None = None
    size: str | None = None
    """Of the kind's named part."""
    accent: str | None = None
    """Colour of the kind's hat, roof, cushion or blanket."""


def make_object(look: Look, rng: np.random.Generator | None = None) -> Solids:
    """An object of the world, fitted into the ball; ``rng`` varies proportions and colours, None gives the plain one.

    Without a colour it is red. Raises KeyError for a word that the world does not have.
    """
    builder = Builder()
    plan = Plan(
        colour=_paint(look.colour or "red", rng),
        part=SIZES[look.size] if look.size else 1.0,
        accent=_paint(look.accent, rng) if look.accent else None,
        rng=rng,
    )
    KINDS[look.kind].build(builder, plan)
    solids = builder.solids()
    if look.build:
        solids = solids.stretched(BUILDS[look.build])
    return solids.fitted(BALL_FILL)


def _paint(colour: str, rng: np.random.Generator | None) -> Vector:
    red, green, blue = COLOURS[colour]
    if rng is None:
        return (red, green, blue)
    factor = rng.uniform(0.85, 1.12, 3)
    return (red * factor[0], green * factor[1], blue * factor[2])
