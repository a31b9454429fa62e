"""The interface of the hash-grid engines, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..errors import SetupError
from .layout import GridLayout

ENGINES = ("auto", "torch", "numba", "tinycudann", "nvrtc")
_PREFERRED = {"cpu": ("numba", "torch"), "cuda": ("tinycudann", "nvrtc", "torch")}
"""Engines of a kind of device, the fastest first; torch runs on every device."""


class HashEngine(Protocol):
    """Evaluates a hash grid. All engines agree in value and gradient up to float32 rounding.

    N points, L levels, F features, P parameters. Points lie in [0, 1]³; outside, values are unspecified but finite.
    Only the first ``levels`` levels are computed; the others' features are zero and get no gradient.
    """

    name: str

    def encode(self, x: Tensor, params: Tensor, levels: int) -> Tensor:
        """Interpolated features [N, L·F] (any strides) at x [N, 3] float32 for params [P] float32.

        Differentiable once with respect to params; x is a constant.
        """
        ...

    def encode_vjp(self, x: Tensor, params: Tensor, v: Tensor, levels: int) -> Tensor:
        """Jᵀv, [N, 3], for J = ∂encode/∂x at each point and v [N, L·F].

        Differentiable once with respect to params and v; x is a constant.
        """
        ...


def select_engine(layout: GridLayout, device: torch.device | str, name: str = "auto") -> HashEngine:
    """The engine of that name for the device.

    auto is numba on the CPU; on CUDA tinycudann, then nvrtc; torch where they cannot be had, and elsewhere. Raises
    SetupError with the remedy if the engine asked for by name cannot be had.
    """
    device = torch.device(device)
    if name not in ENGINES:
        raise SetupError(f"There is no hash-grid engine {name!r}.", f"Choose one of {', '.join(ENGINES)}.")
    return _MAKERS[name](layout, device) if name != "auto" else automatic_engine(layout, device)[0]


def automatic_engine(layout: GridLayout, device: torch.device | str) -> tuple[HashEngine, dict[str, str]]:
    """The first engine of the device that can be had; of each that comes before it, why it cannot."""
    device, passed_over = torch.device(device), dict[str, str]()
    for name in _PREFERRED.get(device.type, ()):
        try:
            return _MAKERS[name](layout, device), passed_over
        except SetupError as error:
            passed_over[name] = str(error)
    return _torch(layout, device), passed_over


def _torch(layout: GridLayout, device: torch.device) -> HashEngine:  # noqa: ARG001 - it runs on every device
    from .torch_engine import TorchEngine  # noqa: PLC0415 - an engine is imported when it is chosen

    return TorchEngine(layout)


def _numba(layout: GridLayout, device: torch.device) -> HashEngine:
    if device.type != "cpu":
        raise SetupError(f"The numba engine does not run on {device}.", "Choose the device cpu, or the engine auto.")
    try:
        from .numba_engine import NumbaEngine  # noqa: PLC0415 - half a second, and may be missing
    except Exception as error:  # noqa: BLE001 - a numba that does not fit numpy raises more than ImportError
        raise SetupError(f"Numba cannot be imported ({error}).", "Install numba, or choose the engine torch.") from None
    return NumbaEngine(layout)


def _tinycudann(layout: GridLayout, device: torch.device) -> HashEngine:
    from .tinycudann_engine import TinycudannEngine  # noqa: PLC0415

    return TinycudannEngine(layout, device)


def _nvrtc(layout: GridLayout, device: torch.device) -> HashEngine:
    from .nvrtc_engine import cuda_engine  # noqa: PLC0415

    return cuda_engine(layout, device)


_MAKERS: dict[str, Callable[[GridLayout, torch.device], HashEngine]] = {
    "torch": _torch,
    "numba": _numba,
    "tinycudann": _tinycudann,
    "nvrtc": _nvrtc,
}
