"""What one picture leaves open: ``python -m benchmarks.reconstruct.observer --out observer.json``.

How near could anyone come? An ideal observer knows how such objects are drawn (kind, number of parts, how far each
number varies, the lamp), but not the numbers of this one: proportions, jitter, bends, colours. The picture's change
with each number is measured by differences; what a noisy picture then leaves of their spread is the posterior of
Laplace's approximation (MacKay 2003, "Information Theory, Inference, and Learning Algorithms", chapter 27). The
distance between the object and one drawn from that spread is the error of the best estimate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.meshing import sample_surface, volume_iou
from backend.toybox.instances import HELD_OUT_SEED, make_instance
from backend.toybox.model import IMAGE_SIZE
from backend.toybox.shapes import Solids
from backend.toybox.view_dataset import before_white, lamp, picture

from ..truth import RESOLUTION, true_surface
from .measures import POINTS, reach, surface_distance
from .subjects import FIRST, Subject, subjects

NOISES = (0.03, 0.1, 0.3)
"""Deviations of the noise of every number of the picture, of which white has 1."""
DRAWS = 3
"""Objects drawn from what each noise leaves open."""
_STEP = 0.25
"""Of the differences, in deviations of the number that is moved."""
_SUPERSAMPLE = 4

Vector = NDArray[np.float64]


class Dials(np.random.Generator):
    """The random numbers of one object, each of which can be moved by so many of its own deviations.

    Uniform and normal numbers alone, which are not moved out of their range; what is chosen stays chosen.
    """

    def __init__(self, seed: tuple[int, ...], moves: Vector | None = None) -> None:
        super().__init__(np.random.PCG64(np.random.SeedSequence(seed)))
        self.moves = moves
        self.count = 0
        """Numbers drawn until now."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """As numpy's."""
        drawn = super().uniform(low, high, size)
        return np.clip(drawn + self._moved(drawn) * (high - low) / 12**0.5, low, high)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """As numpy's."""
        drawn = super().normal(loc, scale, size)
        return drawn + self._moved(drawn) * scale

    def _moved(self, drawn: Any) -> Any:
        start, self.count = self.count, self.count + np.size(drawn)
        if self.moves is None:
            return 0.0
        return self.moves[start : self.count].reshape(np.shape(drawn))


def redrawn(subject: Subject, moves: Vector | None = None) -> tuple[Solids, int]:
    """The subject's object with its numbers moved, and how many there are."""
    dials = Dials((HELD_OUT_SEED, FIRST + subject.number), moves)
    return make_instance(dials, subject.kind).solids, dials.count


def slopes(see: Callable[[Vector], Vector], count: int) -> NDArray[np.float64]:
    """How the picture [P] changes with each of ``count`` numbers, a deviation of it: [P, count]."""
    moves = _STEP * np.eye(count)
    return np.stack([see(each) - see(-each) for each in moves], 1) / (2 * _STEP)


def left_open(change: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """A root [count, count] of the covariance of the numbers, in their deviations, after a look at the picture."""
    information = change.T @ change / noise**2 + np.eye(change.shape[1])
    return np.asarray(np.linalg.cholesky(np.linalg.inv(information)), np.float64)


def look(subject: Subject, size: int = IMAGE_SIZE, draws: int = DRAWS) -> dict[str, Any]:
    """One object's figures: for each noise, means over the draws."""

    def see(moves: Vector) -> Vector:
        shown = picture(redrawn(subject, moves)[0], subject.camera, lamp(subject.camera), size, _SUPERSAMPLE)
        return before_white(shown).ravel().astype(np.float64)

    count = redrawn(subject)[1]
    change, rng = slopes(see, count), np.random.default_rng(subject.number)
    surface, cells = true_surface(subject.solids), subject.solids.volume(RESOLUTION)

    def compared(moves: Vector) -> tuple[float, float]:
        solids = redrawn(subject, moves)[0]
        there, here = (sample_surface(*each, POINTS, rng) for each in (surface, true_surface(solids)))
        return volume_iou(cells, solids.volume(RESOLUTION)), surface_distance(there, here) / reach(surface)

    def mean(root: NDArray[np.float64]) -> dict[str, float]:
        iou, chamfer = np.mean([compared(root @ rng.normal(size=count)) for _ in range(draws)], 0)
        return {"iou": round(float(iou), 4), "chamfer": round(float(chamfer), 4)}

    row: dict[str, Any] = {"name": subject.name, "group": subject.group, "numbers": count}
    row["picture"] = {str(noise): mean(left_open(change, noise)) for noise in NOISES}
    return {**row, "no picture": mean(np.eye(count))}


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by group, of each noise and of no picture."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [{**row["picture"], "no picture": row["no picture"]} for row in rows if row["group"] == group]
        found[group] = {
            name: {key: round(float(np.mean([each[name][key] for each in mine])), 4) for key in mine[0][name]}
            for name in mine[0]
        }
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--known", type=int, default=20, help="objects of known kinds")
    parser.add_argument("--unseen", type=int, default=10, help="objects of kinds that training never showed")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(look, subjects(arguments.known, arguments.unseen)))
    found = {**summary(rows), "objects": rows}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary(rows), indent=2))


if __name__ == "__main__":
    main()
