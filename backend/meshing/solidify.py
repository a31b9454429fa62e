"""Hollows that hardly anything looks into are inside.

Pictures never say what is behind a surface, so guidance leaves it empty, and one small hole would turn a solid into a
shell with two sides.
"""

from __future__ import annotations

from ..rendering.openness import DIRECTIONS, openness
from .mesh import Booleans

FEW = 2
"""Free nodes that the outside is seen from in no more directions than this become solid."""


def hollow(solid: Booleans) -> Booleans:
    """The free nodes of a grid [R, R, R] that see the outside in at most :data:`FEW` of 26 directions."""
    return ~solid & (openness(solid, DIRECTIONS)[0] <= FEW)
