"""The shipped Toybox: an ordinary, small folder that keeps faces legible and hears both words and camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import backend
from backend.cameras import orbit_cameras
from backend.errors import VocabularyError
from backend.guidance import load_guidance
from backend.request import BUILT_IN_MODEL, GuidanceSettings
from backend.toybox.batches import Batches
from backend.toybox.captions import vocabulary
from backend.toybox.dataset import make_pictures
from backend.toybox.judge import UNBIASED
from backend.toybox.team import psnr

WEIGHTS = Path(backend.__file__).parent / "toybox" / "weights"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    made: Any = StableDiffusionPipeline.from_pretrained(WEIGHTS, torch_dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return made


def test_the_folder_is_small_and_safe() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt", ".png"}


def test_the_vocabulary_is_the_worlds() -> None:
    assert json.loads((WEIGHTS / "vocabulary.json").read_text(encoding="utf-8")) == vocabulary()
    with pytest.raises(VocabularyError, match="duck"):
        load_guidance(BUILT_IN_MODEL, "a red unicorn", "", GuidanceSettings(), CPU)


def test_the_vae_keeps_pictures_it_never_saw(pipeline: Any) -> None:
    images = Batches(make_pictures(64, 31, 64, 0.0), UNBIASED, CPU, 31).draw(64)[0]
    with torch.no_grad():
        again = pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mode()).sample
    assert psnr(again, images) > 33.0


def test_a_sample_shows_the_colour_that_was_asked_for(pipeline: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    prompts = ["a red car, side view", "a blue car, side view"]
    size = {"height": 64, "width": 64}
    made = pipeline(prompts, num_inference_steps=12, guidance_scale=4.0, generator=rng, output_type="np", **size).images
    middle = made[:, 28:44, 20:44].mean((1, 2))
    assert middle[0, 0] > middle[0, 2] + 0.1
    assert middle[1, 2] > middle[1, 0] + 0.1


def test_the_camera_changes_what_is_asked() -> None:
    guidance = load_guidance(BUILT_IN_MODEL, "a red duck", "", GuidanceSettings(), CPU)
    images = torch.full((1, 3, 64, 64), 0.5)

    def gradient(azimuth: float) -> torch.Tensor:
        cameras = orbit_cameras(np.array([azimuth]), 10.0, 3.0, 40.0)
        return guidance.gradient(images, cameras, 0.0, torch.Generator().manual_seed(0)).gradient

    left, right = gradient(90.0), gradient(-90.0)
    assert float((left - right).norm()) > 0.1 * float(left.norm())  # words alone call both "side view"
