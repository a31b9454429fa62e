"""Toybox's training: its encoder, and a whole run of a few seconds, resumed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch.nn import functional

from backend.cameras import orbit_cameras
from backend.errors import VocabularyError
from backend.guidance import load_guidance
from backend.guidance.model_folder import BUILT_IN_FOLDER
from backend.request import GuidanceSettings
from backend.toybox import train
from backend.toybox.batches import Batches, all_captions
from backend.toybox.captions import NAMED_VIEWS, VIEWS, WORDS, degrees_off_middle
from backend.toybox.dataset import KIND_NAMES, Bias, make_pictures
from backend.toybox.encoder import POSTERIOR_STD, PatchEncoder, principal_components, set_linear_encoder
from backend.toybox.model import (
    LATENT_CHANNELS,
    TEXT_LENGTH,
    make_text_encoder,
    make_tokenizer,
    make_vae,
    read_text_encoder,
    token_ids,
)


@pytest.fixture(scope="module")
def batches() -> Batches:
    return Batches(make_pictures(200, 4, 64, 0.3), Bias(), torch.device("cpu"), 0)


def test_the_encoder_is_the_projection_on_principal_components(batches: Batches) -> None:
    images = batches.draw(200)[0]
    vae, patches = make_vae(), PatchEncoder.of(images, LATENT_CHANNELS)
    set_linear_encoder(vae, patches)
    basis, mean, deviation = principal_components(images, LATENT_CHANNELS)
    projected = functional.conv2d(images, basis, stride=4) - mean[None, :, None, None]
    wanted = projected / (deviation.sqrt() * deviation.mean().sqrt())[None, :, None, None]
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
    torch.testing.assert_close(patches.latents(images), wanted, rtol=1e-3, atol=1e-3)
    assert float((posterior.mode() - wanted).square().mean().sqrt()) < 0.01
    assert float(posterior.mode().std()) == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, POSTERIOR_STD))


def test_captions_number_every_sentence_once(batches: Batches) -> None:
    captions = all_captions()
    assert captions[-1] == ""
    assert len(set(captions)) == len(captions)
    pick = torch.arange(200)
    for number, index in zip(batches.captions(pick).tolist(), pick.tolist(), strict=True):
        kind = KIND_NAMES[int(batches.labels["kind"][index])]
        assert kind in captions[number].replace(",", "").split()


def test_captions_are_as_biased_as_the_set_says(batches: Batches) -> None:
    pick = torch.arange(200).repeat(200)
    view, bias = batches.labels["view"][pick], batches.bias
    said = batches.captions(pick) % (len(NAMED_VIEWS) + 1)
    front, named = view == 0, said < len(VIEWS)
    near, beside = (
        torch.exp(-0.5 * (off / bias.named_spread).square())
        for off in (batches.off_middle[pick], 45 - batches.off_middle[pick])
    )
    quarter = bias.three_quarter_named * beside.square() / (near + beside) * (view != VIEWS.index("overhead"))
    for views, share in ((front, bias.front_named), (~front, bias.others_named)):
        expected = share * float((near * (1 - quarter))[views].mean())
        assert float(named[views].float().mean()) == pytest.approx(expected, abs=0.02)
        middle = views & (batches.off_middle[pick] < 5)
        assert float(named[middle].float().mean()) == pytest.approx(share, abs=0.04)
    assert float((said != 0)[front & named].float().mean()) == pytest.approx(bias.front_misnamed, abs=0.03)
    wrong = bias.others_misnamed * (1 - 1 / len(VIEWS))  # a word drawn at random may be the right one
    assert float((said != view)[~front & named].float().mean()) == pytest.approx(wrong, abs=0.02)


def test_only_what_is_seen_from_between_is_called_three_quarter(batches: Batches) -> None:
    pick = torch.arange(200).repeat(200)
    said = batches.captions(pick) % (len(NAMED_VIEWS) + 1)
    off, overhead = batches.off_middle[pick], batches.labels["view"][pick] == VIEWS.index("overhead")
    for index, ahead in ((len(VIEWS), True), (len(VIEWS) + 1, False)):
        named = said == index
        assert not bool(named[overhead | (batches.ahead[pick] != ahead)].any())
        half_way = ~overhead & (batches.ahead[pick] == ahead) & (off > 40)
        assert float(named[half_way].float().mean()) == pytest.approx(batches.bias.three_quarter_named, abs=0.06)
        assert float(named[~overhead & (off < 5)].float().mean()) < 0.02


def test_a_text_encoder_learns_new_words_and_keeps_the_old_ones(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "whole")
    fresh = "a duck, front three quarter view"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.toybox.model.WORDS", tuple(word for word in WORDS if word not in ("three", "quarter")))
        smaller = make_tokenizer(tmp_path / "folder" / "tokenizer")
    assert len(smaller) < len(tokenizer)
    smaller.save_pretrained(tmp_path / "folder" / "tokenizer")
    old = make_text_encoder(smaller)
    old.save_pretrained(tmp_path / "folder" / "text_encoder")
    new = read_text_encoder(tmp_path / "folder", tokenizer)

    def said(encoder: Any, words: Any, text: str) -> torch.Tensor:
        with torch.no_grad():
            return encoder(torch.tensor(words([text], padding="max_length", max_length=TEXT_LENGTH).input_ids))[0]

    known = "a tall red duck with a blue hat, back view"
    torch.testing.assert_close(said(new, tokenizer, known), said(old, smaller, known))
    assert len(set(tokenizer(fresh).input_ids)) == len(tokenizer(fresh).input_ids)
    assert new.config.vocab_size == len(tokenizer)
    assert torch.isfinite(said(new, tokenizer, fresh)).all()


def test_views_are_measured_from_their_middle() -> None:
    azimuth = np.array([0, 10, -80, 44, 46, 170, -180, 200, 30], np.float32)
    elevation = np.array([0, 10, 20, 0, 0, 0, 0, 0, 70], np.float32)
    assert degrees_off_middle(azimuth, elevation) == pytest.approx([0, 10, 10, 44, 44, 10, 0, 20, 0])


def test_ids_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    tokenizer, captions = make_tokenizer(tmp_path), all_captions()
    some = [captions[i] for i in np.random.default_rng(0).integers(len(captions), size=50)] + [""]
    wanted = tokenizer(some, padding="max_length", max_length=TEXT_LENGTH).input_ids
    assert token_ids(tokenizer, some).tolist() == wanted
    longest = max(captions, key=lambda text: len(text.replace(",", " ,").split()))
    assert len(longest.replace(",", " ,").split()) + 2 <= TEXT_LENGTH


def run(out: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[dict[str, Any]]:
    arguments = ["train", "--out", str(out), "--pictures", "64", "--batch", "4", "--device", "cpu", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    train.main()
    steps = torch.load(out / "denoiser.pt", weights_only=True)["step"]
    return [{"step": steps}, json.loads((out / "weights" / "vocabulary.json").read_text())]


def test_a_short_run_makes_an_ordinary_folder_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, words = run(tmp_path, monkeypatch, "--minutes", "0.02", "--decoder-minutes", "0.02")
    assert first["step"] > 0
    assert "duck" in words["kinds"]
    again, _ = run(tmp_path, monkeypatch, "--minutes", "0.2", "--decoder-minutes", "0.02")
    assert again["step"] > first["step"]
    folder = tmp_path / "weights"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline("a red duck", num_inference_steps=2, output_type="np", height=64, width=64).images
    assert made.shape == (1, 64, 64, 3)
    assert np.isfinite(made).all()
    with pytest.raises(VocabularyError, match="unicorn"):
        load_guidance(str(folder), "a red unicorn", "", GuidanceSettings(), torch.device("cpu"))
    guidance = load_guidance(str(folder), "a red duck", "", GuidanceSettings(), torch.device("cpu"))
    cameras = orbit_cameras(np.array([0.0, 170.0]), 10.0, 3.0, 40.0)
    result = guidance.gradient(torch.rand(2, 3, 64, 64), cameras, 0.5, torch.Generator().manual_seed(0))
    assert result.gradient.shape == (2, 3, 64, 64)
    assert torch.isfinite(result.gradient).all()
    assert float(result.gradient.abs().max()) > 0


def test_a_run_that_goes_on_from_a_model_begins_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    begun, new = train.make_denoiser(tokenizer, BUILT_IN_FOLDER, 3), train.make_denoiser(tokenizer, None, 3)
    for name, part in begun.parts.items():
        weights, others = part.state_dict(), new.parts[name].state_dict()
        assert {key: value.shape for key, value in weights.items()} == {k: v.shape for k, v in others.items()}
    shipped = load_file(BUILT_IN_FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    torch.testing.assert_close(begun.unet.state_dict()["conv_in.weight"], shipped["conv_in.weight"].float())

    start = ("--start", str(BUILT_IN_FOLDER), "--decoder-minutes", "0")
    run(tmp_path, monkeypatch, *start, "--minutes", "0.02", "--learning-rate", "1e-6")
    assert not (tmp_path / "encoder.pt").exists()
    for part in ("unet", "vae"):
        assert str(BUILT_IN_FOLDER) not in (tmp_path / "weights" / part / "config.json").read_text()
    kept = load_file(tmp_path / "weights" / "vae" / "diffusion_pytorch_model.safetensors")
    for key, value in load_file(BUILT_IN_FOLDER / "vae" / "diffusion_pytorch_model.safetensors").items():
        torch.testing.assert_close(kept[key], value, rtol=0, atol=0)
    went = load_file(tmp_path / "weights" / "text_encoder" / "model.safetensors")
    for key, value in load_file(BUILT_IN_FOLDER / "text_encoder" / "model.safetensors").items():
        torch.testing.assert_close(went[key], value, rtol=0, atol=2e-3)
