"""Sketches, the model's own drawings that a shape begins with: what a request says of them. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .settings import bounded


@dataclass(frozen=True)
class SketchSettings:
    """Drawings by words alone of front, side and back, which count as pictures beside distillation."""

    use: Literal["auto", "on", "off"] = "auto"
    """auto: where the built-in model is asked by words alone; on: by every model that reads a prompt. There are none
    beside pictures or fixed cameras."""
    candidates: int = bounded(24, 3, 256)
    """Drawings of each view; what they agree on is kept."""
    guidance_scale: float = bounded(5.0, 0.0, 1000.0)
    """Classifier-free guidance scale of the drawings."""
    perp_neg_strength: float = bounded(0.5, 0.0, 20.0)
    """Of Perp-Neg's negatives in the drawings; 0: without Perp-Neg."""
    sampling_steps: int = bounded(12, 1, 1000)
    """Denoising steps of a drawing."""
    elevation: float = bounded(20.0, -90.0, 90.0)
    """From where a drawing is taken to be seen, in degrees."""
    share: float = bounded(1.0, 0.0, 1.0)
    """Share of the distillation, from its start, during which they count."""
    colour_weight: float = bounded(5_000.0, 0.0, 1e6)
    """Of the squared error of sRGB colours, before one random background."""
    mask_weight: float = bounded(2_000.0, 0.0, 1e6)
    """Of the squared error of the opacity."""
    trial_steps: int = bounded(200, 1, 100_000)
    """Steps in which a field is fitted to them, once for each side that the drawn one may be."""
