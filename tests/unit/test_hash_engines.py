"""The hash grid's layout, the choice of an engine, and what it says where one cannot be had."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import types
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from backend import job
from backend.errors import RequestError, SetupError
from backend.field import GridLayout, HashGridConfig, automatic_engine, select_engine
from backend.field.numba_cache import prepare_numba_cache
from backend.field.torch_engine import TorchEngine
from tests.unit.silhouette import small_request


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
    assert select_engine(LAYOUT, "cuda").name in ("torch", "nvrtc", "tinycudann")
    with pytest.raises(SetupError, match=r"numba engine does not run on cuda.*auto"):
        select_engine(LAYOUT, "cuda", "numba")
    with pytest.raises(SetupError, match=r"tinycudann does not run on cpu.*auto"):
        select_engine(LAYOUT, "cpu", "tinycudann")
    with pytest.raises(SetupError, match=r"NVRTC engine does not run on cpu.*NVIDIA GPU.*auto"):
        select_engine(LAYOUT, "cpu", "nvrtc")
    with pytest.raises(SetupError, match=r"no hash-grid engine 'warp'"):
        select_engine(LAYOUT, "cpu", "warp")


def test_the_reasons_against_faster_engines_are_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engine, passed_over = automatic_engine(LAYOUT, "cuda")
    assert (engine.name, list(passed_over)) == ("torch", ["tinycudann", "nvrtc"])
    assert "tinycudann cannot be used" in passed_over["tinycudann"]
    assert "needs an NVIDIA GPU and PyTorch's CUDA build" in passed_over["nvrtc"]
    assert automatic_engine(LAYOUT, "cpu")[1] == {}
    assert automatic_engine(LAYOUT, "mps")[1] == {}


def test_a_job_says_why_its_engine_is_slow(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said: list[Any] = []
    request = small_request(2)
    job._tell_engine(request, torch.device("cpu"), said.append)
    assert said == []
    job._tell_engine(request, torch.device("cuda"), said.append)
    assert "slowest engine: tinycudann cannot be used" in said[0].text and "NVRTC engine needs" in said[0].text
    asked = request.replace(optimize=dataclasses.replace(request.optimize, engine="nvrtc"))
    with pytest.raises(SetupError, match="NVRTC engine does not run on cpu"):
        job._tell_engine(asked, torch.device("cpu"), said.append)


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
    assert select_engine(LAYOUT, "cuda").name in ("torch", "nvrtc")

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
