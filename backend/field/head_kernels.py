"""Compiled loops of one head: single-threaded, GIL-free, each over a range of the samples. Needs numba.

Samples lie side by side in vector registers and pass in tiles that stay in a core's first cache, four hidden units at
a time, so that no hidden layer is ever written to memory. ``features`` and ``channels`` are tuples whose *lengths* are
the numbers of inputs K and outputs O: constants to the compiler, which unrolls the loops over them. A head has H hidden
units, a multiple of :data:`UNITS`. Sums over samples are a range's own; the caller adds them in order.

What is marked as inlined is so before the compiler sees it: only then do the loops around it become vector code.
"""

# Numba types these functions from their arguments at the call; annotations would say nothing.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

import numpy as np

from .numba_cache import prepare_numba_cache

prepare_numba_cache()

import numba  # noqa: E402
from numba import float32  # noqa: E402

UNITS = 4
"""Hidden units whose weights are in registers at once."""
TILE = 256
"""Samples that pass through all units before the next."""

# Sums over a tile may be taken in the order that fits the registers: the same on every run.
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})
_inlined: Any = numba.njit(inline="always", error_model="numpy", fastmath={"contract", "nsz", "reassoc"})


@_jit
def _load(rows, low, width, tile):
    for k in range(tile.shape[0]):
        for j in range(width):
            tile[k, j] = rows[k, low + j]


@_jit
def _store(tile, width, rows, low):
    for k in range(tile.shape[0]):
        for j in range(width):
            rows[k, low + j] = tile[k, j]


@_inlined
def _four(tile, hidden, m, j, features):
    """Four hidden units before their ReLU."""
    a = b = c = d = float32(0.0)
    for k in range(len(features)):
        value = tile[k, j]
        a += hidden[m, k] * value
        b += hidden[m + 1, k] * value
        c += hidden[m + 2, k] * value
        d += hidden[m + 3, k] * value
    return a, b, c, d


@_jit
def forward(rows, hidden, output, out, low, high, features, channels):
    """Raw outputs [O, N] for features [K, N], hidden [H, K] and output [O, H] weights."""
    zero = float32(0.0)
    tile, raw = np.empty((len(features), TILE), np.float32), np.empty((len(channels), TILE), np.float32)
    for start in range(low, high, TILE):
        width = min(TILE, high - start)
        _load(rows, start, width, tile)
        raw[:] = zero
        for m in range(0, hidden.shape[0], UNITS):
            for j in range(width):
                a, b, c, d = _four(tile, hidden, m, j, features)
                a, b, c, d = max(a, zero), max(b, zero), max(c, zero), max(d, zero)
                for o in range(len(channels)):
                    raw[o, j] += output[o, m] * a + output[o, m + 1] * b + output[o, m + 2] * c + output[o, m + 3] * d
        _store(raw, width, out, start)


@_inlined
def _pushed(inner, hidden, m, width, to_tile, features):
    """Add to the features' gradient what four units have of it: W₁ᵀ·inner."""
    for k in range(len(features)):
        for j in range(width):
            to_tile[k, j] += (
                hidden[m, k] * inner[0, j]
                + hidden[m + 1, k] * inner[1, j]
                + hidden[m + 2, k] * inner[2, j]
                + hidden[m + 3, k] * inner[3, j]
            )


@_inlined
def _summed(tile, inner, m, width, to_hidden, features):
    """Add the gradient of four units' weights: inner·tileᵀ."""
    for k in range(len(features)):
        a = b = c = d = float32(0.0)
        for j in range(width):
            value = tile[k, j]
            a += inner[0, j] * value
            b += inner[1, j] * value
            c += inner[2, j] * value
            d += inner[3, j] * value
        to_hidden[m, k] += a
        to_hidden[m + 1, k] += b
        to_hidden[m + 2, k] += c
        to_hidden[m + 3, k] += d


@_inlined
def _back(tile, given, hidden, output, m, width, layer, inner, features, channels):
    """Four units after their ReLU, and the gradient before it."""
    zero = float32(0.0)
    for j in range(width):
        a, b, c, d = _four(tile, hidden, m, j, features)
        e = f = g = h = zero
        for o in range(len(channels)):
            value = given[o, j]
            e += output[o, m] * value
            f += output[o, m + 1] * value
            g += output[o, m + 2] * value
            h += output[o, m + 3] * value
        layer[0, j], layer[1, j], layer[2, j], layer[3, j] = max(a, zero), max(b, zero), max(c, zero), max(d, zero)
        inner[0, j] = e if a > zero else zero
        inner[1, j] = f if b > zero else zero
        inner[2, j] = g if c > zero else zero
        inner[3, j] = h if d > zero else zero


@_jit
def backward(rows, hidden, output, to_raw, to_rows, to_hidden, to_output, low, high, more, features, channels):
    """Gradients by features [K, N] (added to what is there if ``more``), hidden [H, K] and output [H, O] weights.

    From those of the raw outputs [O, N]. The weights' are added to what is there.
    """
    tile, to_tile = np.empty((len(features), TILE), np.float32), np.empty((len(features), TILE), np.float32)
    given = np.empty((len(channels), TILE), np.float32)
    layer, inner = np.empty((UNITS, TILE), np.float32), np.empty((UNITS, TILE), np.float32)
    for start in range(low, high, TILE):
        width = min(TILE, high - start)
        _load(rows, start, width, tile)
        _load(to_raw, start, width, given)
        if more:
            _load(to_rows, start, width, to_tile)
        else:
            to_tile[:] = float32(0.0)
        for m in range(0, hidden.shape[0], UNITS):
            _back(tile, given, hidden, output, m, width, layer, inner, features, channels)
            _summed(given, layer, m, width, to_output, channels)
            _pushed(inner, hidden, m, width, to_tile, features)
            _summed(tile, inner, m, width, to_hidden, features)
        _store(to_tile, width, to_rows, start)


@_inlined
def _alive(tile, hidden, m, width, inner, features, a, b, c, d):
    """One of four numbers where a unit is above zero, 0 elsewhere, of four units."""
    zero = float32(0.0)
    for j in range(width):
        e, f, g, h = _four(tile, hidden, m, j, features)
        inner[0, j] = a if e > zero else zero
        inner[1, j] = b if f > zero else zero
        inner[2, j] = c if g > zero else zero
        inner[3, j] = d if h > zero else zero


@_jit
def covector(rows, hidden, output, out, low, high, features):
    """W₁ᵀ(w₂ ⊙ [W₁·features > 0]), [K, N], for features [K, N], hidden [H, K] and output [1, H] weights."""
    tile, to_tile = np.empty((len(features), TILE), np.float32), np.empty((len(features), TILE), np.float32)
    inner = np.empty((UNITS, TILE), np.float32)
    for start in range(low, high, TILE):
        width = min(TILE, high - start)
        _load(rows, start, width, tile)
        to_tile[:] = float32(0.0)
        for m in range(0, hidden.shape[0], UNITS):
            a, b, c, d = output[0, m], output[0, m + 1], output[0, m + 2], output[0, m + 3]
            _alive(tile, hidden, m, width, inner, features, a, b, c, d)
            _pushed(inner, hidden, m, width, to_tile, features)
        _store(to_tile, width, out, start)


@_jit
def covector_backward(rows, hidden, output, along, to_hidden, to_output, low, high, features):
    """Add the gradients of :func:`covector` by hidden [H, K] and output [H, 1] weights, for ``along`` [K, N].

    Both follow from the sums [H, K] of what is along where a unit is above zero.
    """
    one = float32(1.0)
    tile, given = np.empty((len(features), TILE), np.float32), np.empty((len(features), TILE), np.float32)
    inner, sums = np.empty((UNITS, TILE), np.float32), np.zeros(hidden.shape, np.float32)
    for start in range(low, high, TILE):
        width = min(TILE, high - start)
        _load(rows, start, width, tile)
        _load(along, start, width, given)
        for m in range(0, hidden.shape[0], UNITS):
            _alive(tile, hidden, m, width, inner, features, one, one, one, one)
            _summed(given, inner, m, width, sums, features)
    for m in range(hidden.shape[0]):
        for k in range(len(features)):
            to_hidden[m, k] += output[0, m] * sums[m, k]
            to_output[m, 0] += hidden[m, k] * sums[m, k]


@_jit
def unit_normals(prior, along, shortest, out, inverse):
    """Normals [3, N] against the gradient prior [N, 3] + along [3, N] / 2, and its ``inverse`` length [N]."""
    for i in range(len(prior)):
        x = prior[i, 0] + float32(0.5) * along[0, i]
        y = prior[i, 1] + float32(0.5) * along[1, i]
        z = prior[i, 2] + float32(0.5) * along[2, i]
        scale = float32(1.0) / max(np.sqrt(x * x + y * y + z * z), shortest)
        out[0, i], out[1, i], out[2, i], inverse[i] = -scale * x, -scale * y, -scale * z, scale


@_jit
def unit_normals_backward(given, normals, shortest, inverse, out):
    """Gradient [3, N] of :func:`unit_normals` by ``along``, from that of the normals [3, N]."""
    limit = float32(1.0) / shortest
    for i in range(len(inverse)):
        a, b, c = given[0, i], given[1, i], given[2, i]
        x, y, z = normals[0, i], normals[1, i], normals[2, i]
        turned = a * x + b * y + c * z if inverse[i] < limit else float32(0.0)
        half = float32(-0.5) * inverse[i]
        out[0, i], out[1, i], out[2, i] = half * (a - turned * x), half * (b - turned * y), half * (c - turned * z)
