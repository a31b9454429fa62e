"""Soft edges: how much of each edge pixel is object, and the object's colour there without the background's.

An edge pixel's colour is C = α·F + (1 − α)·B in linear light, with the object's colour F taken from a little deeper
inside and the background's B known; α is C's place on the line from B to F (Porter & Duff 1984; the projection is that
of chroma keying, Smith & Blinn 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.color import lab2rgb, rgb2lab

from .colour import Floats, linear_to_srgb, srgb_to_linear
from .masks import (
    Mask,
    around,
    averaged,
    blurred,
    depth_inside,
    dilated,
    eroded,
    largest_in_parts,
    layers_inside,
    parts,
)

_HALO = 12.0
"""ΔE from the background up to which a pale fringe is taken for compression or glow."""
_HALO_WIDTH = 8
"""Pixels that such a fringe may be wide: a block of JPEG."""
_WIDEST = 7
"""Pixels that an edge out of focus may be wide."""
_FAINT = 0.3
"""Opacity that a fringe stays under."""
_CLEAR = 12.0
"""ΔE between object and background from which the projection alone decides; below a third of it, the mask does."""


@dataclass(frozen=True)
class Matte:
    """An object cut out."""

    alpha: Floats
    """[H, W] opacity in [0, 1]."""
    colour: Floats
    """[H, W, 3] sRGB of the object alone."""
    edge_contrast: Floats
    """[E]: ΔE between object and background at each pixel of the object's edge."""


def soft_edges(srgb: Floats, lab: Floats, inside: Mask, background: Floats) -> Matte:
    """Refine a mask [H, W] of the object in a picture [H, W, 3], sRGB and CIELAB, before a background in CIELAB."""
    region = around(inside)
    alpha = np.zeros(inside.shape, np.float32)
    colour = srgb.copy()
    part = _refine(srgb[region], lab[region], inside[region], background[region])
    alpha[region], colour[region] = part.alpha, part.colour
    return Matte(alpha, colour, part.edge_contrast)


def _refine(srgb: Floats, lab: Floats, inside: Mask, background: Floats) -> Matte:
    light, behind = srgb_to_linear(srgb), srgb_to_linear(np.clip(lab2rgb(background), 0.0, 1.0))
    distance = np.linalg.norm(lab - background, axis=-1)
    inside = _without_halo(light, inside, behind, distance)
    width = _edge_width(inside, distance)
    front = spread_inwards(light, inside, 2 * width)
    place = _projection(light, front, behind)
    contrast = np.linalg.norm(rgb2lab(linear_to_srgb(front)) - background, axis=-1)

    outer = dilated(inside) & ~inside
    band = ~eroded(inside, width, four=True) & inside
    mixed = outer | _reached(~inside, band & (place < 0.97), width)
    trust = np.clip(contrast / _CLEAR * 1.5 - 0.5, 0.0, 1.0)
    plain = blurred(inside.astype(np.float32), 0.7)
    alpha = np.where(mixed, trust * place + (1.0 - trust) * plain, inside).astype(np.float32)
    alpha[alpha < 0.02] = 0.0
    edge = inside & dilated(~inside, four=True)
    return Matte(alpha, decontaminate(light, alpha, front, behind), contrast[edge].astype(np.float32))


def _edge_width(inside: Mask, distance: Floats) -> int:
    """Pixels from the object's rim to where most of it differs no more from the background: 2 where it is sharp."""
    depth = layers_inside(inside)
    layers = [distance[depth == layer] for layer in range(1, _WIDEST + 3)]
    typical = [float(np.median(layer)) for layer in layers if layer.size]
    for width in range(2, min(_WIDEST, len(typical) - 2)):
        if typical[width] > 0.97 * typical[width + 2]:
            return width
    return 2 if len(typical) < 5 else _WIDEST


def _without_halo(light: Floats, inside: Mask, behind: Floats, distance: Floats) -> Mask:
    """Without what compression and glow leave around an object: pale fringes, and pale islands beside it."""
    front = spread_inwards(light, inside, _HALO_WIDTH, distance)
    pale = inside & (_projection(light, front, behind) < _FAINT) & (distance < _HALO)
    inside = inside & ~_reached(~inside, pale, _HALO_WIDTH)
    label, area = parts(inside)
    strongest = largest_in_parts(distance, label, len(area) - 1)
    main = int(np.argmax(area))
    island = (area < 0.2 * area[main]) & (strongest < min(_HALO, strongest[main] / 2.0))
    return inside & ~island[label]


def spread_inwards(light: Floats, inside: Mask, reach: float, favour: Floats | None = None) -> Floats:
    """The object's own colour at and around its edge: an average that favours what lies deeper inside. [H, W, 3].

    ``reach`` in pixels; with ``favour`` [H, W] the pixels count by its square too.
    """
    depth = depth_inside(inside)
    weight = np.minimum(depth, np.float32(reach)) ** 3
    if favour is not None:
        weight *= favour**2
    planes = np.concatenate([light * weight[..., None], weight[..., None]], axis=-1)
    near = blurred(planes, reach / 2.0)
    size = 2 * round(4.0 * reach) + 1
    far = averaged(planes, size)  # answers where nothing is near
    mean = near + 1e-6 * np.maximum(far, 0.0)
    return (mean[..., :3] / np.maximum(mean[..., 3:], 1e-12)).astype(np.float32)


def decontaminate(light: Floats, alpha: Floats, front: Floats, behind: Floats) -> Floats:
    """The object's colour in sRGB [H, W, 3]: C less its share of the background, the more doubtful the more of F."""
    cover = alpha[..., None]
    own = np.clip((light - (1.0 - cover) * behind) / np.maximum(cover, 0.05), 0.0, 1.0)
    return linear_to_srgb(np.where(cover >= 1.0, light, np.clip(cover * own + (1.0 - cover) * front, 0.0, 1.0)))


def _projection(light: Floats, front: Floats, behind: Floats) -> Floats:
    """[H, W]: C's place between B (0) and F (1)."""
    span = front - behind
    return np.clip(np.sum((light - behind) * span, axis=-1) / np.maximum(np.sum(span**2, axis=-1), 1e-6), 0.0, 1.0)


def _reached(start: Mask, through: Mask, steps: int) -> Mask:
    """What of ``through`` can be reached from ``start`` in some steps."""
    return dilated(start, steps, within=start | through, four=True) & ~start
