"""The CUDA kernels: what they compute, run on the CPU from the same source; and that NVRTC compiles them."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.errors import SetupError
from backend.field import GridLayout, HashGridConfig, automatic_engine, select_engine
from backend.field import nvrtc_engine as nvrtc
from backend.field.torch_engine import TorchEngine
from tests.unit.hash_grid_oracle import Oracle
from tests.unit.host_kernels import compiler, host_engine

on_the_host = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler: g++ or clang++")
CONFIGS = [
    HashGridConfig(4, 2, 10, 4, 1.6),
    HashGridConfig(4, 4, 9, 3, 1.9, "smoothstep"),
    HashGridConfig(3, 1, 12, 16, 1.5, "smoothstep"),
    HashGridConfig.from_finest(6, 2, 8, 64),
]
NAMES = ("features", "pulled", "encode's by the table", "pull's by the table", "pull's by the covector")


def results(engine: Any, x, params, v, u, levels: int) -> list[torch.Tensor]:
    """Everything that an engine computes, forth and back."""
    encoded, pulled = engine.encode(x, params, levels), engine.encode_vjp(x, params, v, levels)
    (first,) = torch.autograd.grad(encoded, params, v.detach())
    return [encoded.detach(), pulled.detach(), first, *torch.autograd.grad(pulled, (params, v), u)]


def drawn(layout: GridLayout, n: int, seed: int = 0) -> list[torch.Tensor]:
    """Points away from cells' faces, and a table, a covector and a direction for them."""
    rng = np.random.default_rng(seed)
    x = Oracle(layout.config).away_from_faces(rng.random((n, 3), dtype=np.float32))
    params, v = rng.uniform(-1, 1, layout.n_params), rng.standard_normal((len(x), layout.n_outputs))
    u = rng.standard_normal((len(x), 3))
    return [torch.from_numpy(each.astype(np.float32)) for each in (x, params, v, u)]


@on_the_host
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("n", [1, 300, 5000])
def test_the_kernels_compute_what_the_reference_does(config, n) -> None:
    layout = GridLayout(config)
    x, params, v, u = drawn(layout, n)
    for levels in (1, config.n_levels):
        ours = results(host_engine(layout), x, params.requires_grad_(), v.requires_grad_(), u, levels)
        table, covector = (each.detach().double().requires_grad_() for each in (params, v))
        expected = results(TorchEngine(layout), x.double(), table, covector, u.double(), levels)
        for name, mine, theirs in zip(NAMES, ours, expected, strict=True):
            error = (mine.double() - theirs).abs().max() / theirs.abs().max()
            assert error < 1e-5, f"{name}: {error}"


@on_the_host
def test_sums_do_not_depend_on_their_order() -> None:
    layout = GridLayout(HashGridConfig.from_finest(6, 2, 8, 64))
    engine = host_engine(layout)
    x, params, v, _ = drawn(layout, 4000)
    params.requires_grad_()
    (first,) = torch.autograd.grad(engine.encode(x, params, 6), params, v)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    (second,) = torch.autograd.grad(engine.encode(x[order], params, 6), params, v[order])
    assert torch.equal(first, second)


@on_the_host
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_gradients_of_any_size_are_summed(size) -> None:
    """The bounds follow the gradient: nothing overflows, and small ones keep their digits until float32 ends."""
    layout = GridLayout(HashGridConfig(3, 2, 6, 4, 1.6))
    x, params, v, _ = drawn(layout, 2000)
    params.requires_grad_()
    (ours,) = torch.autograd.grad(host_engine(layout).encode(x, params, 3), params, v * size)
    (theirs,) = torch.autograd.grad(TorchEngine(layout).encode(x, params, 3), params, v * size)
    torch.testing.assert_close(ours / size, theirs / size, rtol=1e-4, atol=1e-4)


@on_the_host
def test_what_is_not_finite_is_not_hidden() -> None:
    layout = GridLayout(HashGridConfig(3, 2, 6, 4, 1.6))
    x, params, v, _ = drawn(layout, 50)
    v[3, 2] = float("inf")  # of the second level
    (gradient,) = torch.autograd.grad(host_engine(layout).encode(x, params.requires_grad_(), 3), params, v)
    assert gradient[layout.span(1)].isnan().all()
    assert gradient[layout.span(0)].isfinite().all() and gradient[layout.span(2)].isfinite().all()
    wild = torch.tensor([[float("nan"), 0, 0], [float("inf"), -float("inf"), 1e30], [-3.0, 7.0, 1e9]])
    engine = host_engine(layout)
    torch.autograd.grad(engine.encode(wild, params, 3).nan_to_num().sum(), params)
    after = engine.encode(x, torch.ones_like(params), 3)
    torch.testing.assert_close(after, torch.ones_like(after))


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_90"])
def test_nvrtc_compiles_the_source(architecture, interpolation) -> None:
    """To machine code, which takes no GPU."""
    pytest.importorskip("cuda.core", reason="needs cuda-core")
    try:
        code = nvrtc.compiled(architecture, 2, interpolation).code
    except SetupError as error:
        pytest.skip(str(error))
    assert code[:4] == b"\x7fELF"
    for name in ("encode", "encode_backward", "pull", "pull_backward", "finish"):
        assert b".text." + name.encode() + b"\0" in code


def test_without_cuda_core(monkeypatch) -> None:
    if importlib.util.find_spec("cuda") is not None:
        monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(SetupError, match=r"NVRTC cannot be used \(.*cuda.*\).*Install cuda-core and nvidia-cuda-nvrtc"):
        nvrtc.compiled.__wrapped__("sm_80", 2, "linear")


class FakeCore(types.ModuleType):
    """Stands in for cuda.core: notes what is compiled and launched."""

    LEGACY_DEFAULT_STREAM = "default"

    def __init__(self) -> None:
        super().__init__("cuda.core")
        self.options: dict[str, Any] = {}
        self.launched: list[tuple[Any, ...]] = []

    def ProgramOptions(self, **options: Any) -> dict[str, Any]:
        self.options = options
        return options

    def Program(self, source: str, kind: str, options: Any) -> Any:
        assert kind == "c++" and source == Path(nvrtc.SOURCE).read_text(encoding="utf-8")
        code = types.SimpleNamespace(get_kernel=lambda name: f"kernel {name}")
        return types.SimpleNamespace(compile=lambda form: code)

    def Device(self, index: int) -> Any:
        return types.SimpleNamespace(set_current=lambda: self.launched.append(("device", index)))

    def LaunchConfig(self, **config: Any) -> dict[str, Any]:
        return config

    def launch(self, *arguments: Any) -> None:
        self.launched.append(arguments)


def test_a_launch_goes_to_pytorchs_stream_and_device(monkeypatch) -> None:
    core = FakeCore()
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setattr(nvrtc, "compiled", nvrtc.compiled.__wrapped__)
    monkeypatch.setattr(torch.cuda, "device", lambda index: __import__("contextlib").nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: types.SimpleNamespace(cuda_stream=0))
    kernels = nvrtc._CudaKernels(1, "sm_90", 4, "smoothstep")
    assert core.options["arch"] == "sm_90" and ("FEATURES", "4") in core.options["define_macro"]
    assert ("SMOOTH", "1") in core.options["define_macro"]
    data = torch.zeros(3)
    kernels.launch("encode", (7, 5), data, 11)
    where = {"grid": (7, 5), "block": nvrtc.BLOCK}
    assert core.launched == [("device", 1), ("default", where, "kernel encode", data.data_ptr(), 11)]


def test_the_choice_on_a_gpu(monkeypatch) -> None:
    """tinycudann, then the compiled kernels, then plain PyTorch."""
    layout = GridLayout(HashGridConfig(3, 2, 8, 4, 1.5))
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    monkeypatch.setitem(sys.modules, "cuda.core", FakeCore())
    monkeypatch.setattr(nvrtc, "compiled", nvrtc.compiled.__wrapped__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9))
    monkeypatch.setattr(nvrtc, "NvrtcEngine", lambda layout, device, kernels: types.SimpleNamespace(name="nvrtc"))
    engine, passed_over = automatic_engine(layout, "cuda:0")
    assert (engine.name, list(passed_over)) == ("nvrtc", ["tinycudann"])
    monkeypatch.setattr(torch.version, "cuda", None)  # ROCm's build calls its devices cuda
    assert automatic_engine(layout, "cuda:0")[0].name == "torch"
    with pytest.raises(SetupError, match="PyTorch's CUDA build"):
        select_engine(layout, "cuda:0", "nvrtc")
