"""The optimization of a field by a guidance: the loop, what changes in it, and pictures of it."""

from __future__ import annotations

from .loop import optimize
from .sketches import sketch_views
from .state import rewound

__all__ = ["optimize", "rewound", "sketch_views"]
