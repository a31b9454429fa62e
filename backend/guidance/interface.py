"""What the loop knows of a guidance: images and cameras in, a gradient out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..cameras import CameraBatch
    from ..reference import DepthKind
    from ..request import RefineSettings
    from ..sketch import SketchSettings
    from .references import ReferencePicture


@dataclass(frozen=True)
class GuidanceResult:
    """How the images should change."""

    gradient: Tensor
    """[B, 3, H, W] float32: the loss's gradient by the images, to be given to ``images.backward(gradient=…)``."""
    loss: float
    """Half the squared norm of the latents' gradient per sample; not a measure of quality."""
    diagnostics: dict[str, float] = field(default_factory=dict[str, float])
    """Numbers for the log."""


class Guidance(Protocol):
    """A 2D model that judges rendered images."""

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        """Judge ``images`` [B, 3, H, W] (sRGB in [0, 1]) seen from ``cameras`` (B of them).

        ``progress`` in [0, 1] is the share of the run that is done; ``generator`` is the only source of chance.
        """
        ...


@runtime_checkable
class Painter(Protocol):
    """A guidance that can also paint: make of a picture one that the model would have made."""

    def repaint(
        self,
        images: Tensor,
        cameras: CameraBatch,
        strength: float,
        settings: RefineSettings,
        generator: torch.Generator,
    ) -> Tensor:
        """Paint over ``images`` [B, 3, H, W] (sRGB in [0, 1]) seen from ``cameras``; the same size and range.

        ``strength`` in [0, 1] says how much: at 1 nothing of the picture is left. ``generator`` is the only chance.
        """
        ...


@runtime_checkable
class Sketcher(Painter, Protocol):
    """A painter that also draws from nothing."""

    @property
    def told(self) -> bool:
        """Whether it knows the camera; else, left and right are one to it."""
        ...

    def draw(self, cameras: CameraBatch, settings: SketchSettings, generator: torch.Generator) -> Tensor:
        """Draw what is seen from ``cameras``: [B, 3, H, W] (sRGB in [0, 1]), at the model's own size.

        ``generator`` is the only chance.
        """
        ...


@dataclass(frozen=True)
class Maps:
    """How far away each place of a picture is, and which way it faces; at a model's own size, on the CPU."""

    depth: Tensor
    """[H, W], along the camera's axis; of disparity, larger is nearer."""
    kind: DepthKind
    normals: Tensor | None = None
    """[3, H, W], unit, in the camera's axes, where the model sees them."""


class DepthModel(Protocol):
    """Sees how far away is what a picture shows."""

    def seen(self, picture: Tensor) -> Maps:
        """What it makes of a picture [3, S, S] (sRGB in [0, 1])."""
        ...


@dataclass(frozen=True)
class Side:
    """What is to be seen from somewhere; at a model's own size, on the CPU."""

    mask: Tensor
    """[H, W], how likely the object is there, in [0, 1]."""
    maps: Maps


class ViewMapsModel(Protocol):
    """Knows pictures of an object, and what its other sides are like."""

    distance: float
    """Of its cameras from the ball's middle, in radii."""
    field_of_view: float
    """Of its cameras, in degrees."""

    def seen_from(self, cameras: CameraBatch) -> list[Side]:
        """What is most likely seen from each of ``cameras``."""
        ...


def together(guidance: Painter) -> int:
    """Views that a painter paints in one call for less than one by one: its ``together``, or 1 if it says nothing."""
    return int(getattr(guidance, "together", 1))


def sides_of(guidance: Painter) -> ViewMapsModel | None:
    """The model of hidden sides that a painter has beside itself: its ``sides``, if it says so."""
    return getattr(guidance, "sides", None)


Foretell = Callable[["Sequence[ReferencePicture]"], ViewMapsModel]
"""Shows a model pictures."""


def foretold_by(guidance: Painter, drawn: Sequence[ReferencePicture]) -> ViewMapsModel | None:
    """What a painter knows of the shape by its own drawings: its ``foretell``, if it says so."""
    foretell: Foretell | None = getattr(guidance, "foretell", None)
    return None if foretell is None else foretell(drawn)
