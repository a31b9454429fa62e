"""The engine for NVIDIA's GPUs that needs no compiler on the machine: CUDA kernels compiled at run time by NVRTC.

NVRTC comes with PyTorch's CUDA packages, and cuda-core, NVIDIA's public interface to it, launches the kernels on
PyTorch's current stream. Gradients of the table are summed as integers, so they are the same on every run. They have
all of float32's digits where they are at least 2⁻³⁶ of what the gradients of all points of their level sum up to.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import SetupError
from .layout import GridLayout

SOURCE = Path(__file__).with_name("hash_grid.cu")
BLOCK = 256
"""Threads of a block."""
_REMEDY = "Install cuda-core and nvidia-cuda-nvrtc into the backend's environment, or choose the engine auto."
_SUM_BITS = 61
"""Of a level's largest sum; one more guards against the rounding of its bound, and one is the sign."""
_SMALLEST = 2.0**-60
"""Bound below which gradients are summed in units of 2⁻¹²¹ all the same, so that units stay float32 values."""


class Kernels(Protocol):
    """The compiled kernels of ``hash_grid.cu``."""

    def launch(self, name: str, blocks: tuple[int, int], *arguments: Tensor | int) -> None:
        """Run a kernel over a grid of blocks of :data:`BLOCK` threads; integers are 64 bits wide."""
        ...


class NvrtcEngine:
    """See :class:`.engine.HashEngine`; encodings are features-first in memory, as the numba engine's are.

    ``kernels`` are :func:`cuda_kernels` of the layout on a CUDA device.
    """

    name = "nvrtc"

    def __init__(self, layout: GridLayout, device: torch.device, kernels: Kernels) -> None:
        self.layout = layout
        self.kernels = kernels
        shapes = [(level.resolution, level.offset, level.size, level.hashed) for level in layout.levels]
        self.scales = torch.tensor([level.scale for level in layout.levels], dtype=torch.float32, device=device)
        self.shapes = torch.from_numpy(np.array(shapes, np.uint32).view(np.int32)).to(device)
        self.largest = max(level.size for level in layout.levels) * layout.config.n_features

    def encode(self, x: Tensor, params: Tensor, levels: int) -> Tensor:
        """Features [N, L·F]; see :class:`.engine.HashEngine`."""
        return _Encode.apply(params, x, self, min(levels, self.layout.config.n_levels))

    def encode_vjp(self, x: Tensor, params: Tensor, v: Tensor, levels: int) -> Tensor:
        """Jᵀv [N, 3]; see :class:`.engine.HashEngine`."""
        return _Pull.apply(params, v, x, self, min(levels, self.layout.config.n_levels))

    def launch(self, name: str, items: int, rows: int, *arguments: Tensor | int) -> None:
        """Run a kernel with a thread for each of ``items`` in each of ``rows``; nothing where there are none."""
        if items and rows:
            self.kernels.launch(name, (-(-items // BLOCK), rows), *arguments)

    def units(self, bounds: Tensor, levels: int) -> Tensor:
        """Of each level's integer sums: the power of two that no sum below its bound [L] overflows with; NaN if none.

        A gradient that is not finite makes all of its level's NaN.
        """
        used = torch.where(torch.arange(len(bounds), device=bounds.device) < levels, bounds, 0.0)
        _, exponent = torch.frexp(used.clamp_min(_SMALLEST))
        unit = torch.ldexp(torch.ones_like(used), _SUM_BITS - exponent)
        return torch.where(used.isfinite(), unit, torch.nan)

    def largest_sums(self, rows: Tensor) -> Tensor:
        """For features [L·F, N] of a gradient, the most that an entry of each level can sum up to, [L]."""
        return rows.sum(1).view(-1, self.layout.config.n_features).amax(1)

    def finished(self, sums: Tensor, units: Tensor) -> Tensor:
        """The gradient [P] of sums in units."""
        out = torch.empty(self.layout.n_params, device=sums.device)
        self.launch("finish", self.largest, len(units), sums, self.shapes, units, out)
        return out


def cuda_engine(layout: GridLayout, device: torch.device) -> NvrtcEngine:
    """The engine on a CUDA device; SetupError where something that it needs is missing, naming it."""
    if device.type != "cuda":
        raise SetupError(f"The NVRTC engine does not run on {device}.", "Choose an NVIDIA GPU, or the engine auto.")
    if not torch.cuda.is_available() or torch.version.cuda is None:
        raise SetupError("The NVRTC engine needs an NVIDIA GPU and PyTorch's CUDA build.", "Choose the engine auto.")
    number = str(device).partition(":")[2]
    index = int(number) if number else torch.cuda.current_device()
    capability = torch.cuda.get_device_capability(index)
    config = layout.config
    kernels = _CudaKernels(index, f"sm_{capability[0]}{capability[1]}", config.n_features, config.interpolation)
    return NvrtcEngine(layout, torch.device("cuda", index), kernels)


def macros(features: int, interpolation: str) -> dict[str, str]:
    """What the source is compiled with."""
    return {"FEATURES": str(features), "SMOOTH": str(int(interpolation == "smoothstep"))}


@functools.cache
def compiled(architecture: str, features: int, interpolation: str) -> Any:
    """The source as machine code for an architecture such as sm_86; needs no GPU. SetupError if it cannot be made."""
    try:
        core: Any = importlib.import_module("cuda.core")
        options = core.ProgramOptions(
            name=SOURCE.name,
            arch=architecture,
            std="c++17",
            define_macro=list(macros(features, interpolation).items()),
        )
        return core.Program(SOURCE.read_text(encoding="utf-8"), "c++", options).compile("cubin")
    except Exception as error:  # noqa: BLE001 - a missing library, an unknown GPU: each raises its own kind
        reason = " ".join(str(error).split())[:300]
        raise SetupError(f"NVRTC cannot be used ({reason}).", _REMEDY) from None


class _CudaKernels:
    """The kernels on one CUDA device, launched on PyTorch's current stream."""

    def __init__(self, index: int, architecture: str, features: int, interpolation: str) -> None:
        self._code = compiled(architecture, features, interpolation)
        self._core: Any = importlib.import_module("cuda.core")
        self._index = index
        self._found: dict[str, Any] = {}

    def launch(self, name: str, blocks: tuple[int, int], *arguments: Tensor | int) -> None:
        """See :class:`Kernels`."""
        values = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
        with torch.cuda.device(self._index):
            self._core.Device(self._index).set_current()  # of this thread: autograd has threads of its own
            if name not in self._found:
                self._found[name] = self._code.get_kernel(name)
            config = self._core.LaunchConfig(grid=blocks, block=BLOCK)
            self._core.launch(self._stream(), config, self._found[name], *values)

    def _stream(self) -> Any:
        """PyTorch's current stream; its handle is 0 where that is the default stream."""
        handle = torch.cuda.current_stream(self._index).cuda_stream
        return self._core.Stream.from_handle(handle) if handle else self._core.LEGACY_DEFAULT_STREAM


def _ready(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous()


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, x: Tensor, engine: NvrtcEngine, levels: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.engine, ctx.levels = engine, levels
        points, table = _ready(x), _ready(params)
        out = torch.empty(engine.layout.n_outputs, len(points), device=x.device)
        engine.launch(
            "encode", len(points), len(engine.scales),
            points, table, engine.scales, engine.shapes, out, len(points), levels,
        )  # fmt: skip
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        engine: NvrtcEngine = ctx.engine
        points, rows = _ready(ctx.saved_tensors[0]), _ready(grad_outputs[0].t())
        # A point's weights sum up to 1 in each level.
        units = engine.units(engine.largest_sums(rows.abs()), ctx.levels)
        sums = torch.zeros(engine.layout.n_params, dtype=torch.int64, device=points.device)
        engine.launch(
            "encode_backward", len(points), ctx.levels,
            points, engine.scales, engine.shapes, units, rows, sums, len(points),
        )  # fmt: skip
        return engine.finished(sums, units), None, None, None


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, v: Tensor, x: Tensor, engine: NvrtcEngine, levels: int) -> Tensor:
        ctx.save_for_backward(params, v, x)
        ctx.engine, ctx.levels = engine, levels
        points, table, rows = _ready(x), _ready(params), _ready(v.t())
        out = torch.empty(3, len(points), device=x.device)
        engine.launch(
            "pull", len(points), 1,
            points, table, engine.scales, engine.shapes, rows, out, len(points), levels,
        )  # fmt: skip
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        engine: NvrtcEngine = ctx.engine
        params, v, x = ctx.saved_tensors
        points, table, rows, along = _ready(x), _ready(params), _ready(v.t()), _ready(grad_outputs[0].t())
        # The slopes of a point's 8 weights along an axis sum up, without their signs, to at most 2 · 1.5 · scale.
        bounds = engine.largest_sums(rows.abs() * along.abs().sum(0)) * engine.scales * 3.0
        units = engine.units(bounds, ctx.levels)
        sums = torch.zeros(engine.layout.n_params, dtype=torch.int64, device=points.device)
        pushed = torch.empty(engine.layout.n_outputs, len(points), device=points.device)
        engine.launch(
            "pull_backward", len(points), len(engine.scales),
            points, table, engine.scales, engine.shapes, units, rows, along, sums, pushed, len(points), ctx.levels,
        )  # fmt: skip
        return engine.finished(sums, units), pushed.t(), None, None, None
