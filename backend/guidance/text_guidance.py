"""Score distillation by a model that reads a prompt: everything but what a family says of itself.

A family is a subclass with one method, :meth:`TextGuidance.network_output`: how its denoiser is called. What that
predicts (ε, v, x_0 or a flow) becomes noise here, so distillation, Perp-Neg, inversion and painting are written once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..request import GuidanceSettings, RefineSettings
from .camera_projection import CameraProjection, camera_features
from .conditioning import Condition, build_condition, guided_noise, inversion_noise
from .distillation import NoiseSchedule, score_gradient
from .interface import GuidanceResult
from .latents import UPCAST, decode, encode, factor, image_size, judged, overflowed, resized
from .memory import Layout, Tell, silent
from .repaint import repaint
from .view_prompts import TextEmbeddings

if TYPE_CHECKING:
    from ..cameras import CameraBatch

_PAINTED_CELLS, _PAINTED_VIEWS = 1 << 13, 8
"""Most latent cells, and most views, that are painted in one call: large networks gain nothing by more of them."""


@dataclass(frozen=True)
class Networks:
    """The frozen parts of a model that every step uses."""

    vae: Any
    """diffusers' AutoencoderKL or AutoencoderTiny; None for a model that denoises pixels."""
    denoiser: Any
    """diffusers' UNet or transformer."""
    schedule: NoiseSchedule
    camera: CameraProjection | None = None
    """None if the model was not trained to know the camera, or is not to be told."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images that the model is shown; None for those it was trained on."""


class TextGuidance:
    """Score distillation through one model; see :class:`.interface.Guidance` and :class:`.interface.Painter`.

    Losses and guidance arithmetic are always float32.
    """

    def __init__(
        self, networks: Networks, text: TextEmbeddings, settings: GuidanceSettings, tell: Tell = silent
    ) -> None:
        if settings.perp_neg == "auto" and networks.camera is not None:
            settings = dataclasses.replace(settings, perp_neg="off")
        self.networks, self.text, self.settings, self.tell = networks, text, settings, tell
        self.dtype, self.device = networks.denoiser.dtype, networks.schedule.device
        self.image_size = networks.image_size or image_size(networks.denoiser, networks.vae)
        """Height and width of the images the model is shown."""
        self.layout = Layout(networks.vae, networks.denoiser, self.device, self.image_size)
        cells = self.image_size[0] * self.image_size[1] // factor(networks.vae) ** 2
        self.together = min(max(_PAINTED_CELLS // cells, 1), _PAINTED_VIEWS)
        """Views that are painted in one call; see :func:`.interface.together`."""

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """What the denoiser predicts [R, C, h, w] of ``noisy`` [R, C, h, w] (its dtype) at ``timesteps`` [R]."""
        raise NotImplementedError

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Latents [B, C, h, w] float32 of ``images`` [B, 3, H, W] (sRGB in [0, 1]), differentiable.

        One sample of the encoder's distribution, drawn with ``generator``, as the model saw them in training.
        """
        state, shown = generator.get_state(), resized(images, self.image_size)
        latents = encode(self.networks.vae, shown, generator)
        if overflowed(self.networks.vae, latents.detach()):
            self.tell(UPCAST)
            generator.set_state(state)
            latents = encode(self.networks.vae, shown, generator)
        return latents

    def condition(self, cameras: CameraBatch) -> Condition:
        """What the network is asked about views from ``cameras``."""
        camera_tokens = None
        if self.networks.camera is not None:
            features = torch.as_tensor(camera_features(cameras), device=self.device, dtype=self.dtype)
            camera_tokens = self.networks.camera(features)
        return build_condition(
            self.text, cameras.azimuth, cameras.elevation, self.settings, camera_tokens, cameras.prompt
        )

    def predict_noise(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        tokens: Tensor,
        mask: Tensor | None,
        pooled: Tensor | None = None,
    ) -> Tensor:
        """The noise [R, C, h, w] float32 that the model sees in ``noisy``; see :data:`.conditioning.NoiseNetwork`."""
        parts: list[Tensor] = []
        for start in range(0, len(noisy), rows := self.layout.plan.rows or len(noisy)):
            some = slice(start, start + rows)
            shown, times = noisy[some], timesteps[some]
            asked = (None if each is None else each[some] for each in (mask, pooled))
            output = self.network_output(shown.to(self.dtype), times, tokens[some], *asked)
            parts.append(self.networks.schedule.noise_of(output.float(), shown, times))
        return torch.cat(parts)

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        """The score distillation gradient by ``images``; see :meth:`.interface.Guidance.gradient`.

        Images of any size are resized to the model's own. The gradient has the images' device.
        """
        images = images.detach().float().requires_grad_(True)
        state = generator.get_state()
        latents = self.encode(images.to(self.device), generator)
        with torch.inference_mode():
            condition = self.condition(cameras)

            def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return guided_noise(self.predict_noise, noisy, timesteps, condition, self.settings)

            def invert(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return inversion_noise(self.predict_noise, noisy, timesteps, condition, self.settings)

            schedule = self.networks.schedule
            score = score_gradient(latents, predict, schedule, self.settings, progress, generator, invert)
        result = judged(images, latents, score, len(condition.tokens))
        if overflowed(self.networks.vae, result.gradient):
            self.tell(UPCAST)
            again = torch.Generator(generator.device)
            again.set_state(state)
            latents = self.encode(images.to(self.device), again)
            result = judged(images, latents, score, len(condition.tokens))
        return result

    @torch.inference_mode()
    def repaint(
        self,
        images: Tensor,
        cameras: CameraBatch,
        strength: float,
        settings: RefineSettings,
        generator: torch.Generator,
    ) -> Tensor:
        """See :meth:`.interface.Painter.repaint`; guided as the distillation is, at scales of its own."""
        scales = {"guidance_scale": settings.guidance_scale, "camera_scale": settings.camera_scale}
        guidance = dataclasses.replace(self.settings, **scales)
        condition = self.condition(cameras)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return guided_noise(self.predict_noise, noisy, timesteps, condition, guidance)

        latents = self.encode(images.float().to(self.device), generator)
        steps = settings.sampling_steps
        painted = repaint(latents, predict, self.networks.schedule, strength, steps, generator)
        size = (images.shape[-2], images.shape[-1])
        return resized(self._decode(painted), size).clamp(0.0, 1.0).to(images.device)

    def economise(self) -> str | None:
        """See :meth:`.memory.Economical.economise`."""
        return self.layout.economise()

    def _decode(self, latents: Tensor) -> Tensor:
        images = decode(self.networks.vae, latents)
        if overflowed(self.networks.vae, images):
            self.tell(UPCAST)
            images = decode(self.networks.vae, latents)
        return images.clamp(0.0, 1.0)
