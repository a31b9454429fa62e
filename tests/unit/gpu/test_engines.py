"""The engines of GPUs against the reference, on one."""

from __future__ import annotations

import pytest
import torch

from backend.errors import SetupError
from backend.field import GridLayout, HashEngine, HashGridConfig, select_engine
from backend.field.torch_engine import TorchEngine

CONFIGS = [
    HashGridConfig(4, 2, 10, 4, 1.6, "linear"),
    HashGridConfig(5, 4, 12, 8, 1.9, "smoothstep"),
    HashGridConfig.from_finest(12, 2, 15, 256),
]


pytestmark = pytest.mark.gpu


def engine_of(layout: GridLayout, name: str) -> HashEngine:
    try:
        return select_engine(layout, "cuda", name)
    except SetupError as error:
        pytest.skip(f"needs {name}: {error}")


@pytest.mark.parametrize("name", ["tinycudann", "nvrtc"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n", [1, 256, 5000])
def test_agrees_with_the_reference(config, n, name) -> None:
    layout, device = GridLayout(config), torch.device("cuda")
    engine = engine_of(layout, name)
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


def test_the_kernels_sums_are_the_same_on_every_run_and_on_every_stream() -> None:
    layout, device = GridLayout(HashGridConfig.from_finest(12, 2, 10, 256)), torch.device("cuda")
    engine = engine_of(layout, "nvrtc")
    generator = torch.Generator(device).manual_seed(0)
    x = torch.rand(50_000, 3, generator=generator, device=device)
    params = torch.rand(layout.n_params, generator=generator, device=device).requires_grad_()
    v = torch.randn(len(x), layout.n_outputs, generator=generator, device=device)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(engine.encode(x, params, 12), params, v)[0]

    first = gradient()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        second = gradient()
    stream.synchronize()
    assert torch.equal(first, second)
    assert torch.equal(first, gradient())
