"""Resampling along rows and columns, at any scale and offset, without ringing and without a seam at the edge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .colour import Floats

Matrix = Any
"""scipy's sparse array, which has no types."""


def weights(source: int, target: int, start: float, step: float) -> Matrix:
    """The matrix [target, source] that resamples one axis.

    Target pixel i covers [start + i·step, start + (i + 1)·step) of the source, whose pixel j covers [j, j + 1). The
    filter is a tent, widened when the picture shrinks: its weights are never negative, so nothing rings. What lies
    beyond the source counts as nothing: a row sums to the share of its pixel that lies on the source.
    """
    edge = start + np.arange(target + 1) * step
    centre = (edge[:-1] + edge[1:]) / 2.0
    half = max(1.0, step)
    first = np.floor(centre - half - 0.5).astype(np.int64)
    index = first[:, None] + np.arange(int(np.ceil(2.0 * half)) + 2)
    weight = np.clip(1.0 - np.abs(index + 0.5 - centre[:, None]) / half, 0.0, None)
    weight[(index < 0) | (index >= source)] = 0.0
    share = np.clip(np.minimum(edge[1:], source) - np.maximum(edge[:-1], 0.0), 0.0, None) / step
    total = weight.sum(axis=1)
    weight *= (share / np.where(total > 0.0, total, 1.0))[:, None]
    row, column = np.nonzero(weight)
    values = weight[row, column].astype(np.float32)
    return sparse.csr_array((values, (row, index[row, column])), shape=(target, source))


def resample(planes: Floats, rows: Matrix, columns: Matrix) -> Floats:
    """Apply ``rows`` [h, H] and ``columns`` [w, W] to planes [H, W, C]: [h, w, C]."""
    height, width, channels = planes.shape
    down = (rows @ planes.reshape(height, width * channels)).reshape(-1, width, channels)
    across = columns @ down.transpose(1, 0, 2).reshape(width, -1)
    return across.reshape(columns.shape[0], -1, channels).transpose(1, 0, 2).astype(np.float32)


def nearest(source: int, target: int, start: float, step: float) -> NDArray[np.int64]:
    """[target]: the source pixel under each target pixel's centre, −1 where there is none; as in :func:`weights`."""
    index = np.floor(start + (np.arange(target) + 0.5) * step).astype(np.int64)
    return np.where((index >= 0) & (index < source), index, -1)
