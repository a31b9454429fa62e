"""What is said of a picture: one short grammar, and the words of the world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cameras import off_front
from .kinds import KINDS
from .world import BUILDS, COLOURS, SIZES, Look

VIEWS = ("front", "side", "back", "overhead")
THREE_QUARTER_VIEWS = ("front three quarter", "back three quarter")
"""Half-way between a front or a back and a side."""
NAMED_VIEWS = (*VIEWS, *THREE_QUARTER_VIEWS)
"""Those of ``guidance.view_prompts``, which cannot be imported here: it brings torch, before threads are set."""
OVERHEAD_ELEVATION = 60.0
"""From this elevation on a view is called overhead, in degrees (DreamFusion §3.1)."""
_GRAMMAR = ("a", "an", "the", "view", "of", ",", "with", "and")
_VIEW_WORDS = dict.fromkeys(word for view in NAMED_VIEWS for word in view.split())
_PARTS = dict.fromkeys(word for kind in KINDS.values() for word in (kind.part, kind.extra))
WORDS = (*_GRAMMAR, *_VIEW_WORDS, *COLOURS, *KINDS, *BUILDS, *SIZES, *_PARTS)


def vocabulary() -> dict[str, list[str]]:
    """Every word the model knows, and which of them are what."""
    parts = sorted({kind.part for kind in KINDS.values()})
    extras = sorted({kind.extra for kind in KINDS.values()})
    named = {"kinds": sorted(KINDS), "colours": sorted(COLOURS), "builds": sorted(BUILDS), "sizes": sorted(SIZES)}
    return {"words": sorted(WORDS), **named, "parts": parts, "extras": extras}


def view_of(azimuth: float, elevation: float) -> str:
    """The true view word of a camera; degrees."""
    if elevation > OVERHEAD_ELEVATION:
        return "overhead"
    turn = float(off_front(azimuth))
    return "front" if turn < 45 else "side" if turn < 135 else "back"


def degrees_off_middle(azimuth: NDArray[np.float32], elevation: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far cameras [B] (degrees) are from the middle of the view their word names: 0 to 45, 0 for overhead."""
    turn = off_front(azimuth)
    off = np.abs(turn - 90 * np.round(turn / 90))
    return np.where(elevation > OVERHEAD_ELEVATION, 0.0, off).astype(np.float32)


def caption(look: Look, view: str | None = None, article: bool = True) -> str:
    """For example ``a tall red duck with a large beak and a blue hat, front view``; only the kind is always said."""
    kind = KINDS[look.kind]
    noun = " ".join(word for word in (look.build, look.colour, look.kind) if word)
    text = _with_article(noun) if article else noun
    features: list[str] = []
    if look.size:
        part = f"{look.size} {kind.part}"
        features.append(part if kind.part.endswith("s") else _with_article(part))
    if look.accent:
        features.append(_with_article(f"{look.accent} {kind.extra}"))
    if features:
        text += " with " + " and ".join(features)
    return f"{text}, {view} view" if view else text


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
