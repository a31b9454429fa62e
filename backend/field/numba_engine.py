"""The CPU engine: Numba kernels inside autograd functions, parallel over levels and blocks, the same on every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import numba_kernels as kernels
from .layout import GridLayout
from .workers import run_kernels, share_count

_INLINE_LOOKUPS = 1 << 16
"""Below this many points times levels (a fraction of a millisecond) waking other threads saves nothing."""


class NumbaEngine:
    """See :class:`.engine.HashEngine`. CPU tensors only; kernels are compiled at the first call and kept on disk.

    Encodings are features-first in memory: the transposed view of a contiguous [L·F, N].
    """

    name = "numba"

    def __init__(self, layout: GridLayout) -> None:
        self.layout = layout
        self.smooth = layout.config.interpolation == "smoothstep"
        self.features = (0,) * layout.config.n_features
        self.scales = np.array([level.scale for level in layout.levels], np.float32)
        self.shapes = np.array([(level.resolution, level.offset, level.size) for level in layout.levels], np.int64)
        self.hashes = np.array([level.hashed for level in layout.levels], np.bool_)

    def encode(self, x: Tensor, params: Tensor, levels: int) -> Tensor:
        """Features [N, L·F]; see :class:`.engine.HashEngine`."""
        return _Encode.apply(params, x, self, min(levels, self.layout.config.n_levels))

    def encode_vjp(self, x: Tensor, params: Tensor, v: Tensor, levels: int) -> Tensor:
        """Jᵀv [N, 3]; see :class:`.engine.HashEngine`."""
        return _Pull.apply(params, v, x, self, min(levels, self.layout.config.n_levels))

    def run(self, task: Callable[[int, int], object], points: int, pieces: int) -> None:
        """Run a kernel over that many points, which splits into that many pieces, in as many shares as pay."""
        if points * self.layout.config.n_levels < _INLINE_LOOKUPS:
            task(0, 1)
        else:
            run_kernels(task, share_count(pieces))


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return tensor.detach().to(torch.float32).contiguous().numpy()


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, x: Tensor, engine: NumbaEngine, levels: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.engine, ctx.levels = engine, levels
        points, table = _array(x), _array(params)
        out = torch.empty(engine.layout.n_outputs, len(points))
        array = out.numpy()

        def task(share: int, shares: int) -> None:
            kernels.encode(
                points, table, engine.scales, engine.shapes, engine.hashes, engine.smooth, array, levels,
                engine.features, share, shares,
            )  # fmt: skip

        engine.run(task, len(points), len(engine.scales))
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        engine: NumbaEngine = ctx.engine
        points, rows = _array(ctx.saved_tensors[0]), _array(grad_outputs[0].t())
        out = torch.empty(engine.layout.n_params)
        array = out.numpy()

        def task(share: int, shares: int) -> None:
            kernels.encode_backward(
                points, array, engine.scales, engine.shapes, engine.hashes, engine.smooth, rows, ctx.levels,
                engine.features, share, shares,
            )  # fmt: skip

        engine.run(task, len(points), ctx.levels)
        return out, None, None, None


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, v: Tensor, x: Tensor, engine: NumbaEngine, levels: int) -> Tensor:
        ctx.save_for_backward(params, v, x)
        ctx.engine, ctx.levels = engine, levels
        points, table, rows = _array(x), _array(params), _array(v.t())
        out = torch.empty(3, len(points))
        array = out.numpy()
        pieces = max(1, len(points) // 256)
        block = min(kernels.BLOCK, -(-len(points) // min(pieces, torch.get_num_threads())) or 1)

        def task(share: int, shares: int) -> None:
            kernels.pull(
                points, table, engine.scales, engine.shapes, engine.hashes, engine.smooth, rows, array, levels,
                engine.features, block, share, shares,
            )  # fmt: skip

        engine.run(task, len(points), pieces)
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        engine: NumbaEngine = ctx.engine
        params, v, x = ctx.saved_tensors
        points, table, rows, along = _array(x), _array(params), _array(v.t()), _array(grad_outputs[0].t())
        out, pushed = torch.empty(engine.layout.n_params), torch.empty(engine.layout.n_outputs, len(points))
        out_array, pushed_array = out.numpy(), pushed.numpy()

        def task(share: int, shares: int) -> None:
            kernels.pull_backward(
                points, table, engine.scales, engine.shapes, engine.hashes, engine.smooth, rows, along, out_array,
                pushed_array, ctx.levels, engine.features, share, shares,
            )  # fmt: skip

        engine.run(task, len(points), ctx.levels)
        return out, pushed.t(), None, None, None
