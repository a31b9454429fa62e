"""Sketches, the model's own drawings that a shape begins with: what a request says of them. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .settings import bounded


@dataclass(frozen=True)
class SketchSettings:
    """Drawings of the object from all around, which count as pictures beside distillation."""

    use: Literal["auto", "on", "off"] = "auto"
    """auto: by the built-in models, from words or from one picture; on: by every model. There are none beside fixed
    cameras."""
    candidates: int = bounded(24, 3, 256)
    """Drawings of each view by words alone; what they agree on is kept."""
    told_candidates: int = bounded(8, 3, 256)
    """The same by a model that is told the camera, whose drawings are more alike."""
    guidance_scale: float = bounded(5.0, 0.0, 1000.0)
    """Classifier-free guidance scale of the drawings."""
    perp_neg_strength: float = bounded(0.5, 0.0, 20.0)
    """Of Perp-Neg's negatives in the drawings; 0: without Perp-Neg."""
    sampling_steps: int = bounded(12, 1, 1000)
    """Denoising steps of a drawing."""
    elevation: float = bounded(20.0, -90.0, 90.0)
    """From where a drawing is taken to be seen, in degrees."""
    share: float = bounded(1.0, 0.0, 1.0)
    """Share of the distillation, from its start, during which they count; what is foretold of pictures counts to the
    end of the painting."""
    rays: int = bounded(24, 8, 512)
    """Side of the square of rays that each step casts, shared by eight of them; each ray is drawn anew."""
    colour_weight: float = bounded(5_000.0, 0.0, 1e6)
    """Of the squared error of sRGB colours, before one random background."""
    mask_weight: float = bounded(2_000.0, 0.0, 1e6)
    """Of the squared error of the opacity."""
    side_weight: float = bounded(6_000.0, 0.0, 1e6)
    """Of the squared error of the opacity beside the masks that are foretold all around, by a model that knows whole
    shapes, if there is one."""
    depth_weight: float = bounded(1_000.0, 0.0, 1e6)
    """Of the mean error, in radii, of the depth that is foretold there."""
    normal_weight: float = bounded(1_000.0, 0.0, 1e6)
    """The same of 1 − the cosine to the normals."""

    @property
    def foretells(self) -> bool:
        """Whether what the model foretells counts."""
        return self.side_weight + self.depth_weight + self.normal_weight > 0
