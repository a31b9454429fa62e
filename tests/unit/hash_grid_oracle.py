"""tiny-cuda-nn's formulas in float64, and grids of every kind to try engines with."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from backend.field import HashGridConfig

PRIMES = np.array([1, 2654435761, 805459861], np.uint32)


class Oracle:
    """tiny-cuda-nn's formulas in float64 numpy, corner by corner; ``corners`` yields (level, corner, entries, …)."""

    def __init__(self, config: HashGridConfig) -> None:
        self.config = config
        self.tables: list[tuple[float, int, int, int]] = []
        offset = 0
        for level in range(config.n_levels):
            growth = np.log2(np.float32(config.per_level_scale))
            scale = np.exp2(np.float32(level) * growth) * np.float32(config.base_resolution) - np.float32(1)
            resolution = int(np.ceil(scale)) + 1
            entries = min(-(-(resolution**3) // 8) * 8, 2**config.log2_table_size)
            self.tables.append((float(scale), resolution, offset, entries))
            offset += entries
        self.n_params = offset * config.n_features

    def corners(self, x: np.ndarray, levels: int):
        for level in range(min(levels, self.config.n_levels)):
            scale, resolution, offset, entries = self.tables[level]
            position = x.astype(np.float64) * scale + 0.5
            cell = np.floor(position)
            t = position - cell
            slope = np.full_like(t, scale)
            if self.config.interpolation == "smoothstep":
                slope = scale * 6 * t * (1 - t)
                t = t * t * (3 - 2 * t)
            for corner in np.ndindex(2, 2, 2):
                at = (cell.astype(np.int64) + corner).astype(np.uint32)
                if resolution**3 <= entries:
                    index = at[:, 0] + at[:, 1] * np.uint32(resolution) + at[:, 2] * np.uint32(resolution**2)
                else:
                    index = at[:, 0] * PRIMES[0] ^ at[:, 1] * PRIMES[1] ^ at[:, 2] * PRIMES[2]
                factors = np.where(np.array(corner) == 1, t, 1 - t)
                signs = np.where(np.array(corner) == 1, 1.0, -1.0) * slope
                jacobian = np.stack([signs[:, k] * np.delete(factors, k, axis=1).prod(1) for k in range(3)], axis=1)
                yield level, offset + (index % np.uint32(entries)).astype(np.int64), factors.prod(1), jacobian

    def encode(self, x: np.ndarray, params: np.ndarray, levels: int) -> np.ndarray:
        features = self.config.n_features
        table = params.astype(np.float64).reshape(-1, features)
        out = np.zeros((len(x), self.config.n_levels * features))
        for level, entry, weight, _ in self.corners(x, levels):
            out[:, level * features : (level + 1) * features] += weight[:, None] * table[entry]
        return out

    def encode_gradient(self, x: np.ndarray, gradient: np.ndarray, levels: int) -> np.ndarray:
        features = self.config.n_features
        out = np.zeros((self.n_params // features, features))
        for level, entry, weight, _ in self.corners(x, levels):
            np.add.at(out, entry, weight[:, None] * gradient[:, level * features : (level + 1) * features])
        return out.ravel()

    def pull(self, x: np.ndarray, params: np.ndarray, v: np.ndarray, levels: int) -> np.ndarray:
        features = self.config.n_features
        table = params.astype(np.float64).reshape(-1, features)
        out = np.zeros((len(x), 3))
        for level, entry, _, jacobian in self.corners(x, levels):
            out += jacobian * (table[entry] * v[:, level * features : (level + 1) * features]).sum(1, keepdims=True)
        return out

    def pull_gradients(
        self, x: np.ndarray, params: np.ndarray, v: np.ndarray, u: np.ndarray, levels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients by params and by v of u · (Jᵀv)."""
        features = self.config.n_features
        table = params.astype(np.float64).reshape(-1, features)
        to_params, to_v = np.zeros_like(table), np.zeros((len(x), self.config.n_levels * features))
        for level, entry, _, jacobian in self.corners(x, levels):
            mine = slice(level * features, (level + 1) * features)
            along = (jacobian * u).sum(1, keepdims=True)
            np.add.at(to_params, entry, along * v[:, mine])
            to_v[:, mine] += along * table[entry]
        return to_params.ravel(), to_v

    def away_from_faces(self, x: np.ndarray) -> np.ndarray:
        """The points whose cell is beyond doubt in float32: there alone is the linear grid's gradient continuous."""
        keep = np.ones(len(x), bool)
        for scale, *_ in self.tables:
            position = x.astype(np.float64) * scale + 0.5
            keep &= (np.abs(position - np.round(position)) > 1e-6 * scale + 1e-5).all(1)
        return x[keep]


@st.composite
def cases(draw: st.DrawFn):
    config = HashGridConfig(
        n_levels=draw(st.integers(1, 5)),
        n_features=draw(st.sampled_from([1, 2, 4])),
        log2_table_size=draw(st.integers(5, 12)),
        base_resolution=draw(st.integers(2, 20)),
        per_level_scale=draw(st.sampled_from([1.0, 1.26, 1.3819, 1.7, 2.0])),
        interpolation=draw(st.sampled_from(["linear", "smoothstep"])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 7, 64, 1500]))
    return config, draw(st.integers(1, config.n_levels)), n, rng


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-4) -> None:
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-3)
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=tolerance * scale)
