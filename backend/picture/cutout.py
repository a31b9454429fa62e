"""Telling the object from its background: by the picture's own transparency, by rembg, or by a plain background.

Each way's result is measured before it is believed; where none is sure, the error says what was wrong with each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from skimage.color import rgb2lab

from ..errors import PictureError
from .background import FLOOR, TOLERANCE, find_background, ring
from .colour import Floats, srgb_to_linear
from .masks import Mask, nearest_inside, parts
from .matte import decontaminate, soft_edges, spread_inwards
from .neural import neural_alpha
from .read import Picture

Way = Literal["transparency", "rembg", "plain"]

SMALLEST_SHARE, LARGEST_SHARE = 0.001, 0.95
"""Share of the picture that an object covers."""
LARGEST_BORDER_SHARE = 0.4
"""Share of the picture's border that an object covers."""
LARGEST_SPREAD = 9.0
"""ΔE that a plain background may spread."""
LARGEST_CHANGE = 50.0
"""ΔE that its colour may change across the picture."""
EDGE_CONTRAST = (2.0 * TOLERANCE * FLOOR, 7.0, 18.0)
"""ΔE between an object and its background at a true edge: at least, in spreads of the background, and enough."""
LEAST_CLEAR_EDGE = 0.6
"""Share of the object's edge that must be one."""
LEAST_IN_TWO_PARTS = 0.8
"""Share of an object that its two largest parts hold; what falls apart further is a pattern."""
LARGEST_DOUBT = 0.35
"""Share of the object that a mask may leave half transparent."""
SMALLEST_SIDE = 16
"""Pixels of the file that the object's longer side must have."""
_EMPTY = 0.005
"""Share of a picture that must be transparent for its transparency to mean anything."""

_HINT = (
    "Give a picture with transparency or before a plain background, or install rembg and its model "
    "(u2net.onnx in the folder .u2net)."
)


@dataclass(frozen=True)
class Cutout:
    """An object alone."""

    name: str
    """The picture's, for people."""
    rgba: Floats
    """[H, W, 4] straight sRGB and opacity."""
    way: Way
    """How it was told from its background."""
    coverage: float
    """Share of the picture that is object."""
    border_share: float
    """Share of the border that is object; above 0 the object may go on beyond the picture."""


def cut_out(picture: Picture, way: Way | Literal["auto"] = "auto") -> Cutout:
    """Tell the object from its background.

    ``auto`` takes the picture's transparency where it has any, else rembg where it is installed and sure, else a plain
    background's removal. Raises PictureError where no (or not the asked) way is sure.
    """
    rgba = picture.rgba
    if rgba[..., 3].max() < 0.5:
        raise PictureError(f"{picture.name} is fully transparent.", "Give a picture with something in it.")
    shown = rgba[rgba[..., 3] >= 0.5][:, :3]
    if np.ptp(shown, axis=0).max() < 2.5 / 255.0 and rgba[..., 3].min() >= 0.5:
        raise PictureError(f"{picture.name} is all one colour.", "Give a picture with something in it.")
    doubts: list[str] = []
    ways: tuple[Way, ...] = ("transparency", "rembg", "plain") if way == "auto" else (way,)
    for each in ways:
        found, doubt = _TRY[each](rgba)
        if found is not None and not doubt:
            doubt = _doubt(found[..., 3], max(picture.width, picture.height))
        if found is not None and not doubt:
            solid = found[..., 3] >= 0.5
            border = float(solid[ring(*solid.shape)].mean())
            return Cutout(picture.name, found, each, float(solid.mean()), border)
        if doubt:
            doubts.append(doubt)
    raise PictureError(f"{picture.name}: the object cannot be told from its background ({'; '.join(doubts)}).", _HINT)


def _by_transparency(rgba: Floats) -> tuple[Floats | None, str]:
    if np.mean(rgba[..., 3] < 0.05) < _EMPTY:
        return None, "nothing is transparent"
    return rgba, ""


def _by_rembg(rgba: Floats) -> tuple[Floats | None, str]:
    alpha, why = neural_alpha(_opaque(rgba))
    if alpha is None:
        return None, why
    doubt = np.mean((alpha > 0.1) & (alpha < 0.9)) / max(1e-6, float(np.mean(alpha > 0.1)))
    if doubt > LARGEST_DOUBT:
        return None, "rembg left much of it half transparent"
    light = srgb_to_linear(rgba[..., :3])
    reach = max(2.0, max(alpha.shape) / 200.0)
    front = spread_inwards(light, alpha > 0.9, reach)
    behind = spread_inwards(light, alpha < 0.1, reach)
    return np.concatenate([decontaminate(light, alpha, front, behind), alpha[..., None]], axis=-1), ""


def _by_plain_background(rgba: Floats) -> tuple[Floats | None, str]:
    srgb, known = _opaque(rgba), rgba[..., 3] < 0.5
    lab = rgb2lab(srgb).astype(np.float32)
    found = find_background(lab, known)
    if found.surface.spread > LARGEST_SPREAD:
        return None, f"the background is not plain: its colour spreads by ΔE {found.surface.spread:.0f}"
    if found.surface.change > LARGEST_CHANGE:
        return None, f"the background is not plain: its colour changes by ΔE {found.surface.change:.0f}"
    if found.border_share < 1.0 - LARGEST_BORDER_SHARE:
        return None, f"only {found.border_share:.0%} of the border has the background's colour"
    if found.outside.all():
        return None, "nothing stands out from the background"
    matte = soft_edges(srgb, lab, ~found.outside, found.colour)
    least, spreads, enough = EDGE_CONTRAST
    needed = min(max(least, spreads * found.surface.spread), enough)
    clear = float(np.mean(matte.edge_contrast > needed)) if matte.edge_contrast.size else 0.0
    if clear < LEAST_CLEAR_EDGE:
        return None, f"only {clear:.0%} of its edge stands out from the background"
    alpha = np.where(known, 0.0, matte.alpha)[..., None].astype(np.float32)
    return np.concatenate([matte.colour, alpha], axis=-1), ""


_TRY = {"transparency": _by_transparency, "rembg": _by_rembg, "plain": _by_plain_background}


def _doubt(alpha: Floats, longest: int) -> str:
    """Why a cut-out of a picture with a longest side of ``longest`` pixels is not to be believed; "" if it is."""
    solid = alpha >= 0.5
    if not solid.any():
        return "nothing is left of the picture"
    share, border = float(solid.mean()), float(solid[ring(*solid.shape)].mean())
    side = max(np.ptp(axis) + 1 for axis in np.nonzero(solid)) / max(alpha.shape) * longest
    if side < SMALLEST_SIDE:
        return f"the object has a side of only {side:.0f} pixels"
    if share < SMALLEST_SHARE:
        return f"the object covers only {share:.2%} of the picture"
    if share > LARGEST_SHARE:
        return f"the object covers {share:.0%} of the picture"
    if border > LARGEST_BORDER_SHARE:
        return f"the object covers {border:.0%} of the picture's border"
    area = np.sort(parts(solid)[1][1:])
    if area[-2:].sum() < LEAST_IN_TWO_PARTS * area.sum():
        return f"what stands out falls into {len(area)} parts"
    return ""


def _opaque(rgba: Floats) -> Floats:
    """Colours [H, W, 3], those of transparent pixels taken from their nearest neighbours."""
    hidden: Mask = rgba[..., 3] < 0.5
    if not hidden.any():
        return rgba[..., :3]
    row, column = nearest_inside(~hidden)
    return rgba[row, column, :3]
