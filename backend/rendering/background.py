"""A background that is learned with the object (DreamFusion, App. A.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LearnedBackground(nn.Module):
    """Linear colour from the direction looked in: frequency encoding and one hidden layer, kept weak on purpose.

    A strong one would paint the prompt on the sky. Starts as mid-grey with a faint, seed-dependent variation.
    """

    frequencies: Tensor

    def __init__(self, device: torch.device | str, seed: int, bands: int = 4, width: int = 32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        inputs = 3 + 6 * bands
        self.register_buffer("frequencies", 2.0 ** torch.arange(bands, dtype=torch.float32), persistent=False)
        self.hidden_weight = nn.Parameter(_uniform_weights(width, inputs, generator))
        self.hidden_bias = nn.Parameter(torch.zeros(width))
        self.colour_weight = nn.Parameter(_uniform_weights(3, width, generator) * 0.1)
        self.colour_bias = nn.Parameter(torch.zeros(3))
        self.to(device)

    def forward(self, directions: Tensor) -> Tensor:
        """Linear colour [..., 3] in [0, 1] of unit directions [..., 3]."""
        phases = (directions[..., None, :] * self.frequencies[:, None]).flatten(-2)
        encoded = torch.cat([directions, phases.sin(), phases.cos()], dim=-1)
        hidden = torch.relu(nn.functional.linear(encoded, self.hidden_weight, self.hidden_bias))
        return torch.sigmoid(nn.functional.linear(hidden, self.colour_weight, self.colour_bias))


def _uniform_weights(outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    """PyTorch's own default for linear layers, from a given generator."""
    return (torch.rand(outputs, inputs, generator=generator) * 2.0 - 1.0) / math.sqrt(inputs)
