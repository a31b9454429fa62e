"""Compositing alone, ours beside nerfacc's: weights of samples and their sums over rays, forward and backward.

To put nerfacc in place, which needs neither a compiler nor CUDA for this::

    python -m pip install --no-deps --target out/nerfacc nerfacc==0.5.3
    python -m benchmarks.speed --only composite --nerfacc out/nerfacc

Nothing of it is part of this repository. On a CPU it composites rays of equally many samples alone, in PyTorch (its
marching and its packed rays are CUDA's), so that is what both are asked for. Both must come to the same sums.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.rendering import Shading
from backend.rendering.compose import Style, View, compose
from backend.rendering.march import Samples
from backend.rendering.renderer import NORMAL_WEIGHT

from .cases import Action, Case

OURS, THEIRS = "auto", "nerfacc"
_STEP = 0.04


def compositing(engine: str, rays: int, samples: int, folder: str = "") -> dict[str, Action]:
    """Forward and backward of one engine: densities [N] and albedo [N, 3] to each ray's colour, distance and weight."""
    draws = torch.Generator().manual_seed(0)
    density = torch.empty(rays * samples).exponential_(0.5, generator=draws).requires_grad_()
    albedo = torch.rand(rays * samples, 3, generator=draws)
    if engine == OURS:  # laid out as the field gives it: channel after channel
        albedo = albedo.t().contiguous().t()
    albedo.requires_grad_()
    gradient = torch.rand(rays, 5, generator=draws)
    summed = _ours(rays, samples) if engine == OURS else _theirs(load(Path(folder)), rays, samples)
    if engine != OURS:
        torch.testing.assert_close(summed(density, albedo), _ours(rays, samples)(density, albedo), rtol=1e-3, atol=1e-4)
    kept: list[Tensor] = []

    def forward() -> None:
        kept[:] = [summed(density, albedo)]

    def backward() -> None:
        torch.autograd.grad(kept.pop(), (density, albedo), gradient)

    return {"composite forward": forward, "composite backward": backward}


def _ours(rays: int, samples: int) -> Any:
    """As a step composes what is shown by its albedo."""
    count = rays * samples
    distances = (_STEP * (torch.arange(samples) + 0.5)).repeat(rays)
    owners, offsets = torch.arange(rays).repeat_interleave(samples), torch.arange(0, count + 1, samples)
    where = Samples(torch.zeros(count, 3), distances, torch.full((count,), _STEP), owners, offsets)
    bare, style = torch.zeros(rays, 3), torch.zeros(rays, dtype=torch.int32)
    view = View(bare, bare, style, (Style(Shading("albedo"), normals=False),), NORMAL_WEIGHT)
    return lambda density, albedo: compose(where, density, albedo, view, torch.zeros_like)


def _theirs(nerfacc: Any, rays: int, samples: int) -> Any:
    """As its own ``rendering`` does."""
    ends = (_STEP * torch.arange(1, samples + 1)).expand(rays, -1)
    middles = (ends - _STEP / 2)[..., None]

    def summed(density: Tensor, albedo: Tensor) -> Tensor:
        weights = nerfacc.render_weight_from_density(ends - _STEP, ends, density.view(rays, samples))[0]
        values = (albedo.view(rays, samples, 3), middles, None)
        return torch.cat([nerfacc.accumulate_along_rays(weights, each) for each in values], 1)

    return summed


def load(folder: Path) -> Any:
    """Nerfacc as it lies in ``folder``; raises FileNotFoundError where it does not."""
    if not (folder / "nerfacc" / "__init__.py").is_file():
        wanted = f"python -m pip install --no-deps --target {folder} nerfacc==0.5.3"
        raise FileNotFoundError(f"There is no nerfacc in {folder}; put it there: {wanted}.")
    sys.path.insert(0, str(folder.resolve()))
    try:
        return importlib.import_module("nerfacc")
    finally:
        sys.path.pop(0)


def composite_cases(folder: Path | None, *, quick: bool) -> list[Case]:
    """By rays, at a step's samples; nerfacc's where its folder is given."""
    sizes = [(64, 8)] if quick else [(4096, 48), (16384, 48)]
    engines = [OURS] if folder is None else [OURS, THEIRS]
    return [
        Case(
            f"{__name__}:compositing",
            {"engine": engine, "rays": rays, "samples": samples, "folder": str(folder or "")},
            engine,
            {"rays": rays, "samples": samples},
            3 if quick else 15,
        )
        for rays, samples in sizes
        for engine in engines
    ]
