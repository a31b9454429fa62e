"""Several guidances as one, such as a prompt's and a picture's together (Magic123, arXiv 2306.17843, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RequestError
from .interface import Guidance, GuidanceResult, Painter
from .memory import Economical

if TYPE_CHECKING:
    from ..cameras import CameraBatch


@dataclass(frozen=True)
class WeightedGuidance:
    """A guidance and how much its gradient counts."""

    guidance: Guidance
    weight: float
    """Not negative; a guidance of weight 0 is not asked."""


def painter(guidance: Guidance | None) -> Painter | None:
    """What of a guidance paints, None if nothing can: of several together the one that counts most.

    A painting is one picture that one model meant, so it is not shared between models.
    """
    if isinstance(guidance, CombinedGuidance):
        by_weight = sorted(guidance.parts.values(), key=lambda part: part.weight, reverse=True)
        return next((part.guidance for part in by_weight if isinstance(part.guidance, Painter)), None)
    return guidance if isinstance(guidance, Painter) else None


class CombinedGuidance:
    """The weighted sum of guidances; see :class:`.interface.Guidance`.

    Magic123 gives a prompt's gradient the weight 1 and a picture's 40 (its λ_2D and λ_3D); only their ratio matters to
    an optimizer such as Adam, apart from the losses beside them.
    """

    def __init__(self, parts: Mapping[str, WeightedGuidance]) -> None:
        """``parts`` by the names that their diagnostics get; RequestError if none of them counts."""
        if any(not math.isfinite(part.weight) or part.weight < 0 for part in parts.values()):
            raise RequestError("A guidance's weight is negative or not finite.", "Give 0 or more.")
        self.parts = {name: part for name, part in parts.items() if part.weight > 0}
        if not self.parts:
            raise RequestError("No guidance has any weight.", "Give at least one a weight above 0.")

    def economise(self) -> str | None:
        """Every part that can steps down; see :class:`.memory.Economical`."""
        parts = [part.guidance for part in self.parts.values()]
        said = [part.economise() for part in parts if isinstance(part, Economical)]
        return " ".join(text for text in said if text) or None

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        """The weighted sum of the parts' gradients and losses; see :meth:`.interface.Guidance.gradient`.

        The parts draw from ``generator`` one after the other. Diagnostics are named after their part, as in
        "prompt_timestep"; "evaluations" is the sum.
        """
        total = torch.zeros_like(images, dtype=torch.float32)
        loss, diagnostics, evaluations = 0.0, dict[str, float](), 0.0
        for name, part in self.parts.items():
            result = part.guidance.gradient(images, cameras, progress, generator)
            total = total + part.weight * result.gradient
            loss += part.weight * result.loss
            diagnostics |= {f"{name}_{key}": value for key, value in result.diagnostics.items()}
            evaluations += result.diagnostics.get("evaluations", 0.0)
        return GuidanceResult(total, loss, {**diagnostics, "evaluations": evaluations})
