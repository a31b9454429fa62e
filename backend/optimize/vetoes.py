"""Views that see past what a picture shows: there they are told to know nothing.

What a model foretells of other sides is a mean of all that there may be, in which much that stands out is not, such as
a snout. The picture shows that there is something along a ray; if every place along it is empty by some view, neither
gives way and a fog remains. So it may be wherever the fewest views call the ray empty: there their opacity is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..cameras import CameraBatch, nearest_pixels, places_along, world_to_ndc
from ..picture import Reference
from ..reference_files import ReferenceView

Floats = NDArray[np.float32]

_RAYS = 64
"""Side of the square of rays through each picture."""
_PLACES = 64
"""Along each, in the ball."""
_OUTSIDE = 1 << 30
"""Views that call a place outside the ball empty: more than there are."""


def without_vetoes(views: Sequence[ReferenceView], pictures: Sequence[ReferenceView]) -> tuple[ReferenceView, ...]:
    """The ``views``, of one size each; their opacity is NaN where they see past what the ``pictures`` show."""
    masks = [view.shown.rgba[..., 3] > 0.5 for view in views]
    unknown = [np.zeros_like(mask) for mask in masks]
    for picture in pictures:
        places = _places(picture)
        pixels = [_pixels(view.camera, places, len(mask)) for view, mask in zip(views, masks, strict=True)]
        empty = np.stack([~mask[row, column] for mask, (row, column) in zip(masks, pixels, strict=True)])
        vetoes = np.where(np.linalg.norm(places, axis=-1) > 1.0, _OUTSIDE, empty.sum(0))
        least = (vetoes == vetoes.min(1, keepdims=True)) & (vetoes < _OUTSIDE)
        for hidden, (row, column), sees_past in zip(unknown, pixels, empty, strict=True):
            hidden[row[least & sees_past], column[least & sees_past]] = True
    return tuple(_without(view, hidden) for view, hidden in zip(views, unknown, strict=True))


def _places(picture: ReferenceView) -> Floats:
    """[N, _PLACES, 3] along each of N rays on which the picture shows something."""
    alpha = picture.shown.rgba[..., 3]
    row = nearest_pixels(len(alpha), _RAYS)
    return places_along(picture.camera, alpha[np.ix_(row, row)] > 0.5, np.linspace(-1.0, 1.0, _PLACES))


def _pixels(camera: CameraBatch, places: Floats, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns [N, P] where places [N, P, 3] are seen, or would be beside the image."""
    ndc = world_to_ndc(camera, places.reshape(-1, 3))[0].reshape(*places.shape[:2], 2)
    pixels = np.nan_to_num((ndc * (1, -1) + 1) / 2 * size).astype(np.int64).clip(0, size - 1)
    return pixels[..., 1], pixels[..., 0]


def _without(view: ReferenceView, hidden: NDArray[np.bool_]) -> ReferenceView:
    """The view, unknown where it is ``hidden`` [S, S] and beside, as far as it shows nothing there."""
    beside = np.asarray(ndimage.binary_dilation(hidden, np.ones((3, 3))), bool)

    def unknown(picture: Reference) -> Reference:
        rgba = picture.rgba.copy()
        rgba[..., 3][beside & (rgba[..., 3] < 0.5)] = np.nan
        return dataclasses.replace(picture, rgba=rgba)

    return dataclasses.replace(view, sizes=tuple(map(unknown, view.sizes)))
