"""The hash grid's engines against a float64 oracle and each other."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from backend.field import GridLayout, HashEngine, HashGridConfig, select_engine
from backend.field.torch_engine import TorchEngine
from tests.unit.hash_grid_oracle import Oracle, cases, close
from tests.unit.host_kernels import compiler, host_engine


@pytest.fixture(autouse=True)
def _keep_thread_count():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def engines(layout: GridLayout) -> list[HashEngine]:
    """All that run on the CPU; the GPU's kernels too, where there is a compiler to make them run there."""
    on_the_host: list[HashEngine] = [host_engine(layout)] if compiler() else []
    return [TorchEngine(layout), select_engine(layout, "cpu", "numba"), *on_the_host]


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases())
def test_engines_agree_with_the_oracle(case) -> None:
    config, levels, n, rng = case
    oracle, layout = Oracle(config), GridLayout(config)
    assert layout.n_params == oracle.n_params
    x = oracle.away_from_faces(rng.random((n, 3), dtype=np.float32))
    params = rng.uniform(-1, 1, layout.n_params).astype(np.float32)
    v = rng.standard_normal((len(x), layout.n_outputs)).astype(np.float32)
    u = rng.standard_normal((len(x), 3)).astype(np.float32)
    expected = (
        oracle.encode(x, params, levels),
        oracle.encode_gradient(x, v, levels),
        oracle.pull(x, params, v, levels),
        *oracle.pull_gradients(x, params, v, u, levels),
    )
    points = torch.from_numpy(x)
    for engine in engines(layout):
        table = torch.from_numpy(params).requires_grad_()
        covector = torch.from_numpy(v).requires_grad_()
        encoded = engine.encode(points, table, levels)
        pulled = engine.encode_vjp(points, table, covector, levels)
        close(encoded, expected[0])
        close(torch.autograd.grad(encoded, table, torch.from_numpy(v))[0], expected[1])
        close(pulled, expected[2])
        to_table, to_covector = torch.autograd.grad(pulled, (table, covector), torch.from_numpy(u))
        close(to_table, expected[3])
        close(to_covector, expected[4])
        unused = slice(levels * config.n_features, None)
        assert not encoded[:, unused].any() and not to_covector[:, unused].any()


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_vjp_is_the_derivative_of_encode(interpolation) -> None:
    layout = GridLayout(HashGridConfig(4, 2, 9, 5, 1.6, interpolation))
    rng = np.random.default_rng(5)
    x = torch.from_numpy(Oracle(layout.config).away_from_faces(rng.random((300, 3), dtype=np.float32)))
    params = torch.from_numpy(rng.uniform(-1, 1, layout.n_params))
    v = torch.from_numpy(rng.standard_normal((len(x), layout.n_outputs)))
    engine, step = TorchEngine(layout), 1e-7
    pulled = engine.encode_vjp(x.double(), params, v, 4)
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        ahead, behind = (engine.encode(x.double() + sign * shift, params, 4) for sign in (1, -1))
        difference = ((ahead - behind) / (2 * step) * v).sum(1)
        torch.testing.assert_close(pulled[:, axis], difference, rtol=1e-5, atol=1e-5)
    numba = select_engine(layout, "cpu", "numba").encode_vjp(x, params.float(), v.float(), 4)
    close(numba, pulled.numpy())


def test_reference_gradients_pass_gradcheck() -> None:
    layout = GridLayout(HashGridConfig(2, 2, 4, 2, 1.7, "smoothstep"))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    params = torch.rand(layout.n_params, generator=generator, dtype=torch.float64).requires_grad_()
    v = torch.rand(5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    engine = TorchEngine(layout)
    assert torch.autograd.gradcheck(lambda p: engine.encode(x, p, 2), (params,))
    assert torch.autograd.gradcheck(lambda p, c: engine.encode_vjp(x, p, c, 2), (params, v))


def test_corners_of_the_cube() -> None:
    """At 0 and 1 some corners lie past the last vertex and wrap, as in tiny-cuda-nn."""
    config = HashGridConfig(6, 2, 12, 4, 1.37)
    oracle, layout = Oracle(config), GridLayout(config)
    assert {level.hashed for level in layout.levels} == {True, False}
    x = np.array(list(np.ndindex(2, 2, 2)), np.float32)
    params = np.random.default_rng(1).uniform(-1, 1, layout.n_params).astype(np.float32)
    for engine in engines(layout):
        close(engine.encode(torch.from_numpy(x), torch.from_numpy(params), 6), oracle.encode(x, params, 6), 1e-5)


def test_numba_survives_any_point() -> None:
    layout = GridLayout(HashGridConfig(4, 2, 8, 4, 2.0))
    engine = select_engine(layout, "cpu", "numba")
    wild = torch.tensor([[float("nan"), 0, 0], [float("inf"), -float("inf"), 1e30], [-3.0, 7.0, 1e9]])
    params = torch.ones(layout.n_params, requires_grad=True)
    engine.encode(wild, params, 4).sum().backward()
    engine.encode_vjp(wild, params, torch.ones(3, 8), 4)
    after = engine.encode(torch.rand(9, 3, generator=torch.Generator().manual_seed(0)), params, 4)
    torch.testing.assert_close(after, torch.ones(9, 8))


def test_numba_is_the_same_for_every_number_of_threads() -> None:
    layout = GridLayout(HashGridConfig.from_finest(6, 2, 10, 100))
    engine = select_engine(layout, "cpu", "numba")
    generator = torch.Generator().manual_seed(3)
    x, u = (torch.rand(20_000, 3, generator=generator) for _ in range(2))
    params = torch.rand(layout.n_params, generator=generator).requires_grad_()
    v = torch.rand(20_000, 12, generator=generator).requires_grad_()

    def results() -> list[torch.Tensor]:
        encoded, pulled = engine.encode(x, params, 5), engine.encode_vjp(x, params, v, 5)
        gradients = torch.autograd.grad([encoded, pulled], [params, v], [v.detach(), u])
        return [encoded, pulled, *gradients]

    torch.set_num_threads(1)
    first = results()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for a, b in zip(first, results(), strict=True):
            assert torch.equal(a, b)
        assert torch.get_num_threads() == threads


def test_numba_serves_several_threads_at_once() -> None:
    """Numba's own parallel kernels abort the process here under its workqueue layer."""
    layout = GridLayout(HashGridConfig.from_finest(4, 2, 10, 64))
    engine = select_engine(layout, "cpu", "numba")
    x = torch.rand(5000, 3, generator=torch.Generator().manual_seed(4))
    params = torch.rand(layout.n_params, generator=torch.Generator().manual_seed(5))
    expected = engine.encode(x, params, 4)
    same: list[bool] = []

    def call() -> None:
        same.extend(torch.equal(engine.encode(x, params, 4), expected) for _ in range(10))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 30


def test_numba_takes_any_strides() -> None:
    layout = GridLayout(HashGridConfig(3, 2, 8, 4, 1.5))
    engine, reference = select_engine(layout, "cpu", "numba"), TorchEngine(layout)
    generator = torch.Generator().manual_seed(6)
    x, v = torch.rand(3, 50, generator=generator).t(), torch.rand(50, 12, generator=generator)[:, ::2]
    params = torch.rand(2 * layout.n_params, generator=generator)[::2]
    torch.testing.assert_close(engine.encode(x, params, 3), reference.encode(x, params, 3))
    expected = reference.encode_vjp(x, params, v, 3)
    torch.testing.assert_close(engine.encode_vjp(x, params, v, 3), expected, rtol=1e-4, atol=1e-4)


def test_overflowing_level_is_read_as_tiny_cuda_nn_does() -> None:
    layout = GridLayout(HashGridConfig(1, 1, 22, 2048, 1.0))
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    params = torch.rand(layout.n_params, generator=torch.Generator().manual_seed(1))
    reference, *others = (engine.encode(x, params, 1) for engine in engines(layout))
    for other in others:
        torch.testing.assert_close(other, reference, rtol=0, atol=1e-3)
    cell = np.floor(x.numpy().astype(np.float64) * 2047 + 0.5).astype(np.int64)
    first = (cell[:, 0] + cell[:, 1] * 2048 + cell[:, 2] * 2048**2) % 2**32 % 2**22
    low = torch.zeros_like(params)
    low[torch.from_numpy(first)] = 1.0
    assert (engines(layout)[1].encode(x, low, 1) > 0).all()
