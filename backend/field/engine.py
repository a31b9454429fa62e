"""The interface of the hash-grid engines, and the choice of one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..errors import SetupError
from .layout import GridLayout

ENGINES = ("auto", "torch", "numba", "tinycudann")


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

    auto is numba on the CPU, tinycudann on CUDA if it can be had, and torch otherwise. Raises SetupError with the
    remedy if the engine asked for by name cannot be had.
    """
    device = torch.device(device)
    if name not in ENGINES:
        raise SetupError(f"There is no hash-grid engine {name!r}.", f"Choose one of {', '.join(ENGINES)}.")
    if name == "numba" or (name == "auto" and device.type == "cpu"):
        return _or_torch(_numba, layout, device, name)
    if name == "tinycudann" or (name == "auto" and device.type == "cuda"):
        return _or_torch(_tinycudann, layout, device, name)
    return _torch(layout)


class _Maker(Protocol):
    def __call__(self, layout: GridLayout, device: torch.device) -> HashEngine: ...


def _or_torch(make: _Maker, layout: GridLayout, device: torch.device, name: str) -> HashEngine:
    try:
        return make(layout, device)
    except SetupError:
        if name != "auto":
            raise
        return _torch(layout)


def _torch(layout: GridLayout) -> HashEngine:
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
