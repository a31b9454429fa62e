"""Counter-based random numbers: the same on every device, without moving them between devices.

An integer hash (lowbias32, C. Wellons, public domain) of a counter and a seed. The seed comes from a numpy Generator.
:mod:`.kernels` has the same function for compiled code.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def draw_seed(rng: np.random.Generator) -> int:
    """A 32-bit seed."""
    return int(rng.integers(1 << 32))


def uniform(counter: Tensor, seed: int) -> Tensor:
    """float32 in [0, 1), one for each non-negative integer of ``counter`` (int64, any shape, taken modulo 2³²)."""
    x = (counter & _MASK) ^ seed
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    x = x ^ (x >> 16)
    return (x >> 8).to(torch.float32) * 2.0**-24
