"""What makes the built-in model quick on a processor: its precision, its memory layout, views painted together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend import devices
from backend.cameras import orbit_cameras, rays_of, rays_through
from backend.guidance import load_guidance, loading, together
from backend.guidance.loading import Loading
from backend.request import GuidanceSettings, LoadingSettings
from tests.unit.silhouette import BluePainter
from tests.unit.tiny_model import load, make_pipeline

CPU = torch.device("cpu")


def toybox(precision: str = "auto") -> Any:
    settings = dataclasses.replace(LoadingSettings(), precision=precision)
    return load_guidance("toybox", "a red duck", "", GuidanceSettings(), CPU, loading=settings)


@pytest.mark.parametrize(
    ("light", "able", "precision", "expected"),
    [
        (True, True, "auto", torch.bfloat16),
        (True, False, "auto", torch.float32),
        (False, True, "auto", torch.float32),
        (True, True, "fp32", torch.float32),
        (True, True, "fp16", torch.float16),
    ],
)
def test_a_denoiser_is_light_where_it_may_and_the_processor_can(
    monkeypatch: pytest.MonkeyPatch, *, light: bool, able: bool, precision: Any, expected: torch.dtype
) -> None:
    monkeypatch.setattr(loading, "computes_bfloat16", lambda _: able)
    how = Loading(CPU, LoadingSettings(precision=precision), light=light)
    assert how.denoiser_dtype(torch.float16) == expected
    assert how.dtype(torch.float16) == (torch.float16 if precision == "fp16" else torch.float32)


def test_only_a_processor_is_asked_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert devices.computes_bfloat16(CPU)
    assert not devices.computes_bfloat16(torch.device("meta"))
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not devices.computes_bfloat16(CPU)


def test_the_light_denoiser_says_what_the_full_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "computes_bfloat16", lambda _: True)
    full, light = toybox("fp32"), toybox()
    assert (full.dtype, light.dtype) == (torch.float32, torch.bfloat16)
    assert light.networks.vae.dtype == torch.float32
    where = orbit_cameras([0.0, 120.0], 15.0, 3.0, 40.0)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gradients = [
        each.gradient(images, where, 0.3, torch.Generator().manual_seed(1)).gradient.flatten() for each in (full, light)
    ]
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.99


def test_networks_are_channels_last_but_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "computes_bfloat16", lambda _: True)
    for guidance, expected in ((toybox("fp32"), True), (toybox(), False)):
        weight = guidance.networks.denoiser.conv_in.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == expected


def test_small_models_paint_views_together_and_large_ones_do_not(tmp_path: Path) -> None:
    assert toybox().together == 8
    make_pipeline().save_pretrained(tmp_path / "model")
    assert 1 <= load(tmp_path / "model").together <= 8
    assert together(BluePainter()) == 1


def test_one_ray_of_each_camera() -> None:
    cameras = orbit_cameras([0.0, 90.0, 200.0], 10.0, 3.0, 40.0)
    points = np.random.default_rng(0).uniform(-1, 1, (3, 2))
    origins, directions = rays_of(cameras, points)
    _, expected = rays_through(cameras, np.repeat(points[None], 3, axis=0))
    assert np.allclose(directions, expected[np.arange(3), np.arange(3)], atol=1e-6)
    assert np.allclose(origins, cameras.position)
