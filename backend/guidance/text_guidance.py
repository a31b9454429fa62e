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
from .interface import Foretell, GuidanceResult
from .inversion import Predict
from .latent_guidance import LatentGuidance
from .memory import Tell, silent
from .view_prompts import TextEmbeddings

if TYPE_CHECKING:
    from ..cameras import CameraBatch
    from ..sketch import SketchSettings


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


class TextGuidance(LatentGuidance):
    """Score distillation through one model; see :class:`.interface.Guidance` and :class:`.interface.Painter`."""

    foretell: Foretell | None = None
    """What knows whole shapes by this model's drawings, if anything does."""

    def __init__(
        self, networks: Networks, text: TextEmbeddings, settings: GuidanceSettings, tell: Tell = silent
    ) -> None:
        super().__init__(networks.vae, networks.denoiser, networks.schedule, networks.image_size, tell)
        if settings.perp_neg == "auto" and networks.camera is not None:
            settings = dataclasses.replace(settings, perp_neg="off")
        self.networks, self.text, self.settings = networks, text, settings

    def network_output(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None
    ) -> Tensor:
        """What the denoiser predicts [R, C, h, w] of ``noisy`` [R, C, h, w] (its dtype) at ``timesteps`` [R]."""
        raise NotImplementedError

    def condition(self, cameras: CameraBatch, settings: GuidanceSettings | None = None) -> Condition:
        """What the network is asked about views from ``cameras``, by the guidance's own settings or others."""
        camera_tokens = None
        if self.networks.camera is not None:
            features = torch.as_tensor(camera_features(cameras), device=self.device, dtype=self.dtype)
            camera_tokens = self.networks.camera(features)
        return build_condition(
            self.text, cameras.azimuth, cameras.elevation, settings or self.settings, camera_tokens, cameras.prompt
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
        before = generator.clone_state()
        latents = self.encode(images.to(self.device), generator)
        with torch.inference_mode():
            condition = self.condition(cameras)

            def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return guided_noise(self.predict_noise, noisy, timesteps, condition, self.settings)

            def invert(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return inversion_noise(self.predict_noise, noisy, timesteps, condition, self.settings)

            schedule = self.networks.schedule
            score = score_gradient(latents, predict, schedule, self.settings, progress, generator, invert)
        return self.judge(images, latents, score, len(condition.tokens), before)

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
        predict = self._predict(cameras, dataclasses.replace(self.settings, **scales))
        return self.paint(images, predict, strength, settings.sampling_steps, generator)

    @property
    def told(self) -> bool:
        """See :attr:`.interface.Sketcher.told`."""
        return self.networks.camera is not None

    @torch.inference_mode()
    def draw(self, cameras: CameraBatch, settings: SketchSettings, generator: torch.Generator) -> Tensor:
        """See :meth:`.interface.Sketcher.draw`; each begins from a colour of its own.

        There is less Perp-Neg in it than in distillation, or a part is taken away whole.
        """
        scales = {"guidance_scale": settings.guidance_scale, "camera_scale": settings.guidance_scale}
        strength = {"perp_neg_strength": settings.perp_neg_strength}
        views = {"three_quarter_views": True}
        predict = self._predict(cameras, dataclasses.replace(self.settings, **scales, **strength, **views))
        colours = torch.rand((len(cameras), 3, 1, 1), generator=generator, device=generator.device)
        blank = colours.expand(-1, -1, *self.image_size)
        return self.paint(blank, predict, 1.0, settings.sampling_steps, generator)

    def _predict(self, cameras: CameraBatch, settings: GuidanceSettings) -> Predict:
        """The guided noise of views from ``cameras``."""
        condition = self.condition(cameras, settings)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return guided_noise(self.predict_noise, noisy, timesteps, condition, settings)

        return predict
