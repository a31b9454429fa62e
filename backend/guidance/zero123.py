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
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from ..errors import ModelError
from ..request import RefineSettings, ViewGuidanceSettings
from .distillation import NoiseSchedule, score_gradient
from .fitting import chosen_size
from .interface import GuidanceResult
from .inversion import Predict, inversion_scale
from .latent_guidance import LatentGuidance
from .latents import factor, image_size, overflowed
from .loading import Loading, check_scheduler, check_unet, load_network, load_schedule, load_vae, loaded
from .memory import Tell, silent
from .model_folder import ModelFolder, check_part, read_json, weights_variant
from .references import ReferencePicture, check_references, pictures_before_white, reference_cameras
from .relative_pose import (
    PoseKind,
    angles_between,
    is_stable_zero123,
    reference_shares,
    relative_poses,
    view_scales,
)

if TYPE_CHECKING:
    from ..cameras import CameraBatch
    from ..sketch import SketchSettings

_PROJECTIONS = {"clip_camera_projection": "CLIPCameraProjection", "cc_projection": "CCProjection"}
"""Class of the projection by the name of its part."""
_POSES = ("zero-1-to-3", "stable-zero123")
_POSE_NUMBERS = 4
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HINT = "Choose a Zero-1-to-3 model."
STABLE_DIFFUSION_SCALE = 0.18215
"""By which Stable Diffusion's latents, and so TAESD's, are scaled."""


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
class EncodedReferences:
    """The pictures of one job, encoded once."""

    embeddings: Tensor
    """[K, E] float32, CLIP's."""
    latents: Tensor
    """[K, C, h, w] float32, modes, unscaled."""
    cameras: CameraBatch
    """K of them."""
    weights: NDArray[np.float64]
    """[K], above 0."""


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
    ) -> None:
        super().__init__(networks.vae, networks.unet, networks.schedule, networks.image_size, tell)
        self.networks, self.references, self.settings = networks, references, settings

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
    projection_part = _check_parts(folder)
    dtype, device = how.dtype(torch.float16), how.device
    unet = load_network(folder, "unet", UNet2DConditionModel, {"dtype": dtype})
    vae = load_vae(folder, AutoencoderKL, dtype, how, unet.config.out_channels)
    schedule = load_schedule(folder, device)
    projection = _load_projection(folder, projection_part).to(device)
    size = chosen_size(image_size(unet, vae), factor(vae), how)
    networks = ViewNetworks(vae, unet, schedule, projection, _pose_kind(folder, settings), size)
    _check_channels(folder, networks)
    encoded = _encode_references(folder, networks, references, device)
    return Zero123Guidance(networks, encoded, settings, how.tell)


def _check_parts(folder: ModelFolder) -> str:
    """Check the parts' classes; the name of the projection's part."""
    check_part(folder, "image_encoder", ("CLIPVisionModelWithProjection",))
    check_part(folder, "unet", ("UNet2DConditionModel",))
    check_part(folder, "vae", ("AutoencoderKL",))
    check_scheduler(folder, _HINT)
    part = next((name for name in _PROJECTIONS if name in folder.classes), None)
    if part is None:
        raise ModelError(
            f"The model in {folder.path} has no projection of the pose ({' or '.join(_PROJECTIONS)}).",
            "Copy the whole folder, or choose a Zero-1-to-3 model.",
        )
    check_part(folder, part, (_PROJECTIONS[part],))
    return part


def _pose_kind(folder: ModelFolder, settings: ViewGuidanceSettings) -> PoseKind:
    if settings.pose != "auto":
        return settings.pose
    if folder.pose is not None:
        if folder.pose not in _POSES:
            raise ModelError(f"{folder.path} was trained on {folder.pose!r} poses.", f"Known are {', '.join(_POSES)}.")
        return folder.pose
    path = folder.path.absolute()
    # The Hub's cache names a model two folders above: models--owner--name/snapshots/revision.
    name = path.parent.parent.name if path.parent.name == "snapshots" else path.name
    return "stable-zero123" if is_stable_zero123(name) else "zero-1-to-3"


def _load_projection(folder: ModelFolder, part: str) -> nn.Linear:
    """The one linear layer of the projection, whatever it is called in its file; float32, frozen."""
    variant = weights_variant(folder, part)
    name = f"diffusion_pytorch_model{f'.{variant}' if variant else ''}.safetensors"
    weights: dict[str, Tensor] = loaded(folder, part, lambda: load_file(folder.place(part) / name))
    by_end = {key.rpartition(".")[2]: value.float() for key, value in weights.items()}
    fits = len(weights) == 2 and by_end.keys() == {"weight", "bias"} and by_end["weight"].ndim == 2
    if not fits or by_end["bias"].shape != by_end["weight"].shape[:1]:
        raise ModelError(f"The {part} of {folder.path} is not one linear layer.", "Copy the model anew.")
    width, told = by_end["weight"].shape
    projection = nn.Linear(told, width, device="meta")
    projection.load_state_dict(by_end, assign=True)
    return projection.eval().requires_grad_(False)


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


@torch.no_grad()
def _encode_references(
    folder: ModelFolder, networks: ViewNetworks, references: Sequence[ReferencePicture], device: torch.device
) -> EncodedReferences:
    """Encode the pictures in both ways; the image encoder is freed afterwards.

    CLIP's view of a picture is resized from the model's own size, bicubic, corners on corners and not antialiased, as
    in the models' training: other ways of resizing give other embeddings.
    """
    size = networks.image_size or image_size(networks.unet, networks.vae)
    pictures = pictures_before_white(references, size, device)
    mode = _mode(networks.vae, pictures)
    if overflowed(networks.vae, mode):
        mode = _mode(networks.vae, pictures)
    encoder = load_network(folder, "image_encoder", CLIPVisionModelWithProjection, {"dtype": torch.float32}).to(device)
    side = encoder.config.image_size
    mean, std = (pictures.new_tensor(numbers).view(1, 3, 1, 1) for numbers in _normalization(folder))
    seen = functional.interpolate(pictures, (side, side), mode="bicubic", align_corners=True)
    embeddings = encoder((seen - mean) / std).image_embeds.float().clone()
    told = networks.projection.in_features - _POSE_NUMBERS
    if embeddings.shape[1] != told:
        raise ModelError(
            f"The projection of {folder.path} does not fit its image encoder: it takes {told} numbers of a picture, "
            f"not {embeddings.shape[1]}.",
            "Copy the model anew.",
        )
    weights = np.array([reference.weight for reference in references], np.float64)
    return EncodedReferences(embeddings, mode, reference_cameras(references), weights)


def _mode(vae: Any, pictures: Tensor) -> Tensor:
    """Unscaled latents of ``pictures`` [K, 3, H, W]; those of a tiny VAE are scaled and have no spread."""
    encoded = vae.encode((2.0 * pictures - 1.0).to(vae.dtype))
    if hasattr(encoded, "latents"):
        return encoded.latents.float() / STABLE_DIFFUSION_SCALE
    return encoded.latent_dist.mode().float()


def _normalization(folder: ModelFolder) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the image encoder's colours; CLIP's, if the folder does not say."""
    path = folder.path / "feature_extractor" / "preprocessor_config.json"
    config = read_json(path) if path.is_file() else {}
    mean, std = tuple(config.get("image_mean", _CLIP_MEAN)), tuple(config.get("image_std", _CLIP_STD))
    if len(mean) != 3 or len(std) != 3 or not all(isinstance(n, float | int) for n in (*mean, *std)) or 0 in std:
        raise ModelError(f"{path} has no usable image_mean and image_std.", "Copy the model anew.")
    return mean, std
