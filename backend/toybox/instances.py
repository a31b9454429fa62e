"""Single objects of random proportions and colours, for a model that must take the shape from a picture.

Known kinds vary far more than what words can say of them, and one object in four is of no kind at all: a symmetric
assembly of random solids. Everything stays mirror-symmetric in x and fits the ball.
"""

from __future__ import annotations

import colorsys
import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..picture.colour import srgb_to_linear
from ..picture.framing import BALL_FILL
from .held_out import HELD_OUT_KINDS
from .kinds import KINDS, Plan
from .shapes import Builder, Solids, Vector
from .world import COLOURS

COMPOSITE = "composite"
HELD_OUT_SEED = 999_331
"""Of objects to measure by; no training may use it."""
COMPOSITE_SHARE = 0.25
SPREAD = 0.15
"""How far a kind's own proportions vary."""
STRETCH = (0.75, 1.3)
"""Factors of the whole along each axis."""
FILL = (0.9, 1.0)
"""Share of BALL_FILL that an object reaches."""
NAMED_COLOUR_SHARE = 0.3
"""Colours near a named one; the rest are any."""
RECOLOUR = ((0.0, 0.5), (0.15, 0.3), (0.6, 0.2))
"""Share of an object's parts that get a colour of their own, and how likely that share is."""
_MIRROR = np.diag((-1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Instance:
    """One object, and what it is."""

    kind: str
    """Of KINDS or HELD_OUT_KINDS, or "composite"."""
    solids: Solids


def make_instance(rng: np.random.Generator, kind: str | None = None) -> Instance:
    """A random object; of the given kind, or (None) one of those that training may show.

    Raises KeyError for a kind that is not known.
    """
    if kind is None:
        kind = COMPOSITE if rng.random() < COMPOSITE_SHARE else tuple(KINDS)[rng.integers(len(KINDS))]
    solids = _composite(rng) if kind == COMPOSITE else _varied(kind, rng)
    factors = np.exp(rng.uniform(np.log(STRETCH[0]), np.log(STRETCH[1]), 3))
    stretched = solids.stretched((float(factors[0]), float(factors[1]), float(factors[2])))
    return Instance(kind, stretched.fitted(BALL_FILL * float(rng.uniform(*FILL))))


def held_out(number: int, kind: str) -> Instance:
    """Object ``number`` of those that no training shows, of the given kind; always the same."""
    return make_instance(np.random.default_rng((HELD_OUT_SEED, number)), kind)


def random_colour(rng: np.random.Generator) -> Vector:
    """Linear: any sRGB colour, or one near a named one."""
    if rng.random() < NAMED_COLOUR_SHARE:
        named = np.array(tuple(COLOURS.values())[rng.integers(len(COLOURS))])
        r, g, b = (named * rng.uniform(0.85, 1.12, 3)).tolist()
        return (r, g, b)
    hue, saturation, value = rng.random(), rng.random() ** 0.7, rng.uniform(0.1, 1.0)
    shown = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    r, g, b = (0.85 * srgb_to_linear(shown)).tolist()
    return (r, g, b)


def _varied(kind: str, rng: np.random.Generator) -> Solids:
    builder = Builder()
    accent = random_colour(rng) if rng.random() < 0.3 else None
    plan = Plan(random_colour(rng), float(rng.uniform(0.65, 1.35)), accent, rng, SPREAD)
    {**KINDS, **HELD_OUT_KINDS}[kind].build(builder, plan)
    return _warped(_jittered(builder.solids(), rng), rng)


def _twins(solids: Solids) -> NDArray[np.bool_]:
    """[K], whether each solid is the mirror image of the one before it."""
    images = _MIRROR @ solids.to_world
    images[:, :, 0] *= -1
    same = np.abs(images[:-1] - solids.to_world[1:]).max((1, 2)) < 1e-9
    aside = np.abs(solids.to_world[1:, 0, 3]) > 1e-9
    return np.concatenate(([False], same & aside))


def _jittered(solids: Solids, rng: np.random.Generator) -> Solids:
    """Each part a little larger, smaller and elsewhere, and some in another colour; twins alike."""
    matrices, colours = solids.to_world.copy(), solids.colour * rng.uniform(0.85, 1.12, solids.colour.shape)
    shares, chances = zip(*RECOLOUR, strict=True)
    recoloured = float(rng.choice(shares, p=chances))
    twins = _twins(solids)
    for k, is_twin in enumerate(twins):
        if is_twin:
            matrices[k] = _MIRROR @ matrices[k - 1]
            matrices[k, :, 0] *= -1
            colours[k] = colours[k - 1]
            continue
        paired = k + 1 < len(twins) and twins[k + 1]
        matrices[k, :, :3] *= np.exp(rng.normal(0, 0.07, 3).clip(-0.15, 0.15))
        matrices[k, :, 3] += rng.normal(0, 0.02, 3) * (1.0 if paired else 0.0, 1, 1)
        if rng.random() < recoloured:
            colours[k] = random_colour(rng)
    return dataclasses.replace(solids, to_world=matrices, colour=colours)


def _warped(solids: Solids, rng: np.random.Generator) -> Solids:
    """Bent as a whole: wider above or in front, longer below, leaning; each solid by the bend at its centre."""
    wide_up, wide_back, long_up, tall_back, lean = rng.normal(0, 0.1, 5).clip(-0.2, 0.2)
    x, y, z = solids.to_world[:, :, 3].T
    across, along, high, none = 1 + wide_up * z + wide_back * y, 1 + long_up * z, 1 + tall_back * y, np.zeros_like(x)
    at = np.stack((x * across, y * along + lean * z, z * high), 1)
    bend = np.array(
        ((across, x * wide_back, x * wide_up), (none, along, y * long_up + lean), (none, z * tall_back, high))
    )
    spread = np.einsum("ijk,kjl->kil", bend, solids.to_world[:, :, :3])
    return dataclasses.replace(solids, to_world=np.concatenate((spread, at[:, :, None]), 2))


def _composite(rng: np.random.Generator) -> Solids:
    """Balls, boxes and rods, each set on the surface of one before it; alone in the middle, or twins on both sides."""
    builder = Builder()
    palette = [random_colour(rng) for _ in range(int(rng.integers(1, 5)))]
    parts = [(np.zeros(3), rng.uniform(0.22, 0.6, 3))]
    _add(builder, rng, parts[0], palette[0], mirror=False)
    for _ in range(int(rng.integers(2, 9))):
        center, half = parts[rng.integers(len(parts))]
        toward = rng.normal(size=3)
        at = center + half * toward / np.linalg.norm(toward) * rng.uniform(0.7, 1.1)
        mirror = bool(rng.random() < 0.6)
        at[0] = abs(at[0]) if mirror else 0.0
        parts.append((at, np.exp(rng.uniform(np.log(0.08), np.log(0.45), 3))))
        _add(builder, rng, parts[-1], palette[rng.integers(len(palette))], mirror=mirror)
    return builder.solids()


def _add(
    builder: Builder,
    rng: np.random.Generator,
    part: tuple[NDArray[np.float64], NDArray[np.float64]],
    colour: Vector,
    *,
    mirror: bool,
) -> None:
    (x, y, z), (a, b, c) = part[0].tolist(), part[1].tolist()
    tilts = rng.normal(0, 30, 3) * (rng.random() < 0.5)
    turn = (float(tilts[0]), float(tilts[1] * mirror), float(tilts[2] * mirror))
    shape = rng.integers(3)
    if shape == 0:
        builder.ball((x, y, z), (a, b, c), colour, turn, mirror=mirror)
    elif shape == 1:
        builder.box((x, y, z), (a, b, c), colour, turn, mirror=mirror)
    else:
        upright = (0, 0, 0) if rng.random() < 0.5 else (90.0, 0.0, 0.0)
        turn = (turn[0] + upright[0], turn[1], turn[2])
        builder.rod((x, y, z), (a, b, c), colour, turn, float(rng.uniform(0.1, 1.2)), mirror=mirror)
