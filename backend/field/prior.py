"""What the density is before anything is learnt: the activation, and a blob that starts the optimization off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .workers import in_pieces

EXP_LIMIT = 15.0
"""Raw densities are held within ±15: e^15 is opaque at any step, far from overflow."""

Activation = Literal["exp", "softplus"]


@dataclass(frozen=True)
class Blob:
    """A value added to the raw density, highest at the centre.

    linear: ``strength · (1 − r / radius)`` (Magic3D, section 3.1; threestudio's default, there with 10 and 0.5).
    gaussian: ``strength · exp(−r² / (2 radius²))`` (DreamFusion, App. A.2; stable-dreamfusion, both with 5 and 0.2).
    With the exponential the linear blob leaves the space around it empty (e^−5 at r = 1), where the gaussian leaves a
    fog of density 1.
    """

    kind: Literal["linear", "gaussian", "none"] = "linear"
    """The formula; none is zero everywhere."""
    strength: float = 5.0
    """The value at the centre."""
    radius: float = 0.5
    """Where the linear blob crosses zero, or the gaussian's standard deviation."""

    def value(self, x: Tensor) -> Tensor:
        """[N] at x [N, 3]."""
        if self.kind == "none":
            return x.new_zeros(len(x))
        squared = squared_length(x)
        if self.kind == "linear":
            return squared.sqrt_().mul_(-self.strength / self.radius).add_(self.strength)
        return in_pieces(torch.exp_, squared.mul_(-0.5 / self.radius**2)).mul_(self.strength)

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of :meth:`value` by x, [N, 3]; zero at the centre."""
        if self.kind == "none":
            return torch.zeros_like(x)
        squared = squared_length(x)
        if self.kind == "linear":
            factor = squared.clamp_min_(1e-12).rsqrt_().mul_(-self.strength / self.radius)
        else:
            factor = squared.mul_(-0.5 / self.radius**2).exp_().mul_(-self.strength / self.radius**2)
        return x * factor.unsqueeze(-1)


def squared_length(x: Tensor) -> Tensor:
    """‖x‖² of each row, [N], of x [N, 3]; a sum of columns, several times faster than a norm over 3 numbers."""
    a, b, c = x.unbind(-1)
    return a * a + b * b + c * c


def activate_(raw: Tensor, kind: Activation) -> Tensor:
    """Density ≥ 0 of raw densities, in place; no gradient, see :func:`activation_slope`."""
    if kind == "softplus":
        return in_pieces(lambda piece: piece.copy_(torch.nn.functional.softplus(piece)), raw)
    return in_pieces(torch.exp_, raw.clamp_(-EXP_LIMIT, EXP_LIMIT))


def activation_slope(density: Tensor, kind: Activation) -> Tensor:
    """Derivative of the activation where it gave ``density``.

    exp: e^clamp(x, −15, 15), never zero, so that a density at a limit finds back (Instant NGP's truncated exponential).
    """
    return in_pieces(torch.expm1_, -density).neg_() if kind == "softplus" else density


class Activate(torch.autograd.Function):
    """:func:`activate_` with its gradient, out of place."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, kind: Activation) -> Tensor:
        """Density [N] of raw [N]."""
        density = activate_(raw.clone(), kind)
        ctx.save_for_backward(density)
        ctx.kind = kind
        return density

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        """Gradient by raw."""
        return grad_outputs[0] * activation_slope(ctx.saved_tensors[0], ctx.kind), None
