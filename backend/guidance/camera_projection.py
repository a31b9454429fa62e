"""Camera conditioning: a camera becomes a few extra tokens of the UNet's cross-attention.

An optional part of a model folder (``camera_projection/``), beside the ordinary parts of a Stable Diffusion pipeline,
so that the folder stays one that diffusers loads: without the extra tokens the UNet is an ordinary one.
The idea of telling a 2D model its camera is MVDream's (arXiv 2308.16512), which adds it to the time embedding instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import ModelError

N_FEATURES = 16
SUBFOLDER = "camera_projection"


class Cameras(Protocol):
    """What of a camera batch is needed here (see :class:`backend.cameras.CameraBatch`)."""

    @property
    def camera_to_world(self) -> NDArray[np.float32]:
        """[B, 4, 4]."""
        ...

    @property
    def focal(self) -> NDArray[np.float32]:
        """[B, 2]."""
        ...

    @property
    def center(self) -> NDArray[np.float32]:
        """[B, 2]."""
        ...


def camera_features(cameras: Cameras) -> NDArray[np.float32]:
    """Numbers of order 1 that fix a camera: [B, 16] float32.

    World-to-camera rotation (9), the ball's centre in camera space (3, divided by 3), vertical focal length (1,
    halved), the centre's place in the image (2) and the ball's apparent radius (1), both normalised.
    """
    pose = np.asarray(cameras.camera_to_world, np.float64)
    rotation = pose[:, :3, :3].transpose(0, 2, 1)
    origin = -np.einsum("bij,bj->bi", rotation, pose[:, :3, 3])
    depth = np.maximum(-origin[:, 2:], 1e-3)
    place = cameras.focal * origin[:, :2] / depth + cameras.center
    distance = np.linalg.norm(origin, axis=1, keepdims=True)
    apparent = cameras.focal[:, 1:] / np.sqrt(np.maximum(distance**2 - 1, 1e-3))
    parts = (rotation.reshape(-1, 9), origin / 3, cameras.focal[:, 1:] / 2, place, apparent)
    return np.concatenate(parts, axis=1).astype(np.float32)


class CameraProjection(nn.Module):
    """MLP from camera features [B, 16] to cross-attention tokens [B, n_tokens, width]."""

    def __init__(self, width: int, n_tokens: int = 4, hidden: int = 256) -> None:
        super().__init__()
        self.width, self.n_tokens, self.hidden = width, n_tokens, hidden
        self.net = nn.Sequential(
            nn.Linear(N_FEATURES, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, n_tokens * width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, 16] to [B, n_tokens, width]."""
        return self.net(features).view(-1, self.n_tokens, self.width)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and safetensors weights into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"width": self.width, "n_tokens": self.n_tokens, "hidden": self.hidden}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(
            {k: v.contiguous() for k, v in self.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors"
        )

    @classmethod
    def from_pretrained(cls, folder: Path) -> CameraProjection:
        """Read what :meth:`save_pretrained` wrote, as float32; ModelError for a broken folder."""
        try:
            module = cls(**json.loads((folder / "config.json").read_text()))
            weights = load_file(folder / "diffusion_pytorch_model.safetensors")
            module.load_state_dict({k: v.to(torch.float32) for k, v in weights.items()})
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"The camera projection in {folder} cannot be read ({reason}).", "Copy the model anew."
            ) from None
        return module
