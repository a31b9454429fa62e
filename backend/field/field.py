"""The field: density and albedo of every point in the cube [−1, 1]³, and the surface's normal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..request import OptimizeSettings
from .engine import HashEngine, select_engine
from .heads import Heads, density_covector, unit_normals
from .layout import GridLayout, HashGridConfig
from .prior import Activation, Blob

_INIT = 1e-4
_INFERENCE_CHUNK = 1 << 17
_SHORTEST = 1e-5


@dataclass(frozen=True)
class FieldConfig:
    """Everything but the grid."""

    hidden: int = 32
    """Width of each head's hidden layer."""
    activation: Activation = "exp"
    """From the raw density to the density."""
    blob: Blob = field(default_factory=Blob)
    """The prior added before the activation."""
    density_bias: float = 0.0
    """Added everywhere before the activation."""
    mirrored: bool = False
    """Whether what is at (x, y, z) is at (−x, y, z) as well: half the grid then serves both sides."""


@dataclass
class FieldSample:
    """What a ray meets at N points."""

    density: Tensor
    """[N], ≥ 0, per unit of length."""
    albedo: Tensor
    """[N, 3], linear, in [0, 1]."""


class Field(nn.Module):
    """A hash grid with two heads: one hidden ReLU layer each for density and albedo, on one shared encoding.

    ``active_levels`` says how many grid levels are in use, coarse ones first (progressive levels; finer features are
    zero). Points x are [N, 3] float32 in [−1, 1]³ and constants: gradients go to the parameters alone. Without
    gradients any N is evaluated in pieces. On the CPU every result is the same on every run, whatever the number of
    threads.
    """

    def __init__(self, layout: GridLayout, engine: HashEngine, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.layout = layout
        self.engine = engine
        self.config = config
        self.heads = Heads(config.hidden, config.activation, config.blob, config.density_bias)
        self.active_levels = layout.config.n_levels
        width, inputs = config.hidden, layout.n_outputs
        self.grid = nn.Parameter(_uniform((layout.n_params,), _INIT, generator))
        self.hidden_weight = nn.Parameter(_uniform((2 * width, inputs), 1.0 / math.sqrt(inputs), generator))
        self.density_weight = nn.Parameter(_uniform((1, width), 1.0 / math.sqrt(width), generator))
        self.albedo_weight = nn.Parameter(_uniform((3, width), 1.0 / math.sqrt(width), generator))

    def density(self, x: Tensor) -> Tensor:
        """Density [N] at x [N, 3]."""
        if self._in_pieces(x):
            return torch.cat([self.density(piece) for piece in x.split(_INFERENCE_CHUNK)])
        hidden = self.hidden_weight[: self.config.hidden]
        return self.heads.density(self._encode(x), x.detach(), hidden, self.density_weight)

    def query(self, x: Tensor) -> FieldSample:
        """Density and albedo at x [N, 3], from one encoding."""
        if self._in_pieces(x):
            samples = [self.query(piece) for piece in x.split(_INFERENCE_CHUNK)]
            return FieldSample(torch.cat([s.density for s in samples]), torch.cat([s.albedo for s in samples]))
        weights = self.hidden_weight, self.density_weight, self.albedo_weight
        density, albedo = self.heads.query(self._encode(x), x.detach(), *weights)
        return FieldSample(density, albedo)

    def normal(self, x: Tensor) -> Tensor:
        """Unit normals [N, 3] at x [N, 3], against the density's gradient; differentiable by the parameters.

        The activation is monotonic, so the gradient of the raw density has the same direction: Jᵀv for the encoding's
        Jacobian J and v = W₁ᵀ(w₂ ⊙ [W₁·encoding > 0]), in closed form. Shorter than a unit only where the gradient all
        but vanishes (below 1e-5).
        """
        if self._in_pieces(x):
            return torch.cat([self.normal(piece) for piece in x.split(_INFERENCE_CHUNK)])
        unit = _to_unit(x, mirrored=self.config.mirrored)
        hidden = self.hidden_weight[: self.config.hidden]
        with torch.no_grad():
            encoding = self.engine.encode(unit, self.grid, self.active_levels)
        v = density_covector(encoding, hidden, self.density_weight)
        along = self.engine.encode_vjp(unit, self.grid, v, self.active_levels)
        if self.config.mirrored:
            along = along * _mirror_signs(x)
        return unit_normals(self.config.blob.gradient(x.detach()), along, _SHORTEST)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Groups for Adam: the grid at the learning rate, the heads at a tenth of it."""
        heads = [self.hidden_weight, self.density_weight, self.albedo_weight]
        return [
            {"params": [self.grid], "lr": learning_rate},
            {"params": heads, "lr": 0.1 * learning_rate},
        ]

    def _encode(self, x: Tensor) -> Tensor:
        return self.engine.encode(_to_unit(x, mirrored=self.config.mirrored), self.grid, self.active_levels)

    @staticmethod
    def _in_pieces(x: Tensor) -> bool:
        return len(x) > _INFERENCE_CHUNK and not torch.is_grad_enabled()


def build_field(
    settings: OptimizeSettings, device: torch.device | str, seed: int, config: FieldConfig | None = None
) -> Field:
    """The field of the settings on the device; the seed decides every initial parameter, on every device alike.

    Grid parameters start in U(−1e-4, 1e-4) (Instant NGP, section 4), heads in U(±1/√inputs). Raises SetupError if the
    engine asked for cannot be had.
    """
    grid = HashGridConfig.from_finest(
        settings.grid_levels, settings.grid_features, settings.grid_log2_size, settings.grid_finest
    )
    layout = GridLayout(grid)
    engine = select_engine(layout, device, settings.engine)
    generator = torch.Generator().manual_seed(seed)
    return Field(layout, engine, config or FieldConfig(), generator).to(device)


def _to_unit(x: Tensor, *, mirrored: bool = False) -> Tensor:
    """From [−1, 1] to [0, 1]; points outside go to the border, and mirrored ones come to the side x ≥ 0."""
    x = x.detach()
    if x.device.type != "cpu":
        unit = x * 0.5
        if mirrored:
            unit[:, 0].abs_()
        return unit.add_(0.5).clamp_(0.0, 1.0)
    points = x.numpy() * np.float32(0.5)  # numpy, for it starts no threads over a few thousand numbers
    if mirrored:
        np.abs(points[:, 0], out=points[:, 0])
    points += np.float32(0.5)
    return torch.from_numpy(np.clip(points, np.float32(0.0), np.float32(1.0), out=points))


def _mirror_signs(x: Tensor) -> Tensor:
    """[N, 3], by which gradients by the place in the grid become those by x [N, 3]: −1 in x on the mirrored side."""
    signs = torch.ones_like(x)
    signs[:, 0].copysign_(x[:, 0])
    return signs


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
