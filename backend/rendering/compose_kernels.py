"""Compiled loops that light the samples of each ray and add them up, there and back. Needs numba.

``slot`` [N] says which of the normals [3, M] is a sample's; −1 for none. ``style`` [R] is each ray's; a style has its
mode, a place in :data:`MODES`, and its lamp: the ambient light, the diffuse, and the brightness of a sample without a
normal. The loops write into arrays; a share has every ``shares``-th block of :data:`RAYS` rays. All loops are told the
same of the samples, whether they need it or not.
"""

# Numba types these functions from their arguments at the call; annotations would say nothing.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# ruff: noqa: ANN001, ANN201, ANN202, ARG001

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .kernels import RAYS

MODES = ("albedo", "lambertian", "textureless", "normal")
_F32 = np.float32
_jit: Any = njit(cache=True, nogil=True, error_model="numpy")


@_jit
def seen(weights, least, style, offsets, positions):
    """Slots [N] of samples that weigh more than ``least`` of their style, and their positions [M, 3]."""
    slot = np.full(weights.shape[0], -1, np.int32)
    count = 0
    for r in range(style.shape[0]):
        limit = least[style[r]]
        for i in range(offsets[r], offsets[r + 1]):
            if weights[i] > limit:
                slot[i] = count
                count += 1
    kept = np.empty((count, 3), np.float32)
    for i in range(weights.shape[0]):
        if slot[i] >= 0:
            for axis in range(3):
                kept[slot[i], axis] = positions[i, axis]
    return slot, kept


@_jit
def _unit(x, y, z):
    """Numbers alone: a call that is handed arrays counts their references, which takes longer than all else here."""
    scale = _F32(1.0) / max(math.sqrt(x * x + y * y + z * z), _F32(1e-12))
    return x * scale, y * scale, z * scale


@_jit
def forward(
    weights,
    albedo,
    normal,
    slot,
    positions,
    distances,
    offsets,
    light,
    directions,
    style,
    modes,
    lamps,
    result,
    share,
    shares,
):
    """Sums [R, C] of colour, distance, weight and, if C is 9, normals and w · max(0, n·d)²."""
    channels, half = result.shape[1], _F32(0.5)
    for r in range(offsets.shape[0] - 1):
        if (r // RAYS) % shares != share:
            continue
        k = style[r]
        mode, ambient, diffuse, unlit = modes[k], lamps[k, 0], lamps[k, 1], lamps[k, 2]
        for i in range(offsets[r], offsets[r + 1]):
            s, weight = slot[i], weights[i]
            light_here = _F32(1.0)
            if 0 < mode < 3:
                light_here = unlit
                if s >= 0:
                    x, y, z = (
                        light[r, 0] - positions[i, 0],
                        light[r, 1] - positions[i, 1],
                        light[r, 2] - positions[i, 2],
                    )
                    x, y, z = _unit(x, y, z)
                    cosine = normal[0, s] * x + normal[1, s] * y + normal[2, s] * z
                    light_here = ambient + diffuse * max(cosine, _F32(0.0))
            for c in range(3):
                colour = albedo[c, i] if mode < 2 else _F32(1.0)
                if mode == 3:
                    colour = half if s < 0 else normal[c, s] * half + half
                result[r, c] += weight * colour * light_here
            result[r, 3] += weight * distances[i]
            result[r, 4] += weight
            if channels == 9 and s >= 0:
                away = _F32(0.0)
                for c in range(3):
                    result[r, 5 + c] += weight * normal[c, s]
                    away += normal[c, s] * directions[r, c]
                result[r, 8] += weight * max(away, _F32(0.0)) ** 2


@_jit
def backward(
    gradient,
    weights,
    behind,
    widths,
    albedo,
    normal,
    slot,
    positions,
    distances,
    offsets,
    light,
    directions,
    style,
    modes,
    lamps,
    to_density,
    to_albedo,
    to_light,
    share,
    shares,
):
    """Gradients of density [N] and albedo [3, N] from that of the sums [R, C]; and of the brightness [N].

    ``behind`` [N] is the transmittance just behind each sample.
    """
    channels, half = gradient.shape[1], _F32(0.5)
    for r in range(offsets.shape[0] - 1):
        if (r // RAYS) % shares != share:
            continue
        k = style[r]
        mode, ambient, diffuse, unlit = modes[k], lamps[k, 0], lamps[k, 1], lamps[k, 2]
        later = _F32(0.0)
        for i in range(offsets[r + 1] - 1, offsets[r] - 1, -1):
            s, weight = slot[i], weights[i]
            light_here = _F32(1.0)
            if 0 < mode < 3:
                light_here = unlit
                if s >= 0:
                    x, y, z = (
                        light[r, 0] - positions[i, 0],
                        light[r, 1] - positions[i, 1],
                        light[r, 2] - positions[i, 2],
                    )
                    x, y, z = _unit(x, y, z)
                    cosine = normal[0, s] * x + normal[1, s] * y + normal[2, s] * z
                    light_here = ambient + diffuse * max(cosine, _F32(0.0))
            plain = _F32(0.0)
            for c in range(3):
                colour = albedo[c, i] if mode < 2 else _F32(1.0)
                if mode == 3:
                    colour = half if s < 0 else normal[c, s] * half + half
                plain += gradient[r, c] * colour
                to_albedo[c, i] = gradient[r, c] * weight * light_here if mode < 2 else _F32(0.0)
            to_weight = plain * light_here + gradient[r, 3] * distances[i] + gradient[r, 4]
            if channels == 9 and s >= 0:
                for c in range(3):
                    to_weight += gradient[r, 5 + c] * normal[c, s]
            to_light[i] = plain * weight
            to_density[i] = widths[i] * (to_weight * behind[i] - later)
            later += to_weight * weight


@_jit
def backward_normals(
    gradient,
    to_light,
    weights,
    normal,
    slot,
    positions,
    distances,
    offsets,
    light,
    directions,
    style,
    modes,
    lamps,
    to_normal,
    share,
    shares,
):
    """Gradient of normals [3, M] from those of the sums [R, 9] and of each sample's brightness [N]."""
    zero, half = _F32(0.0), _F32(0.5)
    for r in range(offsets.shape[0] - 1):
        if (r // RAYS) % shares != share:
            continue
        mode, diffuse = modes[style[r]], lamps[style[r], 1]
        for i in range(offsets[r], offsets[r + 1]):
            s, weight = slot[i], weights[i]
            if s < 0:
                continue
            nx, ny, nz = normal[0, s], normal[1, s], normal[2, s]
            turned = nx * directions[r, 0] + ny * directions[r, 1] + nz * directions[r, 2]
            turned = gradient[r, 8] * weight * _F32(2.0) * max(turned, zero)
            x = weight * gradient[r, 5] + turned * directions[r, 0]
            y = weight * gradient[r, 6] + turned * directions[r, 1]
            z = weight * gradient[r, 7] + turned * directions[r, 2]
            if mode == 3:
                x += weight * half * gradient[r, 0]
                y += weight * half * gradient[r, 1]
                z += weight * half * gradient[r, 2]
            elif mode > 0:
                a, b, c = light[r, 0] - positions[i, 0], light[r, 1] - positions[i, 1], light[r, 2] - positions[i, 2]
                a, b, c = _unit(a, b, c)
                lit = to_light[i] * diffuse if nx * a + ny * b + nz * c > zero else zero
                x, y, z = x + lit * a, y + lit * b, z + lit * c
            to_normal[0, s], to_normal[1, s], to_normal[2, s] = x, y, z
