"""Two kinds that no model of the project has ever been shown: what shapes must come from the picture for."""

from __future__ import annotations

from .kinds import DARK, GLASS, LAMP, STEEL, STOP, WHITE, Kind, Plan, eyes, hat, tint
from .shapes import Builder


def _elephant(b: Builder, p: Plan) -> None:
    c, head, ear = p.colour, p.vary(), p.part
    b.ball((0, 0.16, 0.02), (0.46 * p.vary(), 0.58 * p.vary(), 0.44), c)
    b.ball((0, -0.48, 0.22), 0.34 * head, c)
    b.rod((0, -0.84 * head, 0.02), (0.11, 0.11, 0.2), c, (-24, 0, 0))
    b.rod((0, -0.9 * head, -0.3 * p.vary()), (0.1, 0.1, 0.24), c, (8, 0, 0), taper=1.15)
    b.ball((0.42, -0.36, 0.26), (0.3 * ear, 0.08, 0.33 * ear), tint(c, DARK, 0.25), (0, 0, 20), mirror=True)
    eyes(b, 0.19 * head, -0.48 - 0.24 * head, 0.36, 0.085)
    b.rod((0.17, -0.86 * head, 0.0), (0.05, 0.05, 0.17), WHITE, (62, 0, 0), taper=0.2, mirror=True)
    for y in (-0.22, 0.5):
        b.rod((0.26, y, -0.5), (0.16, 0.16, 0.26 * p.vary()), c, mirror=True)
        b.rod((0.26, y, -0.76), (0.17, 0.17, 0.05), tint(c, WHITE, 0.6), mirror=True)
    b.ball((0, 0.77, 0.0), (0.06, 0.07, 0.22), c)
    hat(b, p, -0.46, 0.22 + 0.3 * head, 0.27)


def _tractor(b: Builder, p: Plan) -> None:
    c, length, cab = p.colour, p.vary(), p.vary()
    b.box((0, -0.42 * length, 0.0), (0.22, 0.44 * length, 0.2), c)
    b.box((0, -0.87 * length, -0.02), (0.17, 0.03, 0.14), DARK)
    b.ball((0.15, -0.87 * length, 0.12), (0.08, 0.05, 0.08), LAMP, mirror=True)
    b.box((0, 0.0, -0.26), (0.24, 0.76, 0.1), tint(c, DARK, 0.5))
    b.box((0, 0.34, 0.24 * cab), (0.32, 0.3, 0.36 * cab), GLASS)
    b.box((0, 0.34, 0.64 * cab), (0.38, 0.38, 0.06), p.second(c))
    b.box((0.3, 0.06, 0.24 * cab), (0.045, 0.045, 0.36 * cab), c, mirror=True)
    b.rod((0, -0.5 * length, 0.36), (0.05, 0.05, 0.2), DARK)
    b.box((0.44, 0.42, 0.18), (0.13, 0.3, 0.05), c, mirror=True)
    b.box((0.2, 0.76, -0.1), (0.08, 0.03, 0.05), STOP, mirror=True)
    for x, y, z, radius in ((0.45, 0.42, -0.24, 0.4 * p.part), (0.35, -0.58 * length, -0.42, 0.22 * p.part)):
        b.rod((x, y, z), (radius, radius, 0.12), DARK, (0, 90, 0), mirror=True)
        b.rod((x + 0.03, y, z), (0.5 * radius, 0.5 * radius, 0.12), STEEL, (0, 90, 0), mirror=True)


HELD_OUT_KINDS: dict[str, Kind] = {
    "elephant": Kind(_elephant, "ears", "hat", True),
    "tractor": Kind(_tractor, "wheels", "roof", False),
}
