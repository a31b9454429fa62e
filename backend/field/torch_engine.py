"""The reference engine: plain PyTorch, level by level, on any device. Autograd does the differentiation."""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import PRIME_Y, PRIME_Z, GridLayout, GridLevel

_CORNERS = tuple((c & 1, c >> 1 & 1, c >> 2) for c in range(8))
_WORD = 0xFFFFFFFF


class TorchEngine:
    """See :class:`.engine.HashEngine`. Memory: about 100·N bytes a level while gradients are recorded."""

    name = "torch"

    def __init__(self, layout: GridLayout) -> None:
        self.layout = layout
        self._smooth = layout.config.interpolation == "smoothstep"

    def encode(self, x: Tensor, params: Tensor, levels: int) -> Tensor:
        """Features [N, L·F]; see :class:`.engine.HashEngine`."""
        features = self.layout.config.n_features
        columns: list[Tensor] = []
        for index in range(min(levels, self.layout.config.n_levels)):
            level = self.layout.levels[index]
            entries, low, high, _ = self._locate(x, level)
            values = self._gather(params, index, entries)
            columns.append((_products(low, high).unsqueeze(-1) * values).sum(0))
        missing = self.layout.n_outputs - features * len(columns)
        if missing:
            columns.append(params.new_zeros(x.shape[0], missing))
        return torch.cat(columns, dim=1)

    def encode_vjp(self, x: Tensor, params: Tensor, v: Tensor, levels: int) -> Tensor:
        """Jᵀv [N, 3]; see :class:`.engine.HashEngine`."""
        features = self.layout.config.n_features
        total = torch.zeros_like(x)
        for index in range(min(levels, self.layout.config.n_levels)):
            entries, low, high, slope = self._locate(x, self.layout.levels[index])
            own = v[:, index * features : (index + 1) * features]
            pulled = (self._gather(params, index, entries) * own).sum(-1)
            axes = [(_products(low, high, axis) * pulled).sum(0) for axis in range(3)]
            total = total + slope * torch.stack(axes, dim=-1)
        return total

    def _locate(self, x: Tensor, level: GridLevel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Entries of the corners [8, N]; weights of low and high corners and the high one's derivative, [N, 3]."""
        position = x * level.scale + 0.5
        cell = position.floor()
        fraction = position - cell
        slope = torch.full_like(fraction, level.scale)
        if self._smooth:
            slope = slope * (6.0 * fraction * (1.0 - fraction))
            fraction = fraction * fraction * (3.0 - 2.0 * fraction)
        return self._entries(cell.long(), level), 1.0 - fraction, fraction, slope

    @staticmethod
    def _entries(cell: Tensor, level: GridLevel) -> Tensor:
        """Entry of each of the 8 corners, [8, N] int64."""
        stride_y, stride_z = (PRIME_Y, PRIME_Z) if level.hashed else (level.resolution, level.resolution**2)
        x, y, z = cell.unbind(-1)
        xs, ys, zs = (x, x + 1), (y * stride_y, (y + 1) * stride_y), (z * stride_z, (z + 1) * stride_z)
        if level.hashed:
            corners = [xs[i] ^ ys[j] ^ zs[k] for i, j, k in _CORNERS]
        else:
            corners = [xs[i] + ys[j] + zs[k] for i, j, k in _CORNERS]
        return torch.stack(corners).bitwise_and_(_WORD).remainder_(level.size)

    def _gather(self, params: Tensor, index: int, entries: Tensor) -> Tensor:
        """Features of the corners, [8, N, F]."""
        features = self.layout.config.n_features
        table = params[self.layout.span(index)].view(-1, features)
        return table.index_select(0, entries.view(-1)).view(8, -1, features)


def _products(low: Tensor, high: Tensor, axis: int | None = None) -> Tensor:
    """Interpolation weights of the 8 corners, [8, N]; with ``axis``, their derivative by that axis' weight."""
    weights: list[Tensor] = []
    for corner in _CORNERS:
        weight: Tensor | None = None
        for k in range(3):
            if k == axis:
                continue
            factor = (high if corner[k] else low)[:, k]
            weight = factor if weight is None else weight * factor
        assert weight is not None
        weights.append(-weight if axis is not None and not corner[axis] else weight)
    return torch.stack(weights)
