"""The builders of Toybox's kinds.

Each has a clear front (−Y), left-right symmetry, a part that may be small or large, and a place for a second colour (a
hat, a roof, a cushion).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .shapes import Builder, Vector

WHITE, DARK, BEAK, GLASS = (0.85, 0.85, 0.85), (0.015, 0.015, 0.018), (0.85, 0.30, 0.02), (0.25, 0.52, 0.75)
TAN, PINK, LAMP, STOP, STEEL = (
    (0.62, 0.38, 0.22),
    (0.80, 0.30, 0.33),
    (0.90, 0.72, 0.20),
    (0.60, 0.02, 0.02),
    (0.35, 0.36, 0.38),
)
SPREAD = 0.05
"""How far proportions vary around the plain object's."""


@dataclass(frozen=True)
class Plan:
    """What a builder needs to know of the object that it builds."""

    colour: Vector
    part: float
    """Size of the kind's named part, 1 for the plain object's."""
    accent: Vector | None
    """The second colour; None: no hat, and roofs and cushions in shades of the first."""
    rng: np.random.Generator | None
    spread: float = SPREAD
    """How far proportions vary around the plain object's."""

    def vary(self) -> float:
        """The next factor near 1; exactly 1 for the plain object."""
        return 1.0 if self.rng is None else float(self.rng.uniform(1 - self.spread, 1 + self.spread))

    def second(self, otherwise: Vector) -> Vector:
        """The second colour, if any."""
        return otherwise if self.accent is None else self.accent


@dataclass(frozen=True)
class Kind:
    """A kind of object, and the words for what of it can vary."""

    build: Callable[[Builder, Plan], None]
    part: str
    """What may be small or large."""
    extra: str
    """What may have a second colour."""
    face: bool
    """Whether it looks at you: an animal or a robot."""


def tint(colour: Vector, toward: Vector, share: float) -> Vector:
    """A mixture of two linear colours."""
    mixed = [(1 - share) * c + share * t for c, t in zip(colour, toward, strict=True)]
    return (mixed[0], mixed[1], mixed[2])


def eyes(b: Builder, x: float, y: float, z: float, size: float, white: Vector = WHITE) -> None:
    """Two eyes that look ahead, ``x`` from the middle."""
    b.ball((x, y, z), size, white, mirror=True)
    b.ball((x, y - 0.5 * size, z), 0.66 * size, DARK, mirror=True)


def hat(b: Builder, plan: Plan, y: float, z: float, radius: float) -> None:
    """A hat in the second colour, if there is one."""
    if plan.accent is not None:
        b.rod((0, y, z + 0.03), (radius, radius, 0.05), plan.accent)
        b.rod((0, y, z + 0.2), (0.64 * radius, 0.64 * radius, 0.17), plan.accent, taper=0.85)


def _bear(b: Builder, p: Plan) -> None:
    c, head, ear = p.colour, p.vary(), p.part
    b.ball((0, 0.12, -0.4), (0.44 * p.vary(), 0.4, 0.44 * p.vary()), c)
    b.ball((0, -0.1, -0.4), (0.3, 0.24, 0.31), tint(c, TAN, 0.7))
    b.ball((0, -0.06, 0.3), (0.44 * head, 0.4 * head, 0.4 * head), c)
    b.ball((0, -0.38 * head, 0.18), (0.22, 0.18, 0.16), TAN)
    b.ball((0, -0.38 * head - 0.16, 0.24), (0.1, 0.07, 0.075), DARK)
    b.ball((0.36 * head, 0.0, 0.62), (0.17 * ear, 0.1, 0.17 * ear), c, mirror=True)
    b.ball((0.36 * head, -0.06, 0.62), (0.105 * ear, 0.07, 0.105 * ear), TAN, mirror=True)
    eyes(b, 0.19 * head, -0.06 - 0.3 * head, 0.42, 0.115)
    b.ball((0.44, -0.12, -0.26), (0.14, 0.17, 0.3), c, (0, -22, 0), mirror=True)
    b.ball((0.28, -0.32, -0.7), (0.17, 0.28, 0.17), c, mirror=True)
    b.ball((0.28, -0.55, -0.68), (0.12, 0.07, 0.12), TAN, mirror=True)
    b.ball((0, 0.52, -0.6), 0.13, c)
    hat(b, p, -0.04, 0.3 + 0.38 * head, 0.3)


def _cat(b: Builder, p: Plan) -> None:
    c, head, ear = p.colour, p.vary(), p.part
    b.ball((0, 0.12, -0.38), (0.38 * p.vary(), 0.42, 0.46 * p.vary()), c)
    b.ball((0, -0.16, -0.3), (0.24, 0.2, 0.32), tint(c, WHITE, 0.5))
    b.ball((0, -0.16, 0.34), (0.43 * head, 0.36 * head, 0.35 * head), c)
    b.rod((0.28 * head, -0.12, 0.54 + 0.14 * ear), (0.16 * ear, 0.11, 0.23 * ear), c, (0, 14, 0), 0.05, mirror=True)
    b.rod((0.275 * head, -0.18, 0.54 + 0.12 * ear), (0.1 * ear, 0.08, 0.16 * ear), PINK, (0, 14, 0), 0.05, mirror=True)
    eyes(b, 0.19 * head, -0.16 - 0.29 * head, 0.42, 0.13, LAMP)
    b.ball((0, -0.2 - 0.3 * head, 0.2), (0.17, 0.11, 0.11), WHITE)
    b.ball((0, -0.3 - 0.3 * head, 0.26), (0.07, 0.05, 0.05), PINK)
    b.rod((0.19, -0.26, -0.6), (0.12, 0.13, 0.28), c, mirror=True)
    b.ball((0, 0.58, -0.62), (0.12, 0.32 * p.vary(), 0.12), c)
    b.ball((0, 0.84, -0.36), (0.12, 0.13, 0.34 * p.vary()), c)
    hat(b, p, -0.14, 0.34 + 0.33 * head, 0.24)


def _duck(b: Builder, p: Plan) -> None:
    c, head, neck, beak = p.colour, p.vary(), p.vary(), p.part
    b.ball((0, 0.08, -0.2), (0.42 * p.vary(), 0.62, 0.38 * p.vary()), c)
    b.ball((0, 0.66, 0.02), (0.2, 0.26 * p.vary(), 0.13), c, (35, 0, 0))
    b.ball((0, -0.36, 0.12), (0.22, 0.22, 0.32 * neck), c)
    b.ball((0, -0.4, 0.42 * neck), 0.33 * head, c)
    b.ball((0, -0.4 - 0.38 * head, 0.36 * neck), (0.2 * beak, 0.25 * beak, 0.1 * beak), BEAK)
    eyes(b, 0.2 * head, -0.4 - 0.22 * head, 0.42 * neck + 0.14, 0.125)
    b.ball((0.4, 0.16, -0.14), (0.1, 0.36 * p.vary(), 0.22), tint(c, WHITE, 0.35), mirror=True)
    hat(b, p, -0.38, 0.42 * neck + 0.28 * head, 0.28)


def _frog(b: Builder, p: Plan) -> None:
    c, eye = p.colour, p.part
    b.ball((0, 0.12, -0.25), (0.52 * p.vary(), 0.52, 0.38 * p.vary()), c)
    b.ball((0, -0.28, 0.02), (0.48 * p.vary(), 0.38, 0.3), c)
    b.ball((0, -0.3, -0.26), (0.38, 0.36, 0.28), tint(c, WHITE, 0.6))
    b.ball((0.27, -0.28, 0.3), 0.2 * eye, c, mirror=True)
    eyes(b, 0.27, -0.28 - 0.11 * eye, 0.33, 0.155 * eye)
    b.ball((0, -0.63, -0.02), (0.27, 0.06, 0.045), DARK)
    b.ball((0.52, 0.26, -0.42), (0.19, 0.4, 0.2), c, (0, 0, 12), mirror=True)
    b.ball((0.44, -0.42, -0.56), (0.18, 0.26, 0.08), tint(c, DARK, 0.35), mirror=True)
    b.ball((0.6, 0.5, -0.58), (0.17, 0.26, 0.07), tint(c, DARK, 0.35), mirror=True)
    hat(b, p, -0.14, 0.25, 0.26)


def _monkey(b: Builder, p: Plan) -> None:
    c, ear, muzzle = p.colour, p.part, p.vary()
    b.ball((0, 0.08, 0.1), (0.6 * p.vary(), 0.56 * p.vary(), 0.58 * p.vary()), c)
    b.ball((0, -0.3, 0.17), (0.43, 0.26, 0.31), TAN)
    b.ball((0, -0.42, -0.22), (0.36 * muzzle, 0.3 * muzzle, 0.27 * muzzle), TAN)
    b.ball((0.58 + 0.12 * ear, 0.08, 0.12), (0.22 * ear, 0.1, 0.25 * ear), c, mirror=True)
    b.ball((0.6 + 0.12 * ear, -0.02, 0.12), (0.14 * ear, 0.06, 0.17 * ear), TAN, mirror=True)
    eyes(b, 0.2, -0.5, 0.24, 0.15)
    b.ball((0, -0.42 - 0.28 * muzzle, -0.27), (0.18, 0.06, 0.055), DARK)
    hat(b, p, 0.08, 0.64, 0.4)


def _owl(b: Builder, p: Plan) -> None:
    c, eye = p.colour, p.part
    b.ball((0, 0.02, -0.08), (0.5 * p.vary(), 0.44 * p.vary(), 0.7), c)
    b.ball((0, -0.22, -0.3), (0.34, 0.29, 0.38 * p.vary()), tint(c, TAN, 0.75))
    b.ball((0.21, -0.33, 0.3), (0.22 * eye, 0.13, 0.22 * eye), WHITE, (0, 0, 18), mirror=True)
    b.ball((0.2, -0.42, 0.3), (0.13 * eye, 0.08, 0.13 * eye), DARK, mirror=True)
    b.rod((0, -0.5, 0.11), (0.1, 0.1, 0.14), BEAK, (160, 0, 0), taper=0.1)
    b.rod((0.3, -0.04, 0.6), (0.14, 0.11, 0.2 * p.vary()), c, (0, 18, 0), taper=0.05, mirror=True)
    b.ball((0.47, 0.1, -0.14), (0.12, 0.32, 0.48 * p.vary()), tint(c, DARK, 0.45), (0, -8, 0), mirror=True)
    b.ball((0.19, -0.26, -0.76), (0.14, 0.19, 0.08), BEAK, mirror=True)
    hat(b, p, 0.02, 0.58, 0.22)


def _penguin(b: Builder, p: Plan) -> None:
    c, beak, head = p.colour, p.part, p.vary()
    b.ball((0, 0.06, -0.14), (0.45 * p.vary(), 0.4 * p.vary(), 0.62), c)
    b.ball((0, -0.14, -0.2), (0.34, 0.28, 0.5), WHITE)
    b.ball((0, -0.02, 0.54), (0.36 * head, 0.34 * head, 0.33 * head), c)
    b.ball((0.13, -0.17 * head, 0.55), (0.17, 0.19, 0.19), WHITE, mirror=True)
    eyes(b, 0.15 * head, -0.02 - 0.27 * head, 0.6, 0.105)
    b.rod((0, -0.38 * head - 0.08 * beak, 0.47), (0.13 * beak, 0.1 * beak, 0.17 * beak), BEAK, (90, 0, 0), taper=0.1)
    b.ball((0.48, 0.1, -0.1), (0.1, 0.24, 0.42 * p.vary()), tint(c, DARK, 0.45), (0, -14, 0), mirror=True)
    b.ball((0.19, -0.22, -0.76), (0.16, 0.26, 0.08), BEAK, mirror=True)
    b.rod((0, 0.42, -0.62), (0.2, 0.1, 0.2), tint(c, DARK, 0.45), (-120, 0, 0), taper=0.3)
    hat(b, p, -0.02, 0.54 + 0.28 * head, 0.29)


def _pig(b: Builder, p: Plan) -> None:
    c, head, nose = p.colour, p.vary(), p.part
    b.ball((0, 0.14, -0.08), (0.44 * p.vary(), 0.6, 0.42 * p.vary()), c)
    b.ball((0, -0.44, 0.14), (0.39 * head, 0.36 * head, 0.37 * head), c)
    b.rod((0, -0.5 - 0.34 * head, 0.06), (0.2 * nose, 0.17 * nose, 0.14), PINK, (90, 0, 0))
    b.ball((0.08 * nose, -0.64 - 0.34 * head, 0.06), (0.05, 0.03, 0.075), DARK, mirror=True)
    b.rod((0.26 * head, -0.42, 0.48), (0.15, 0.07, 0.17), tint(c, PINK, 0.5), (20, 16, 0), taper=0.15, mirror=True)
    eyes(b, 0.2 * head, -0.44 - 0.27 * head, 0.27, 0.11)
    for y in (-0.26, 0.46):
        b.rod((0.25, y, -0.54), (0.13, 0.13, 0.2 * p.vary()), c, mirror=True)
        b.rod((0.25, y, -0.74), (0.135, 0.135, 0.06), tint(c, DARK, 0.6), mirror=True)
    b.ball((0, 0.76, 0.06), (0.07, 0.1, 0.11), tint(c, PINK, 0.5))
    hat(b, p, -0.42, 0.14 + 0.33 * head, 0.26)


def _rabbit(b: Builder, p: Plan) -> None:
    c, head, ear = p.colour, p.vary(), p.part
    b.ball((0, 0.18, -0.42), (0.4 * p.vary(), 0.48, 0.42 * p.vary()), c)
    b.ball((0, -0.2, 0.06), (0.36 * head, 0.35 * head, 0.33 * head), c)
    b.ball((0.18, -0.08, 0.3 + 0.36 * ear), (0.13, 0.1, 0.4 * ear), c, (0, 8, 0), mirror=True)
    b.ball((0.18, -0.15, 0.3 + 0.36 * ear), (0.08, 0.06, 0.31 * ear), PINK, (0, 8, 0), mirror=True)
    eyes(b, 0.18 * head, -0.2 - 0.27 * head, 0.14, 0.12)
    b.ball((0, -0.22 - 0.32 * head, -0.04), (0.15, 0.09, 0.1), tint(c, WHITE, 0.6))
    b.ball((0, -0.3 - 0.32 * head, 0.0), (0.07, 0.05, 0.05), PINK)
    b.ball((0, 0.7, -0.4), 0.19 * p.vary(), WHITE)
    b.ball((0.2, -0.26, -0.72), (0.14, 0.24, 0.12), tint(c, WHITE, 0.4), mirror=True)
    hat(b, p, -0.16, 0.06 + 0.31 * head, 0.25)


def _robot(b: Builder, p: Plan) -> None:
    c, head, arm = p.colour, p.vary(), p.part
    b.box((0, 0, -0.14), (0.38 * p.vary(), 0.27, 0.36), c)
    b.box((0, -0.27, -0.1), (0.24, 0.05, 0.2), STEEL)
    b.ball((0.11, -0.32, -0.04), (0.08, 0.04, 0.08), STOP, mirror=True)
    b.box((0, -0.32, -0.2), (0.16, 0.02, 0.045), LAMP)
    b.rod((0, 0, 0.25), (0.15, 0.15, 0.1), STEEL)
    b.box((0, 0, 0.53), (0.34 * head, 0.27, 0.24), c)
    b.ball((0.15, -0.27, 0.58), (0.12, 0.08, 0.12), LAMP, mirror=True)
    b.ball((0.15, -0.33, 0.58), (0.06, 0.04, 0.06), DARK, mirror=True)
    b.box((0, -0.27, 0.39), (0.18, 0.03, 0.05), DARK)
    if p.accent is None:
        b.rod((0, 0, 0.84), (0.05, 0.05, 0.1), STEEL)
        b.ball((0, 0, 0.95), 0.1, STOP)
    b.rod((0.42 + 0.12 * arm, 0, -0.16), (0.12 * arm, 0.14 * arm, 0.33), tint(c, DARK, 0.4), mirror=True)
    b.ball((0.42 + 0.12 * arm, 0, -0.52), 0.15 * arm, STEEL, mirror=True)
    b.box((0.19, -0.04, -0.72), (0.14, 0.2, 0.22), tint(c, DARK, 0.4), mirror=True)
    b.box((0, 0.37, -0.1), (0.27, 0.13, 0.27 * p.vary()), STEEL)
    hat(b, p, 0, 0.75, 0.34)


def wheels(b: Builder, x: float, ys: tuple[float, ...], z: float, radius: float) -> None:
    """Wheels on both sides at each of ``ys``."""
    for y in ys:
        b.rod((x, y, z), (radius, radius, 0.1), DARK, (0, 90, 0), mirror=True)
        b.rod((x + 0.03, y, z), (0.5 * radius, 0.5 * radius, 0.1), STEEL, (0, 90, 0), mirror=True)


def _car(b: Builder, p: Plan) -> None:
    c, length, cabin = p.colour, p.vary(), p.vary()
    b.box((0, 0, -0.16), (0.42, 0.86 * length, 0.19), c)
    b.box((0, 0.18, 0.12), (0.36, 0.44 * cabin, 0.22), GLASS)
    b.box((0, 0.18, 0.34), (0.38, 0.46 * cabin, 0.06), p.second(c))
    b.box((0.36, 0.18, 0.14), (0.03, 0.07, 0.2), c, mirror=True)
    b.box((0, 0.2 + 0.42 * cabin, 0.12), (0.2, 0.04, 0.2), c)
    b.ball((0.26, -0.86 * length, -0.1), (0.14, 0.06, 0.12), LAMP, mirror=True)
    b.box((0, -0.86 * length, -0.24), (0.2, 0.03, 0.08), DARK)
    b.box((0.29, 0.86 * length, -0.1), (0.12, 0.03, 0.08), STOP, mirror=True)
    b.box((0, 0.86 * length, -0.18), (0.14, 0.03, 0.08), WHITE)
    wheels(b, 0.4, (-0.54 * length, 0.54 * length), -0.34, 0.22 * p.part)


def _truck(b: Builder, p: Plan) -> None:
    c, cargo, cab = p.colour, p.vary(), p.vary()
    b.box((0, -0.58, -0.02), (0.4, 0.28, 0.4 * cab), c)
    b.box((0, -0.8, 0.12), (0.34, 0.075, 0.18), GLASS)
    b.box((0.37, -0.62, 0.12), (0.05, 0.13, 0.16), GLASS, mirror=True)
    b.ball((0.26, -0.86, -0.2), (0.12, 0.05, 0.11), LAMP, mirror=True)
    b.box((0, -0.86, -0.3), (0.13, 0.03, 0.08), DARK)
    b.box((0, 0.1, -0.36), (0.34, 0.86, 0.07), STEEL)
    b.box((0, 0.34, 0.12 * cargo), (0.45, 0.6, 0.46 * cargo), tint(c, WHITE, 0.5))
    b.box((0, 0.34, 0.6 * cargo), (0.46, 0.61, 0.07), p.second(tint(c, WHITE, 0.5)))
    b.box((0, 0.94, 0.1 * cargo), (0.03, 0.02, 0.4 * cargo), DARK)
    b.box((0.3, 0.95, -0.33), (0.12, 0.03, 0.07), STOP, mirror=True)
    wheels(b, 0.37, (-0.55, 0.25, 0.68), -0.46, 0.2 * p.part)


def _train(b: Builder, p: Plan) -> None:
    c, cab, length = p.colour, p.vary(), p.vary()
    b.rod((0, -0.22, -0.02), (0.32, 0.32, 0.58 * length), c, (90, 0, 0))
    b.rod((0, -0.24 - 0.58 * length, -0.02), (0.27, 0.27, 0.05), STEEL, (90, 0, 0))
    b.ball((0, -0.3 - 0.58 * length, -0.02), (0.14, 0.08, 0.14), LAMP)
    b.box((0, 0.54, 0.08), (0.42, 0.32, 0.44 * cab), c)
    b.box((0, 0.54, 0.08 + 0.5 * cab), (0.48, 0.4, 0.07), p.second(tint(c, DARK, 0.6)))
    b.box((0.4, 0.54, 0.24), (0.04, 0.2, 0.16), GLASS, mirror=True)
    b.box((0, 0.86, 0.2), (0.24, 0.02, 0.16), DARK)
    b.rod((0, -0.52 * length, 0.42), (0.13, 0.13, 0.2), DARK, taper=1.4)
    b.ball((0, -0.05, 0.3), (0.14, 0.14, 0.13), LAMP)
    b.box((0, 0.02, -0.38), (0.34, 0.86, 0.07), STEEL)
    b.rod((0, -0.84, -0.5), (0.36, 0.18, 0.13), STOP, taper=0.6)
    wheels(b, 0.36, (-0.5, 0.02, 0.54), -0.46, 0.21 * p.part)


def _chair(b: Builder, p: Plan) -> None:
    c, width, back, leg = p.colour, 0.46 * p.vary(), p.vary(), 0.36 * p.part
    b.box((0, 0, -0.1), (width, 0.48, 0.1), c)
    b.box((0, -0.04, 0.03), (0.85 * width, 0.4, 0.07), p.second(tint(c, WHITE, 0.55)))
    b.box((0, 0.42, 0.36 * back), (width, 0.11, 0.46 * back), c)
    b.box((0, 0.31, 0.36 * back), (0.75 * width, 0.04, 0.3 * back), p.second(tint(c, WHITE, 0.55)))
    for y in (-0.36, 0.36):
        b.box((width - 0.12, y, -0.2 - leg), (0.12, 0.12, leg), tint(c, DARK, 0.5), mirror=True)


def _sofa(b: Builder, p: Plan) -> None:
    c, width, back, arm = p.colour, 0.8 * p.vary(), p.vary(), p.part
    b.box((0, 0.02, -0.22), (width, 0.42, 0.2), c)
    b.box((0, 0.34, 0.14 * back), (width, 0.15, 0.42 * back), c)
    b.box((width - 0.04, 0, -0.02), (0.15 * arm, 0.46, 0.3), tint(c, DARK, 0.3), mirror=True)
    b.box((0.32, -0.08, 0.0), (0.3, 0.36, 0.1), tint(c, WHITE, 0.35), mirror=True)
    if p.accent is not None:
        b.box((0.34, 0.14, 0.26), (0.22, 0.1, 0.2), p.accent, (-14, 0, 0), mirror=True)
    for y in (-0.3, 0.36):
        b.box((width - 0.12, y, -0.5), (0.09, 0.09, 0.1), DARK, mirror=True)


def _bed(b: Builder, p: Plan) -> None:
    c, width, board = p.colour, 0.54 * p.vary(), p.part
    b.box((0, 0, -0.28), (width, 0.86, 0.13), c)
    b.box((0, 0.02, -0.08), (0.93 * width, 0.8, 0.14), WHITE)
    b.box((0, 0.85, 0.02 + 0.16 * (board - 1)), (width, 0.08, 0.16 + 0.34 * board), c)
    b.box((0, -0.86, -0.14), (width, 0.07, 0.27), tint(c, DARK, 0.3))
    b.box((0, 0.56, 0.1), (0.72 * width, 0.19, 0.08), WHITE)
    b.box((0, -0.22, -0.04), (0.99 * width, 0.55, 0.15), p.second(tint(c, WHITE, 0.55)))
    for y in (-0.82, 0.82):
        b.box((width - 0.1, y, -0.5), (0.1, 0.1, 0.1), DARK, mirror=True)


KINDS: dict[str, Kind] = {
    "bear": Kind(_bear, "ears", "hat", True),
    "bed": Kind(_bed, "headboard", "blanket", False),
    "car": Kind(_car, "wheels", "roof", False),
    "cat": Kind(_cat, "ears", "hat", True),
    "chair": Kind(_chair, "legs", "cushion", False),
    "duck": Kind(_duck, "beak", "hat", True),
    "frog": Kind(_frog, "eyes", "hat", True),
    "monkey": Kind(_monkey, "ears", "hat", True),
    "owl": Kind(_owl, "eyes", "hat", True),
    "penguin": Kind(_penguin, "beak", "hat", True),
    "pig": Kind(_pig, "nose", "hat", True),
    "rabbit": Kind(_rabbit, "ears", "hat", True),
    "robot": Kind(_robot, "arms", "hat", True),
    "sofa": Kind(_sofa, "arms", "cushion", False),
    "train": Kind(_train, "wheels", "roof", False),
    "truck": Kind(_truck, "wheels", "roof", False),
}
