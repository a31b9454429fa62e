"""What the guidances of all families share: images to latents and back, half precision's overflow, and the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .distillation import NoiseSchedule, ScoreGradient
from .interface import GuidanceResult
from .inversion import Predict
from .latents import UPCAST, decode, encode, factor, image_size, judged, overflowed, resized
from .memory import Layout, Tell
from .repaint import repaint

_PAINTED_CELLS, _PAINTED_VIEWS = 1 << 13, 8
"""Most latent cells, and most views, that are painted in one call: large networks gain nothing by more of them."""


class LatentGuidance:
    """A guidance whose denoiser works on latents of ``vae``, or on pixels where that is None.

    Losses and guidance arithmetic are always float32.
    """

    def __init__(
        self, vae: Any, denoiser: Any, schedule: NoiseSchedule, size: tuple[int, int] | None, tell: Tell
    ) -> None:
        """``size`` is the height and width of the images that the model is shown; None for those of its training."""
        self.vae, self.schedule, self.tell = vae, schedule, tell
        self.dtype, self.device = denoiser.dtype, schedule.device
        self.image_size = size or image_size(denoiser, vae)
        """Height and width of the images the model is shown."""
        self.layout = Layout(vae, denoiser, self.device, self.image_size)
        cells = self.image_size[0] * self.image_size[1] // factor(vae) ** 2
        self.together = min(max(_PAINTED_CELLS // cells, 1), _PAINTED_VIEWS)
        """Views that are painted in one call; see :func:`.interface.together`."""

    def economise(self) -> str | None:
        """See :meth:`.memory.Economical.economise`."""
        return self.layout.economise()

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Latents [B, C, h, w] float32 of ``images`` [B, 3, H, W] (sRGB in [0, 1]), differentiable.

        One sample of the encoder's distribution, drawn with ``generator``, as the model saw them in training.
        """
        state, shown = generator.get_state(), resized(images, self.image_size)
        latents = encode(self.vae, shown, generator)
        if overflowed(self.vae, latents.detach()):
            self.tell(UPCAST)
            generator.set_state(state)
            latents = encode(self.vae, shown, generator)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] float32 (sRGB in [0, 1]) of ``latents`` [B, C, h, w]."""
        images = decode(self.vae, latents)
        if overflowed(self.vae, images):
            self.tell(UPCAST)
            images = decode(self.vae, latents)
        return images.clamp(0.0, 1.0)

    def judge(
        self, images: Tensor, latents: Tensor, score: ScoreGradient, evaluations: int, before: torch.Generator
    ) -> GuidanceResult:
        """The result for ``images`` (a leaf), encoded as ``latents`` by a generator as ``before``, and scored.

        The gradient by the images may overflow where the latents did not; then they are encoded again.
        """
        result = judged(images, latents, score, evaluations)
        if overflowed(self.vae, result.gradient):
            self.tell(UPCAST)
            result = judged(images, self.encode(images.to(self.device), before), score, evaluations)
        return result

    def paint(
        self, images: Tensor, predict: Predict, strength: float, steps: int, generator: torch.Generator
    ) -> Tensor:
        """``images`` [B, 3, H, W] painted over by ``steps`` of denoising with ``predict``; see :mod:`.repaint`."""
        latents = self.encode(images.float().to(self.device), generator)
        painted = self.decode(repaint(latents, predict, self.schedule, strength, steps, generator))
        size = (images.shape[-2], images.shape[-1])
        return resized(painted, size).clamp(0.0, 1.0).to(images.device)
