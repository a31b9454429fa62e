"""Numba kernels of the hash grid: single-threaded, GIL-free, each doing one share of the work.

What makes them fast (measured): a level's table stays in the cache while a block of points passes (level-major),
features-first output makes every store contiguous, and a level's gradient has one writer, so no atomics and the same
sum in the same order for every number of threads. ``features`` is a tuple whose *length* is F and ``hashed`` is None or
True: both are constants to the compiler, so loops unroll and the hash branch vanishes; only then do the gathers become
vector instructions. Every index is reduced below ``size`` whatever the point, so no input can reach outside a table.

All of it lives in this file, because Numba's cache looks only at the file of the kernel it loads.
"""

# Numba types these functions from their arguments at the call; annotations would say nothing.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any

import numpy as np

from .layout import PRIME_Y, PRIME_Z
from .numba_cache import prepare_numba_cache

prepare_numba_cache()

import numba  # noqa: E402
from numba import float32, int32, uint32  # noqa: E402

BLOCK = 8192
"""Points that pass through one level before the next."""

_PY = np.uint32(PRIME_Y)
_PZ = np.uint32(PRIME_Z)
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})


@_jit
def _locate(value, scale, smooth):
    """Cell, weight of the upper corner, and the weight's derivative by x."""
    position = value * scale + float32(0.5)
    cell = int32(position)
    fraction = position - float32(cell)
    slope = scale
    if smooth:
        slope = scale * float32(6.0) * fraction * (float32(1.0) - fraction)
        fraction = fraction * fraction * (float32(3.0) - float32(2.0) * fraction)
    return uint32(cell), fraction, slope


@_jit
def _wrap(entry, size):
    if entry >= size:
        return uint32(entry % size)
    return entry


@_jit
def _entries(cx, cy, cz, resolution, size, hashed):
    """Entries of the 8 corners; bit 0 of the corner's number is x, bit 1 y, bit 2 z."""
    one = uint32(1)
    if hashed is None:
        plane = uint32(resolution * resolution)
        e0 = uint32(cx + cy * resolution + cz * plane)
        e2 = uint32(e0 + resolution)
        e4 = uint32(e0 + plane)
        e6 = uint32(e4 + resolution)
        return (
            _wrap(e0, size),
            _wrap(uint32(e0 + one), size),
            _wrap(e2, size),
            _wrap(uint32(e2 + one), size),
            _wrap(e4, size),
            _wrap(uint32(e4 + one), size),
            _wrap(e6, size),
            _wrap(uint32(e6 + one), size),
        )
    mask = uint32(size - one)
    dx = uint32(cx + one)
    y0 = uint32(cy * _PY)
    y1 = uint32(y0 + _PY)
    z0 = uint32(cz * _PZ)
    z1 = uint32(z0 + _PZ)
    a = uint32(y0 ^ z0)
    b = uint32(y1 ^ z0)
    c = uint32(y0 ^ z1)
    d = uint32(y1 ^ z1)
    return (
        uint32((cx ^ a) & mask),
        uint32((dx ^ a) & mask),
        uint32((cx ^ b) & mask),
        uint32((dx ^ b) & mask),
        uint32((cx ^ c) & mask),
        uint32((dx ^ c) & mask),
        uint32((cx ^ d) & mask),
        uint32((dx ^ d) & mask),
    )


@_jit
def _slopes(wx, wy, wz, sx, sy, sz):
    """Derivatives of the 8 corner weights along (sx, sy, sz), slopes included."""
    ux = float32(1.0) - wx
    uy = float32(1.0) - wy
    uz = float32(1.0) - wz
    x00 = sx * uy * uz
    x10 = sx * wy * uz
    x01 = sx * uy * wz
    x11 = sx * wy * wz
    y00 = sy * uz
    y01 = sy * wz
    xy0 = sz * uy
    xy1 = sz * wy
    return (
        -x00 - ux * (y00 + xy0),
        x00 - wx * (y00 + xy0),
        -x10 + ux * (y00 - xy1),
        x10 + wx * (y00 - xy1),
        -x01 - ux * (y01 - xy0),
        x01 - wx * (y01 - xy0),
        -x11 + ux * (y01 + xy1),
        x11 + wx * (y01 + xy1),
    )


@_jit
def _encode_level(x, table, scale, resolution, size, smooth, out, low, high, features, hashed):
    n_features = len(features)
    for i in range(low, high):
        cx, wx, _x = _locate(x[i, 0], scale, smooth)
        cy, wy, _y = _locate(x[i, 1], scale, smooth)
        cz, wz, _z = _locate(x[i, 2], scale, smooth)
        k = _entries(cx, cy, cz, resolution, size, hashed)
        ux = float32(1.0) - wx
        uy = float32(1.0) - wy
        uz = float32(1.0) - wz
        w00 = uy * uz
        w10 = wy * uz
        w01 = uy * wz
        w11 = wy * wz
        for f in range(n_features):
            out[f, i] = (
                w00 * (ux * table[k[0] * n_features + f] + wx * table[k[1] * n_features + f])
                + w10 * (ux * table[k[2] * n_features + f] + wx * table[k[3] * n_features + f])
                + w01 * (ux * table[k[4] * n_features + f] + wx * table[k[5] * n_features + f])
                + w11 * (ux * table[k[6] * n_features + f] + wx * table[k[7] * n_features + f])
            )


@_jit
def encode(x, params, scales, shapes, hashes, smooth, out, levels, features, share, shares):
    """Features [L·F, N] of points [N, 3]; ``shapes`` [L, 3] is resolution, offset and size of each level."""
    n = x.shape[0]
    n_features = len(features)
    blocks = (n + BLOCK - 1) // BLOCK
    for task in range(share, blocks * len(scales), shares):
        level = task // blocks
        low = (task % blocks) * BLOCK
        high = min(n, low + BLOCK)
        rows = out[level * n_features : (level + 1) * n_features]
        if level >= levels:
            rows[:, low:high] = float32(0.0)
            continue
        offset, size = shapes[level, 1], uint32(shapes[level, 2])
        table = params[offset * n_features : (offset + size) * n_features]
        scale, resolution = scales[level], uint32(shapes[level, 0])
        if hashes[level]:
            _encode_level(x, table, scale, resolution, size, smooth, rows, low, high, features, True)
        else:
            _encode_level(x, table, scale, resolution, size, smooth, rows, low, high, features, None)


@_jit
def _scatter_level(x, table, scale, resolution, size, smooth, gradient, features, hashed):
    n_features = len(features)
    for i in range(x.shape[0]):
        cx, wx, _x = _locate(x[i, 0], scale, smooth)
        cy, wy, _y = _locate(x[i, 1], scale, smooth)
        cz, wz, _z = _locate(x[i, 2], scale, smooth)
        k = _entries(cx, cy, cz, resolution, size, hashed)
        ux = float32(1.0) - wx
        uy = float32(1.0) - wy
        uz = float32(1.0) - wz
        w00 = uy * uz
        w10 = wy * uz
        w01 = uy * wz
        w11 = wy * wz
        w = (ux * w00, wx * w00, ux * w10, wx * w10, ux * w01, wx * w01, ux * w11, wx * w11)
        for c in range(8):
            for f in range(n_features):
                table[k[c] * n_features + f] += w[c] * gradient[f, i]


@_jit
def encode_backward(x, out, scales, shapes, hashes, smooth, gradient, levels, features, share, shares):
    """Gradient [P] of the parameters from that of the features [L·F, N]; a share has every ``shares``-th level."""
    n_features = len(features)
    for level in range(share, len(scales), shares):
        offset, size = shapes[level, 1], uint32(shapes[level, 2])
        table = out[offset * n_features : (offset + size) * n_features]
        table[:] = float32(0.0)
        if level >= levels:
            continue
        rows = gradient[level * n_features : (level + 1) * n_features]
        scale, resolution = scales[level], uint32(shapes[level, 0])
        if hashes[level]:
            _scatter_level(x, table, scale, resolution, size, smooth, rows, features, True)
        else:
            _scatter_level(x, table, scale, resolution, size, smooth, rows, features, None)


@_jit
def _pull_level(x, table, scale, resolution, size, smooth, v, out, low, high, features, hashed):
    n_features = len(features)
    for i in range(low, high):
        cx, wx, dx = _locate(x[i, 0], scale, smooth)
        cy, wy, dy = _locate(x[i, 1], scale, smooth)
        cz, wz, dz = _locate(x[i, 2], scale, smooth)
        k = _entries(cx, cy, cz, resolution, size, hashed)
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = float32(0.0)
        for f in range(n_features):
            g = v[f, i]
            s0 += g * table[k[0] * n_features + f]
            s1 += g * table[k[1] * n_features + f]
            s2 += g * table[k[2] * n_features + f]
            s3 += g * table[k[3] * n_features + f]
            s4 += g * table[k[4] * n_features + f]
            s5 += g * table[k[5] * n_features + f]
            s6 += g * table[k[6] * n_features + f]
            s7 += g * table[k[7] * n_features + f]
        ux = float32(1.0) - wx
        uy = float32(1.0) - wy
        uz = float32(1.0) - wz
        out[0, i] += dx * (uz * (uy * (s1 - s0) + wy * (s3 - s2)) + wz * (uy * (s5 - s4) + wy * (s7 - s6)))
        out[1, i] += dy * (uz * (ux * (s2 - s0) + wx * (s3 - s1)) + wz * (ux * (s6 - s4) + wx * (s7 - s5)))
        out[2, i] += dz * (uy * (ux * (s4 - s0) + wx * (s5 - s1)) + wy * (ux * (s6 - s2) + wx * (s7 - s3)))


@_jit
def pull(x, params, scales, shapes, hashes, smooth, v, out, levels, features, block, share, shares):
    """Jᵀv [3, N] for v [L·F, N]; a share has every ``shares``-th block of ``block`` points."""
    n = x.shape[0]
    n_features = len(features)
    for low in range(share * block, n, shares * block):
        high = min(n, low + block)
        out[:, low:high] = float32(0.0)
        for level in range(levels):
            offset, size = shapes[level, 1], uint32(shapes[level, 2])
            table = params[offset * n_features : (offset + size) * n_features]
            rows = v[level * n_features : (level + 1) * n_features]
            scale, resolution = scales[level], uint32(shapes[level, 0])
            if hashes[level]:
                _pull_level(x, table, scale, resolution, size, smooth, rows, out, low, high, features, True)
            else:
                _pull_level(x, table, scale, resolution, size, smooth, rows, out, low, high, features, None)


@_jit
def _pull_backward_level(x, table, scale, resolution, size, smooth, v, u, out, pushed, features, hashed):
    n_features = len(features)
    for i in range(x.shape[0]):
        cx, wx, dx = _locate(x[i, 0], scale, smooth)
        cy, wy, dy = _locate(x[i, 1], scale, smooth)
        cz, wz, dz = _locate(x[i, 2], scale, smooth)
        k = _entries(cx, cy, cz, resolution, size, hashed)
        w = _slopes(wx, wy, wz, dx * u[0, i], dy * u[1, i], dz * u[2, i])
        for f in range(n_features):
            total = float32(0.0)
            for c in range(8):
                entry = k[c] * n_features + f
                total += w[c] * table[entry]
                out[entry] += w[c] * v[f, i]
            pushed[f, i] = total


@_jit
def pull_backward(x, params, scales, shapes, hashes, smooth, v, u, out, pushed, levels, features, share, shares):
    """Gradients of :func:`pull` for u [3, N]: ``out`` [P] of the parameters, ``pushed`` = J·u [L·F, N] of v."""
    n_features = len(features)
    for level in range(share, len(scales), shares):
        offset, size = shapes[level, 1], uint32(shapes[level, 2])
        gradient = out[offset * n_features : (offset + size) * n_features]
        gradient[:] = float32(0.0)
        mine = slice(level * n_features, (level + 1) * n_features)
        if level >= levels:
            pushed[mine] = float32(0.0)
            continue
        table = params[offset * n_features : (offset + size) * n_features]
        rows, into = v[mine], pushed[mine]
        scale, resolution = scales[level], uint32(shapes[level, 0])
        if hashes[level]:
            _pull_backward_level(x, table, scale, resolution, size, smooth, rows, u, gradient, into, features, True)
        else:
            _pull_backward_level(x, table, scale, resolution, size, smooth, rows, u, gradient, into, features, None)
