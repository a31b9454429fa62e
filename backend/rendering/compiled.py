"""The compiled loops, where there are any."""

from __future__ import annotations

from typing import Any

import torch

try:
    from . import compose_kernels, kernels, view_kernels
except ImportError:  # numba is missing: the PyTorch twins run
    compose_kernels = kernels = view_kernels = None


def kernels_for(device: torch.device) -> Any:
    """The module :mod:`.kernels` on the CPU where numba is installed; elsewhere None, and the PyTorch twins run."""
    return kernels if device.type == "cpu" else None


def view_kernels_for(device: torch.device) -> Any:
    """As :func:`kernels_for`, the module :mod:`.view_kernels`."""
    return view_kernels if device.type == "cpu" else None


def compose_kernels_for(device: torch.device) -> Any:
    """As :func:`kernels_for`, the module :mod:`.compose_kernels`."""
    return compose_kernels if device.type == "cpu" else None
