"""Placing an object in a square image as a camera of the rig would see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import find_contours

from .colour import Floats, premultiply, unpremultiply
from .masks import Mask, dilated, parts
from .resample import nearest, resample, weights

Framing = Literal["object", "as-is"]
Points = NDArray[np.float64]

BALL_FILL = 0.92
"""Radius of an object that fills the scene's ball of radius 1."""
LARGEST_EXTENT = 0.96
"""Half-width that the object has at most, in ndc: nearer cameras see only part of the ball, and we show all of it."""


def ball_extent(distance: float, field_of_view: float, radius: float = BALL_FILL) -> float:
    """Radius, in ndc, of the silhouette of a ball at the origin, seen from ``distance`` with a square lens.

    ``field_of_view`` in degrees. The silhouette of a ball is wider than that of the disc through its centre: the rays
    that touch it leave at asin(radius / distance).
    """
    return radius / math.sqrt(distance**2 - radius**2) / math.tan(math.radians(field_of_view) / 2.0)


@dataclass(frozen=True)
class Frame:
    """A square part of a picture, that may reach beyond it."""

    left: float
    """Of the picture's width, in [0, 1] where it lies on the picture."""
    top: float
    """Of the picture's height."""
    width: float
    """Side, in widths of the picture."""
    height: float
    """Side, in heights of the picture."""

    def axes(self, height: int, width: int, size: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Start and step of rows and of columns, in pixels of a picture of that size, for ``size`` pixels."""
        rows = (self.top * height, self.height * height / size)
        return rows, (self.left * width, self.width * width / size)

    def side(self, height: int, width: int) -> int:
        """Pixels of a picture of that size along the longer side of this part of it, at least 1."""
        return max(1, math.ceil(max(self.height * height, self.width * width)))

    def colours(self, rgba: Floats, size: int) -> Floats:
        """Straight sRGB [H, W, 4] to [size, size, 4], resampled premultiplied and in linear light."""
        height, width = rgba.shape[:2]
        rows, columns = self.axes(height, width, size)
        there = premultiply(rgba)
        return unpremultiply(resample(there, weights(height, size, *rows), weights(width, size, *columns)))

    def nearest(self, height: int, width: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns [size] of the pixels under the image's pixel centres, −1 beyond the picture."""
        rows, columns = self.axes(height, width, size)
        return nearest(height, size, *rows), nearest(width, size, *columns)


def frame_picture(height: int, width: int) -> Frame:
    """The whole picture, centred in a square."""
    side = max(height, width)
    return Frame((1.0 - side / width) / 2.0, (1.0 - side / height) / 2.0, side / width, side / height)


def frame_object(alpha: Floats, extent: float) -> Frame:
    """The square in which the object's silhouette fills a circle of radius ``extent`` (ndc) around the middle.

    The circle is the smallest around the silhouette, as the ball is around the object: a box's corners stay in it.
    """
    height, width = alpha.shape
    (x, y), radius = enclosing_circle(_outline(alpha))
    half = radius / extent
    return Frame((x - half) / width, (y - half) / height, 2.0 * half / width, 2.0 * half / height)


def enclosing_circle(points: Points) -> tuple[tuple[float, float], float]:
    """Centre and radius of the smallest circle around points [N, 2], N ≥ 1.

    Chrystal's algorithm on the convex hull (Chrystal 1885; see Skyum 1991): from one side, the corner that sees it
    under the smallest angle decides; the side moves on until that triangle is acute.
    """
    hull = _hull(points)
    if len(hull) < 3:
        centre = hull.mean(axis=0)
        return (float(centre[0]), float(centre[1])), float(np.linalg.norm(hull - centre, axis=1).max())
    a, b = hull[0], hull[1]
    for _ in range(len(hull)):
        angle = _angles(hull, a, b)
        c = hull[int(np.argmin(angle))]
        if angle.min() >= np.pi / 2:
            centre = (a + b) / 2.0
            break
        if _angles(a[None], b, c)[0] > np.pi / 2:
            a, b = b, c
        elif _angles(b[None], a, c)[0] > np.pi / 2:
            b = c
        else:
            centre = _circumcentre(a, b, c)
            break
    else:  # rounding went round in circles: a circle that is sure, if not the smallest
        centre = (hull.min(axis=0) + hull.max(axis=0)) / 2.0
    return (float(centre[0]), float(centre[1])), float(np.linalg.norm(hull - centre, axis=1).max())


def _hull(points: Points) -> Points:
    """Corners of the convex hull; of points on one line, its ends."""
    try:
        return points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        order = np.lexsort(points.T)
        return np.unique(points[order[[0, -1]]], axis=0)


def _angles(at: Points, a: Points, b: Points) -> Points:
    """[N]: angle under which the corners see the side from a to b; infinite at its ends."""
    u, v = a - at, b - at
    cross = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    ends = (np.abs(u).sum(axis=1) == 0) | (np.abs(v).sum(axis=1) == 0)
    return np.where(ends, np.inf, np.arctan2(cross, np.sum(u * v, axis=1)))


def _circumcentre(a: Points, b: Points, c: Points) -> Points:
    u, v = b - a, c - a
    return a + np.linalg.solve(2.0 * np.stack([u, v]), np.array([u @ u, v @ v]))


def _outline(alpha: Floats) -> Points:
    """[N, 2]: x and y where the opacity, taken at the pixels' middles and 0 around the picture, crosses a half."""
    main = dilated(_main_parts(alpha >= 0.5))
    lines = find_contours(np.pad(alpha * main, 1), 0.499)  # less than a half: a matte may have nothing above it
    return np.concatenate(lines)[:, ::-1] - 0.5


def _main_parts(solid: Mask) -> Mask:
    """Without dust: parts smaller than a thousandth of the largest."""
    label, area = parts(solid)
    return solid & (area >= 0.001 * area.max())[label]
