"""How a picture is shown to the Zero-1-to-3 family: its latent, and its CLIP embedding with the relative pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from ..errors import ModelError
from .latents import overflowed
from .loading import load_network, loaded
from .model_folder import ModelFolder, check_part, read_json, weights_variant
from .references import ReferencePicture, pictures_before_white, reference_cameras
from .relative_pose import PoseKind, is_stable_zero123

if TYPE_CHECKING:
    from ..cameras import CameraBatch

_PROJECTIONS = {"clip_camera_projection": "CLIPCameraProjection", "cc_projection": "CCProjection"}
"""Class of the projection by the name of its part."""
_POSES = ("zero-1-to-3", "stable-zero123")
_POSE_NUMBERS = 4
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STABLE_DIFFUSION_SCALE = 0.18215
"""By which Stable Diffusion's latents, and so TAESD's, are scaled."""


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


def projection_part(folder: ModelFolder) -> str:
    """The name of the projection's part; ModelError if there is none, or no image encoder of CLIP's."""
    check_part(folder, "image_encoder", ("CLIPVisionModelWithProjection",))
    part = next((name for name in _PROJECTIONS if name in folder.classes), None)
    if part is None:
        raise ModelError(
            f"The model in {folder.path} has no projection of the pose ({' or '.join(_PROJECTIONS)}).",
            "Copy the whole folder, or choose a Zero-1-to-3 model.",
        )
    check_part(folder, part, (_PROJECTIONS[part],))
    return part


def pose_kind(folder: ModelFolder, chosen: Literal["auto"] | PoseKind = "auto") -> PoseKind:
    """Which relative pose a model was trained on: as chosen, or as its folder or its name says."""
    if chosen != "auto":
        return chosen
    if folder.pose is not None:
        if folder.pose not in _POSES:
            raise ModelError(f"{folder.path} was trained on {folder.pose!r} poses.", f"Known are {', '.join(_POSES)}.")
        return folder.pose
    path = folder.path.absolute()
    # The Hub's cache names a model two folders above: models--owner--name/snapshots/revision.
    name = path.parent.parent.name if path.parent.name == "snapshots" else path.name
    return "stable-zero123" if is_stable_zero123(name) else "zero-1-to-3"


def load_projection(folder: ModelFolder, part: str) -> nn.Linear:
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


@torch.no_grad()
def encode_references(
    folder: ModelFolder,
    vae: Any,
    size: tuple[int, int],
    projection: nn.Linear,
    references: Sequence[ReferencePicture],
) -> EncodedReferences:
    """Encode the pictures in both ways; the image encoder is freed afterwards.

    CLIP's view of a picture is resized from the model's own size, bicubic, corners on corners and not antialiased, as
    in the models' training: other ways of resizing give other embeddings.
    """
    device = projection.weight.device
    pictures = pictures_before_white(references, size, device)
    mode = _mode(vae, pictures)
    if overflowed(vae, mode):
        mode = _mode(vae, pictures)
    encoder = load_network(folder, "image_encoder", CLIPVisionModelWithProjection, {"dtype": torch.float32}).to(device)
    side = encoder.config.image_size
    mean, std = (pictures.new_tensor(numbers).view(1, 3, 1, 1) for numbers in _normalization(folder))
    seen = functional.interpolate(pictures, (side, side), mode="bicubic", align_corners=True)
    embeddings = encoder((seen - mean) / std).image_embeds.float().clone()
    told = projection.in_features - _POSE_NUMBERS
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
