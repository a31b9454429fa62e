"""(c) A whole step of the loop by family, and what each part has of it; and painting by the views of one call.

Shares are of the time between two steps, measured around the parts' own calls; what is called within another counts
for the inner one alone. ``networks``: the denoiser and the VAE's encoder, forth and back; ``guidance``: the rest of the
2D side; ``field``: the hash grid with its heads; ``rendering``: marching, compositing, shading; ``backward``: the way
back through rendering and field; ``optimizer``: Adam; ``rest``: occupancy, dents, health, figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend import job_models
from backend.cameras import orbit_cameras
from backend.depth import measured
from backend.errors import Cancelled
from backend.events import Event, Phase
from backend.field import Field
from backend.guidance import latent_guidance
from backend.guidance.zero123 import Zero123Guidance
from backend.optimize import optimize
from backend.reference_files import ReferenceView, prepare
from backend.rendering import Renderer
from backend.request import (
    BUILT_IN_VIEW_MODEL,
    GuidanceSettings,
    OptimizeSettings,
    RefineSettings,
    Request,
    preset,
)
from backend.sketch import SketchSettings

from ..reconstruct.subjects import Subject
from .cases import Action, Case, Row, Stopwatch, gained, measure, peak_bytes

CPU = torch.device("cpu")
FAMILIES: dict[str, dict[str, Any]] = {
    "toybox": {},
    "toybox, words alone": {"camera_conditioning": False, "guidance_scale": 10.0},
}
"""What of the guidance differs from a request's defaults; without the camera there is Perp-Neg."""
PICTURED = "toybox-views, one picture"
"""The family that is shown a picture instead."""
FROM, TO = 0.5, 0.95
"""Shares of a short run between which steps are timed: all levels, shaded, dents filled, an object in the middle."""


@dataclass(frozen=True)
class Work:
    """What a run needs."""

    request: Request
    guidance: Any
    references: tuple[ReferenceView, ...] = ()


def work(family: str, sketch: SketchSettings | None = None, **optimize: Any) -> Work:
    """A standard request that distils alone, its guidance and pictures; ``sketch`` is for less ahead of the steps."""
    steps = dataclasses.replace(OptimizeSettings(), preview_every=1_000_000, checkpoint_every=1_000_000, **optimize)
    with tempfile.TemporaryDirectory(prefix="dreamlathe-") as folder:
        request = _pictured(Path(folder)) if family == PICTURED else _asked(family)
        request = request.replace(
            optimize=steps, refine=RefineSettings(iterations=0), sketch=sketch or SketchSettings(), device="cpu"
        ).validated()
        pictures = prepare(request, _unheard)
    guidance = job_models.load_guidance(request, pictures, CPU, _unheard)
    return Work(request, guidance, measured(pictures, job_models.load_depth(request, CPU, _unheard)))


def _asked(family: str) -> Request:
    request = preset("standard", "a yellow duck")
    return request.replace(guidance=dataclasses.replace(GuidanceSettings(), **FAMILIES[family]))


def _pictured(folder: Path) -> Request:
    """By one picture of an object of ``benchmarks.reconstruct``, kept in ``folder``."""
    shown, place = Subject(5, "duck"), folder / "picture.png"
    shown.save_picture(place)
    return shown.request(place, "standard", BUILT_IN_VIEW_MODEL, 0, [])


def _unheard(_: Event) -> None:
    """What a job would tell of its models."""


class Clock:
    """Time by label; what is called within a labelled call counts for the inner label alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.rows: list[int] = []
        """Of the denoiser's calls."""
        self._inner: list[float] = []

    def around(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                passed = time.perf_counter() - started
                self.seconds[label] += passed - self._inner.pop()
                if self._inner:
                    self._inner[-1] += passed

        return timed


@contextlib.contextmanager
def watched(guidance: Any) -> Generator[Clock]:
    """Put the clock around the parts of a step, and take it away again."""
    clock = Clock()
    denoiser = guidance.networks.unet if isinstance(guidance, Zero123Guidance) else guidance.networks.denoiser

    def counted(noisy: Any, *arguments: Any, _forward: Any = denoiser.forward, **named: Any) -> Any:
        clock.rows.append(len(noisy))
        return _forward(noisy, *arguments, **named)

    places: list[tuple[Any, str, str, Any]] = [
        *((Renderer, name, "rendering", getattr(Renderer, name)) for name in ("render", "render_together")),
        *((Field, name, "field", getattr(Field, name)) for name in ("query", "density", "normal")),
        (guidance, "gradient", "guidance", guidance.gradient),
        (guidance, "encode", "networks", guidance.encode),
        (denoiser, "forward", "networks", counted),
        (latent_guidance, "judged", "networks", latent_guidance.judged),  # the way back through the encoder
        (torch.autograd, "backward", "backward", torch.autograd.backward),
        (torch.optim.Adam, "step", "optimizer", torch.optim.Adam.step),
    ]
    before = [(owner, name, vars(owner).get(name)) for owner, name, _, _ in places]
    for owner, name, label, function in places:
        setattr(owner, name, clock.around(label, function))
    try:
        yield clock
    finally:
        for owner, name, kept in before:
            delattr(owner, name) if kept is None else setattr(owner, name, kept)


def step_times(made: Work, clock: Clock | None = None) -> Stopwatch:
    """Times of every step between :data:`FROM` and :data:`TO`; the clock begins anew at the first of them."""
    iterations = made.request.optimize.iterations
    first, last = round(FROM * iterations), min(round(TO * iterations), iterations - 1)
    times, busy, begun = list[float](), list[float](), list[Phase]()

    def heard(event: Event) -> None:
        # Sketches are made before the steps, and ask whether to stop as well.
        if isinstance(event, Phase) and event.message.startswith("Optimizing"):
            begun.append(event)

    def asked() -> bool:
        if not begun:
            return False
        times.append(time.perf_counter())
        busy.append(time.process_time())
        if clock is not None and len(times) == first + 1:
            clock.seconds.clear()
            clock.rows.clear()
        return len(times) > last

    with tempfile.TemporaryDirectory(prefix="dreamlathe-") as folder, contextlib.suppress(Cancelled):
        optimize(made.request, Path(folder), made.guidance, CPU, heard, asked, made.references)
    found = Stopwatch()
    found.wall, found.cpu = ([b - a for a, b in itertools.pairwise(each[first:])] for each in (times, busy))
    return found


def step_row(family: str, iterations: int, sketch: SketchSettings | None = None, **optimize: Any) -> Row:
    """A whole step: median time and memory without the clock, then the shares with it."""
    before = peak_bytes()
    made = work(family, sketch, iterations=iterations, **optimize)
    times = step_times(made)
    peak = gained(before)
    with watched(made.guidance) as clock:
        whole = sum(step_times(made, clock).wall)
    found = {label: each / whole for label, each in sorted(clock.seconds.items())}
    found["rest"] = 1.0 - sum(found.values())
    size = {"side": made.request.optimize.resolution, "rows": int(statistics.median(clock.rows))}
    more = {
        "shares": {label: round(each, 4) for label, each in found.items()},
        "outside_networks": round(1.0 - found["networks"], 4),
    }
    return times.row("whole step", family, size, peak, more)


def painting(views: int) -> dict[str, Action]:
    """Painting so many views in one call."""
    made = work("toybox")
    request, guidance = made.request, made.guidance
    where = orbit_cameras([360.0 / views * i - 180.0 for i in range(views)], 15.0, 3.0, 40.0)
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(views, 3, request.optimize.resolution, request.optimize.resolution, generator=draws)
    settings = RefineSettings()
    return {"painting": lambda: guidance.repaint(images, where, 0.6, settings, draws)}


def painting_rows(*, quick: bool) -> list[Row]:
    """Painting by the views of one call."""
    rows: list[Row] = []
    for views in (1,) if quick else (1, 8):
        rows += measure(Case(f"{__name__}:painting", {"views": views}, "toybox", {"views": views}, 2 if quick else 7))
    return rows
