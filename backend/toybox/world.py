"""Toybox's world: kinds of objects with a clear front (−Y) and left-right symmetry, their colours and proportions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .shapes import Builder, Solids, Vector

BALL_FILL = 0.92
"""Objects reach this far from the origin, in radii of the scene's ball."""

COLOURS: dict[str, Vector] = {  # linear albedo
    "red": (0.62, 0.02, 0.02),
    "orange": (0.80, 0.20, 0.01),
    "yellow": (0.80, 0.58, 0.02),
    "green": (0.03, 0.34, 0.05),
    "blue": (0.02, 0.09, 0.58),
    "purple": (0.24, 0.03, 0.42),
    "pink": (0.80, 0.24, 0.40),
    "brown": (0.19, 0.075, 0.025),
    "white": (0.80, 0.80, 0.80),
    "black": (0.025, 0.025, 0.03),
}
WHITE, DARK, BEAK, GLASS = (0.85, 0.85, 0.85), (0.015, 0.015, 0.018), (0.85, 0.30, 0.02), (0.25, 0.52, 0.75)
TAN, PINK, LAMP, STOP, STEEL = (
    (0.62, 0.38, 0.22),
    (0.80, 0.30, 0.33),
    (0.90, 0.72, 0.20),
    (0.60, 0.02, 0.02),
    (0.35, 0.36, 0.38),
)


@dataclass(frozen=True)
class Proportions:
    """Named factors near 1 that vary an object; the canonical object has them all at 1."""

    rng: np.random.Generator | None
    spread: float = 0.08

    def __call__(self) -> float:
        """The next factor."""
        return 1.0 if self.rng is None else float(self.rng.uniform(1 - self.spread, 1 + self.spread))


def tint(colour: Vector, toward: Vector, share: float) -> Vector:
    """A mixture of two linear colours."""
    mixed = [(1 - share) * c + share * t for c, t in zip(colour, toward, strict=True)]
    return (mixed[0], mixed[1], mixed[2])


def _eyes(b: Builder, x: float, y: float, z: float, size: float, white: Vector = WHITE) -> None:
    b.ball((x, y, z), size, white, mirror=True)
    b.ball((x, y - 0.55 * size, z), 0.62 * size, DARK, mirror=True)


def _duck(b: Builder, c: Vector, p: Proportions) -> None:
    head, neck = p(), p()
    b.ball((0, 0.08, -0.2), (0.42 * p(), 0.62, 0.38 * p()), c)
    b.ball((0, 0.66, 0.02), (0.2, 0.26 * p(), 0.13), c, (35, 0, 0))
    b.ball((0, -0.36, 0.12), (0.22, 0.22, 0.32 * neck), c)
    b.ball((0, -0.4, 0.42 * neck), 0.33 * head, c)
    b.ball((0, -0.4 - 0.38 * head, 0.36 * neck), (0.19, 0.24 * p(), 0.09), BEAK)
    _eyes(b, 0.19 * head, -0.4 - 0.22 * head, 0.42 * neck + 0.13, 0.115)
    b.ball((0.4, 0.16, -0.14), (0.1, 0.36 * p(), 0.22), tint(c, WHITE, 0.35), mirror=True)


def _monkey(b: Builder, c: Vector, p: Proportions) -> None:
    ear, muzzle = p(), p()
    b.ball((0, 0.08, 0.1), (0.6 * p(), 0.56 * p(), 0.58 * p()), c)
    b.ball((0, -0.3, 0.17), (0.42, 0.26, 0.3), TAN)
    b.ball((0, -0.42, -0.22), (0.36 * muzzle, 0.3 * muzzle, 0.27 * muzzle), TAN)
    b.ball((0.7, 0.08, 0.12), (0.22 * ear, 0.1, 0.25 * ear), c, mirror=True)
    b.ball((0.72, -0.02, 0.12), (0.14 * ear, 0.06, 0.17 * ear), TAN, mirror=True)
    _eyes(b, 0.19, -0.5, 0.24, 0.135)
    b.ball((0, -0.42 - 0.29 * muzzle, -0.27), (0.17, 0.05, 0.05), DARK)


def _cat(b: Builder, c: Vector, p: Proportions) -> None:
    head = p()
    b.ball((0, 0.12, -0.38), (0.38 * p(), 0.42, 0.46 * p()), c)
    b.ball((0, -0.16, -0.3), (0.24, 0.2, 0.32), tint(c, WHITE, 0.6))
    b.ball((0, -0.16, 0.34), (0.41 * head, 0.34 * head, 0.34 * head), c)
    b.rod((0.26 * head, -0.12, 0.68), (0.15, 0.1, 0.22 * p()), c, (0, 14, 0), taper=0.05, mirror=True)
    b.rod((0.255 * head, -0.17, 0.66), (0.09, 0.08, 0.16), PINK, (0, 14, 0), taper=0.05, mirror=True)
    _eyes(b, 0.18 * head, -0.16 - 0.28 * head, 0.42, 0.115, LAMP)
    b.ball((0, -0.2 - 0.3 * head, 0.23), (0.17, 0.1, 0.11), WHITE)
    b.ball((0, -0.28 - 0.3 * head, 0.29), (0.06, 0.05, 0.045), PINK)
    b.rod((0.19, -0.26, -0.6), (0.12, 0.13, 0.28), c, mirror=True)
    b.ball((0, 0.58, -0.62), (0.11, 0.32 * p(), 0.11), c)
    b.ball((0, 0.84, -0.36), (0.11, 0.12, 0.34 * p()), c)


def _rabbit(b: Builder, c: Vector, p: Proportions) -> None:
    head, ear = p(), p()
    b.ball((0, 0.18, -0.42), (0.4 * p(), 0.48, 0.42 * p()), c)
    b.ball((0, -0.2, 0.06), (0.34 * head, 0.33 * head, 0.32 * head), c)
    b.ball((0.17, -0.08, 0.3 + 0.36 * ear), (0.12, 0.09, 0.4 * ear), c, (0, 8, 0), mirror=True)
    b.ball((0.17, -0.14, 0.3 + 0.36 * ear), (0.075, 0.06, 0.31 * ear), PINK, (0, 8, 0), mirror=True)
    _eyes(b, 0.17 * head, -0.2 - 0.26 * head, 0.14, 0.11)
    b.ball((0, -0.22 - 0.3 * head, -0.03), (0.15, 0.08, 0.1), tint(c, WHITE, 0.7))
    b.ball((0, -0.3 - 0.3 * head, 0.01), (0.06, 0.05, 0.045), PINK)
    b.ball((0, 0.7, -0.4), 0.18 * p(), WHITE)
    b.ball((0.2, -0.26, -0.72), (0.13, 0.24, 0.12), tint(c, WHITE, 0.4), mirror=True)


def _owl(b: Builder, c: Vector, p: Proportions) -> None:
    eye = p()
    b.ball((0, 0.02, -0.08), (0.5 * p(), 0.44 * p(), 0.7), c)
    b.ball((0, -0.2, -0.28), (0.35, 0.29, 0.4 * p()), tint(c, WHITE, 0.65))
    b.ball((0.2, -0.34, 0.3), (0.21 * eye, 0.12, 0.21 * eye), WHITE, (0, 0, 18), mirror=True)
    b.ball((0.19, -0.44, 0.3), (0.11 * eye, 0.06, 0.11 * eye), DARK, mirror=True)
    b.rod((0, -0.5, 0.13), (0.09, 0.09, 0.12), BEAK, (160, 0, 0), taper=0.1)
    b.rod((0.3, -0.04, 0.6), (0.13, 0.1, 0.2 * p()), c, (0, 18, 0), taper=0.05, mirror=True)
    b.ball((0.47, 0.1, -0.14), (0.12, 0.32, 0.48 * p()), tint(c, DARK, 0.45), (0, -8, 0), mirror=True)
    b.ball((0.19, -0.26, -0.76), (0.14, 0.19, 0.08), BEAK, mirror=True)


def _wheels(b: Builder, x: float, ys: tuple[float, ...], z: float, radius: float) -> None:
    for y in ys:
        b.rod((x, y, z), (radius, radius, 0.1), DARK, (0, 90, 0), mirror=True)
        b.rod((x + 0.03, y, z), (0.5 * radius, 0.5 * radius, 0.1), STEEL, (0, 90, 0), mirror=True)


def _car(b: Builder, c: Vector, p: Proportions) -> None:
    length, cabin = p(), p()
    b.box((0, 0, -0.16), (0.42, 0.86 * length, 0.19), c)
    b.box((0, 0.18, 0.12), (0.36, 0.44 * cabin, 0.22), GLASS)
    b.box((0, 0.18, 0.34), (0.38, 0.46 * cabin, 0.06), c)
    b.box((0.36, 0.18, 0.14), (0.03, 0.07, 0.2), c, mirror=True)
    b.box((0, 0.2 + 0.42 * cabin, 0.12), (0.2, 0.04, 0.2), c)
    b.ball((0.26, -0.86 * length, -0.1), (0.12, 0.05, 0.1), LAMP, mirror=True)
    b.box((0, -0.86 * length, -0.22), (0.2, 0.02, 0.07), DARK)
    b.box((0.29, 0.86 * length, -0.1), (0.1, 0.02, 0.07), STOP, mirror=True)
    b.box((0, 0.86 * length, -0.16), (0.13, 0.02, 0.07), WHITE)
    _wheels(b, 0.4, (-0.54 * length, 0.54 * length), -0.34, 0.21 * p())


def _chair(b: Builder, c: Vector, p: Proportions) -> None:
    width, back = 0.46 * p(), p()
    b.box((0, 0, -0.1), (width, 0.48, 0.1), c)
    b.box((0, -0.04, 0.03), (0.85 * width, 0.4, 0.06), tint(c, WHITE, 0.55))
    b.box((0, 0.42, 0.36 * back), (width, 0.1, 0.46 * back), c)
    b.box((0, 0.32, 0.36 * back), (0.75 * width, 0.04, 0.3 * back), tint(c, WHITE, 0.55))
    leg = 0.36 * p()
    for y in (-0.37, 0.37):
        b.box((width - 0.11, y, -0.2 - leg), (0.11, 0.11, leg), tint(c, DARK, 0.5), mirror=True)


def _robot(b: Builder, c: Vector, p: Proportions) -> None:
    head, arm, eye = p(), p(), p()
    b.box((0, 0, -0.14), (0.38 * p(), 0.27, 0.36), c)
    b.box((0, -0.27, -0.1), (0.24, 0.05, 0.2), STEEL)
    b.ball((0.11, -0.32, -0.04), (0.07, 0.04, 0.07), STOP, mirror=True)
    b.box((0, -0.32, -0.2), (0.16, 0.02, 0.04), LAMP)
    b.rod((0, 0, 0.25), (0.13, 0.13, 0.1), STEEL)
    b.box((0, 0, 0.53), (0.32 * head, 0.27, 0.23), c)
    b.ball((0.14, -0.27, 0.57), (0.11 * eye, 0.07, 0.11 * eye), LAMP, mirror=True)
    b.box((0, -0.27, 0.41), (0.17, 0.03, 0.045), DARK)
    b.rod((0, 0, 0.84), (0.04, 0.04, 0.1), STEEL)
    b.ball((0, 0, 0.96), 0.09, STOP)
    b.rod((0.5, 0, -0.16), (0.11, 0.13, 0.33 * arm), tint(c, DARK, 0.4), mirror=True)
    b.ball((0.5, 0, -0.16 - 0.36 * arm), 0.14, STEEL, mirror=True)
    b.box((0.19, -0.04, -0.72), (0.14, 0.2, 0.22), tint(c, DARK, 0.4), mirror=True)
    b.box((0, 0.37, -0.1), (0.27, 0.13, 0.27 * p()), STEEL)


KINDS: dict[str, Callable[[Builder, Vector, Proportions], None]] = {
    "car": _car,
    "cat": _cat,
    "chair": _chair,
    "duck": _duck,
    "monkey": _monkey,
    "owl": _owl,
    "rabbit": _rabbit,
    "robot": _robot,
}


def make_object(kind: str, colour: str, rng: np.random.Generator | None = None) -> Solids:
    """An object of the world, fitted into the ball; ``rng`` varies proportions and colour, None gives the plain one.

    Raises KeyError for a kind or colour that is not in :data:`KINDS` or :data:`COLOURS`.
    """
    paint = COLOURS[colour]
    if rng is not None:
        factor = rng.uniform(0.85, 1.12, 3)
        paint = (paint[0] * factor[0], paint[1] * factor[1], paint[2] * factor[2])
    builder = Builder()
    KINDS[kind](builder, paint, Proportions(rng))
    return builder.solids().fitted(BALL_FILL)
