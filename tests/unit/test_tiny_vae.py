"""The benchmark of tiny VAEs: an encoder that is the VAE's own differs in nothing, and a trained one is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.guidance import load_guidance
from backend.request import GuidanceSettings, LoadingSettings
from benchmarks import tiny_vae

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def probe() -> tiny_vae.Probe:
    return tiny_vae.Probe("toybox", tiny_vae.make_views(2, 3), GuidanceSettings(), CPU)


def test_a_vae_against_itself(probe: tiny_vae.Probe) -> None:
    found = tiny_vae.measure(probe, probe.vae, (0.1, 0.75), 1)
    assert [row["level"] for row in found["rows"]] == [0.1, 0.75]
    for row in found["rows"]:
        assert row["cosine"] == row["lowest_cosine"] == row["norm_ratio"] == row["cosine_of_the_derivative"] == 1
        assert 0.8 < row["cosine_of_another_sample"] < 1
    assert (found["latent_error"], found["pictures"]) == (0, 2)
    assert json.loads(json.dumps(found)) == found
    assert len(tiny_vae.table(found).splitlines()) == 6


def test_half_a_gradient_is_told(probe: tiny_vae.Probe) -> None:
    """An encoder whose latents are right and whose derivative is half: cosine 1, norm 0.5."""

    class Half:
        config, parameters = probe.vae.config, probe.vae.parameters

        def encode(self, images: torch.Tensor) -> Any:
            return probe.vae.encode(images.detach() + 0.5 * (images - images.detach()))

    found = tiny_vae.measure(probe, Half(), (0.5,), 1)["rows"][0]
    assert found["cosine"] == pytest.approx(1, abs=1e-3)
    assert found["norm_ratio"] == pytest.approx(0.5, abs=1e-3)


def test_a_tiny_vae_is_trained_and_loads_as_one(probe: tiny_vae.Probe, tmp_path: Path) -> None:
    probe.guidance.vae = probe.vae
    trained = tiny_vae.train(probe.guidance, lambda steps: steps / 80, 16, 0, lambda _: None, pictures=24)
    torch.manual_seed(0)
    before = probe.latent_error(tiny_vae.make_tiny(probe.vae, 16))
    assert probe.latent_error(trained) < 0.95 * before
    trained.save_pretrained(tmp_path / "tiny", safe_serialization=True)
    loading, told = LoadingSettings(tiny_vae=str(tmp_path / "tiny")), list[str]()
    guidance: Any = load_guidance("toybox", "a red duck", "", GuidanceSettings(), CPU, False, loading, told.append)
    assert type(guidance.networks.vae).__name__ == "AutoencoderTiny"
    assert any("tiny VAE stands in" in text for text in told)
