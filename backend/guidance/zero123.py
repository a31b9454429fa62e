"""The Zero-1-to-3 family (arXiv 2303.11328): a latent diffusion model that turns a picture of an object to a new view.

The model is shown the picture in two ways: its latent beside the noisy one, in the UNet's input of eight channels, and
its CLIP embedding with the relative pose, projected to the one token of the cross-attention. Without the picture (for
classifier-free guidance) both are zero. The picture's latent is the mode of the encoder's distribution and is *not*
scaled, as in the models' training; what the UNet denoises is scaled as ever.

Models are folders in the layout of diffusers, with either name of the projection: ``clip_camera_projection``
(Zero123Pipeline) or ``cc_projection`` (Zero1to3StableDiffusionPipeline). Stable Zero123 differs in the pose alone, see
:mod:`.relative_pose`. Rendered views should stand before white, as the models' training pictures did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError
from ..request import RefineSettings, ViewGuidanceSettings
from . import view_volume
from .distillation import NoiseSchedule, score_gradient
from .fitting import chosen_size
from .interface import GuidanceResult, ViewMapsModel
from .inversion import Predict, inversion_scale
from .latent_guidance import LatentGuidance
from .latents import factor, image_size
from .loading import Loading, check_scheduler, check_unet, load_network, load_schedule, load_vae
from .memory import Tell, silent
from .model_folder import ModelFolder, check_part
from .references import ReferencePicture, check_references
from .relative_pose import PoseKind, angles_between, reference_shares, relative_poses, view_scales
from .shown_pictures import EncodedReferences, encode_references, load_projection, pose_kind, projection_part

if TYPE_CHECKING:
    from ..cameras import CameraBatch
    from ..sketch import SketchSettings

_HINT = "Choose a Zero-1-to-3 model."


@dataclass(frozen=True)
class ViewNetworks:
    """The frozen parts of a model that every step uses."""

    vae: Any
    """diffusers' AutoencoderKL."""
    unet: Any
    """diffusers' UNet2DConditionModel, of twice the latents' channels."""
    schedule: NoiseSchedule
    projection: nn.Linear
    """CLIP embedding and relative pose [E + 4] to a token [D]; float32."""
    pose: PoseKind
    """Which relative pose the model was trained on."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images that the model is shown; None for those it was trained on."""


@dataclass(frozen=True)
class ViewCondition:
    """What one step asks about B views: M pairs of a view and a reference that counts in it."""

    tokens: Tensor
    """[M, 1, D] float32."""
    latents: Tensor
    """[M, C, h, w] float32, of the references."""
    sample: Tensor
    """[M] int64, the view of each pair."""
    shares: Tensor
    """[B, M] float32, how much each pair counts in each view; rows sum to 1."""
    scales: Tensor
    """[B] float32, how much each view counts."""


class Zero123Guidance(LatentGuidance):
    """Score distillation from pictures; see :class:`.interface.Guidance` and :class:`.interface.Sketcher`."""

    def __init__(
        self,
        networks: ViewNetworks,
        references: EncodedReferences,
        settings: ViewGuidanceSettings,
        tell: Tell = silent,
        sides: ViewMapsModel | None = None,
    ) -> None:
        super().__init__(networks.vae, networks.unet, networks.schedule, networks.image_size, tell)
        self.networks, self.references, self.settings = networks, references, settings
        self.sides = sides

    def condition(self, cameras: CameraBatch) -> ViewCondition:
        """What the network is asked about views from ``cameras``."""
        known, settings = self.references, self.settings
        angles = angles_between(cameras, known.cameras)
        shares = reference_shares(angles, known.weights, settings.references)
        view, reference = np.nonzero(shares)
        by_pair = np.zeros((len(cameras), len(view)))
        by_pair[view, np.arange(len(view))] = shares[view, reference]
        poses = relative_poses(cameras, known.cameras, self.networks.pose, settings.object_extent)[view, reference]
        chosen = torch.as_tensor(reference, device=self.device)
        told = torch.cat([known.embeddings[chosen], self._tensor(poses)], dim=-1)
        return ViewCondition(
            tokens=self.networks.projection(told)[:, None],
            latents=known.latents[chosen],
            sample=torch.as_tensor(view, device=self.device),
            shares=self._tensor(by_pair),
            scales=self._tensor(view_scales(angles, settings.near_views)),
        )

    def predict_noise(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, latents: Tensor) -> Tensor:
        """The noise [R, C, h, w] float32 that the UNet sees in ``noisy``, shown ``tokens`` and ``latents`` of R."""
        shown, tokens = torch.cat([noisy, latents], dim=1).to(self.dtype), tokens.to(self.dtype)
        parts: list[Tensor] = []
        for start in range(0, len(noisy), rows := self.layout.plan.rows or len(noisy)):
            some = slice(start, start + rows)
            output = self.networks.unet(shown[some], timesteps[some], tokens[some], return_dict=False)[0]
            parts.append(self.networks.schedule.noise_of(output.float(), noisy[some], timesteps[some]))
        return torch.cat(parts)

    def guided_noise(self, noisy: Tensor, timesteps: Tensor, condition: ViewCondition, scale: float) -> Tensor:
        """ε_∅ + ``scale``·(ε − ε_∅) [B, C, h, w] for ``noisy`` [B, C, h, w] at ``timesteps`` [B], by one call.

        ε is the mean over a view's references by their shares, each with its own pose; with a ``scale`` of 0 they are
        not asked.
        """
        batch, own = len(noisy), condition.sample if scale else condition.sample[:0]
        pairs = len(own)
        tokens, latents = condition.tokens[:pairs], condition.latents[:pairs]
        noise = self.predict_noise(
            torch.cat([noisy, noisy[own]]),
            torch.cat([timesteps, timesteps[own]]),
            torch.cat([tokens.new_zeros(batch, *tokens.shape[1:]), tokens]),
            torch.cat([torch.zeros_like(noisy), latents]),
        )
        unconditional, told = noise.split([batch, pairs])
        if not pairs:
            return unconditional
        conditional = (condition.shares @ told.flatten(1)).view_as(noisy)
        return unconditional + scale * (conditional - unconditional)

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        """The score distillation gradient by ``images``; see :meth:`.interface.Guidance.gradient`.

        Images of any size are resized to the model's own. The gradient has the images' device.
        """
        settings = self.settings
        images, before = images.detach().float().requires_grad_(True), generator.clone_state()
        latents = self.encode(images.to(self.device), generator)
        with torch.inference_mode():
            condition = self.condition(cameras)

            def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return self.guided_noise(noisy, timesteps, condition, settings.guidance_scale)

            def invert(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return self.guided_noise(noisy, timesteps, condition, inversion_scale(settings))

            score = score_gradient(latents, predict, self.networks.schedule, settings, progress, generator, invert)
            weighted = condition.scales.view(-1, 1, 1, 1) * score.gradient
            score = dataclasses.replace(score, gradient=weighted)
        return self.judge(images, latents, score, len(latents) + len(condition.tokens), before)

    @torch.inference_mode()
    def repaint(
        self,
        images: Tensor,
        cameras: CameraBatch,
        strength: float,
        settings: RefineSettings,
        generator: torch.Generator,
    ) -> Tensor:
        """See :meth:`.interface.Painter.repaint`; guided as the distillation is."""
        return self.paint(images, self._predict(cameras), strength, settings.sampling_steps, generator)

    @property
    def told(self) -> bool:
        """See :attr:`.interface.Sketcher.told`: the model knows where a view lies from its picture."""
        return True

    @torch.inference_mode()
    def draw(self, cameras: CameraBatch, settings: SketchSettings, generator: torch.Generator) -> Tensor:
        """See :meth:`.interface.Sketcher.draw`; before white, guided as the distillation is."""
        blank = torch.ones((len(cameras), 3, *self.image_size), device=self.device)
        return self.paint(blank, self._predict(cameras), 1.0, settings.sampling_steps, generator)

    def _predict(self, cameras: CameraBatch) -> Predict:
        """The guided noise of views from ``cameras``."""
        condition, scale = self.condition(cameras), self.settings.guidance_scale

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.guided_noise(noisy, timesteps, condition, scale)

        return predict

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


def load(
    folder: ModelFolder, references: Sequence[ReferencePicture], settings: ViewGuidanceSettings, how: Loading
) -> Zero123Guidance:
    """Read a model of this family and encode the pictures.

    Raises ModelError for a folder that is incomplete, damaged or of another build, and RequestError for pictures that
    the model cannot be shown.
    """
    check_references(references)
    if how.settings.loras:
        raise ModelError("A Zero-1-to-3 model takes no LoRA.", "Leave loading.loras empty, or ask no pictures.")
    part = _check_parts(folder)
    dtype, device = how.dtype(torch.float16), how.device
    unet = load_network(folder, "unet", UNet2DConditionModel, {"dtype": dtype})
    vae = load_vae(folder, AutoencoderKL, dtype, how, unet.config.out_channels)
    schedule = load_schedule(folder, device)
    projection = load_projection(folder, part).to(device)
    size = chosen_size(image_size(unet, vae), factor(vae), how)
    networks = ViewNetworks(vae, unet, schedule, projection, pose_kind(folder, settings.pose), size)
    _check_channels(folder, networks)
    encoded = encode_references(folder, vae, size or image_size(unet, vae), projection, references)
    place = folder.path / view_volume.FOLDER
    sides = view_volume.load(place, vae, references, device) if place.is_dir() else None
    return Zero123Guidance(networks, encoded, settings, how.tell, sides)


def _check_parts(folder: ModelFolder) -> str:
    """Check the parts' classes; the name of the projection's part."""
    part = projection_part(folder)
    check_part(folder, "unet", ("UNet2DConditionModel",))
    check_part(folder, "vae", ("AutoencoderKL",))
    check_scheduler(folder, _HINT)
    return part


def _check_channels(folder: ModelFolder, networks: ViewNetworks) -> None:
    """Check that unet, vae and projection belong together, and that the UNet is shown a latent beside the noisy one."""
    unet, channels = networks.unet.config, networks.vae.config.latent_channels
    check_unet(folder, networks.unet, _HINT)
    if unet.in_channels != 2 * channels or unet.out_channels != channels:
        raise ModelError(
            f"The unet of {folder.path} takes {unet.in_channels} channels and makes {unet.out_channels}, where its vae "
            f"asks for {2 * channels} and {channels}.",
            "Choose a Zero-1-to-3 model, whose unet is shown a picture's latent beside the noisy one.",
        )
    width = networks.projection.out_features
    if unet.cross_attention_dim != width:
        raise ModelError(
            f"The projection of {folder.path} does not fit its unet (width {width}).", "Copy the model anew."
        )
