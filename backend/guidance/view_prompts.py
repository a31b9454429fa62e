"""View-dependent prompts: the prompt says from where the object is seen.

DreamFusion (arXiv 2209.14988, section 3.2) appends view words to the prompt. Between two views the text embeddings are
interpolated linearly by azimuth, token by token, as in Perp-Neg (arXiv 2304.04968, section 4).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..cameras import off_front

VIEWS = ("front", "side", "back", "overhead", "front three quarter", "back three quarter")
"""The last two are half-way to a side, for whom asks for them by name."""

_BY_TURN = ("front", "front three quarter", "side", "back three quarter", "back")
"""At 0, 45, 90, 135 and 180 degrees from the front."""


def view_prompts(prompt: str) -> list[str]:
    """The prompt with the words of each of :data:`VIEWS`, such as "a red duck, front view"."""
    subject = prompt.strip().rstrip(".,;")
    return [f"{subject}, {view} view" for view in VIEWS]


def is_overhead(elevation: ArrayLike, overhead_angle: float) -> NDArray[np.bool_]:
    """[B]: whether a camera at ``elevation`` (degrees) sees the object from above."""
    return np.atleast_1d(np.asarray(elevation, np.float64)) >= overhead_angle


def view_weights(
    azimuth: ArrayLike, elevation: ArrayLike, overhead_angle: float, *, three_quarter: bool = False
) -> NDArray[np.float64]:
    """Share of each of :data:`VIEWS` in a camera's prompt: [B, V], rows sum to 1.

    ``azimuth`` [B] in degrees, 0 is the front; left and right are both "side". From an elevation of
    ``overhead_angle`` degrees on, the view is overhead alone. ``three_quarter``: those views have their part as well.
    """
    order = _BY_TURN if three_quarter else _BY_TURN[::2]
    turn = off_front(np.atleast_1d(azimuth)) / 180.0 * (len(order) - 1)
    weights = np.zeros((len(turn), len(VIEWS)))
    for place, view in enumerate(order):
        weights[:, VIEWS.index(view)] = np.clip(1.0 - np.abs(turn - place), 0.0, 1.0)
    weights[is_overhead(elevation, overhead_angle)] = np.eye(len(VIEWS))[VIEWS.index("overhead")]
    return weights


@dataclass(frozen=True)
class TextEmbeddings:
    """The texts of one job, encoded once."""

    views: Tensor
    """[V·P, T, D]: of each of P prompts, in the order of :data:`VIEWS`."""
    unconditional: Tensor
    """[T, D], of the empty prompt or of the negative prompt that takes its place."""
    pooled_views: Tensor | None = None
    """[V·P, E], each text as one vector, for models that are told one beside the tokens."""
    pooled_unconditional: Tensor | None = None
    """[E], the same."""

    def interpolated(self, weights: NDArray[np.float64], prompt: NDArray[np.int64] | None = None) -> Tensor:
        """Embeddings [B, T, D] for shares ``weights`` [B, V] of the views of ``prompt`` [B] (None: the first)."""
        shares = self._shares(weights, prompt)
        return (shares @ self.views.flatten(1)).view(len(weights), *self.views.shape[1:])

    def interpolated_pooled(
        self, weights: NDArray[np.float64], prompt: NDArray[np.int64] | None = None
    ) -> Tensor | None:
        """The same of the pooled embeddings, [B, E]; None where the model has none."""
        return None if self.pooled_views is None else self._shares(weights, prompt) @ self.pooled_views

    def to(self, device: torch.device, dtype: torch.dtype) -> TextEmbeddings:
        """The same on ``device`` as ``dtype``."""
        whole: dict[str, Tensor | None] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: each if each is None else each.to(device, dtype) for name, each in whole.items()}
        return TextEmbeddings(**moved)

    def _shares(self, weights: NDArray[np.float64], prompt: NDArray[np.int64] | None) -> Tensor:
        """Shares [B, V·P] of every text, from those ``weights`` [B, V] of one prompt's views."""
        spread = np.zeros((len(weights), len(self.views)))
        columns = view_rows(np.arange(len(VIEWS)), 0 if prompt is None else prompt[:, None])
        np.put_along_axis(spread, np.broadcast_to(columns, weights.shape), weights, axis=1)
        return self.views.new_tensor(spread)


def view_rows(view: NDArray[np.int64], prompt: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Where the views of prompts stand in :attr:`TextEmbeddings.views`."""
    return np.asarray(len(VIEWS) * prompt + view, np.int64)
