"""The hash grid: layout, engines against a float64 oracle and each other, choice of an engine."""

from __future__ import annotations

import contextlib
import sys
import threading
import types
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import RequestError, SetupError
from backend.field import GridLayout, HashGridConfig, select_engine
from backend.field.numba_cache import prepare_numba_cache
from backend.field.torch_engine import TorchEngine

PRIMES = np.array([1, 2654435761, 805459861], np.uint32)


@pytest.fixture(autouse=True)
def _keep_thread_count():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


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


def engines(layout: GridLayout):
    return [TorchEngine(layout), select_engine(layout, "cpu", "numba")]


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-4) -> None:
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-3)
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=tolerance * scale)


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


def test_layout_of_the_usual_grid() -> None:
    """Counts that tiny-cuda-nn itself reports for 16 levels of 2 features, 2^19 entries, 16 to 2048."""
    layout = GridLayout(HashGridConfig(16, 2, 19, 16, 1.3819))
    assert layout.n_params == 12_196_240
    assert sum(not level.hashed for level in layout.levels) == 5
    assert all(level.size % 8 == 0 for level in layout.levels)
    assert [level.offset for level in layout.levels][:3] == [0, 4096, 4096 + 12168]
    assert layout.span(1) == slice(8192, 2 * (4096 + 12168))


def test_layout_keeps_the_32_bit_overflow() -> None:
    """2048³ is 0 in 32 bits, so tiny-cuda-nn does not hash that level when 2048² entries fit."""
    level = GridLayout(HashGridConfig(1, 2, 22, 2048, 1.0)).levels[0]
    assert (level.resolution, level.size, level.hashed) == (2048, 2**22, False)
    assert GridLayout(HashGridConfig(1, 2, 21, 2048, 1.0)).levels[0].hashed


def test_overflowing_level_is_read_as_tiny_cuda_nn_does() -> None:
    layout = GridLayout(HashGridConfig(1, 1, 22, 2048, 1.0))
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    params = torch.rand(layout.n_params, generator=torch.Generator().manual_seed(1))
    reference, numba = (engine.encode(x, params, 1) for engine in engines(layout))
    torch.testing.assert_close(numba, reference, rtol=0, atol=1e-3)
    cell = np.floor(x.numpy().astype(np.float64) * 2047 + 0.5).astype(np.int64)
    first = (cell[:, 0] + cell[:, 1] * 2048 + cell[:, 2] * 2048**2) % 2**32 % 2**22
    low = torch.zeros_like(params)
    low[torch.from_numpy(first)] = 1.0
    assert (engines(layout)[1].encode(x, low, 1) > 0).all()


@pytest.mark.parametrize(("levels", "finest"), [(12, 256), (16, 2048), (2, 17), (1, 300), (8, 16), (24, 8192)])
def test_finest_level_has_the_resolution_asked_for(levels, finest) -> None:
    layout = GridLayout(HashGridConfig.from_finest(levels, 2, 12, finest))
    assert layout.levels[0].resolution == 16
    assert layout.levels[-1].resolution == (finest if levels > 1 else 16)
    resolutions = [level.resolution for level in layout.levels]
    assert resolutions == sorted(resolutions)


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(RequestError, match="at least the coarsest"):
        HashGridConfig.from_finest(4, 2, 12, 8)
    wrongs: list[dict[str, Any]] = [
        {"n_levels": 0},
        {"n_features": 9},
        {"log2_table_size": 25},
        {"per_level_scale": float("nan")},
    ]
    for wrong in wrongs:
        with pytest.raises(RequestError, match=next(iter(wrong))):
            HashGridConfig(**wrong)
    with pytest.raises(RequestError, match="interpolation"):
        HashGridConfig(interpolation=cast("Any", "cubic"))


LAYOUT = GridLayout(HashGridConfig(3, 2, 8, 4, 1.5))


def test_choice_of_an_engine() -> None:
    assert select_engine(LAYOUT, "cpu").name == "numba"
    assert select_engine(LAYOUT, "cpu", "torch").name == "torch"
    assert select_engine(LAYOUT, "mps").name == "torch"
    assert select_engine(LAYOUT, "cuda").name in ("torch", "tinycudann")
    with pytest.raises(SetupError, match=r"numba engine does not run on cuda.*auto"):
        select_engine(LAYOUT, "cuda", "numba")
    with pytest.raises(SetupError, match=r"tinycudann does not run on cpu.*auto"):
        select_engine(LAYOUT, "cpu", "tinycudann")
    with pytest.raises(SetupError, match=r"no hash-grid engine 'warp'"):
        select_engine(LAYOUT, "cpu", "warp")


def test_without_numba(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "backend.field.numba_engine", None)
    assert select_engine(LAYOUT, "cpu").name == "torch"
    with pytest.raises(SetupError, match=r"Numba cannot be imported.*Install numba"):
        select_engine(LAYOUT, "cpu", "numba")


class FakeEncoding(torch.nn.Module):
    """Stands in for tinycudann.Encoding: same call, same layout, differentiable twice, plain torch."""

    def __init__(
        self, inputs: int, settings: dict[str, Any], seed: int = 1337, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        assert inputs == 3 and dtype == torch.float32 and settings["otype"] == "HashGrid"
        config = HashGridConfig(
            settings["n_levels"],
            settings["n_features_per_level"],
            settings["log2_hashmap_size"],
            settings["base_resolution"],
            settings["per_level_scale"],
            settings["interpolation"].lower(),
        )
        self.engine, self.levels = TorchEngine(GridLayout(config)), config.n_levels
        self.params = torch.nn.Parameter(torch.zeros(GridLayout(config).n_params))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.engine.encode(x, self.params, self.levels)


@pytest.fixture
def fake_tinycudann(monkeypatch):
    module = types.ModuleType("tinycudann")
    monkeypatch.setattr(module, "Encoding", FakeEncoding, raising=False)
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    return module


def test_tinycudann_adapter_agrees_with_the_reference(fake_tinycudann) -> None:
    config = HashGridConfig(4, 2, 8, 4, 1.6, "smoothstep")
    engine, reference = select_engine(GridLayout(config), "cuda"), TorchEngine(GridLayout(config))
    assert engine.name == "tinycudann"
    generator = torch.Generator().manual_seed(8)
    x, u = (torch.rand(40, 3, generator=generator) for _ in range(2))
    params = torch.rand(reference.layout.n_params, generator=generator).requires_grad_()
    v = torch.rand(40, 8, generator=generator).requires_grad_()
    for levels in (2, 4):
        results = []
        for each in (engine, reference):
            encoded, pulled = each.encode(x, params, levels), each.encode_vjp(x, params, v, levels)
            (first,) = torch.autograd.grad(encoded, params, v.detach())
            results.append((encoded, pulled, first, *torch.autograd.grad(pulled, (params, v), u)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            silent = engine.encode_vjp(x, params, v, levels)
        torch.testing.assert_close(silent, results[1][1], rtol=1e-4, atol=1e-4)
        assert not silent.requires_grad


def test_tinycudann_that_cannot_be_used(fake_tinycudann, monkeypatch) -> None:
    with pytest.raises(SetupError, match="1, 2, 4 or 8"):
        select_engine(GridLayout(HashGridConfig(3, 3, 8, 4, 1.5)), "cuda", "tinycudann")

    def broken(*_, **__) -> None:
        raise OSError("Unknown compute capability.")

    monkeypatch.setattr(fake_tinycudann, "Encoding", broken)
    with pytest.raises(SetupError, match=r"Unknown compute capability.*bindings"):
        select_engine(LAYOUT, "cuda", "tinycudann")
    assert select_engine(LAYOUT, "cuda").name == "torch"

    def other_layout(*args, **kwargs) -> torch.nn.Module:
        encoding = FakeEncoding(*args, **kwargs)
        encoding.params = torch.nn.Parameter(torch.zeros(7))
        return encoding

    monkeypatch.setattr(fake_tinycudann, "Encoding", other_layout)
    with pytest.raises(SetupError, match="differently"):
        select_engine(LAYOUT, "cuda", "tinycudann")


def test_numba_cache_folder(monkeypatch, tmp_path: Path) -> None:
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere/else")
    assert prepare_numba_cache() == Path("/somewhere/else")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepare_numba_cache() == tmp_path / "dreamlathe" / "numba"
    assert str(tmp_path / "dreamlathe" / "numba") == numba.config.CACHE_DIR
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = prepare_numba_cache()
    assert elsewhere.is_dir() and elsewhere.parent == tmp_path
