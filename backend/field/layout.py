"""The hash grid's layout: tiny-cuda-nn's rules to the letter, so that one flat parameter vector fits every engine.

Müller et al., "Instant Neural Graphics Primitives", 2022, section 3; tiny-cuda-nn, ``encodings/grid.h``. For level l

* ``scale = exp2(l · log2(per_level_scale)) · base_resolution − 1`` in float32, ``resolution = ceil(scale) + 1``;
* entries = min(resolution³ rounded up to a multiple of 8, 2^log2_table_size);
* a point x in [0, 1]³ lies at ``x · scale + 0.5``; its cell is the floor, its weights the fraction
  (linear) or t²(3 − 2t) of it (smoothstep);
* a corner's entry is ``ix + iy · resolution + iz · resolution²`` if resolution³ entries fit, else the hash
  ``ix ⊕ iy · 2654435761 ⊕ iz · 805459861`` of 32-bit numbers, either modulo the number of entries.

Parameters lie level by level, entry by entry, the features of an entry side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import RequestError

Interpolation = Literal["linear", "smoothstep"]

PRIME_Y = 2654435761
PRIME_Z = 805459861
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class HashGridConfig:
    """What tiny-cuda-nn calls a HashGrid encoding of 3 inputs. Raises RequestError for values no grid can have."""

    n_levels: int = 16
    """Levels L."""
    n_features: int = 2
    """Features F a level; the encoding has L · F."""
    log2_table_size: int = 19
    """log2 of the most entries a level may have."""
    base_resolution: int = 16
    """Vertices along an edge of the coarsest level."""
    per_level_scale: float = 1.3819
    """Growth of the resolution from a level to the next."""
    interpolation: Interpolation = "linear"
    """Smoothstep has a continuous gradient (and normals without facets), linear a truer one."""

    def __post_init__(self) -> None:
        bounds = (
            ("n_levels", 1, 32),
            ("n_features", 1, 8),
            ("log2_table_size", 3, 24),
            ("base_resolution", 2, 8192),
            ("per_level_scale", 1.0, 16.0),
        )
        for name, low, high in bounds:
            value = getattr(self, name)
            if not low <= value <= high:
                raise RequestError(f"The hash grid's {name} is {value}.", f"It must be between {low} and {high}.")
        if self.interpolation not in ("linear", "smoothstep"):
            raise RequestError(f"There is no interpolation {self.interpolation!r}.", "Choose linear or smoothstep.")

    @classmethod
    def from_finest(
        cls,
        n_levels: int,
        n_features: int,
        log2_table_size: int,
        finest_resolution: int,
        base_resolution: int = 16,
        interpolation: Interpolation = "linear",
    ) -> HashGridConfig:
        """The configuration whose last level has exactly ``finest_resolution`` vertices along an edge.

        The scale aims half a cell below the whole number, so that no engine's rounding of exp2 can change a resolution.
        A single level has ``base_resolution``. Raises RequestError if the finest is coarser than the base.
        """
        if finest_resolution < base_resolution:
            raise RequestError(
                f"The finest grid resolution is {finest_resolution}.",
                f"It must be at least the coarsest, {base_resolution}.",
            )
        growth = 1.0
        if n_levels > 1 and finest_resolution > base_resolution:
            growth = ((finest_resolution - 0.5) / base_resolution) ** (1.0 / (n_levels - 1))
        return cls(n_levels, n_features, log2_table_size, base_resolution, growth, interpolation)


@dataclass(frozen=True)
class GridLevel:
    """One level of a :class:`GridLayout`."""

    scale: float
    """Cells along the unit edge; a float32 value."""
    resolution: int
    """Vertices along an edge."""
    offset: int
    """Entries before this level."""
    size: int
    """Entries of this level."""
    hashed: bool
    """Whether corners share entries by the hash."""


class GridLayout:
    """Where each level of a configuration lies in the flat parameter vector.

    Attributes: ``config``; ``levels``, a tuple of :class:`GridLevel`; ``n_entries``; ``n_params`` = entries · features;
    ``n_outputs`` = levels · features.
    """

    def __init__(self, config: HashGridConfig) -> None:
        self.config = config
        levels: list[GridLevel] = []
        offset = 0
        for index in range(config.n_levels):
            level = _level(config, index, offset)
            levels.append(level)
            offset += level.size
        self.levels = tuple(levels)
        self.n_entries = offset
        self.n_params = offset * config.n_features
        self.n_outputs = config.n_levels * config.n_features

    def span(self, level: int) -> slice:
        """The slice of the parameter vector that belongs to a level."""
        features = self.config.n_features
        here = self.levels[level]
        return slice(here.offset * features, (here.offset + here.size) * features)


def _level(config: HashGridConfig, index: int, offset: int) -> GridLevel:
    growth = np.log2(np.float32(config.per_level_scale))
    scale = np.exp2(np.float32(index) * growth) * np.float32(config.base_resolution) - np.float32(1.0)
    resolution = int(np.ceil(scale)) + 1
    dense = (resolution**3 + 7) // 8 * 8
    size = min(dense, 1 << config.log2_table_size)
    return GridLevel(float(scale), resolution, offset, size, _is_hashed(resolution, size))


def _is_hashed(resolution: int, size: int) -> bool:
    """The test of tiny-cuda-nn's grid_index, its 32-bit overflow for resolutions above 1625 included."""
    stride = 1
    for _ in range(3):
        if stride > size:
            break
        stride = stride * resolution & _WORD
    return size < stride
