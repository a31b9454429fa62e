"""The tinycudann engine: the grid alone, in float32, under our own parameter vector.

Its networks are half precision and have no double backward, so normals need torch heads on top; its grid has one
(tiny-cuda-nn PR #69). Its parameters lie exactly as ours do.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from ..errors import SetupError
from .layout import GridLayout

_REMEDY = "Install tiny-cuda-nn's PyTorch bindings for this GPU, or choose the engine auto."


class TinycudannEngine:
    """See :class:`.engine.HashEngine`. CUDA only; raises SetupError if tinycudann or a CUDA device is missing."""

    name = "tinycudann"

    def __init__(self, layout: GridLayout, device: torch.device) -> None:
        if device.type != "cuda":
            raise SetupError(f"tinycudann does not run on {device}.", "Choose a CUDA device, or the engine auto.")
        config = layout.config
        if config.n_features not in (1, 2, 4, 8):
            raise SetupError(
                f"tinycudann has no grid with {config.n_features} features a level.", "Choose 1, 2, 4 or 8."
            )
        self.layout = layout
        self._encoding = _make_encoding(layout, device)
        if self._encoding.params.numel() != layout.n_params:
            raise SetupError("This tinycudann lays its hash grid out differently.", _REMEDY)

    def encode(self, x: Tensor, params: Tensor, levels: int) -> Tensor:
        """Features [N, L·F]; see :class:`.engine.HashEngine`."""
        return self._features(x.detach(), params) * self._mask(levels, x)

    def encode_vjp(self, x: Tensor, params: Tensor, v: Tensor, levels: int) -> Tensor:
        """Jᵀv [N, 3]; see :class:`.engine.HashEngine`."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            points = x.detach().requires_grad_()
            features = self._features(points, params)
            covector = v * self._mask(levels, x)
            (pulled,) = torch.autograd.grad(features, points, covector, create_graph=recording)
        return pulled if recording else pulled.detach()

    def _features(self, x: Tensor, params: Tensor) -> Tensor:
        with torch.autocast("cuda", enabled=False):
            return torch.func.functional_call(self._encoding, {"params": params}, (x,))

    def _mask(self, levels: int, like: Tensor) -> Tensor:
        """1 for the features of active levels, 0 for the others."""
        columns = torch.arange(self.layout.n_outputs, device=like.device)
        return (columns < levels * self.layout.config.n_features).to(like.dtype)


def _make_encoding(layout: GridLayout, device: torch.device) -> Any:
    config = layout.config
    settings = {
        "otype": "HashGrid",
        "n_levels": config.n_levels,
        "n_features_per_level": config.n_features,
        "log2_hashmap_size": config.log2_table_size,
        "base_resolution": config.base_resolution,
        "per_level_scale": config.per_level_scale,
        "interpolation": config.interpolation.capitalize(),
    }
    try:
        module: Any = importlib.import_module("tinycudann")
        with torch.cuda.device(device):
            encoding = module.Encoding(3, settings, dtype=torch.float32)
    except Exception as error:  # noqa: BLE001 - its import raises EnvironmentError and more, without a GPU above all
        raise SetupError(f"tinycudann cannot be used ({error}).", _REMEDY) from None
    return encoding.requires_grad_(False)
