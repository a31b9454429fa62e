"""What Toybox's objects are made of: ellipsoids, boxes and frusta under affine transforms, exact to intersect."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
SPHERE, BOX, FRUSTUM = 0, 1, 2


@dataclass
class Solids:
    """A union of K coloured solids.

    ``shape`` [K] kind of solid in its own space: unit sphere, cube [−1, 1]³, or frustum along z with radius 1 at z = −1
    and ``taper`` [K] at z = 1. ``to_world`` [K, 3, 4] maps that space to the world. ``colour`` [K, 3] linear albedo.
    """

    shape: NDArray[np.int64]
    taper: NDArray[np.float64]
    to_world: NDArray[np.float64]
    colour: NDArray[np.float64]

    @property
    def from_world(self) -> NDArray[np.float64]:
        """[K, 3, 4], the inverse maps."""
        inverse: NDArray[np.float64] = np.linalg.inv(self.to_world[:, :, :3]).astype(np.float64)
        shift: NDArray[np.float64] = -inverse @ self.to_world[:, :, 3:]
        return np.concatenate((inverse, shift), axis=2)

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether each of ``points`` [N, 3] lies inside the union: [N]."""
        inside = np.zeros(len(points), bool)
        for shape, taper, matrix in zip(self.shape, self.taper, self.from_world, strict=True):
            inside |= within(shape, taper, *(points @ matrix[:, :3].T + matrix[:, 3]).T)
        return inside

    def volume(self, resolution: int) -> NDArray[np.bool_]:
        """Cells [R, R, R] of the cube [−1, 1]³ whose centres lie in the union; each solid fills its own box."""
        axis = ((np.arange(resolution) + 0.5) / resolution * 2 - 1).astype(np.float32)
        cells = np.zeros((resolution,) * 3, bool)
        for shape, taper, matrix, to_world in zip(self.shape, self.taper, self.from_world, self.to_world, strict=True):
            spread = np.linalg.norm(to_world[:, :3], axis=1) if shape == SPHERE else np.abs(to_world[:, :3]).sum(1)
            reach = spread * max(1.0, float(taper))
            low, high = (np.searchsorted(axis, to_world[:, 3] + sign * reach) for sign in (-1, 1))
            box = tuple(slice(int(i), int(j)) for i, j in zip(low, high, strict=True))
            x, y, z = axis[box[0], None, None], axis[None, box[1], None], axis[None, None, box[2]]
            local = [row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix.astype(np.float32)]
            cells[box] |= within(shape, taper, *local)
        return cells

    def hull_points(self) -> NDArray[np.float64]:
        """Points on the solids' surfaces, dense enough to measure extents: [M, 3]."""
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        height = np.linspace(-1, 1, 13)
        circle = np.stack((np.cos(angle), np.sin(angle)), 1)
        ring = np.sqrt(1 - height**2)
        ball = np.concatenate(
            [np.column_stack((circle * r, np.full(24, z))) for r, z in zip(ring, height, strict=True)]
        )
        cube = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T.astype(float)
        points: list[NDArray[np.float64]] = []
        for shape, taper, matrix in zip(self.shape, self.taper, self.to_world, strict=True):
            caps = np.concatenate(
                (np.column_stack((circle, -np.ones(24))), np.column_stack((circle * taper, np.ones(24))))
            )
            local = (ball, cube, caps)[shape]
            points.append(local @ matrix[:, :3].T + matrix[:, 3])
        return np.concatenate(points)

    def stretched(self, factors: Vector) -> Solids:
        """Scaled by a factor along each axis."""
        return Solids(self.shape, self.taper, np.diag(factors) @ self.to_world, self.colour)

    def fitted(self, radius: float) -> Solids:
        """Centred on its bounding box and scaled to reach exactly ``radius`` from the origin."""
        points = self.hull_points()
        center = (points.min(0) + points.max(0)) / 2
        scale = radius / np.linalg.norm(points - center, axis=1).max()
        moved = self.to_world.copy()
        moved[:, :, 3] -= center
        return Solids(self.shape, self.taper, moved * scale, self.colour)


def within(
    shape: int, taper: float, x: NDArray[np.floating], y: NDArray[np.floating], z: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Whether points of a solid's own space lie in it."""
    if shape == SPHERE:
        return x**2 + y**2 + z**2 <= 1
    if shape == BOX:
        return (np.abs(x) <= 1) & (np.abs(y) <= 1) & (np.abs(z) <= 1)
    return (np.abs(z) <= 1) & (x**2 + y**2 <= ((1 + taper) / 2 + z * (taper - 1) / 2) ** 2)


@dataclass
class Builder:
    """Collects solids; ``mirror`` adds the twin on the other side of the x = 0 plane."""

    rows: list[tuple[int, float, NDArray[np.float64], Vector]] = field(default_factory=list)

    def ball(
        self, at: Vector, half: Vector | float, colour: Vector, turn: Vector = (0, 0, 0), mirror: bool = False
    ) -> None:
        """An ellipsoid with centre ``at``, half-axes ``half``, turned by Euler angles in degrees."""
        self._add(SPHERE, 1.0, at, half, colour, turn, mirror)

    def box(
        self, at: Vector, half: Vector | float, colour: Vector, turn: Vector = (0, 0, 0), mirror: bool = False
    ) -> None:
        """A box with centre ``at`` and half-sides ``half``."""
        self._add(BOX, 1.0, at, half, colour, turn, mirror)

    def rod(
        self,
        at: Vector,
        half: Vector,
        colour: Vector,
        turn: Vector = (0, 0, 0),
        taper: float = 1.0,
        mirror: bool = False,
    ) -> None:
        """A cylinder (taper 1) or cone (taper 0) along z with half-axes ``half``."""
        self._add(FRUSTUM, taper, at, half, colour, turn, mirror)

    def solids(self) -> Solids:
        """What was collected."""
        shapes, tapers, matrices, colours = zip(*self.rows, strict=True)
        return Solids(np.array(shapes), np.array(tapers), np.stack(matrices), np.array(colours, float))

    def _add(
        self, shape: int, taper: float, at: Vector, half: Vector | float, colour: Vector, turn: Vector, mirror: bool
    ) -> None:
        size = (half, half, half) if isinstance(half, int | float) else half
        matrix = np.concatenate((_rotation(turn) @ np.diag(size), np.array(at, float)[:, None]), axis=1)
        self.rows.append((shape, taper, matrix, colour))
        if mirror:
            twin = np.diag((-1.0, 1, 1)) @ matrix
            twin[:, 0] *= -1  # the solids are symmetric in x: keeps the map right-handed
            self.rows.append((shape, taper, twin, colour))


def _rotation(turn: Vector) -> NDArray[np.float64]:
    """Euler angles in degrees about x, then y, then z."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(np.radians(turn)), np.cos(np.radians(turn))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
