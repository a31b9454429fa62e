"""Compiled loops for the CPU: marching, transmittance weights, accumulation. Needs numba.

Each has a twin in plain PyTorch (:mod:`.march`, :mod:`.composite`) that gives the same samples and the same values.
Marching, the dearest of them, may be shared among the field's worker threads; the others are quicker than waking one.
Numba's own thread pool beside torch's would cost more than it gives.
"""

# Numba types these functions from their arguments at the call; annotations would say nothing.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 4
"""Cells a side of a block; an empty block is skipped whole."""
RAYS = 64
"""Rays in a row that one thread takes."""

_U32 = np.uint32
_F32 = np.float32
_SLACK = _F32(1e-3)
"""By which the box around all matter is wider than its cells, more than positions are rounded."""


@njit(cache=True, error_model="numpy")
def _uniform(counter, seed):
    """As :func:`.randomness.uniform`."""
    x = _U32(counter) ^ seed
    x = _U32(x ^ (x >> _U32(16)))
    x = _U32(x * _U32(0x7FEB352D))
    x = _U32(x ^ (x >> _U32(15)))
    x = _U32(x * _U32(0x846CA68B))
    x = _U32(x ^ (x >> _U32(16)))
    return _F32(x >> _U32(8)) * _F32(2.0**-24)


@njit(cache=True, error_model="numpy")
def _sample(k, length, step, counter, seed, jitter):
    """Offset from the ball's near side, and width, of interval k's sample."""
    low = _F32(k) * step
    width = min(step, length - low)
    u = _uniform(counter, seed) if jitter else _F32(0.5)
    return low + u * width, width


@njit(cache=True, error_model="numpy")
def _inverse(direction):
    """1 / direction; for none, a number that makes every way ahead long."""
    return _F32(1.0) / direction if direction != _F32(0.0) else _F32(1e30)


@njit(cache=True, error_model="numpy")
def _exit(position, inverse, cell, size):
    """Distance along one axis to the far face of the cell (of ``size``, counted from −1)."""
    far = cell + 1 if inverse > _F32(0.0) else cell
    return (_F32(far) * size - _F32(1.0) - position) * inverse


@njit(cache=True, nogil=True, error_model="numpy")
def _bounds(blocks, block_size):
    """The least box [2, 3] around all blocks with an occupied cell, a hair wider; the whole cube if there is none."""
    low, high = np.full(3, blocks.shape[0], np.int64), np.full(3, -1, np.int64)
    for ix in range(blocks.shape[0]):
        for iy in range(blocks.shape[1]):
            for iz in range(blocks.shape[2]):
                if blocks[ix, iy, iz]:
                    low[0], low[1], low[2] = min(low[0], ix), min(low[1], iy), min(low[2], iz)
                    high[0], high[1], high[2] = max(high[0], ix), max(high[1], iy), max(high[2], iz)
    box = np.empty((2, 3), np.float32)
    for axis in range(3):
        box[0, axis] = _F32(low[axis]) * block_size - _F32(1.0) - _SLACK
        box[1, axis] = _F32(high[axis] + 1) * block_size - _F32(1.0) + _SLACK
    return box


@njit(cache=True, nogil=True, error_model="numpy")
def _stretch(position, inverse, low, high):
    """Where a ray enters and leaves a slab along one axis."""
    a, b = (low - position) * inverse, (high - position) * inverse
    return min(a, b), max(a, b)


@njit(cache=True, nogil=True, error_model="numpy")
def find_samples(
    origins, directions, near, length, occupied, blocks, step, noise, core, opaque, kept, counts, cut, share, shares
):
    """The intervals of each ray whose sample lies in an occupied cell: ``kept`` [R, stride] and ``counts`` [R].

    ``noise`` is the seed, whether there is one, and the counter of the first random number. A ray is ``cut`` [R] at the
    optical depth ``opaque`` by the densities ``core`` of its samples' cells. A share has every ``shares``-th block of
    :data:`RAYS` rays.
    """
    n_rays, stride = kept.shape
    resolution = occupied.shape[0]
    half = _F32(resolution * 0.5)
    cell_size, per_step = _F32(2.0 / resolution), _F32(1.0) / step
    box = _bounds(blocks, cell_size * _F32(BLOCK))
    for r in range(n_rays):
        if (r // RAYS) % shares != share:
            continue
        ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        ax, ay, az = _inverse(dx), _inverse(dy), _inverse(dz)
        ex, lx = _stretch(ox, ax, box[0, 0], box[1, 0])
        ey, ly = _stretch(oy, ay, box[0, 1], box[1, 1])
        ez, lz = _stretch(oz, az, box[0, 2], box[1, 2])
        count, depth = 0, 0.0
        cut[r] = False
        k = int(min(max((max(ex, ey, ez) - near[r]) * per_step, _F32(0.0)), _F32(stride)))
        end = min(min(lx, ly, lz) - near[r], length[r])
        while k < stride and _F32(k) * step < end:
            if depth >= opaque:
                cut[r] = True
                break
            offset, width = _sample(k, length[r], step, noise[2] + r * stride + k, noise[0], noise[1])
            t = near[r] + offset
            x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
            ix = min(max(int((x + _F32(1.0)) * half), 0), resolution - 1)
            iy = min(max(int((y + _F32(1.0)) * half), 0), resolution - 1)
            iz = min(max(int((z + _F32(1.0)) * half), 0), resolution - 1)
            if occupied[ix, iy, iz]:
                kept[r, count] = k
                depth += core[ix, iy, iz] * width
                count += 1
                k += 1
                continue
            size = cell_size
            bx, by, bz = ix // BLOCK, iy // BLOCK, iz // BLOCK
            if not blocks[bx, by, bz]:
                ix, iy, iz, size = bx, by, bz, cell_size * _F32(BLOCK)
            elif cell_size <= step:
                k += 1
                continue
            ahead = min(_exit(x, ax, ix, size), _exit(y, ay, iy, size), _exit(z, az, iz, size))
            # Every interval that ends before the exit has its sample in this empty cell.
            k = max(k + 1, int((offset + ahead - _F32(1e-5)) * per_step))
        counts[r] = count


@njit(cache=True, nogil=True)
def pack_samples(
    origins, directions, near, length, kept, offsets, step, noise, positions, distances, widths, rays, share, shares
):
    """Positions [N, 3], distances [N], widths [N] and rays [N] of the kept intervals; shares as above."""
    n_rays, stride = kept.shape
    for r in range(n_rays):
        if (r // RAYS) % shares != share:
            continue
        for i in range(offsets[r], offsets[r + 1]):
            k = kept[r, i - offsets[r]]
            offset, width = _sample(k, length[r], step, noise[2] + r * stride + k, noise[0], noise[1])
            t = near[r] + offset
            for axis in range(3):
                p = origins[r, axis] + t * directions[r, axis]
                positions[i, axis] = min(max(p, _F32(-1.0)), _F32(1.0))
            distances[i] = t
            widths[i] = width
            rays[i] = r


@njit(cache=True, nogil=True)
def left_open(cut, density, widths, offsets, opaque):
    """Whether samples of these densities leave any ray that is cut short of the optical depth ``opaque``."""
    for r in range(offsets.shape[0] - 1):
        if cut[r]:
            depth = 0.0
            for i in range(offsets[r], offsets[r + 1]):
                depth += density[i] * widths[i]
            if depth < opaque:
                return True
    return False


@njit(cache=True, nogil=True)
def select(kept, positions, distances, widths, rays, offsets):
    """The samples of a mask [N], packed anew: positions, distances, widths, rays and offsets."""
    total = 0
    for i in range(kept.shape[0]):
        total += kept[i]
    new_positions = np.empty((total, 3), np.float32)
    new_distances = np.empty(total, np.float32)
    new_widths = np.empty(total, np.float32)
    new_rays = np.empty(total, np.int64)
    new_offsets = np.empty_like(offsets)
    count = 0
    for r in range(offsets.shape[0] - 1):
        new_offsets[r] = count
        for i in range(offsets[r], offsets[r + 1]):
            if kept[i]:
                for axis in range(3):
                    new_positions[count, axis] = positions[i, axis]
                new_distances[count] = distances[i]
                new_widths[count] = widths[i]
                new_rays[count] = rays[i]
                count += 1
    new_offsets[offsets.shape[0] - 1] = count
    return new_positions, new_distances, new_widths, new_rays, new_offsets


@njit(cache=True, nogil=True)
def depth_before(density, widths, offsets):
    """Σ_{j<i} σ_j δ_j."""
    result = np.empty_like(density)
    for r in range(offsets.shape[0] - 1):
        depth = 0.0
        for i in range(offsets[r], offsets[r + 1]):
            result[i] = depth
            depth += density[i] * widths[i]
    return result


@njit(cache=True, nogil=True)
def weights_forward(alpha, offsets):
    """w_i = T_i α_i for α_i = 1 − exp(−σ_i δ_i), and T just behind each sample."""
    weights = np.empty_like(alpha)
    behind = np.empty_like(alpha)
    for r in range(offsets.shape[0] - 1):
        transmittance = 1.0
        for i in range(offsets[r], offsets[r + 1]):
            weight = transmittance * alpha[i]
            transmittance -= weight
            weights[i] = weight
            behind[i] = transmittance
    return weights, behind


@njit(cache=True, nogil=True)
def weights_backward(gradient, weights, behind, widths, offsets):
    """dL/dσ_i = δ_i (g_i T_{i+1} − Σ_{j>i} g_j w_j)."""
    result = np.empty_like(weights)
    for r in range(offsets.shape[0] - 1):
        later = 0.0
        for i in range(offsets[r + 1] - 1, offsets[r] - 1, -1):
            result[i] = widths[i] * (gradient[i] * behind[i] - later)
            later += gradient[i] * weights[i]
    return result


@njit(cache=True, nogil=True)
def accumulate_forward(weights, values, offsets):
    """Σ_i w_i v_i of each ray: [R, C]."""
    n_rays, channels = offsets.shape[0] - 1, values.shape[1]
    result = np.zeros((n_rays, channels), values.dtype)
    for r in range(n_rays):
        for i in range(offsets[r], offsets[r + 1]):
            for c in range(channels):
                result[r, c] += weights[i] * values[i, c]
    return result


@njit(cache=True, nogil=True)
def accumulate_backward(gradient, weights, values, offsets):
    """Gradients of weights [N] and values [N, C]."""
    channels = values.shape[1]
    of_weights = np.empty_like(weights)
    of_values = np.empty_like(values)
    for r in range(offsets.shape[0] - 1):
        for i in range(offsets[r], offsets[r + 1]):
            total = 0.0
            for c in range(channels):
                total += gradient[r, c] * values[i, c]
                of_values[i, c] = gradient[r, c] * weights[i]
            of_weights[i] = total
    return of_weights, of_values
