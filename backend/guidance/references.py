"""Pictures of an object, each with the camera it was taken with, as a guidance is shown them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import CameraBatch, joined
from ..errors import RequestError
from .latents import resized


@dataclass(frozen=True)
class ReferencePicture:
    """One picture of the object."""

    image: Tensor
    """[3, S, S], or [4, S, S] with alpha: sRGB in [0, 1], not premultiplied. Square, as the models' pictures are; the
    object alone, before white or cut out (Zero-1-to-3 was trained on white backgrounds)."""
    camera: CameraBatch
    """The one camera it was taken with."""
    weight: float = 1.0
    """How much it counts beside other pictures; above 0."""


def check_references(references: Sequence[ReferencePicture]) -> None:
    """Raise RequestError, with one sentence, for pictures that a model cannot be shown."""
    if not references:
        raise RequestError("There is no reference picture.", "Give at least one.")
    for number, reference in enumerate(references, start=1):
        image, name = reference.image, f"Reference picture {number}"
        if image.ndim != 3 or image.shape[0] not in (3, 4) or 0 in image.shape or not image.is_floating_point():
            raise RequestError(f"{name} is no picture ({list(image.shape)}, {image.dtype}).", "Give [3 or 4, S, S].")
        if image.shape[1] != image.shape[2]:
            raise RequestError(f"{name} is {image.shape[2]}×{image.shape[1]}.", "Crop it, or pad it, to a square.")
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise RequestError(f"{name} has values outside [0, 1].", "Scale it to [0, 1].")
        if len(reference.camera) != 1:
            raise RequestError(f"{name} has {len(reference.camera)} cameras.", "Give it the one it was taken with.")
        if not math.isfinite(reference.weight) or reference.weight <= 0:
            raise RequestError(f"{name} has the weight {reference.weight}.", "Give a weight above 0.")


def pictures_before_white(
    references: Sequence[ReferencePicture], size: tuple[int, int], device: torch.device
) -> Tensor:
    """The pictures as [K, 3, h, w] float32 of ``size``, those with alpha composed over white as they are stored."""
    pictures: list[Tensor] = []
    for reference in references:
        image = reference.image.detach().to(device, torch.float32)[None]
        if image.shape[1] == 4:
            # Composed before it is resized: colours under transparent pixels mean nothing.
            image = image[:, :3] * image[:, 3:] + (1.0 - image[:, 3:])
        pictures.append(resized(image, size))
    return torch.cat(pictures)


def reference_cameras(references: Sequence[ReferencePicture]) -> CameraBatch:
    """The pictures' cameras as one batch of K."""
    return joined([reference.camera for reference in references])
