"""What a request says of the loop: distillation, and the painting after it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .settings import bounded


@dataclass(frozen=True)
class OptimizeSettings:
    """The field, the renderer and the loop."""

    iterations: int = bounded(1000, 1, 1_000_000)
    """Optimization steps."""
    batch_size: int = bounded(1, 1, 64)
    """Views a step."""
    resolution: int = bounded(64, 16, 1024)
    """Side of the rendered image, in pixels."""
    learning_rate: float = bounded(0.01, 1e-6, 1.0)
    """Adam's, for the grid; the heads use a tenth."""
    learning_rate_end: float = bounded(0.05, 0.001, 1.0)
    """Share of the learning rate that is left at the end; it falls from the middle of the run on."""
    grid_levels: int = bounded(5, 1, 24)
    """Levels of the hash grid."""
    grid_features: int = bounded(2, 1, 8)
    """Features a level."""
    grid_log2_size: int = bounded(17, 8, 24)
    """log2 of a level's table."""
    grid_finest: int = bounded(44, 16, 8192)
    """Resolution of the finest level."""
    coarse_share: float = bounded(0.2, 0.0, 1.0)
    """Share of the run, from its start, that renders at half the resolution (at least 16 pixels)."""
    view_growth: float = bounded(0.0, 0.0, 1.0)
    """Share of the run over which the azimuths widen from near the front to the whole orbit."""
    learned_background: float = bounded(0.0, 0.0, 1.0)
    """Share of steps before a learned background; the others stand before one random colour."""
    gradient_clip: float = bounded(100.0, 0.0, 1e9)
    """Largest norm of the gradient of all parameters; 0 leaves it alone."""
    samples_per_ray: int = bounded(48, 8, 1024)
    """Steps across the ball's diameter; half of them until all levels of the grid are active."""
    occupancy_resolution: int = bounded(48, 8, 256)
    """Side of the occupancy grid."""
    engine: Literal["auto", "torch", "numba", "tinycudann", "nvrtc"] = "auto"
    """Hash-grid engine."""
    symmetry: Literal["auto", "mirror", "none"] = "auto"
    """mirror: left and right mirror each other, across the rig's YZ plane; auto: where only the built-in models are
    asked, whose things are all so, each picture is told to be seen from another side than the front, and no camera has
    a prompt of its own."""
    albedo_share: float = bounded(0.2, 0.0, 1.0)
    """Share of the run, from its start, that is shaded by albedo alone."""
    textureless_share: float = bounded(0.0, 0.0, 1.0)
    """Share of the shaded steps that are rendered without colour."""
    shaded_share: float = bounded(0.75, 0.0, 1.0)
    """Share of the later steps that are shaded; the rest show albedo."""
    orientation_weight: float = bounded(0.5, 0.0, 1e6)
    """Weight of the orientation loss (Ref-NeRF; DreamFusion App. A.2)."""
    opacity_weight: float = bounded(0.0, 0.0, 1e6)
    """Weight of √(opacity² + 0.01) (DreamFusion App. A.2)."""
    entropy_weight: float = bounded(0.01, 0.0, 1e6)
    """Weight of the binary entropy of each pixel's opacity, ramped up over the first half."""
    dent_weight: float = bounded(100.0, 0.0, 1e6)
    """Weight of the loss that fills dents, which guidance carves where it should build; 0 keeps bowls and cups.
    Beside pictures whose whole shape is foretold, none are filled."""
    checkpoint_every: int = bounded(200, 1, 1_000_000)
    """Steps between checkpoints."""
    preview_every: int = bounded(50, 1, 1_000_000)
    """Steps between preview images."""


@dataclass(frozen=True)
class RefineSettings:
    """The second part of a run: views are painted over by the model, and the field is fitted to the paintings."""

    iterations: int = bounded(640, 0, 1_000_000)
    """Steps after the distillation's own; 0 leaves this part out."""
    views: int = bounded(32, 1, 1000)
    """Views that are painted, evenly around the object."""
    visits: int = bounded(5, 1, 1000)
    """Times a painting is fitted before the view is painted anew."""
    strength: float = bounded(0.75, 0.0, 1.0)
    """How much of a view is painted over at the start, as a share of the noise schedule (SDEdit)."""
    strength_end: float = bounded(0.5, 0.0, 1.0)
    """The same at the end; it moves in proportion."""
    sampling_steps: int = bounded(8, 1, 1000)
    """Denoising steps of a painting."""
    guidance_scale: float = bounded(3.0, 0.0, 1000.0)
    """Classifier-free guidance scale of the paintings by a prompt; those by pictures keep the distillation's."""
    camera_scale: float = bounded(3.0, 0.0, 1000.0)
    """The same for the camera, where the model is told it."""
    learning_rate: float = bounded(0.005, 1e-6, 1.0)
    """Adam's, for the grid; it falls from the start to the end."""
