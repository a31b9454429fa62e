"""A trial: a field is fitted to pictures quickly, and the model says how well it looks between them.

Four pictures fit their own cameras however they are turned. Between them they do not: a face that belongs to the front
and a head that points backwards make a view that the model would not have drawn (a diffusion model as a classifier,
arXiv 2303.16203).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from .. import schedules
from ..cameras import CameraBatch, middle_cameras
from ..guidance import Sketcher
from ..rendering import Renderer, Shading, linear_to_srgb, srgb_to_linear
from ..request import Request
from .losses import regulariser
from .reference_loss import ReferenceViews
from .state import RunState

AZIMUTHS = (30.0, 45.0, 60.0, 120.0, 135.0, 150.0, -30.0, -45.0, -60.0, -120.0, -135.0, -150.0)
ELEVATIONS = (5.0, 30.0, 20.0, 15.0, 5.0, 5.0, 20.0, 0.0, 10.0, 25.0, 30.0, 20.0)
"""Degrees, of the views that are judged: none of them is a picture's own."""
SHARES = (0.3, 0.5)
"""Of the noise schedule, where a shape is judged: higher up all shapes are alike, lower down they are blurred alike."""
_DRAWS = 2
"""Of noise and backgrounds; the same in every trial of a seed."""
_CALM = 0.6
"""Share of the trial after which the learning rate falls to _CALM_RATE."""
_CALM_RATE, _HEADS_FACTOR = 0.4, 4.0
_CHECK_EVERY = 20


def misfit_of(
    pictures: ReferenceViews,
    sketcher: Sketcher,
    request: Request,
    device: torch.device,
    check: Callable[[], None],
) -> float:
    """How badly a field that is fitted to ``pictures`` looks between them; comparable within a request, less is better.

    ``check`` is called now and then, and may raise.
    """
    renderer = _fitted(pictures, request, device, check)
    cameras, side = middle_cameras(AZIMUTHS, ELEVATIONS, request.orbit), request.optimize.resolution
    generator = torch.Generator(device).manual_seed(request.seed)
    total = 0.0
    for _ in range(_DRAWS):
        colours = torch.rand((len(cameras), 1, 1, 3), generator=generator, device=device)
        images = _rendered(renderer, cameras, side, srgb_to_linear(colours))
        check()
        total += sum(float(sketcher.misfit(images, cameras, share, generator).mean()) for share in SHARES)
    return total / (_DRAWS * len(SHARES))


def _fitted(pictures: ReferenceViews, request: Request, device: torch.device, check: Callable[[], None]) -> Renderer:
    """A fresh field, fitted to the pictures alone."""
    steps = request.sketch.trial_steps
    settings = dataclasses.replace(request.optimize, iterations=steps)
    state = RunState.fresh(request.replace(optimize=settings), device)
    renderer = Renderer(state.field, state.occupancy, settings.samples_per_ray)
    for step in range(steps):
        if step % _CHECK_EVERY == 0:
            check()
        state.field.active_levels = schedules.active_levels(min(2 * step, steps), steps, settings.grid_levels)
        state.set_learning_rate(1.0 if step < _CALM * steps else _CALM_RATE, _HEADS_FACTOR)
        state.occupancy.update(state.field.density, step, state.rng)
        seen = pictures.look(schedules.progress(step, steps), renderer, state.rng)
        loss = seen.loss + regulariser(step, seen.output, settings, thin=True)
        state.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.parameters, settings.gradient_clip or float("inf"))
        state.adam.step()
    return renderer


@torch.no_grad()
def _rendered(renderer: Renderer, cameras: CameraBatch, side: int, backgrounds: Tensor) -> Tensor:
    """[B, 3, S, S] in sRGB, each before a ``background`` [B, 1, 1, 3] (linear)."""
    whole = backgrounds.expand(-1, side, side, -1)
    output = renderer.render(cameras, side, side, shading=Shading("albedo"), background=whole, rng=None)
    return linear_to_srgb(output.rgb).permute(0, 3, 1, 2).clamp(0.0, 1.0)
