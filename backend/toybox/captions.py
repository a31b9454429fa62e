"""What is said of a picture: prompts as people write them, view words as unreliable and front-biased as the web's."""

from __future__ import annotations

from .world import COLOURS, KINDS

VIEWS = ("front", "side", "back", "overhead")
OVERHEAD_ELEVATION = 60.0
"""From this elevation on a view is called overhead, in degrees (DreamFusion §3.1)."""
_GRAMMAR = ("a", "an", "the", "view", "of", ",")
WORDS = (*_GRAMMAR, *VIEWS, *COLOURS, *KINDS)


def vocabulary() -> dict[str, list[str]]:
    """Every word the model knows, and which of them are kinds and colours."""
    return {"words": sorted(WORDS), "kinds": sorted(KINDS), "colours": sorted(COLOURS)}


def view_of(azimuth: float, elevation: float) -> str:
    """The true view word of a camera; degrees."""
    if elevation > OVERHEAD_ELEVATION:
        return "overhead"
    turn = abs((azimuth + 180) % 360 - 180)
    return "front" if turn < 45 else "side" if turn < 135 else "back"


def caption(kind: str, colour: str | None, view: str | None, article: bool = True) -> str:
    """For example ``a red duck, front view``; the colour, the view and the article may be left out."""
    noun = f"{colour} {kind}" if colour else kind
    text = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" if article else noun
    return f"{text}, {view} view" if view else text
