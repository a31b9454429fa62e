"""Plain backgrounds: what colour they have at every pixel, and which pixels they fill, seen from the picture's border.

The background is a quadratic surface in CIELAB, fitted to the border so that an object that reaches the border does not
bend it (iteratively reweighted least squares with Tukey's biweight; Huber & Ronchetti, Robust Statistics, ch. 7). A
pixel is background when it lies within the spread of the border's pixels and can be reached from the border. So is a
soft shadow: the background's colour, darkened, that is reached from the background without crossing an edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import lab2rgb

from .colour import Floats, srgb_to_linear
from .masks import Mask, around, blurred, dilated, eroded, neighbouring_part, opened, parts, reached

TOLERANCE = 4.0
"""Standard deviations that a background pixel may lie off the surface."""
FLOOR = 0.7
"""Least standard deviation in ΔE: rounding to 8 bits and light compression."""
_SAMPLES = 8_000
_BIWEIGHT = 4.685
_SHADOW_SLOPE = 2.5
"""ΔE a pixel that a soft shadow changes at most."""
_SHADOW_COLOUR = 0.06
"""Share of its light that a shadow's colour may be off the background's."""
_DARKEST_SHADOW = 0.2
"""Share of its light that a shadow leaves the background at least."""
_LEAST_OPEN = 0.35
"""Share of a shadow's outline where it fades out into the background."""
_NOISY = 1.2
"""ΔE of noise from which the picture is smoothed before it is judged."""


@dataclass(frozen=True)
class Surface:
    """The background's colour and how far its pixels stray from it."""

    coefficients: NDArray[np.float64]
    """[6, 3]: CIELAB for 1, x, y, x², xy, y², with x and y in [−1, 1]."""
    covariance: NDArray[np.float64]
    """[3, 3] of the pixels around it, in ΔE²; the floor included."""

    @property
    def spread(self) -> float:
        """Standard deviation in ΔE along the worst axis."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[-1]))

    @property
    def change(self) -> float:
        """Largest distance, in ΔE, between two of its colours in the picture."""
        colours = self.colour(8, 8).reshape(-1, 3)
        return float(np.linalg.norm(colours[:, None] - colours[None], axis=-1).max())

    def colour(self, height: int, width: int) -> Floats:
        """[H, W, 3] CIELAB."""
        x, y = _grid(height, width)
        c = self.coefficients.astype(np.float32)
        across = c[0] + x[:, None] * c[1] + x[:, None] ** 2 * c[3]
        down = y[:, None] * c[2] + y[:, None] ** 2 * c[5]
        return across[None] + down[:, None] + (y[:, None] * x[None])[..., None] * c[4]

    def deviation(self, lab: Floats) -> Floats:
        """[H, W]: distance from the surface in standard deviations (Mahalanobis)."""
        root = np.linalg.cholesky(np.linalg.inv(self.covariance)).astype(np.float32)
        off = lab - self.colour(*lab.shape[:2])
        return np.sqrt(np.sum((off @ root) ** 2, axis=-1))


@dataclass(frozen=True)
class Found:
    """Where a plain background is."""

    surface: Surface
    outside: Mask
    """[H, W]: background that can be reached from the border."""
    colour: Floats
    """[H, W, 3] CIELAB of the background, continued behind the object."""
    border_share: float
    """Share of the border that is background."""


def find_background(lab: Floats, known: Mask) -> Found:
    """The background of a picture [H, W, 3] in CIELAB; ``known`` pixels [H, W] belong to it whatever their colour."""
    border, original = ring(*lab.shape[:2]), lab
    surface = _fit(lab, border & ~known)
    noise = surface.spread
    if noise > _NOISY:
        sigma = 1.0 if noise < 4.0 else 1.5
        lab = blurred(lab, sigma)
        surface = _fit(lab, border & ~known)
    outside = _flood(surface.deviation(lab) < TOLERANCE, known)
    if np.count_nonzero(outside & ~known) > 64:  # the whole of it says more than its border does
        surface = _fit(lab, outside & ~known)
        outside = _flood(surface.deviation(lab) < TOLERANCE, known)
    outside = _with_shadow(lab, surface, outside)
    outside = _without_specks(outside)
    return Found(surface, outside, _continued(original, surface, outside), float(outside[border].mean()))


def ring(height: int, width: int) -> Mask:
    """The pixels along the border, one in a hundred of the shorter side and at least two wide."""
    thick = max(2, min(height, width) // 100)
    mask = np.ones((height, width), np.bool_)
    mask[thick:-thick, thick:-thick] = False
    return mask


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    x, y = ((2.0 * np.arange(n) + 1.0) / n - 1.0 for n in (width, height))
    return x.astype(np.float32), y.astype(np.float32)


def _fit(lab: Floats, where: Mask) -> Surface:
    """Fit a surface to some pixels: first a level, then a slope, then a bend, so that the majority decides each."""
    row, column = np.nonzero(where)
    if len(row) == 0:
        row, column = np.nonzero(np.ones_like(where))
    step = max(1, len(row) // _SAMPLES)
    row, column = row[::step], column[::step]
    x, y = (axis.astype(np.float64)[index] for axis, index in zip(_grid(*where.shape), (column, row), strict=True))
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    seen = lab[row, column].astype(np.float64)
    coefficients = np.zeros((6, 3))
    coefficients[0] = np.median(seen, axis=0)
    for terms in (1, 3, 6):
        for _ in range(6):
            weight = _biweight(seen - basis @ coefficients)[:, None]
            used = basis[:, :terms]
            normal = used.T @ (used * weight) + 1e-9 * np.eye(terms)  # a little ridge, for a border of one pixel
            coefficients[:terms] = np.linalg.solve(normal, used.T @ (seen * weight))
    off = seen - basis @ coefficients
    inside = off[_biweight(off) > 0.0]
    covariance = inside.T @ inside / max(1, len(inside))
    return Surface(coefficients, covariance + np.eye(3) * FLOOR**2)


def _biweight(off: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tukey's weights of residuals [N, 3], by their length and its median."""
    length = np.linalg.norm(off, axis=-1)
    scale = max(float(np.median(length)) / 1.538, FLOOR)  # the median of a 3D normal's length is 1.538 σ
    return np.clip(1.0 - (length / (_BIWEIGHT * scale)) ** 2, 0.0, None) ** 2


def _flood(candidate: Mask, known: Mask) -> Mask:
    """What of the candidates is connected with the border by more than a hair: a gap of one pixel lets nothing in."""
    candidate = candidate | known
    wide = eroded(candidate)
    seed = np.zeros_like(candidate)
    seed[[0, -1]], seed[:, [0, -1]] = True, True
    return dilated(reached(seed, wide) | known, 2, within=candidate)


def _with_shadow(lab: Floats, surface: Surface, outside: Mask) -> Mask:
    """Add the soft shadow around an object, as far as it goes without an edge."""
    region = around(~outside)
    colour = lab[region]
    light = srgb_to_linear(np.clip(lab2rgb(colour), 0.0, 1.0))
    lit = srgb_to_linear(np.clip(lab2rgb(surface.colour(*lab.shape[:2])[region]), 0.0, 1.0))
    share = np.sum(light * lit, axis=-1) / np.maximum(np.sum(lit * lit, axis=-1), 1e-6)
    off = np.linalg.norm(light - share[..., None] * lit, axis=-1)
    darkened = (share > _DARKEST_SHADOW) & (share < 1.0) & (off < _SHADOW_COLOUR * np.linalg.norm(lit, axis=-1))
    smooth = blurred(colour, 1.0)
    slope = np.sqrt(sum(np.sum(np.gradient(smooth, axis=axis) ** 2, axis=-1) for axis in (0, 1)))
    through = outside[region] | (darkened & (slope < _SHADOW_SLOPE))
    found = reached(outside[region], opened(through) | outside[region])
    grown = outside.copy()
    grown[region] |= _open(found & ~outside[region], outside[region])
    return grown


def _open(shadow: Mask, outside: Mask) -> Mask:
    """The parts of a shadow that fade out into the background; one that lies in the object is the object's own."""
    label, area = parts(shadow)
    rim = neighbouring_part(label) * ~shadow
    faded = np.bincount(rim[outside], minlength=len(area))
    whole = np.bincount(rim.ravel(), minlength=len(area))
    keep = faded >= _LEAST_OPEN * whole
    keep[0] = False
    return keep[label]


def _continued(lab: Floats, surface: Surface, outside: Mask) -> Floats:
    """The background's colour [H, W, 3]: the surface, corrected by the nearest background's own, shadows included."""
    colour = surface.colour(*lab.shape[:2])
    region = around(~outside)
    weight = outside[region].astype(np.float32)[..., None]
    planes = np.concatenate([(lab[region] - colour[region]) * weight, weight], axis=-1)
    near = blurred(planes, 2.5)
    colour[region] += near[..., :3] / (near[..., 3:] + 0.02)
    return colour


def _without_specks(outside: Mask) -> Mask:
    """Add what stands in the background but is far too small to be an object: noise, dust."""
    label, area = parts(~outside)
    return outside | ((area < 0.01 * area.max())[label] & (label > 0))
