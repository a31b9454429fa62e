"""Masks and the parts they fall into, by scipy.ndimage. Neighbours are the eight around a pixel unless it says four."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .colour import Floats

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

_NDIMAGE: Any = ndimage  # scipy has no types: they end at this file's signatures
_EIGHT = np.ones((3, 3), np.bool_)
_FOUR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.bool_)


def dilated(mask: Mask, steps: int = 1, within: Mask | None = None, *, four: bool = False) -> Mask:
    """A mask grown by some pixels, into ``within`` alone if it is given."""
    return _NDIMAGE.binary_dilation(mask, _FOUR if four else _EIGHT, iterations=steps, mask=within)


def eroded(mask: Mask, steps: int = 1, *, four: bool = False) -> Mask:
    """A mask shrunk by some pixels, but not from the picture's border."""
    return _NDIMAGE.binary_erosion(mask, _FOUR if four else _EIGHT, iterations=steps, border_value=1)


def opened(mask: Mask) -> Mask:
    """A mask without what is thinner than three pixels."""
    return _NDIMAGE.binary_opening(mask, _EIGHT)


def reached(start: Mask, through: Mask) -> Mask:
    """What can be reached from ``start`` through ``through``, from pixel to four neighbours."""
    return _NDIMAGE.binary_propagation(start & through, _FOUR, mask=through)


def parts(mask: Mask) -> tuple[Labels, NDArray[np.int64]]:
    """The connected parts: each pixel's number, 0 outside, and every part's area, the outside's being 0."""
    label, count = _NDIMAGE.label(mask, _EIGHT)
    area = np.bincount(label.ravel(), minlength=count + 1)
    area[0] = 0
    return label, area


def largest_in_parts(values: Floats, label: Labels, count: int) -> Floats:
    """[count + 1]: the largest value in each part, 0 outside."""
    largest = _NDIMAGE.maximum(values, label, np.arange(1, count + 1))
    return np.concatenate([[0.0], np.asarray(largest)]).astype(np.float32)


def neighbouring_part(label: Labels) -> Labels:
    """For each pixel the part that it belongs to or touches, 0 for none."""
    return _NDIMAGE.grey_dilation(label, footprint=_EIGHT)


def depth_inside(mask: Mask) -> Floats:
    """[H, W]: pixels to the nearest one outside; the mask goes on beyond the picture."""
    return _NDIMAGE.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1].astype(np.float32)


def layers_inside(mask: Mask) -> Labels:
    """[H, W]: the same in steps from pixel to four neighbours."""
    return _NDIMAGE.distance_transform_cdt(np.pad(mask, 1, mode="edge"), "taxicab")[1:-1, 1:-1]


def nearest_inside(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Row and column [H, W] of the nearest pixel of a mask."""
    row, column = _NDIMAGE.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return row, column


def blurred(planes: Floats, sigma: float) -> Floats:
    """Planes [H, W] or [H, W, C], Gaussian over rows and columns."""
    return _NDIMAGE.gaussian_filter(planes, (sigma, sigma, 0.0)[: planes.ndim], truncate=3.0)


def averaged(planes: Floats, size: int) -> Floats:
    """Planes [H, W, C], the mean of the ``size`` × ``size`` pixels around each."""
    return _NDIMAGE.uniform_filter(planes, (size, size, 1))


def around(mask: Mask, margin: int = 16) -> tuple[slice, slice]:
    """The part of a picture that holds a mask, with a margin."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(None), slice(None)
    top, left = max(0, int(rows[0]) - margin), max(0, int(columns[0]) - margin)
    return slice(top, int(rows[-1]) + 1 + margin), slice(left, int(columns[-1]) + 1 + margin)
