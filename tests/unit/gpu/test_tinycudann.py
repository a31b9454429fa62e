"""The real tinycudann against the reference, on a GPU."""

from __future__ import annotations

import pytest
import torch

from backend.errors import SetupError
from backend.field import GridLayout, HashGridConfig, select_engine
from backend.field.torch_engine import TorchEngine

CONFIGS = [
    HashGridConfig(4, 2, 10, 4, 1.6, "linear"),
    HashGridConfig(5, 4, 12, 8, 1.9, "smoothstep"),
    HashGridConfig.from_finest(12, 2, 15, 256),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n", [1, 256, 5000])
def test_agrees_with_the_reference(config, n) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    layout, device = GridLayout(config), torch.device("cuda")
    try:
        engine = select_engine(layout, device, "tinycudann")
    except SetupError as error:
        pytest.skip(f"needs tinycudann: {error}")
    reference, levels = TorchEngine(layout), max(1, config.n_levels - 1)
    generator = torch.Generator(device).manual_seed(0)
    x, u = (torch.rand(n, 3, generator=generator, device=device) for _ in range(2))
    params = torch.rand(layout.n_params, generator=generator, device=device).requires_grad_()
    v = torch.rand(n, layout.n_outputs, generator=generator, device=device).requires_grad_()
    results: list[list[torch.Tensor]] = []
    for each in (engine, reference):
        encoded, pulled = each.encode(x, params, levels), each.encode_vjp(x, params, v, levels)
        (first,) = torch.autograd.grad(encoded, params, v.detach())
        results.append([encoded, pulled, first, *torch.autograd.grad(pulled, (params, v), u)])
    for ours, theirs in zip(*results, strict=True):
        error = (ours - theirs).abs() / theirs.abs().max().clamp_min(1e-6)
        assert (error < 1e-3).float().mean() > 0.999  # rounding moves a point across a cell's face now and then
